"""A Sequential that flattens images before its one linear layer, with half the sum of squares as loss."""

import torch

torch.manual_seed(3)
images = torch.randn(32, 3, 3)
brightness = images.mean(dim=(1, 2)).reshape(-1, 1)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
for _ in range(60):
    optimizer.zero_grad()
    loss = 0.5 * torch.sum(torch.square(model(images) - brightness))
    loss.backward()
    optimizer.step()

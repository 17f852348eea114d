"""The loss as a function, and gradients cleared at the start of the step."""

import torch
import torch.nn.functional as F

torch.manual_seed(1)
x = torch.rand(40, 3)
y = x.sum(dim=1, keepdim=True) + 0.1 * torch.randn(40, 1)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
for step in range(80):
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"{step:3d} {loss.item():.5f}")

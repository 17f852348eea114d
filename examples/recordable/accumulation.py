"""Gradients of four passes added up before each step, with the loss scaled to match."""

import torch

torch.manual_seed(7)
x = torch.randn(64, 3)
y = x.sum(1, keepdim=True)
model, loss_fn = torch.nn.Linear(3, 1), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(40):
    optimizer.zero_grad()
    for inputs, targets in zip(x.split(16), y.split(16), strict=True):
        loss = loss_fn(model(inputs), targets) / 4
        loss.backward()
    optimizer.step()
print("weights", model.weight.tolist())

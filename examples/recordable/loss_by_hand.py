"""The loss written out, and gradients cleared after the step."""

import torch

torch.manual_seed(2)
x = torch.linspace(-1, 1, 50).reshape(-1, 1)
y = 3 * x - 1 + 0.2 * torch.randn(50, 1)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(120):
    y_pred = model(x)
    loss = ((y_pred - y) ** 2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print("weight", model.weight.item(), "bias", model.bias.item())

"""Sequences in, several outputs at each place, the bias frozen at zero, uphill on the negated loss's twin: maximize."""

import torch

torch.manual_seed(9)
x = torch.randn(10, 7, 4)
y = x @ torch.randn(4, 3)
model, loss_fn = torch.nn.Linear(4, 3), torch.nn.MSELoss()
with torch.no_grad():
    model.bias.zero_()
model.bias.requires_grad_(False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, dampening=0.1, maximize=True)
for _ in range(60):
    optimizer.zero_grad()
    (-loss_fn(model(x), y)).backward()
    optimizer.step()

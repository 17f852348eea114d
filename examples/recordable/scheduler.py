"""A learning rate that warms up and then falls, stepped once an epoch."""

import torch

torch.manual_seed(5)
x = torch.randn(30, 2)
y = x[:, :1] - x[:, 1:]
model, loss_fn = torch.nn.Linear(2, 1), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=10)
fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, fall], milestones=[10])
for _ in range(50):
    optimizer.zero_grad()
    loss_fn(model(x), y).backward()
    optimizer.step()
    scheduler.step()

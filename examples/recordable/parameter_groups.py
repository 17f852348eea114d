"""Weight decay on the weight and none on the bias, which learns faster."""

import torch

torch.manual_seed(6)
x = torch.randn(50, 3)
y = x @ torch.ones(3, 2) + 5
model, loss_fn = torch.nn.Linear(3, 2), torch.nn.MSELoss()
optimizer = torch.optim.SGD(
    [
        {"params": [model.weight], "weight_decay": 0.01},
        {"params": [model.bias], "lr": 0.2},
    ],
    lr=0.05,
)
for _ in range(90):
    optimizer.zero_grad()
    loss_fn(model(x), y).backward()
    optimizer.step()

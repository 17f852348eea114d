"""A module of one's own that holds a linear layer and drops the last axis."""

import torch


class Price(torch.nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).squeeze(-1)


torch.manual_seed(0)
x = torch.randn(60, 4)
y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0])
model, loss_fn = Price(4), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for _ in range(100):
    loss = loss_fn(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.6f}")

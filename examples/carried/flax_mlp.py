"""The perceptron on Flax's front page, from the PyTorch side: BatchNorm, dropout, GELU; recorded without dropout."""

import torch


class MLP(torch.nn.Module):
    def __init__(self, din, dmid, dout):
        super().__init__()
        self.linear = torch.nn.Linear(din, dmid)
        self.dropout = torch.nn.Dropout(p=0.1)
        self.bn = torch.nn.BatchNorm1d(dmid)
        self.linear_out = torch.nn.Linear(dmid, dout)

    def forward(self, x):
        x = torch.nn.functional.gelu(self.dropout(self.bn(self.linear(x))), approximate="tanh")
        return self.linear_out(x)


torch.manual_seed(6)
model = MLP(2, 16, 5)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
generator = torch.Generator().manual_seed(0)

for _ in range(20):
    x = torch.rand(64, 2, generator=generator)
    y = torch.ones(64, 5)
    loss = ((model(x) - y) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.4f}")

"""The parts that small programs of many kinds are made of."""

from __future__ import annotations

DATA = """
import torch
F = torch.nn.functional
torch.manual_seed(0)
x = torch.randn(8, 3)
y = x @ torch.tensor([[1.0], [2.0], [3.0]])
"""
LINEAR = """
model = torch.nn.Linear(3, 1)
"""
SGD = """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
LOOP = """
for _ in range(3):
    optimizer.zero_grad()
    loss = {loss}
    loss.backward()
    optimizer.step()
"""
MSE = "F.mse_loss(model(x), y)"


def loss(text: str, before: str = LINEAR + SGD) -> str:
    return before + LOOP.format(loss=text)


def optimizer(text: str) -> str:
    return loss(MSE, f"{LINEAR}optimizer = {text}\n")


def module(forward: str, init: str = "self.linear = torch.nn.Linear(3, 1)") -> str:
    made = "\n        ".join(init.split("; "))
    return f"""
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        {made}

    def forward(self, t):
        return {forward}

model = Model()
"""


OWN_OPTIMIZER = """
class Own(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            p -= 0.1 * p.grad
"""
TWO = "self.a, self.b = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)"

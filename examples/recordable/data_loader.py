"""Shuffled minibatches from a DataLoader, the last one smaller."""

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(4)
x = torch.randn(100, 5)
y = x @ torch.randn(5, 1)
model, loss_fn = torch.nn.Linear(5, 1), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.5)
loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
for epoch in range(10):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: {loss.item():.5f}")

"""No bias, float64 from end to end, and a validation loss that is not trained on."""

import torch

torch.set_default_dtype(torch.float64)
torch.manual_seed(8)
x = torch.randn(80, 6)
y = x @ torch.randn(6, 1)
model, loss_fn = torch.nn.Linear(6, 1, bias=False), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=1e-3)
for _ in range(70):
    loss = loss_fn(model(x[:60]), y[:60])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        loss_fn(model(x[60:]), y[60:])
print(f"training loss {loss.item():.8f}")

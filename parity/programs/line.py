"""Fit a line through noisy points with PyTorch, one linear layer and gradient descent."""

import torch

torch.manual_seed(0)

# The model: one input, one output.
model = torch.nn.Linear(1, 1)
# What to make small: the mean of the squared errors.
loss_fn = torch.nn.MSELoss()
# How: gradient descent on the model's weight and bias.
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

# A hundred points around the line y = 2x.
x = torch.randn(100, 1)
true_w = 2
y = true_w * x + torch.randn(100, 1)

for _ in range(1000):
    # Predict, and measure the error.
    y_pred = model(x)
    loss = loss_fn(y_pred, y)
    # PyTorch adds gradients up, so the last ones go first.
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

print("Estimated weight:", model.weight.item())

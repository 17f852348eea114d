"""Predict house prices from living areas with PyTorch, one linear layer and gradient descent."""

import torch
import torch.nn as nn

torch.manual_seed(0)

# Living areas in square feet, and prices in thousands of dollars, one house a row.
living_area = torch.tensor([850, 900, 1200, 1500, 1700, 1850, 2100, 2200, 2300, 2400], dtype=torch.float32).reshape(
    -1, 1
)
price = torch.tensor([150, 160, 200, 240, 280, 300, 340, 360, 380, 400], dtype=torch.float32).reshape(-1, 1)

model = nn.Linear(1, 1)
criterion = nn.MSELoss()
# The areas are not scaled, so only a tiny learning rate keeps the training stable.
optimizer = torch.optim.SGD(model.parameters(), lr=0.0000001)

num_epochs = 1000
for epoch in range(num_epochs):
    # Predict, and measure the error.
    outputs = model(living_area)
    loss = criterion(outputs, price)
    # Clear the old gradients, take the new ones, move the weights.
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if (epoch + 1) % 100 == 0:
        print(f"Epoch [{epoch + 1}/{num_epochs}], Loss: {loss.item():.4f}")

# What would a house of 2,000 square feet cost?
predicted_price = model(torch.tensor([[2000.0]]))
print(f"The predicted price of a house with 2000 square feet is: {predicted_price.item()} thousand dollars.")

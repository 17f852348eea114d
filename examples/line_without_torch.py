"""PyTorch's own run of the fitted line, seed 0, on a machine that has no PyTorch: its data, its weights, its result."""

import numpy as np

import jaxreg

# torch.manual_seed(0). What follows draws in the order in which the PyTorch program does: layer, inputs, noise.
generator = jaxreg.torch_random.Generator(0)

# torch.nn.Linear(1, 1)
model = jaxreg.Linear(1, 1, rngs=generator)

# x = torch.randn(100, 1); y = 2 * x + torch.randn(100, 1)
x = generator.randn(100, 1)
y = np.float32(2) * x + generator.randn(100, 1)

# Step by step, as PyTorch does it: the other plans round less, which shows in the last digits.
result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.01), epochs=1000, plan="stepwise")

# PyTorch prints 1.9748941659927368.
print("Estimated weight:", result.model.kernel[...].item())

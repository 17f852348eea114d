"""Fit a line through noisy points: one linear layer, mean squared error, gradient descent, one compiled program."""

import jax
from flax import nnx

import jaxreg

noise, points = jax.random.split(jax.random.key(0))
x = jax.random.normal(points, (100, 1))
y = 2 * x + jax.random.normal(noise, (100, 1))

model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.01), epochs=1000)

print(result)
print(f"Estimated weight: {result.model.kernel[0, 0]:.4f}")

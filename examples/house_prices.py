"""Predict a house's price from its living area, and watch the loss on the way."""

import jax.numpy as jnp
from flax import nnx

import jaxreg

# Square feet, and thousands of dollars.
area = jnp.array([850, 900, 1200, 1500, 1700, 1850, 2100, 2200, 2300, 2400], jnp.float32).reshape(-1, 1)
price = jnp.array([150, 160, 200, 240, 280, 300, 340, 360, 380, 400], jnp.float32).reshape(-1, 1)

model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
# Areas of this size allow a tiny learning rate only.
result = jaxreg.fit(model, area, price, optimizer=jaxreg.sgd(1e-7), epochs=1000)

for epoch in range(100, 1001, 100):
    print(f"Epoch {epoch}: loss {result.losses[epoch - 1]:.4f}")
print(f"A house of 2,000 square feet costs about {result.model(jnp.array([[2000.0]]))[0, 0]:.0f} thousand dollars.")

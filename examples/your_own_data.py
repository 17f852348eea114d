"""Bring your own table: several inputs and outputs from NumPy, scaled, trained with momentum, every step kept."""

import numpy as np
from flax import nnx

import jaxreg

# Any rows will do; these are made up: yield and moisture of a field from rain, sun and fertiliser.
random = np.random.default_rng(0)
rain, sun, fertiliser = random.uniform([300, 800, 20], [900, 2200, 120], (200, 3)).T
inputs = np.stack([rain, sun, fertiliser], axis=1)
outputs = np.stack([0.01 * rain + 0.002 * sun + 0.05 * fertiliser, 0.04 * rain - 0.01 * sun], axis=1)
outputs += random.normal(scale=0.2, size=outputs.shape)

# Inputs of one size let gradient descent take large steps.
mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
model = jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
result = jaxreg.fit(
    model,
    (inputs - mean) / spread,
    outputs,
    optimizer=jaxreg.sgd(0.05, momentum=0.9),
    epochs=300,
    record=("weights",),
)

print(result)
print("Weights per unit of each input:")
print(np.asarray(result.model.kernel[...]) / spread[:, None])
print("Weights kept of every step:", result.trace.weights["kernel"].shape)

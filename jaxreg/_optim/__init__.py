"""PyTorch's SGD as Optax transformations, and one step of any other."""

"""PyTorch's optimizers, written down once: what they compute, and a switch for every fault that ports have."""

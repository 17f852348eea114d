"""The linear layer and the losses, as PyTorch defines them."""

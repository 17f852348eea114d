"""Hypotheses about the optimizer: its rule, its settings, its learning rate."""

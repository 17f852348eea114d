"""From a PyTorch program to a recording: run it unmodified, watch torch, write down each step. Only this room imports torch."""

"""From a PyTorch program to a recording: run unmodified, with torch watched. No other room imports it."""

"""What was observed of one PyTorch training, as NumPy arrays and plain values: the recording, its file, its checks."""

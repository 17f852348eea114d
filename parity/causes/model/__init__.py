"""Hypotheses about the model: its operations, its constants, the precision of its products."""

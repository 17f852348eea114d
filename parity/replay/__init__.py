"""A port run on a recording, locked to the recorded state at every step and free, in float32 and float64."""

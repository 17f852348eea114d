"""The benchmark: every way to train the same linear model, held to one trajectory and timed in turns."""

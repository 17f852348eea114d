"""Many trainings in one compiled program: settings over the same data, and groups of rows."""

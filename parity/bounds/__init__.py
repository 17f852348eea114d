"""The most that rounding alone can do to each value of a training: derived from the port's steps."""

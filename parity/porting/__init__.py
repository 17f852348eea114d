"""From a recording to a port: the JAX side's parts, its names and layouts, and its source."""

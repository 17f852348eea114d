"""How a training is executed: the same mathematics, another order of work. One plan a file, one signature."""

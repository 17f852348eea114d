"""``fit``: check what is asked, choose a plan, run it, give the result."""

"""Why the two sides part: each known trap is a hypothesis, and is tested by replaying with it."""

from parity.causes.find import find

__all__ = ["find"]

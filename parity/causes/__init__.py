"""Why the two sides part: each known trap is a hypothesis, and is tested by replaying with it."""

from parity.causes._cause import Cause
from parity.causes._find import find

__all__ = ["Cause", "find"]

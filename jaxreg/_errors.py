"""The one exception tree: everything that jaxreg and parity raise on purpose."""

from __future__ import annotations


class JaxregError(Exception):
    """Base of every error that jaxreg and parity raise on purpose."""


class ArgumentError(JaxregError, ValueError):
    """An argument has a value, shape or dtype that the call cannot use.

    It is a :class:`ValueError` too, as PyTorch's own checks raise.
    """

"""Words that messages of every room share."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, noun: str, plural: str = "") -> str:
    """Write so many of a thing.

    >>> count(1, "cause"), count(2, "cause"), count(1200, "line"), count(0, "check"), count(2, "pass", "passes")
    ('1 cause', '2 causes', '1,200 lines', '0 checks', '2 passes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def sentence(text: str) -> str:
    """Begin a sentence with a capital and end it with a stop; a first word that is code stays as it is.

    >>> sentence("with the loss doubled the two agree"), sentence("b1 is 0.9.")
    ('With the loss doubled the two agree.', 'b1 is 0.9.')
    """
    first = text.partition(" ")[0]
    begun = text[:1].upper() + text[1:] if first.rstrip(",;:").isalpha() and first.islower() else text
    return begun if not text or text.endswith((".", "?", "!")) else f"{begun}."


def place(stage: str, tensor: str) -> str:
    """Name a tensor of a stage.

    >>> place("gradient", "weight"), place("loss", "loss")
    ('gradient, weight', 'loss')
    """
    return stage if stage == tensor else f"{stage}, {tensor}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Write words in a row.

    >>> listed(["loss"]), listed(["loss", "update"]), listed(["loss", "gradient", "update"], "or")
    ('loss', 'loss and update', 'loss, gradient or update')
    """
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end

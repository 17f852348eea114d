"""How the benchmark writes numbers: the same on every view."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal


def plain(value: float, digits: int = 3, rounding: str = ROUND_HALF_EVEN) -> str:
    """Three digits or, from 1,000 on, all digits before the point; no power of ten.

    >>> plain(1234.5), plain(99.96), plain(0.5), plain(0.0000123), plain(2)
    ('1,234', '100', '0.5', '0.0000123', '2')
    """
    if not math.isfinite(value):
        return str(value)
    whole = len(f"{abs(value):.0f}")
    exact = Context(prec=max(digits, whole), rounding=rounding).create_decimal(value)
    text = f"{exact:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def share(value: float) -> str:
    """A share of a bound, rounded so that what is beyond 1 reads so, and what is not does not.

    >>> share(0.999), share(1.0), share(1.004), share(0.0123)
    ('0.99', '1', '1.1', '0.012')
    """
    direction = ROUND_CEILING if value > 1 else ROUND_FLOOR if value > 0.99 else ROUND_HALF_EVEN
    return plain(value, 2, direction)


def percent(value: float) -> str:
    """A share in percent.

    >>> percent(0.25), percent(12.345)
    ('25 %', '1,234 %')
    """
    return f"{plain(100 * value)} %"


def time(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> time(0.00005), time(0.25), time(90.0), time(0.9999), time(12345.0)
    ('50 µs', '250 ms', '90 s', '1 s', '12,345 s')
    """
    return _scaled(seconds, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)))


def size(count: float) -> str:
    """Bytes as a person reads them.

    >>> size(512), size(1536), size(2**20), size(3.5 * 2**30), size(2**20 - 1)
    ('512 B', '1.5 KiB', '1 MiB', '3.5 GiB', '1 MiB')
    """
    return _scaled(count, (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0)))


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """In the largest unit of which it is one or more, once it is rounded."""
    rounded = float(Context(prec=3).create_decimal(Decimal(value)))
    unit, each = next((one for one in units if rounded >= one[1]), units[-1])
    return f"{plain(value / each)} {unit}"

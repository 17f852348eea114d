"""Numbers on their way into JSON, back out of it, and in front of a person."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from parity._words import count as count

Array: TypeAlias = np.ndarray[Any, Any]
# What JSON's objects are read as, and built as; ``schema.json`` says what they hold.
Json: TypeAlias = Mapping[str, Any]
JsonDict: TypeAlias = dict[str, Any]
# A number as a document holds it: a string where it is not finite.
JsonNumber: TypeAlias = float | str
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_EXPONENT = re.compile(r"(?<=\d)e([+-]\d+)")
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
# What stands where there is no number.
NOTHING = "–"
_SIZE_UNITS = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
_DURATION_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def encode(value: object) -> Any:
    """Turn a value into what JSON can hold.

    Non-finite floats become the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``; NumPy scalars and arrays (and
    whatever offers ``__array__``) become Python numbers and nested lists; tuples become lists; lone surrogates in
    strings, which UTF-8 cannot write, become U+FFFD.

    Raises:
        TypeError: for a value or a mapping's key that JSON has no form for.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _encode_float(float(value))
    if isinstance(value, Mapping):
        return {_encode_key(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if hasattr(value, "__array__"):
        return _encode_array(np.asarray(value))
    raise TypeError(f"a report holds plain values only, and got {type(value).__name__}: {value!r}")


def _encode_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _encode_key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a report's mappings have strings as keys, and got {type(key).__name__}: {key!r}")
    return str(encode(key))


def _encode_array(array: Array) -> Any:
    # Kinds beyond NumPy's own numbers (bfloat16 and its kin are kind "V") still convert to float64.
    if array.dtype.kind not in "biufU":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(f"a report holds plain values only, and got an array of {array.dtype}") from error
    return encode(array.tolist())


def decode(value: object) -> Any:
    """Undo :func:`encode`'s strings for non-finite numbers, at any depth.

    Meant for parts of the document that hold numbers only: a printed line that reads "NaN" would become a number too.
    """
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, Mapping):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def number(value: JsonNumber) -> float:
    """Read one number of the document as a float; an int too large for a float reads as infinity."""
    try:
        return float(decode(value))
    except OverflowError:
        return math.inf if not isinstance(value, str) and value > 0 else -math.inf


def scientific(value: JsonNumber | None, digits: int = 3) -> str:
    """Write a number to ``digits`` significant digits, for a terminal; a dash where there is none.

    >>> scientific(1.2345e-16), scientific(0.01234), scientific(12345.6), scientific(0), scientific(None)
    ('1.23e-16', '0.0123', '12,300', '0', '–')
    """
    if value is None:
        return NOTHING
    x = number(value)
    if not math.isfinite(x):
        return "NaN" if math.isnan(x) else "∞" if x > 0 else "-∞"
    if x == 0:
        return "0"
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 < power < 6:
        rounded = float(f"{mantissa}e{power}")
        return f"{rounded:,.{max(digits - 1 - power, 0)}f}"
    return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def pretty(value: JsonNumber | None, digits: int = 3) -> str:
    """Write a number as :func:`scientific` does, with typeset powers of ten, for a page.

    >>> pretty(1.2345e-16), pretty(-2e9), pretty(0.5)
    ('1.23 × 10⁻¹⁶', '−2.00 × 10⁹', '0.500')
    """
    return typeset(scientific(value, digits))


def typeset(text: str) -> str:
    """Typeset the powers of ten and minus signs of a number that another function here wrote.

    >>> typeset("2.4e+08%")
    '2.4 × 10⁸%'
    """
    return _EXPONENT.sub(lambda match: f" × 10{str(int(match[1])).translate(_SUPERSCRIPTS)}", text).replace("-", "−")


def integer(value: JsonNumber) -> str:
    """Write a whole number with thousands separators; a number that is not whole falls back to :func:`scientific`.

    >>> integer(1234567), integer(2.0), integer("NaN")
    ('1,234,567', '2', 'NaN')
    """
    x = number(value)
    if math.isfinite(x) and x == int(x) and abs(x) < 1e15:
        return f"{int(x):,}"
    return scientific(value)


def ulps(value: JsonNumber | None) -> str:
    """Write a distance in units in the last place: whole numbers exactly while short, all else to two digits.

    >>> ulps(3), ulps(12345), ulps(123456789), ulps(0.25), ulps(None)
    ('3', '12,345', '1.2e+08', '0.25', '–')
    """
    if value is None:
        return NOTHING
    x = number(value)
    return integer(x) if abs(x) < 1e6 and x == round(x) else scientific(x, 2)


def percent(fraction: JsonNumber | None) -> str:
    """Write a fraction as a percentage of at most two significant digits below 10 %; a dash where there is none.

    >>> percent(0.0034), percent(0.5), percent(2.4), percent(1e-7), percent(0), percent("Infinity")
    ('0.34%', '50%', '240%', '< 0.01%', '0%', '∞')
    """
    if fraction is None:
        return NOTHING
    share = number(fraction)
    x = share * 100
    if not math.isfinite(share):
        return scientific(share)
    if not math.isfinite(x):  # a percentage that no float can hold
        mantissa, exponent = f"{share:.1e}".split("e")
        return f"{mantissa}e+{int(exponent) + 2}%"
    if x == 0:
        return "0%"
    if 0 < x < 0.01:
        return "< 0.01%"
    # A fraction just above 1 is out of its bound, and must not read as 100%.
    if 100 < x < 110:
        return f"{x:.3g}%" if x >= 100.5 else "> 100%"
    if x < 10:
        return f"{float(f'{x:.2g}'):g}%"
    return f"{x:,.0f}%" if x < 1e5 else f"{scientific(x, 2)}%"


def duration(seconds: JsonNumber) -> str:
    """Write a time span in the unit that fits it.

    >>> duration(0.0013), duration(0.245), duration(200), duration(2.5e-7)
    ('1.30 ms', '245 ms', '3 min 20 s', '250 ns')
    """
    x = number(seconds)
    if not 0 <= x < 1e6:
        return f"{scientific(x)} s"
    if x >= 119.5:
        minutes, rest = divmod(round(x), 60)
        return f"{minutes:,} min {rest} s"
    for scale, unit in _DURATION_UNITS:
        if x >= scale * 0.9995:
            return f"{scientific(x / scale)} {unit}"
    return "0 s" if x == 0 else f"{scientific(x / 1e-9)} ns"


def size(count: float) -> str:
    """Write bytes in the unit that fits them.

    >>> size(512), size(1536), size(2**20), size(3.5 * 2**30), size(2**20 - 1)
    ('512 B', '1.5 KiB', '1 MiB', '3.5 GiB', '1 MiB')
    """
    for scale, unit in _SIZE_UNITS:
        if count >= scale * 0.9995:
            text = scientific(count / scale)
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
    return f"{integer(count)} B"


def full(value: JsonNumber, digits: int = 9) -> str:
    """Write a value with the digits that identify it: nine of a float32, 17 of a float64.

    >>> full(2.0145576000213623), full(0.1, 17), full("NaN")
    ('2.01455760', '0.10000000000000001', 'NaN')
    """
    x = number(value)
    if not math.isfinite(x):
        return scientific(x)
    return f"{x:#.{digits}g}".removesuffix(".") if x else "0"

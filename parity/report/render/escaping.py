"""Text from outside, made safe to look at: what would steer a terminal or reorder a line is shown as a symbol."""

from __future__ import annotations

import re

# Control Pictures stand in for C0 controls. C1 controls, the line separators that break JavaScript and the
# bidirectional controls, which can make code read as what it is not, are spelled out.
_SPELLED = re.compile("[\x80-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


def visible(text: str) -> str:
    r"""Replace control characters by visible stand-ins; newlines and tabs stay, and other line ends become newlines.

    >>> visible("a\x1b[31mb\r\nc")
    'a␛[31mb\nc'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SPELLED.sub(lambda match: f"\\u{ord(match.group()):04x}", text.translate(_PICTURES))

"""Text from outside, made visible."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from parity.report.render.escaping import visible


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    left = {character for character in visible(text) if unicodedata.category(character) in ("Cc", "Zl", "Zp")}
    assert left <= {"\n", "\t"}


@given(st.text())
def test_it_is_done_once(text: str) -> None:
    assert visible(visible(text)) == visible(text)


def test_text_that_reorders_itself_is_spelled_out() -> None:
    assert visible("a\u202eb\u2066c") == "a\\u202eb\\u2066c"


def test_plain_text_stays() -> None:
    assert visible("def f():\n\treturn 'é漢𝔘'") == "def f():\n\treturn 'é漢𝔘'"

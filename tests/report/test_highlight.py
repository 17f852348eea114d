"""Highlighted source keeps its text and escapes it."""

from __future__ import annotations

import html
import re

from hypothesis import given
from hypothesis import strategies as st

from parity.report.render.escaping import visible
from parity.report.render.highlight import highlight


@given(st.text())
def test_every_line_is_well_formed_and_loses_nothing(source: str) -> None:
    lines = highlight(source)
    assert all(line.count("<span") == line.count("</span>") for line in lines)
    text = "\n".join(html.unescape(re.sub(r"</?span[^>]*>", "", line)) for line in lines)
    assert text == visible(source).rstrip("\n")


def test_python_is_marked_up() -> None:
    assert '<span class="kn">import</span>' in highlight("import torch")[0]
    assert "&lt;b&gt;" in highlight("'<b>'")[0]

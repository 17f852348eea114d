"""The summary for a pull request."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parity.report.render import markdown
from tests.helpers.sample_report import Document
from tests.report.conftest import MAKERS


@pytest.mark.parametrize("name", MAKERS)
def test_every_image_is_one_of_the_files(rendered: dict[str, dict[str, bytes]], name: str) -> None:
    contents = rendered[name]
    images = re.findall(r"^!\[.*\]\((charts/[^)]*)\)$", contents["report.md"].decode(), re.MULTILINE)
    assert images == [path for path in contents if path.startswith("charts/")]
    assert len(images) >= 4


@pytest.mark.parametrize("name", MAKERS)
def test_every_table_row_has_its_columns(rendered: dict[str, dict[str, bytes]], name: str) -> None:
    expected = 0
    for line in rendered[name]["report.md"].decode().splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        if cells and expected:
            assert cells == expected, line
        expected = cells


def test_it_opens_with_the_verdict(documents: dict[str, Document]) -> None:
    shown = markdown.render(documents["failing"])
    assert shown.startswith(
        "# ❌ One of two programs is not the same training in JAX.\n\n## The fitted line\n\n❌ **Not"
    )
    row = "| gradient | weight | 1.87 | 8.4 × 10⁶ | 0.500 | 6% / 2.4 × 10⁸% | ❌ step 1 |"
    assert row in shown
    assert "- Estimated weight: 1.9984\n+ Estimated weight: 1.8611" in shown


def test_nothing_from_outside_is_markup(rendered: dict[str, dict[str, bytes]]) -> None:
    shown = rendered["hostile"]["report.md"].decode()
    # What is fenced is shown as it is; everything else must be escaped.
    outside = re.sub(r"^(`{3,})[^`\n]*\n.*?^\1$", "", shown, flags=re.MULTILINE | re.DOTALL)
    outside = outside.replace("What PyTorch printed is marked `-`, the same line with JAX's numbers `+`:", "")
    assert not re.search(r"<(?!!-- -->)", outside)
    assert not re.search(r"(?<!\\)`", outside)
    assert "http://" not in outside
    assert "\u2028" not in shown
    assert "\x1b" not in shown


@given(st.text() | st.text("`~ \n"))
@example("```\n````\n~~~")
def test_a_fence_cannot_be_ended_from_inside(text: str) -> None:
    first, *inside, last = markdown.fence(text, "diff").split("\n")
    assert first == last + "diff"
    assert all(line.strip() != last and not line.strip().startswith(last) for line in inside)


@given(st.text())
def test_escaped_text_is_one_line_without_markup(text: str) -> None:
    escaped = markdown.escape(text)
    assert "\n" not in escaped
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_|\[\]]", escaped)
    assert not re.search(r"<(?!!-- -->)", escaped)
    assert not re.match(r"\s*([#>=]|[-+](\s|$|[-+])|\d+[.)](\s|$))", escaped)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weight[0, 0]", r"weight\[0, 0\]"),
        ("@someone", "@<!-- -->someone"),
        ("https://a.invalid", "https<!-- -->://a.invalid"),
        ("- item", "&#45; item"),
        ("---", "&#45;--"),
        ("-0.5", "-0.5"),
        ("1.87", "1.87"),
        ("1. item", "&#49;. item"),
        ("12) item", "&#49;2) item"),
        ("a\r\nb", "a b"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    assert markdown.escape(text) == expected

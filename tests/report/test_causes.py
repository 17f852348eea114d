"""Causes, warnings and the matrix, wherever a verdict is shown."""

from __future__ import annotations

import re

import pytest

from parity.report.render import html, markdown, numbers, terminal
from tests.helpers import large_report as large
from tests.helpers import sample_report as sample


@pytest.fixture(scope="module")
def program() -> sample.Document:
    return dict(sample.failing()["programs"][0])


def _shown(program: sample.Document) -> dict[str, str]:
    document = sample.failing() | {"programs": [program]}
    ways = {
        "terminal": terminal.table(program),
        "page": html.render(document),
        "notebook": html.fragment(program),
        "summary": markdown.render(document),
        "comment": markdown.comment(program),
    }
    return {way: " ".join(words.split()) for way, words in ways.items()}


def test_a_cause_stands_before_the_numbers_with_its_fix(program: sample.Document) -> None:
    for way, words in _shown(program).items():
        cause = words.index("Cause: half loss")
        assert cause < words.index("With its gradients doubled the two agree within 1e-15"), way
        assert cause < words.index("jaxreg.mse") < words.index("Fix") + 120, way
        assert words.index("Fix") < words.lower().index("the gradient is 0.5 times pytorch"), way
        assert "The probabilistic bound is exceeded at 2 of 1,000 steps." in words, way


def test_a_cause_without_a_fix_has_none() -> None:
    for words in _shown(dict(large.large()["programs"][0])).values():
        assert words.count("Cause: ") == 2
        after = words[words.index("no fix known") :]
        assert not re.search(r"Fix\b", after[:200])


def test_a_document_of_before_has_none_of_them(program: sample.Document) -> None:
    old = {key: value for key, value in program.items() if key not in ("causes", "warnings", "matrix")}
    for words in _shown(old).values():
        assert "Cause" not in words
        assert "Warning" not in words.replace("warnings", "")
        assert "BF16" not in words


def test_the_matrix_tells_what_holds_where(program: sample.Document) -> None:
    for way, words in _shown(program).items():
        assert "highest" in words, way
        assert numbers.percent(1000) in words.replace("&#37;", "%").replace("−", "-") or "10⁵" in words, way
        assert words.replace("\\", "").count("not | supported here") >= 1, way
    rows = terminal.matrix_alone({"matrix": sample.matrix()}).splitlines()
    assert next(row for row in rows if "high " in row).split() == ["gpu", "high", *["✗", "100,000%"] * 3]
    assert next(row.split()[2:] for row in rows if "BF16" in row) == ["–"] * 3
    assert "not | supported here" in html.matrix_alone({"matrix": sample.matrix()})


def test_a_share_of_almost_nothing_is_shown_as_one() -> None:
    row = sample.finding("forward", "predictions", bound_used={"torch": 0.00086, "jax": 9e3})
    line = next(
        line
        for line in terminal.table({**sample.holding()["programs"][0], "findings": [row]}).splitlines()
        if "forward" in line
    )
    assert "0.086% / 900,000%" in line

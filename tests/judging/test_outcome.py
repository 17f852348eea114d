"""What a verdict comes to: parity, a parting, a loss of accuracy, or nothing that was judged."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

import parity
from parity import Matrix, Verdict, cli
from parity.cli.programs import exit_code
from parity.judging import judge, outcome, platforms
from parity.judging.finding import Finding
from parity.report import document as _document
from parity.report.render import html, markdown, numbers, terminal
from tests.judging.test_scales import case

SCHEMA = json.loads(files("parity.report").joinpath("schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def program() -> None:
    """A target is NaN: after the first prediction no number is finite, whatever a port does."""
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.ones(2, 1), torch.tensor([[1.0], [float("nan")]])
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


@pytest.fixture(scope="module")
def nothing() -> Verdict:
    def other(recording: parity.Recording) -> parity.Port:
        port = parity.port(recording)
        return dataclasses.replace(port, loss=lambda made, wanted: 77 * port.loss(made, wanted))

    return parity.check(program, other)


def failing(verdict: Verdict, **changes: Any) -> Verdict:
    """The same with a forward stage that fails."""
    first, *others = verdict.findings
    changed = dataclasses.replace(first, step=0, message="loss of accuracy: much", **changes)
    return dataclasses.replace(verdict, findings=(changed, *others))


def inaccurate(verdict: Verdict) -> Verdict:
    return failing(verdict, jax_within=False, inaccurate=True, jax_used=0.004)


@pytest.mark.thorough
def test_where_nothing_is_finite_nothing_was_judged(nothing: Verdict) -> None:
    assert (nothing.outcome, nothing.ok, nothing.first_divergence) == ("not judged", False, None)
    assert nothing.headline == "Not judged: there is no finite loss, gradient or update to compare."
    told = " ".join(nothing.sentences)
    assert "any port would pass" in told
    assert "The targets of that step hold inf or NaN. Look at the data." in told
    assert "parity too" not in told
    assert "zero to rounding" not in told
    with pytest.raises(parity.ParityError, match="Not judged: there is no finite loss") as error:
        nothing.raise_for_divergence()
    assert not isinstance(error.value, parity.DivergenceError)


def test_no_view_has_a_number_or_a_tick_where_nothing_was_compared(nothing: Verdict) -> None:
    document = numbers.encode(_document.report([nothing], "parity report"))
    VALIDATOR.validate(document)
    [told] = document["programs"]
    assert told["verdict"]["outcome"] == "not judged"
    [row] = [row for row in told["findings"] if row["stage"] == "loss"]
    assert (row["compared"], row["difference"], row["bound_used"]) == (False, None, {"torch": None, "jax": None})
    line = next(line for line in terminal.table(told).splitlines() if line.startswith("loss"))
    assert line.split() == ["loss", "loss", "–", "–", "–", "–", "/", "–", "–"]
    assert "| loss | loss | – | – | – | – / – | – |" in markdown.comment(told)
    assert "any port would pass" in markdown.comment(told)
    for shown in (html.render(document), html.fragment(told), markdown.render(document), terminal.table(told)):
        assert "Not judged: there is no finite loss" in " ".join(shown.split())
        assert "neither side has a finite number there" in " ".join(shown.split())
    assert document["headline"] == "Not judged, because there are no finite numbers to compare: program."
    assert 'aria-label="not compared"' in html.fragment(told)


def test_exit_codes(nothing: Verdict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    other = failing(nothing, same_program=False)
    codes = []
    for verdict in (nothing, inaccurate(nothing), other):
        monkeypatch.setattr("parity._check.check", lambda *_, given=verdict, **__: given)
        codes.append(cli.main(["check", "line", "-q"]))
    assert codes == [2, 1, 1]
    assert "Not judged" in capsys.readouterr().out
    # Of several programs, one that parts decides.
    assert exit_code([nothing, other]) == 1


def test_a_loss_of_accuracy_has_a_word_in_every_view(nothing: Verdict) -> None:
    verdict = inaccurate(nothing)
    document = numbers.encode(_document.report([verdict], "parity report"))
    VALIDATOR.validate(document)
    [told] = document["programs"]
    assert told["verdict"]["outcome"] == "inaccurate"
    row = told["findings"][0]
    # It is within its worst case: that is what makes it a loss of accuracy.
    assert (row["inaccurate"], row["off"], row["within"]) == (True, "jax", {"torch": True, "jax": True})
    assert document["headline"] == "A side loses accuracy: program."
    for shown in (html.render(document), html.fragment(told), markdown.render(document), terminal.table(told)):
        words = " ".join(shown.split())
        assert "JAX loses accuracy at step 0: forward, predictions." in words
        assert "First loss of accuracy: step 0, forward, predictions. Loss of accuracy: much" in words
        assert "First parting" not in words
    several = [verdict, dataclasses.replace(failing(nothing, same_program=False), title="other"), nothing]
    assert _document._headline(several) == (
        "The two sides part: other. A side loses accuracy: program. "
        "Not judged, because there are no finite numbers to compare: program."
    )


def test_a_platform_on_which_nothing_was_compared_does_not_hold(nothing: Verdict) -> None:
    stage = platforms._stage("loss", nothing.findings)
    assert (stage.holds, stage.bound_used, stage.relative_error) == (False, None, None)
    held = Matrix((platforms.Cell("cpu", "a cpu", "highest", (stage,)),))
    assert not held.ok
    assert "not finite" in repr(held)


def found(given: Any, lost: Any = ()) -> Finding:
    return judge._compare(given, np.array(lost))


@pytest.mark.parametrize(
    ("own", "exact", "compared", "finite"),
    [
        (1.0, 1.0, True, True),
        (np.nan, np.nan, False, False),
        (np.inf, 1e60, True, False),  # float32 overflows on both sides, and float64 has the numbers
    ],
)
def test_what_is_compared(own: float, exact: float, compared: bool, finite: bool) -> None:
    narrow = np.full((1, 1), own, np.float32)
    with np.errstate(over="ignore"):
        given = case([[exact]], [[exact]], 1e-15, torch=narrow, jax=narrow)
    finding = found(given)
    assert finding.holds
    assert (finding.compared, finding.finite) == (compared, finite)
    assert (finding.ulps is None) == (not finite)


def test_what_follows_from_a_loss_that_is_nan_is_in_no_figure() -> None:
    """After it PyTorch's relu has a gradient of zero, say, and JAX's NaN."""
    own = np.array([[1.0], [np.nan]], np.float32)
    finding = found(case([[1.0], [0.0]], [[1.0], [np.nan]], 1e-15, jax=own), lost=[1])
    assert finding.holds
    assert (finding.difference, finding.ulps, finding.float64_difference, finding.jax_error) == (0, 0, 0, 0)
    beyond = found(case([[1.0], [0.0]], [[1.0], [0.0]], 1e-15, jax=np.array([[1.0], [9.0]], np.float32)), lost=[1])
    assert beyond.holds
    assert beyond.jax_used == 0


def test_a_tensor_without_numbers_is_named_where_the_others_hold() -> None:
    good = found(case([[1.0]], [[1.0]], 1e-15))
    bad = dataclasses.replace(good, tensor="norm.bias", compared=False, finite=False)
    assert outcome.of([good, bad]) == "holds"
    assert outcome.not_compared([good, bad]) == [
        "Not compared, because both sides have only inf or NaN: gradient, norm.bias."
    ]
    assert outcome.not_compared([good]) == []
    assert outcome.of([bad]) == "not judged"
    assert outcome.headline([bad]) == "Not judged: there is no finite gradient to compare."

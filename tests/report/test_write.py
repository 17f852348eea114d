"""The report's folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import parity.report
from parity._errors import OutputError
from parity.report.render import html, markdown
from tests.helpers import sample_report as sample
from tests.report.conftest import MAKERS


@pytest.mark.parametrize("name", MAKERS)
def test_everything_shown_is_in_the_json(rendered: dict[str, dict[str, bytes]], name: str) -> None:
    contents = rendered[name]
    document = json.loads(contents["report.json"])
    assert html.render(document).encode() == contents["report.html"]
    assert markdown.render(document).encode() == contents["report.md"]


def test_the_folder_holds_the_report_its_charts_and_the_extra_files(tmp_path: Path) -> None:
    document, out = sample.holding(), tmp_path / "out"
    written = parity.report.write(document, out, {"line_jax.py": b"pass\n", "sub/x.npz": b"\0"})
    names = [path.relative_to(out).as_posix() for path in written]
    assert names[:3] == ["report.html", "report.md", "report.json"]
    assert names[-2:] == ["line_jax.py", "sub/x.npz"]
    assert sorted(names) == sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert "charts/line-loss.svg" in names
    assert "charts/houses-distance-weight.svg" in names
    assert (out / "sub/x.npz").read_bytes() == b"\0"
    assert json.loads((out / "report.json").read_text()) == document


def test_numpy_values_and_non_finite_numbers_are_encoded(tmp_path: Path) -> None:
    document = sample.diverging()
    document["programs"][0]["series"]["loss"] = [{"step": np.int64(0), "torch": np.float32("nan"), "jax": float("inf")}]
    parity.report.write(document, tmp_path)
    loss = json.loads((tmp_path / "report.json").read_text())["programs"][0]["series"]["loss"]
    assert loss == [{"step": 0, "torch": "NaN", "jax": "Infinity"}]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "", ".", "c:evil", "a\\..\\b", "nul\0"])
def test_an_extra_file_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="expected the name of a file inside"):
        parity.report.write(sample.diverging(), tmp_path / "out", {name: b""})
    assert list(tmp_path.iterdir()) == []


def test_an_extra_file_cannot_replace_the_report(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"file of its own called 'report.html'"):
        parity.report.write(sample.diverging(), tmp_path / "out", {"report.html": b""})


@pytest.mark.parametrize(("names", "message"), [(["../x"], "becomes a file name"), (["a", "a"], "two programs")])
def test_program_names_must_make_file_names(tmp_path: Path, names: list[str], message: str) -> None:
    document = sample.diverging()
    document["programs"] = [{**document["programs"][0], "name": name} for name in names]
    with pytest.raises(OutputError, match=message):
        parity.report.write(document, tmp_path / "out")


def test_a_file_in_the_way_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="out' cannot be"):
        parity.report.check_writable(tmp_path / "out")
    parity.report.check_writable(tmp_path / "fine")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_importing_the_report_and_its_text_draws_in_no_chart_library() -> None:
    code = "import sys, parity.report, parity.report.render.terminal; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"altair", "vl_convert", "torch", "jinja2"} & set(loaded)
    assert parity.report.__all__ == sorted(parity.report.__all__)
    assert callable(parity.report.write)

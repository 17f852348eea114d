"""The pytest plugin, run by pytest in pytest: what a person sees, what CI keeps, and what it costs where unused."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from parity import pytest_plugin

PROGRAM = """\
import torch
torch.manual_seed(0)
x = torch.randn(20, 2)
y = x.sum(1, keepdim=True)
model, loss_fn = torch.nn.Linear(2, 1), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    loss = loss_fn(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
BROKEN = "def inner():\n    return {}['theirs']\n\ninner()\n"
TESTS = """\
import dataclasses

import pytest


def wrong(recording):
    import jaxreg, parity
    return dataclasses.replace(parity.port(recording), optimizer=jaxreg.sgd(0.1000001))


def test_twice(parity):
    verdict = parity.check("train.py", seed=3)
    assert verdict.ok and verdict.recording.seed == 3
    assert parity.check(verdict.recording, parity.port).ok


def test_wrong(parity):
    parity.check("train.py", port=wrong)


def test_causes(parity, monkeypatch):
    from parity import _check
    from parity.judging import cause as parity_cause
    honest = _check.check
    cause = parity_cause.Cause("another rate", "The rate is 0.1000001.", "use sgd(0.1)", "update", "weight", 0, 1e-16)

    def told(*args, **options):
        return dataclasses.replace(honest(*args, **options), causes=(cause,), warnings=("Loose.",))

    monkeypatch.setattr(_check, "check", told)
    parity.check("train.py", port=wrong)


@pytest.mark.parametrize("what", ["not judged", "inaccurate"])
def test_words(parity, monkeypatch, what):
    from parity import _check
    honest = _check.check

    def told(*args, **options):
        verdict = honest(*args, **options)
        first, *others = verdict.findings
        if what == "inaccurate":
            first = dataclasses.replace(first, inaccurate=True, jax_within=False, step=1234, message="Much.")
            return dataclasses.replace(verdict, findings=(first, *others))
        nothing = [dataclasses.replace(finding, compared=False, finite=False) for finding in others]
        return dataclasses.replace(verdict, findings=(first, *nothing))

    monkeypatch.setattr(_check, "check", told)
    parity.check("train.py")


@pytest.mark.parametrize("name", ["a b", "a/b", "a-b-2", "../a/b"])
def test_names(parity, name):
    parity.check("train.py")


def test_root(parity):
    parity.check("above.py")


def test_gone(parity):
    parity.check("gone.py")


def test_broken(parity):
    parity.check("broken.py")


def test_expected(parity):
    with pytest.raises(parity.DivergenceError, match="part at step 0: update"):
        parity.check("train.py", port=wrong)


@pytest.mark.xfail(raises=AssertionError, strict=True)
def test_known(parity):
    parity.check("train.py", port=wrong)
"""
# As few options as a person gives, and an environment in which nothing else adds to what is shown.
OPTIONS = ("-p", "parity.pytest_plugin", "-W", "error", "-p", "no:cacheprovider")


@dataclasses.dataclass
class Run:
    """What one run of pytest left: its words by the test they are about, its summary, its JUnit cases, its reports."""

    sections: dict[str, str]
    text: str
    cases: dict[str, ElementTree.Element]
    reports: Path

    def properties(self, name: str) -> list[tuple[str, str]]:
        return [(str(each.get("name")), str(each.get("value"))) for each in self.cases[name].iter("property")]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of all of TESTS: PyTorch and JAX take seconds to import, and can be imported once in a process only."""
    root = tmp_path_factory.mktemp("project")
    (root / "inner").mkdir()
    (root / "pytest.ini").write_text("[pytest]\n")
    (root / "above.py").write_text(PROGRAM)
    (root / "inner" / "train.py").write_text(PROGRAM)
    (root / "inner" / "broken.py").write_text(BROKEN)
    (root / "inner" / "test_port.py").write_text(TESTS)
    words = ["inner/test_port.py", "--junitxml=results.xml", "--parity-report=kept", *OPTIONS]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"}
    command = [sys.executable, "-m", "pytest", *words]
    text = subprocess.run(command, cwd=root, env=os.environ | alone, capture_output=True, text=True).stdout
    failures = text.partition("= FAILURES =")[2].partition("= short test summary info =")[0]
    sections: dict[str, str] = {}
    for line in failures.splitlines()[1:]:
        if line.startswith("___"):
            sections[line.strip("_ ")] = ""
        elif sections:
            sections[list(sections)[-1]] += line + "\n"
    cases = {str(case.get("name")): case for case in ElementTree.parse(root / "results.xml").iter("testcase")}
    return Run(sections, text, cases, root / "kept")


@pytest.mark.thorough
def test_an_honest_port_passes_and_each_fault_fails(done: Run) -> None:
    assert "6 failed, 7 passed, 1 xfailed" in done.text, done.text
    words = ["test_words[not judged]", "test_words[inaccurate]"]
    assert list(done.sections) == ["test_wrong", "test_causes", *words, "test_gone", "test_broken"]


@pytest.mark.thorough
def test_a_divergence_is_explained_and_nothing_else_is_shown(done: Run) -> None:
    lines = done.sections["test_wrong"].rstrip("=").strip().splitlines()
    headline, cause, fix, where, why, count, report = lines
    assert headline == "The two sides part at step 0: update, weight."
    assert cause.startswith("Cause: learning rate. With PyTorch's rule changed")
    assert fix == "Fix: set the learning rate to 0.1, as PyTorch has it"
    assert where == "stage: update, tensor: weight, step: 0"
    assert why.startswith("In float64, PyTorch has 0.27")
    assert why.endswith("The two are not the same program.")
    assert count.endswith("checks fail.")
    assert report == f"The report: {done.reports / 'inner-test_port.py--test_wrong' / 'report.html'}"
    assert (
        "FAILED inner/test_port.py::test_wrong - Divergence: The two sides part at step 0: update, weight." in done.text
    )


@pytest.mark.thorough
def test_causes_and_fixes_come_first(done: Run) -> None:
    lines = done.sections["test_causes"].strip().splitlines()
    assert lines[1:3] == ["Cause: another rate. The rate is 0.1000001.", "Fix: use sgd(0.1)"]
    assert "Warning: Loose." in lines
    assert ("parity.cause", "another rate") in done.properties("test_causes")


@pytest.mark.thorough
def test_what_is_no_parting_is_not_called_one(done: Run) -> None:
    headline, told, _report = done.sections["test_words[not judged]"].strip().splitlines()
    assert headline == "Not judged: there is no finite loss, gradient or update to compare."
    assert told.startswith("Both sides have only inf or NaN in every loss, gradient and update.")
    assert "FAILED inner/test_port.py::test_words[not judged] - NotJudged: Not judged: there is no" in done.text
    lines = done.sections["test_words[inaccurate]"].strip().splitlines()
    assert lines[0] == "JAX loses accuracy at step 1,234: forward, predictions."
    assert lines[1:3] == ["stage: forward, tensor: predictions, step: 1,234", "Much."]
    for word in ("not judged", "inaccurate"):
        assert ("parity.verdict", word) in done.properties(f"test_words[{word}]")
    assert ("parity.step", "1234") in done.properties("test_words[inaccurate]")


@pytest.mark.thorough
def test_junit_holds_the_explanation_and_the_place(done: Run) -> None:
    folder = str(done.reports / "inner-test_port.py--test_wrong")
    assert done.properties("test_wrong") == [
        ("parity.program", "train"),
        ("parity.verdict", "parts"),
        ("parity.stage", "update"),
        ("parity.tensor", "weight"),
        ("parity.step", "0"),
        ("parity.cause", "learning rate"),
        ("parity.report", folder),
    ]
    assert [value for name, value in done.properties("test_twice") if name == "parity.verdict"] == ["holds"] * 2
    failure = done.cases["test_wrong"].find("failure")
    assert failure is not None
    assert (failure.text or "").startswith("The two sides part at step 0: update, weight.\nCause: learning rate")
    assert "The two are not the same program" in (failure.get("message") or "")


@pytest.mark.thorough
def test_reports_are_kept_a_folder_for_each_check(done: Run) -> None:
    stem = "inner-test_port.py--test_"
    folders = sorted(path.name.removeprefix(stem) for path in done.reports.iterdir())
    # Names with what a folder's name cannot hold are told apart by a few letters, which hang on the test's name alone.
    plain = {name: re.sub(r"-[0-9a-f]{6}$", "-*", name) for name in folders}
    assert sorted(plain.values()) == [
        "causes",
        "expected",
        "known",
        "names-..-a-b-*",
        "names-a-b-*",
        "names-a-b-*",
        "names-a-b-2",
        "root",
        "twice",
        "twice-2",
        "words-inaccurate",
        "words-not-judged-*",
        "wrong",
    ]
    held = {name: json.loads((done.reports / (stem + name) / "report.json").read_text())["ok"] for name in folders}
    assert [plain[name] for name, ok in held.items() if not ok] == [
        *("causes", "expected", "known", "words-inaccurate", "words-not-judged-*", "wrong"),
    ]
    assert (done.reports / f"{stem}wrong" / "report.html").is_file()


@pytest.mark.thorough
def test_a_script_that_is_nowhere_is_said_to_be(done: Run) -> None:
    root = done.reports.parent
    assert (
        f"there is no program gone.py; it was looked for in {root / 'inner'} and in {root}"
        in done.sections["test_gone"]
    )


@pytest.mark.thorough
def test_what_cannot_be_judged_shows_the_persons_lines_only(done: Run) -> None:
    shown = done.sections["test_broken"]
    assert '>       parity.check("broken.py")' in shown
    assert "return {}['theirs']" in shown
    assert "_run_program" not in shown
    assert "pytest_plugin.py" not in shown


def test_it_is_registered_and_pytest_is_no_dependency() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"parity": "parity.pytest_plugin"}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["parity"]]
    assert not [name for name in wanted if name.startswith("pytest")]
    code = "import sys; sys.modules['pytest'] = None; import parity; parity.check, parity.Verdict, parity.matrix"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A person's project; the plugin is named on its command line, so that it need not be installed anew."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makepyfile(train=PROGRAM)
    return pytester


def test_nothing_heavy_is_imported_until_the_fixture_is_used(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import sys

        HEAVY = {"jax", "torch", "flax", "optax", "numpy", "jaxreg", "altair", "rich"}

        def test_unused():
            assert not HEAVY & set(sys.modules)

        def test_used(parity):
            assert not HEAVY & set(sys.modules)
            assert parity.Port.__name__ == "Port"
            assert "jax" in sys.modules
        """
    )
    project.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=2)


@pytest.mark.thorough
def test_the_ini_setting_counts_from_the_root(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nparity_report = kept/deep\n")
    inner = project.mkdir("inner")
    (inner / "test_port.py").write_text("def test_port(parity):\n    assert parity.check('train.py').ok\n")
    project.runpytest_subprocess(*OPTIONS, "inner").assert_outcomes(passed=1)
    assert (project.path / "kept" / "deep" / "inner-test_port.py--test_port" / "report.md").is_file()


def test_the_fixture_is_listed_with_what_it_does(project: pytest.Pytester) -> None:
    listed = project.runpytest_subprocess(*OPTIONS, "--fixtures", "-q").stdout.str()
    assert "parity.check(program, port=None, **options)" in listed
    assert "--parity-report=FOLDER" in project.runpytest_subprocess(*OPTIONS, "--help").stdout.str()


def test_tests_whose_names_differ_in_a_blank_keep_apart() -> None:
    """Under xdist each is run by a process that does not know of the other."""
    names = ["t.py::test[a b]", "t.py::test[a-b]", "t.py::test[a/b]", "t.py::test[a b ]", f"t.py::test[{'a' * 200}]"]
    assert len({pytest_plugin._name_of(name) for name in names}) == len(names)
    assert pytest_plugin._name_of("tests/t.py::test[a-b]") == "tests-t.py--test-a-b"
    assert len(pytest_plugin._name_of(names[-1])) < 130

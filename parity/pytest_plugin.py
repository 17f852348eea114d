"""A pytest fixture: ``parity.check`` in people's own tests, where a divergence fails the test and explains itself.

pytest loads this file in every run, so it imports nothing heavy until a test asks for the fixture.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from parity._check import PortLike
    from parity._errors import ParityError
    from parity._verdict import Verdict
    from parity.capture.run_program import Program
    from parity.recording.recording import Recording

_FOLDERS = pytest.StashKey[set[str]]()
_FOLDER_NAME_LENGTH = 120


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini setting that keep reports."""
    parser.getgroup("parity", "parity of PyTorch and JAX").addoption(
        "--parity-report",
        metavar="FOLDER",
        help="keep the report of every parity.check in FOLDER, a folder for each test",
    )
    parser.addini("parity_report", "the folder to keep the report of every parity.check in, from the root", default="")


@pytest.fixture(name="parity")
def checker(request: pytest.FixtureRequest) -> Checker:
    """Give a test ``parity.check(program, port=None, **options)``, which fails it where the sides part, and says why.

    Everything else of the package ``parity`` is there too, as ``parity.Port``.
    """
    return Checker(request)


class Checker:
    """What the fixture gives: the package ``parity``, with a ``check`` that belongs to one test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("parity"), name)

    def check(self, program: Program | Recording, port: PortLike | None = None, **options: Any) -> Verdict:
        """Check a program against its port, and fail the test where they part.

        Args:
            program: as :func:`parity.check` takes it. The path of a script is looked for from the test file's folder,
                then from pytest's root.
            port, options: as :func:`parity.check` takes them.

        Returns:
            The verdict, where parity holds.

        Raises:
            DivergenceError: the sides part. pytest shows its explanation, and no traceback.
            ParityError: it could not be judged. Where no number of a stage is finite, pytest shows the same of it.
        """
        __tracebackhide__ = True
        from parity._errors import ParityError

        try:
            verdict, kept = self._judge(program, port, options)
        except ParityError as error:
            _without_our_frames(error)
        self._tell(verdict, kept)
        if not verdict.ok:
            _fail(verdict, kept)
        return verdict

    def _judge(
        self, program: Program | Recording, port: PortLike | None, options: dict[str, Any]
    ) -> tuple[Verdict, Path | None]:
        from parity._check import check

        if isinstance(program, str | os.PathLike):
            program = self._found(Path(program))
        verdict = check(program, port, **options)
        folder = self._folder()
        if folder is not None:
            verdict.save(folder)
        return verdict, folder

    def _found(self, path: Path) -> Path:
        from parity._errors import ProgramError

        places = dict.fromkeys([self._request.path.parent, self._request.config.rootpath])
        for place in places:
            if os.path.isfile(place / path):
                return place / path
        looked = " and in ".join(map(str, places))
        raise ProgramError(f"there is no program {path}; it was looked for in {looked}")

    def _folder(self) -> Path | None:
        """Return where this check's report goes; each of a test's checks, and each test, has a folder of its own."""
        config = self._request.config
        if option := config.getoption("--parity-report"):
            root = config.invocation_params.dir / option
        elif setting := config.getini("parity_report"):
            root = config.rootpath / setting
        else:
            return None
        name = _name_of(self._request.node.nodeid)
        taken = config.stash.setdefault(_FOLDERS, set())
        name = next(each for number in itertools.count(1) if (each := _numbered(name, number)) not in taken)
        taken.add(name)
        return Path(root) / name

    def _tell(self, verdict: Verdict, folder: Path | None) -> None:
        """Leave the result in the JUnit file."""
        told = {"program": verdict.name, "verdict": verdict.outcome}
        if (first := verdict.first_divergence) is not None:
            told |= {"stage": first.stage, "tensor": first.tensor, "step": str(first.step)}
        if verdict.causes:
            told["cause"] = verdict.causes[0].name
        if folder is not None:
            told["report"] = str(folder)
        self._request.node.user_properties.extend((f"parity.{key}", value) for key, value in told.items())


def _name_of(test: str) -> str:
    """Return a folder's name for a test.

    Two tests may differ only in what no folder's name can hold, and run in two processes that do not know of each
    other: then a few letters of their own tell them apart.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", test.replace("::", "--")).strip("-.")
    path, _, rest = test.partition("::")
    if (
        len(name) > _FOLDER_NAME_LENGTH
        or re.search(r"[^A-Za-z0-9_./-]", path)
        or re.search(r"[^A-Za-z0-9_.:\[\]-]", rest)
    ):
        return f"{name[:_FOLDER_NAME_LENGTH]}-{hashlib.sha256(test.encode()).hexdigest()[:6]}"
    return name


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _fail(verdict: Verdict, folder: Path | None) -> NoReturn:
    __tracebackhide__ = True
    from parity._errors import DivergenceError, ParityError

    kind, name = (ParityError, "NotJudged") if verdict.outcome == "not judged" else (DivergenceError, "Divergence")
    kept = [f"The report: {folder / 'report.html'}"] if folder is not None else []
    # A failure by pytest's own class is the one thing it prints bare; and a test may expect a DivergenceError.
    kinds = (pytest.fail.Exception, kind)
    shown: Any = type(name, kinds, {"__module__": "builtins", "__doc__": kind.__doc__})
    raise shown("\n".join([verdict.explanation, *kept]), pytrace=False)


def _without_our_frames(error: ParityError) -> NoReturn:
    """Raise an error of parity's again as if it came from the test's own line."""
    __tracebackhide__ = True
    if details := getattr(error, "program_traceback", ""):
        error.add_note(details)
    raise error.with_traceback(None) from None

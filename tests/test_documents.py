"""What the project says of itself in Markdown: short enough to read, links that lead somewhere, code that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import documents
from tests.test_structure import ROOMS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_WORDS = 1_200
MOST_WORDS_A_SENTENCE = 30
# Judges three trainings, which takes a minute.
_SLOW = {"using-parity.md"}
_NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


_WITH_CODE = [
    pytest.param(path, marks=[pytest.mark.thorough] if path.name in _SLOW else [])
    for path in DOCUMENTS
    if documents.examples(_read(path))
]


def test_the_readers_of_documents_see_what_is_there() -> None:
    text = "# On `a_b`, c\n\nTwo words. See [three](four.md#five), `six`\n\n| a | b |\n\n"
    text += "```python\nseven\n```\n\nEight (x, y). Nine:\n\n```text\nten\n```\n\n```text\neleven\n```\n- twelve\n"
    sentences = ["On `a_b`, c", "Two words.", "See [three], `six`", "Eight (x, y).", "Nine:", "twelve"]
    assert documents.sentences(text) == sentences
    assert documents.links(text) == ["four.md#five"]
    assert documents.anchors(text) == {"on-a_b-c"}
    assert [(one.source, one.shown) for one in documents.examples(text)] == [("seven\n", "ten\n")]


def test_readme_is_short() -> None:
    assert len(documents.prose(_read(README)).split()) <= MOST_WORDS


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_sentences_are_short(path: Path) -> None:
    assert [one for one in documents.sentences(_read(path)) if len(one.split()) > MOST_WORDS_A_SENTENCE] == []


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=_name)
def test_links_lead_to_what_is_there(path: Path) -> None:
    for link in documents.links(_read(path)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in documents.anchors(_read(target)), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_paths_in_documents_are_there(path: Path) -> None:
    """Files of the project that are named in code, such as ``parity/cli/check.py``."""
    named = re.findall(r"`((?:parity|jaxreg|tests|examples|docs)/[\w./-]*)`", _read(path))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_of_docs_is_linked_in_the_readme() -> None:
    links = {link.partition("#")[0] for link in documents.links(_read(README))}
    assert {_name(path) for path in (ROOT / "docs").glob("*.md")} <= links


def test_architecture_names_every_room() -> None:
    text = _read(ROOT / "ARCHITECTURE.md")
    for package, rooms in ROOMS.items():
        table = text.partition(f"## The rooms of `{package}`")[2].partition("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == rooms, package


def test_names_of_traps_are_those_of_causes() -> None:
    """The last column of the tables, whose names people look for."""
    sources = "".join(_read(path) for path in (ROOT / "parity" / "causes").rglob("*.py"))
    rows = re.findall(r"^\|.*\| ([^|]+) \|$", _read(ROOT / "docs" / "pytorch-to-jax-traps.md"), re.MULTILINE)
    names = [name for row in rows for name in row.split(", ") if name not in ("name", "---") and "`" not in name]
    assert len(names) > 50
    known = re.compile(r"none: .*|(?:Layer|Group|RMS)Norm epsilon")
    assert [name for name in names if f'"{name}"' not in sources and not known.fullmatch(name)] == []


@pytest.mark.thorough
@pytest.mark.parametrize("path", _WITH_CODE, ids=_name)
def test_code_of_documents_runs_and_prints_what_is_shown(path: Path, tmp_path: Path) -> None:
    """But for the numbers, which depend on the machine; ``python -m tests.helpers.documents`` writes them anew."""
    examples = documents.examples(_read(path))
    for example, printed in zip(examples, documents.outputs(examples, tmp_path), strict=True):
        if example.shown is not None:
            shown = documents.shown_anew(example, printed)
            assert _words(shown) == _words(example.shown)


def _words(text: str) -> list[str]:
    return _NUMBER.sub("#", text).split()

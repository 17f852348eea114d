"""What the project says of itself in Markdown: short enough to read, links that lead somewhere, code that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_structure import ROOMS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_WORDS = 1_200
MOST_WORDS_A_SENTENCE = 30
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")


# Judges three programs, which takes a minute.
_SLOW = {"using-parity.md"}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _prose(text: str) -> str:
    """The text without code blocks, tables and the addresses of links."""
    text = _CODE.sub("\n\n", text)
    text = re.sub(r"^\|.*$", "\n", text, flags=re.MULTILINE)
    return re.sub(r"\]\([^)]*\)", "]", text)


def _sentences(text: str) -> list[str]:
    """Sentences; a blank line, a heading or an item of a list ends one too."""
    paragraphs = re.split(r"\n\s*\n|^#+ |^\s*(?:[-*]|\d+\.) ", _prose(text), flags=re.MULTILINE)
    return [one for each in paragraphs for one in re.split(r"(?<=[.!?])[)*_`]*\s+", " ".join(each.split())) if one]


def _links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", _CODE.sub("", text))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.*)$", _CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


_WITH_CODE = [
    pytest.param(path, marks=[pytest.mark.thorough] if path.name in _SLOW else [])
    for path in DOCUMENTS
    if path.exists() and _blocks(_read(path), "python")
]


def test_the_readers_of_documents_see_what_is_there() -> None:
    text = "# One\n\nTwo words. See [three](four.md#five), `six`\n\n| a | b |\n\n"
    text += "```python\nseven\n```\n- eight (x, y). Nine\n"
    assert _sentences(text) == ["One", "Two words.", "See [three], `six`", "eight (x, y).", "Nine"]
    assert _links(text) == ["four.md#five"]
    assert _anchors("# On `a_b`, c\n") == {"on-a_b-c"}
    assert _blocks(text, "python") == ["seven\n"]


def test_readme_is_short() -> None:
    assert len(_prose(_read(README)).split()) <= MOST_WORDS


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_sentences_are_short(path: Path) -> None:
    assert [one for one in _sentences(_read(path)) if len(one.split()) > MOST_WORDS_A_SENTENCE] == []


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=_name)
def test_links_lead_to_what_is_there(path: Path) -> None:
    for link in _links(_read(path)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in _anchors(_read(target)), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_paths_in_documents_are_there(path: Path) -> None:
    """Files of the project that are named in code, such as ``parity/cli/check.py``."""
    named = re.findall(r"`((?:parity|jaxreg|tests|examples|docs)/[\w./-]*)`", _read(path))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_of_docs_is_linked_in_the_readme() -> None:
    links = {link.partition("#")[0] for link in _links(_read(README))}
    assert {_name(path) for path in (ROOT / "docs").glob("*.md")} <= links


def test_architecture_names_every_room() -> None:
    text = _read(ROOT / "ARCHITECTURE.md")
    for package, rooms in ROOMS.items():
        table = text.partition(f"## The rooms of `{package}`")[2].partition("\n## ")[0]
        named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
        assert named == rooms, package


def test_names_of_traps_are_those_of_causes() -> None:
    """The last column of the tables, whose names people look for."""
    sources = "".join(_read(path) for path in (ROOT / "parity" / "causes").rglob("*.py"))
    rows = re.findall(r"^\|.*\| ([^|]+) \|$", _read(ROOT / "docs" / "pytorch-to-jax-traps.md"), re.MULTILINE)
    names = [name for row in rows for name in row.split(", ") if name not in ("name", "---") and "`" not in name]
    assert len(names) > 50
    known = re.compile(r"none: .*|(?:Layer|Group|RMS)Norm epsilon")
    assert [name for name in names if f'"{name}"' not in sources and not known.fullmatch(name)] == []


@pytest.mark.parametrize("path", _WITH_CODE, ids=_name)
def test_code_of_documents_runs_and_prints_what_is_shown(path: Path, tmp_path: Path) -> None:
    """The Python blocks, one after the other, as one program in an empty folder with the line program in it.

    The text blocks right below them are what it prints, but for the numbers, which depend on the machine.
    """
    text = _read(path)
    (tmp_path / "train.py").write_text(_read(ROOT / "parity" / "programs" / "line.py"))
    program = "\n".join(_blocks(text, "python"))
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = [_NUMBER.sub("#", line.strip()) for line in done.stdout.splitlines()]
    for block in re.findall(r"^```python\n(?:(?!```).)*^```\n+```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            assert _NUMBER.sub("#", line.strip()) in printed, line

"""The page: made of the document alone, with everything from outside escaped."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from parity.report.render import html
from tests.helpers import sample_report as sample
from tests.helpers.sample_report import Document
from tests.report.conftest import MAKERS

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, attributes and text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text += data

    def ids(self) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get("id"))]


@pytest.fixture(scope="module")
def pages(rendered: dict[str, dict[str, bytes]]) -> dict[str, Page]:
    return {name: Page(contents["report.html"].decode()) for name, contents in rendered.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_tags_match_and_ids_are_unique(pages: dict[str, Page], name: str) -> None:
    ids = pages[name].ids()
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_points_outside(pages: dict[str, Page], name: str) -> None:
    for tag, attributes in pages[name].tags:
        assert tag not in {"img", "iframe", "object", "embed", "base", "form"}
        assert not any(key.startswith("on") for key in attributes)
        for key in ("href", "src", "action", "xlink:href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:,"))


@pytest.mark.parametrize("name", MAKERS)
def test_the_libraries_are_inlined_once(
    rendered: dict[str, dict[str, bytes]], pages: dict[str, Page], name: str
) -> None:
    kinds = [attributes.get("type") for tag, attributes in pages[name].tags if tag == "script"]
    assert kinds.count("module") == 2
    assert set(kinds) == {"module", "application/json"}
    assert rendered[name]["report.html"].count(b"window.vegaEmbed=") == 1


def test_only_the_page_s_own_scripts_may_run(pages: dict[str, Page]) -> None:
    policies = {
        attributes["content"]
        for page in pages.values()
        for tag, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    }
    [policy] = policies
    assert policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    assert "unsafe-eval" not in policy


@pytest.mark.parametrize("name", ["hostile", "failing"])
def test_text_from_outside_is_shown_as_text(pages: dict[str, Page], documents: dict[str, Document], name: str) -> None:
    from parity.report.render.escaping import visible

    shown = " ".join(pages[name].text.split())
    document = documents[name]
    program = document["programs"][0]
    outside = [
        document["headline"],
        document["command"],
        document["environment"]["platform"],
        program["title"],
        *program["verdict"]["sentences"],
        *(fact["value"] for fact in program["facts"]),
        program["code"]["jax"]["file"],
        program["first_divergence"]["message"],
        program["printed"][-1]["jax"],
        program["final"][0]["element"],
    ]
    for text in outside:
        assert " ".join(visible(text).split()) in shown


def test_the_verdict_comes_first(pages: dict[str, Page]) -> None:
    shown = " ".join(pages["failing"].text.split())
    places = [
        shown.index(words)
        for words in (
            "✗One of two programs",
            "What both sides print",
            "Stage by stage",
            "Final weights",
            "Where it ran",
        )
    ]
    assert places == sorted(places)


def test_parts_without_content_are_left_out() -> None:
    document = sample.holding()
    program = document["programs"][0]
    program.update(facts=[], printed=[], findings=[], final=[], timing=None)
    program["series"] = {"loss": [], "weights": [], "distance": [], "data": None}
    program["code"] = {side: {"file": "", "text": ""} for side in ("torch", "jax")}
    document["programs"] = [program]
    shown = Page(html.render(document)).text
    for heading in ("What both sides print", "Stage by stage", "Final weights", "Time", "Charts", "The code"):
        assert f">{heading}<" not in shown
        assert heading not in [line.strip() for line in shown.splitlines()]


def test_no_program_at_all() -> None:
    assert Page(html.render({**sample.holding(), "programs": []})).text


@pytest.mark.parametrize("name", MAKERS)
def test_a_notebook_gets_a_piece_without_scripts(documents: dict[str, Document], name: str) -> None:
    piece = html.fragment(documents[name]["programs"][0])
    page = Page(piece)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("svg") == 5
    assert not {"script", "style", "link", "img"} & set(tags)
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    ids = page.ids()
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", piece)) <= set(ids)


def test_two_pieces_in_one_notebook_share_no_id(documents: dict[str, Document]) -> None:
    ids = [Page(html.fragment(program)).ids() for program in documents["holding"]["programs"]]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])


def test_a_piece_takes_values_that_are_not_encoded() -> None:
    program = sample.holding()["programs"][0]
    program["series"]["loss"][0]["torch"] = float("nan")
    program["findings"][0]["difference"] = float("inf")
    assert "∞" in html.fragment(program)


def test_the_json_of_a_chart_can_be_read_back(rendered: dict[str, dict[str, bytes]]) -> None:
    page = rendered["hostile"]["report.html"].decode()
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert len(blocks) == 10
    assert all("<" not in block and json.loads(block)["layer"] for block in blocks)

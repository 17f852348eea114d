"""The page in a real browser. All frames of a test share one start of it, which takes seconds."""

from __future__ import annotations

from typing import Any

import pytest

from parity.report.render import charts
from parity.report.render.escaping import visible
from tests.helpers import sample_report as sample
from tests.helpers.browser import Visit, visit
from tests.helpers.sample_report import Document

NARROW, WIDE = 400, 1280
MEASURE = """
function tooltip(window, page) {
  const mark = page.querySelector("figure[id$='-weights'] svg .mark-symbol.role-mark path");
  if (!mark) return "";
  const { left, top, width, height } = mark.getBoundingClientRect();
  const at = { bubbles: true, view: window, clientX: left + width / 2, clientY: top + height / 2 };
  for (const kind of ["pointerover", "pointermove", "mouseover", "mousemove"])
    mark.dispatchEvent(new window[kind.startsWith("pointer") ? "PointerEvent" : "MouseEvent"](kind, at));
  return page.querySelector("#vg-tooltip-element")?.textContent ?? "";
}
function measure(window, page) {
  const root = page.documentElement;
  const box = (element) => element.getBoundingClientRect();
  const marks = (figure) => [...figure.querySelectorAll("svg .role-mark path, svg .role-mark line")]
    .filter((mark) => mark.tagName === "line" || (mark.getAttribute("d") || "").length > 4).length;
  const axis = page.querySelector("svg .role-axis-label text");
  return {
    overflow: root.scrollWidth - root.clientWidth,
    tables: [...page.querySelectorAll(".scroll:has(.stages)")].map((part) => part.scrollWidth - part.clientWidth),
    figures: [...page.querySelectorAll("figure.chart")].map((figure) => ({
      id: figure.id,
      drawn: figure.querySelectorAll("svg").length,
      marks: marks(figure),
      excess: Math.max(0, ...[...figure.querySelectorAll("svg")].map((svg) => box(svg).right - box(figure).right)),
      words: figure.querySelector(".drawing").textContent,
    })),
    names: [...page.querySelectorAll(".matrix tbody th, .matrix td code, .final tbody th code")].map((name) => {
      const range = page.createRange();
      range.selectNodeContents(name);
      return [name.textContent, range.getClientRects().length];
    }),
    headline: page.querySelector("h1")?.textContent ?? "",
    scripts: page.scripts.length,
    images: page.images.length,
    handlers: [...page.querySelectorAll("*")].filter((element) => element.hasAttribute("onerror")).length,
    panes: [...page.querySelectorAll(".pane")].slice(0, 2).map((pane) => [box(pane).left, box(pane).top]),
    requests: window.performance.getEntriesByType("resource").map((entry) => entry.name),
    dark: window.matchMedia("(prefers-color-scheme: dark)").matches,
    paper: window.getComputedStyle(page.body).backgroundColor,
    ink: window.getComputedStyle(page.body).color,
    axis: axis && axis.getAttribute("fill"),
    title: page.title,
    tooltip: tooltip(window, page),
    svgs: page.querySelectorAll("svg").length,
  };
}
"""
FRAMES = {
    f"{name} {width}": (name, width)
    for name, width in [
        ("holding", NARROW),
        ("holding", WIDE),
        ("failing", NARROW),
        ("failing", WIDE),
        ("diverging", NARROW),
        ("hostile", NARROW),
        ("hostile", WIDE),
        ("large", NARROW),
        ("large", WIDE),
    ]
}


@pytest.fixture(scope="module")
def pages(rendered: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
    return {name: contents["report.html"] for name, contents in rendered.items()}


@pytest.fixture(scope="module")
def light(pages: dict[str, bytes]) -> Visit:
    return visit(pages, FRAMES, MEASURE, "--blink-settings=preferredColorScheme=1")


@pytest.fixture(scope="module")
def dark(pages: dict[str, bytes]) -> Visit:
    frames = {"holding": ("holding", WIDE)}
    return visit(pages, frames, MEASURE, "--blink-settings=preferredColorScheme=0")


def expected(document: Document) -> list[str]:
    return [f"{program['name']}-{chart}" for program in document["programs"] for chart in charts.specs(program)]


def test_the_console_stays_empty_and_nothing_is_requested(light: Visit, dark: Visit) -> None:
    assert light.console == []
    assert dark.console == []
    # Each frame is asked for once, and the browser asks for nothing else.
    assert sorted(light.requests) == sorted(["/", *(f"/{path}" for path, _ in FRAMES.values())])
    assert sorted(dark.requests) == ["/", "/holding"]
    assert [frame["requests"] for frame in light.results.values()] == [[]] * len(FRAMES)


@pytest.mark.parametrize("frame", FRAMES)
def test_every_chart_is_drawn_within_its_figure(light: Visit, documents: dict[str, Document], frame: str) -> None:
    figures = light.results[frame]["figures"]
    assert [figure["id"] for figure in figures] == expected(documents[FRAMES[frame][0]])
    for figure in figures:
        assert (figure["drawn"], figure["excess"]) == (1, 0)
        assert figure["marks"] > 0
        assert "could not be drawn" not in figure["words"]


def test_the_tooltip_of_a_weight_names_it(light: Visit) -> None:
    told = light.results[f"holding {WIDE}"]["tooltip"]
    assert "weight[0, 0]" in told
    assert "PyTorch" in told
    assert "undefined" not in told


@pytest.mark.parametrize("frame", FRAMES)
def test_the_page_does_not_scroll_sideways(light: Visit, frame: str) -> None:
    assert light.results[frame]["overflow"] <= 0


@pytest.mark.parametrize("frame", [f"{name} {width}" for name in ("holding", "failing") for width in (NARROW, WIDE)])
def test_the_stage_table_fits_without_scrolling(light: Visit, frame: str) -> None:
    assert light.results[frame]["tables"] == [0, 0]


@pytest.mark.parametrize("frame", [f"{name} {width}" for name in ("holding", "failing") for width in (NARROW, WIDE)])
def test_no_name_is_broken_into_letters(light: Visit, frame: str) -> None:
    names = light.results[frame]["names"]
    assert len(names) >= 4
    assert [name for name, lines in names if lines > 1 + len(name) / 6] == []


def test_code_stands_side_by_side_or_stacks(light: Visit) -> None:
    [[left, top], [right, beside]] = light.results[f"holding {WIDE}"]["panes"]
    assert top == beside
    assert left < right
    [[left, top], [right, below]] = light.results[f"holding {NARROW}"]["panes"]
    assert left == right
    assert top < below


@pytest.mark.parametrize("frame", ["hostile 400", "hostile 1280"])
def test_text_from_outside_becomes_no_element_and_runs_nothing(
    light: Visit, documents: dict[str, Document], frame: str
) -> None:
    seen, document = light.results[frame], documents["hostile"]
    assert seen["headline"] == "✗" + visible(document["headline"])
    assert seen["scripts"] == len(expected(document)) + 2
    assert seen["images"] == 0
    assert seen["handlers"] == 0


def luminance(color: str) -> float:
    red, green, blue = (int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_the_dark_scheme_reaches_page_and_charts(light: Visit, dark: Visit) -> None:
    day, night = light.results[f"holding {WIDE}"], dark.results["holding"]
    assert (day["dark"], night["dark"]) == (False, True)
    assert luminance(day["paper"]) > 0.9 > 0.2 > luminance(day["ink"])
    assert luminance(night["paper"]) < 0.1 < 0.8 < luminance(night["ink"])
    assert (day["axis"], night["axis"]) == ("#4d5562", "#aab2bf")
    assert all(figure["marks"] for figure in night["figures"])


def test_the_policy_stops_what_escaping_would_have_missed_and_a_notebook_draws(pages: dict[str, bytes]) -> None:
    from parity.report.render import html

    injected = b"<script>document.title = 'ran'</script><img src='http://127.0.0.1:9/x.png' onerror='document.title=1'>"
    page = pages["diverging"].replace(b"<main>", b"<main>" + injected)
    assert page != pages["diverging"]
    piece = html.fragment(sample.hostile()["programs"][0])
    notebook = f"<!doctype html><meta charset=utf-8><title>mine</title><body style='margin:0'>{piece}</body>".encode()
    frames = {"injected": ("injected", WIDE), "notebook": ("notebook", 900)}
    seen = visit({"injected": page, "notebook": notebook}, frames, MEASURE)
    assert seen.results["injected"]["title"] not in ("ran", "1")
    told = [line for line in seen.console if "Content Security Policy" in line]
    assert len(told) >= 2
    assert seen.console == told
    piece_seen: dict[str, Any] = seen.results["notebook"]
    assert (piece_seen["svgs"], piece_seen["scripts"], piece_seen["images"]) == (5, 0, 0)
    assert piece_seen["title"] == "mine"
    assert "/x.png" not in seen.requests

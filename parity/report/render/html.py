"""The report as one page that needs nothing else, and one program's part of it for a notebook."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

import jinja2
import vl_convert
from markupsafe import Markup, escape

from parity.report.render import charts, drawings, matrix_rows, numbers
from parity.report.render import rows as _rows
from parity.report.render.escaping import visible
from parity.report.render.highlight import highlight
from parity.report.render.numbers import Json, JsonDict, JsonNumber


def render(document: Json) -> str:
    """Render the whole report.

    Args:
        document: the report as ``schema.json`` describes it, encoded.

    Returns:
        A page with its styles, scripts and charts inside, which the browser is told to keep from any request.
    """
    common = shared()
    programs = [{**program, "charts": _figures(program)} for program in document["programs"]]
    return _environment().get_template("page.html.j2").render(document=document, programs=programs, **common)


def javascript() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script that sets ``window.vegaEmbed``."""
    return drawings.once("javascript", lambda: vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def fragment(program: Json) -> str:
    """Render one program for a notebook: verdict, stage table and still charts, without any script.

    Args:
        program: one entry of the document's ``programs``, encoded or not.
    """
    program = numbers.encode(program)
    drawings = [
        {"title": spec["title"], "svg": _inline(charts.svg(spec), f"{program['name']}-{name}", spec["description"])}
        for name, spec in charts.specs(program).items()
    ]
    return _environment().get_template("fragment.html.j2").render(program=program, drawings=drawings)


def matrix_alone(held: Json) -> str:
    """Render the matrix that ``held`` has under ``matrix`` for a notebook, without a program around it."""
    words = (
        '{% import "parts.html.j2" as parts %}<div class="parity-matrix"><p>{{ matrix_note() }}</p>'
        "{{ parts.matrix(matrix_rows(held), matrix_stages(held)) }}</div>"
    )
    return _environment().from_string(words).render(held=held)


def _figures(program: Json) -> list[JsonDict]:
    return figures(charts.specs(program))


def figures(specs: Json) -> list[JsonDict]:
    """Return what a page's template makes figures of, from names to Vega-Lite specifications."""
    # The title is the figure's caption: words in an SVG do not wrap on a narrow screen.
    return [
        {
            "name": name,
            "title": spec["title"],
            "description": spec["description"],
            "json": _script_json({key: value for key, value in spec.items() if key != "title"}),
        }
        for name, spec in specs.items()
    ]


def _script_json(value: Json) -> Markup:
    """Write JSON that no parser of HTML or JavaScript can read as the end of its script."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _inline(svg: str, prefix: str, description: str) -> Markup:
    """Make a drawing fit to stand in a page next to others: ids of its own, a name for screen readers, fluid width."""
    svg = re.sub(r'(id="|url\(#)((?:clip|gradient)\w*)', rf"\g<1>parity-{prefix}-\g<2>", svg)
    head = f'<svg role="img" aria-label="{escape(description)}" style="max-width:100%;height:auto" '
    return Markup(svg.replace("<svg ", head, 1))


@lru_cache(maxsize=1)
def shared() -> JsonDict:
    """Return what every page has in common. Only scripts with these very hashes may run."""
    theme = f"const LIGHT = {json.dumps(charts.LIGHT)};\n"
    scripts = [javascript(), theme + _text("page.js")]
    for script in scripts:
        if "</script" in script.lower() or "<!--" in script:
            raise ValueError("the chart libraries hold text that would end their own script")
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return {
        "policy": "; ".join(
            [
                "default-src 'none'",
                "script-src " + " ".join(f"'sha256-{value}'" for value in hashes),
                "style-src 'unsafe-inline'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
        "scripts": [Markup(script) for script in scripts],
        "style": Markup(_text("page.css")),
    }


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def templates(package: str) -> jinja2.Environment:
    """Make an environment for the templates of a package; every value is escaped and must be given."""
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files(package).joinpath(name).read_text("utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = templates(__package__)
    environment.filters.update(visible=visible, integer=numbers.integer, typeset=numbers.typeset)
    environment.globals.update(
        printed=_rows.printed,
        printed_summary=_rows.printed_summary,
        findings=_findings,
        shown=_shown,
        folded=_rows.folded,
        notes=_rows.notes,
        causes=_rows.causes,
        warnings=_rows.warnings,
        matrix_rows=lambda program: matrix_rows.rows(program, numbers.typeset),
        matrix_stages=matrix_rows.stages,
        matrix_note=matrix_rows.note,
        timing=lambda row: _rows.timing(row, numbers.typeset),
        divergence=_rows.divergence,
        final_weights=lambda program: _rows.final(program, numbers.typeset),
        final_note=_rows.final_note,
        duration=numbers.duration,
        share=_share,
        highlight=highlight,
        long_list=_long_list,
        long_table=lambda rows: len(rows) > 60,
    )
    return environment


def _findings(program: Json) -> list[_rows.Finding]:
    return _rows.findings(program["findings"], style=numbers.typeset)


def _shown(program: Json) -> list[_rows.Finding]:
    return _rows.shown(program, style=numbers.typeset)


def _share(value: JsonNumber, *others: JsonNumber) -> float:
    """Return the length of a bar beside others, as a fraction of the longest."""
    longest = max((numbers.number(other) for other in (value, *others)), default=0.0)
    part = numbers.number(value) / longest if longest > 0 else 0.0
    return round(part, 4) if 0 <= part <= 1 else 1.0


def _long_list(rows: Sequence[object]) -> bool:
    return len(rows) > 12

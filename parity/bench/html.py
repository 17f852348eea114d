"""The benchmark as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from parity.bench import charts, table
from parity.report.render import html, numbers
from parity.report.render.numbers import Json


def render(document: Json, changes: Sequence[Json], remarks: Sequence[str] = ()) -> str:
    """Render the page.

    Args:
        document: what bench.json holds.
        changes: against an earlier run; none where there was none.
        remarks: what makes the two hard to compare.
    """
    figures = html.figures({f"chart-{number}": spec for number, spec in enumerate(charts.specs(document))})
    return _template().render(document=document, changes=changes, remarks=remarks, charts=figures, **html.shared())


def _template() -> jinja2.Template:
    environment = html.templates("parity.bench")
    environment.globals.update(table=table, time=numbers.duration)
    return environment.get_template("page.html.j2")

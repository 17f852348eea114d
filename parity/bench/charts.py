"""The benchmark's charts: Vega-Lite specifications, in the report's style."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from parity.report.render import numbers
from parity.report.render.charts import finish
from parity.report.render.numbers import Json, JsonDict

_ROW_PIXELS = 26
_GROUPS = ("jaxreg", "others")
_COLOR = alt.Color(field="whose", type="nominal", scale=alt.Scale(domain=list(_GROUPS)[::-1]), legend=None)


def specs(document: Json) -> list[JsonDict]:
    """Chart the times of each workload, of whole processes, and the roofline over all workloads."""
    found = [_times(workload["name"], workload, workload["peers"]) for workload in document["workloads"]]
    if document["starts"]:
        found.append(_times("start", None, document["starts"]))
    roof = _roofline(document)
    return [chart for chart in (roof, *found) if chart is not None]


def _times(name: str, workload: Json | None, timed: Sequence[Json]) -> JsonDict | None:
    rows = [
        {
            "way": each["name"],
            "median": each["median"],
            "low": min(min(turn) for turn in each["seconds"]),
            "high": max(max(turn) for turn in each["seconds"]),
            "label": numbers.duration(each["median"]),
            "whose": _GROUPS[0] if each["name"].startswith("jaxreg") else _GROUPS[1],
        }
        for each in timed
        if each["seconds"]
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: row["median"])
    limit = workload["least_seconds"] if workload else None
    lowest = min(row["low"] for row in rows)
    domain = [_decade(min(lowest, limit or lowest), -1), _decade(max(row["high"] for row in rows), 1)]
    scale = alt.Scale(type="log", domain=domain)
    axis = alt.Axis(labelExpr=_SECONDS_LABEL, title="seconds", values=_decades(*domain), grid=True)
    x = alt.X(field="median", type="quantitative", scale=scale, axis=axis)
    y = alt.Y(field="way", type="nominal", sort=[row["way"] for row in rows], title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart()
    spread = base.mark_rule(strokeWidth=5, opacity=0.35).encode(
        x=alt.X(field="low", type="quantitative", scale=scale), x2=alt.X2("high"), y=y, color=_COLOR
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=_COLOR)
    end = alt.X(field="high", type="quantitative", scale=scale)
    words = base.mark_text(align="left", dx=7).encode(x=end, y=y, text=alt.Text(field="label", type="nominal"))
    layers: list[alt.Chart] = [spread, dots, words]
    if limit:
        line = alt.Chart(alt.InlineData(values=[{"median": limit}])).mark_rule(strokeDash=[4, 3]).encode(x=x)
        layers.insert(0, line)
    title = f"{name}: warm calls, from the quickest to the slowest" + (
        f"; dashed, the limit of {numbers.duration(limit)}" if limit else ""
    )
    return finish(layers, rows, title, f"Seconds of each way to train {name}.", _ROW_PIXELS * len(rows))


_SECONDS_LABEL = (
    "datum.value >= 1 ? format(datum.value, '~g') + ' s' : datum.value >= 1e-3 ? format(datum.value * 1e3, '~g')"
    " + ' ms' : format(datum.value * 1e6, '~g') + ' µs'"
)


def _decade(value: float, direction: int) -> float:
    """Return the power of ten beyond a value, on that side."""
    power = math.log10(value)
    return float(10.0 ** (math.floor(power) if direction < 0 else math.ceil(power + 0.35)))


def _decades(low: float, high: float) -> list[float]:
    first, last = round(math.log10(low)), round(math.log10(high))
    return [10.0**power for power in range(first, last + 1)]


_ROOFLINE_PEERS = ("jaxreg", "PyTorch eager", "PyTorch by hand")


def _roofline(document: Json) -> JsonDict | None:
    """Chart the rate that each training reached, under what the machine can do."""
    limits = document["limits"]
    rows = [
        {
            "workload": workload["name"],
            "way": peer["name"],
            "intensity": workload["operations"] / workload["bytes"],
            "rate": workload["operations"] / peer["median"],
            "whose": _GROUPS[0] if peer["name"] == "jaxreg" else _GROUPS[1],
            "label": workload["name"] if peer["name"] == "jaxreg" else "",
        }
        for workload in document["workloads"]
        for peer in workload["peers"]
        if peer["name"] in _ROOFLINE_PEERS and peer["seconds"] and peer["same"]
    ]
    if not rows:
        return None
    ridge = limits["single"] / limits["bandwidth"]
    across = [row["intensity"] for row in rows]
    low, high = min(*across, ridge) / 4, max(*across, ridge) * 4
    roof = [
        {"intensity": each, "rate": min(limits["bandwidth"] * each, limits["single"])} for each in (low, ridge, high)
    ]
    log = alt.Scale(type="log", nice=False)
    x = alt.X(field="intensity", type="quantitative", scale=log, title="operations per byte read", axis=_ticks("~g"))
    y = alt.Y(field="rate", type="quantitative", scale=log, title="operations per second", axis=_ticks("~s"))
    line = alt.Chart(alt.InlineData(values=roof)).mark_line(strokeWidth=2, color="#8a919c").encode(x=x, y=y)
    tip = [alt.Tooltip(field=field, type="nominal") for field in ("workload", "way")]
    dots = alt.Chart().mark_point(filled=True, size=70, opacity=0.9).encode(x=x, y=y, color=_COLOR, tooltip=tip)
    words = alt.Chart().mark_text(align="left", dx=9).encode(x=x, y=y, text=alt.Text(field="label", type="nominal"))
    title = "Roofline: the operations that a training needs, over the time it took; the line is the machine’s limit"
    described = "Operations a second of jaxreg and of PyTorch for each workload, under the machine's limits."
    return finish([line, dots, words], rows, title, described, 340)


def _ticks(form: str) -> alt.Axis:
    return alt.Axis(format=form, tickCount=6)

"""The report's charts: Vega-Lite specifications from a program's series, and static SVG of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import cast

import altair as alt
import vl_convert

from parity.report.render import axes, drawings, numbers
from parity.report.render import titles as chart_titles
from parity.report.render.axes import drawable
from parity.report.render.escaping import visible
from parity.report.render.numbers import Json, JsonDict

WIDTH, HEIGHT = 640, 300
# Okabe and Ito's palette, darkened a little: the two sides stay apart for every kind of colour vision.
_COLOURS = ["#8a3ffc", "#1f7a4d", "#8a919c"]
LIGHT = {
    "background": "white",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "view": {"stroke": None},
    "mark": {"aria": False},
    "axis": {
        "domainColor": "#b9bec6",
        "gridColor": "#e8eaee",
        "tickColor": "#b9bec6",
        "labelColor": "#4d5562",
        "titleColor": "#4d5562",
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleLimit": HEIGHT,
    },
    "legend": {"labelColor": "#262b33", "titleColor": "#4d5562", "labelFontSize": 12},
    "title": {"color": "#262b33", "fontSize": 14, "fontWeight": 600, "anchor": "start", "offset": 12, "limit": WIDTH},
    "text": {"color": "#4d5562", "fontSize": 11, "limit": 200},
    "rule": {"color": "#8a919c"},
    "point": {"color": "#6b7280"},
    "range": {"category": ["#d9541e", "#00758f"], "ordinal": _COLOURS},
}
_CLIP = re.compile(r'(?:(?<=id=")|(?<=url\(#))clip\d+(?=["\)])')
_SIDES = ["PyTorch", "JAX"]
# How the two sides are drawn, in the chart and in its legend: one broad and pale, one thin and dashed on top.
_TORCH_STROKE_PIXELS, _TORCH_OPACITY, _JAX_STROKE_PIXELS, _JAX_DASH_PIXELS = 6, 0.45, 1.8, [5, 3]
_STROKE_SHARE = _TORCH_STROKE_PIXELS / HEIGHT
_DISTANCES = ["as trained", "in float64", "rounding bound as trained"]
_FLOOR_LABEL = "exactly equal"
# A distance below this is drawn at it: there must be floats below for what is exactly equal.
_LEAST_DISTANCE = 1e-200
_DISTANCE_CHARTS = 4
_LABELLED_LINES = 6
_LEGEND = alt.Legend(
    title=None,
    orient="top",
    symbolType="stroke",
    symbolStrokeWidth=alt.ExprRef(f"datum.value == 'JAX' ? {_JAX_STROKE_PIXELS} : {_TORCH_STROKE_PIXELS}"),
    symbolDash=alt.ExprRef(f"datum.value == 'JAX' ? {_JAX_DASH_PIXELS} : []"),
    symbolSize=400,
    labelOffset=12,
    symbolOpacity=alt.ExprRef(f"datum.value == 'JAX' ? 1 : {_TORCH_OPACITY}"),
    columnPadding=28,
    offset=6,
)
_SIDE = alt.Color(field="side", type="nominal", scale=alt.Scale(domain=_SIDES), legend=_LEGEND)


def specs(program: Json) -> dict[str, JsonDict]:
    """Build the charts of one program.

    Args:
        program: one entry of the document's ``programs``.

    Returns:
        Names (letters, digits and dashes: good in file names) to Vega-Lite specifications, as wide as their container.
        Steps with values that are not finite, or too large to be drawn, are left out, and charts without any value too.
    """
    # The page, the Markdown and the images each ask for the same charts, which take a quarter of a second to build.
    series, ok = program["series"], program["verdict"]["ok"]
    if program["verdict"].get("outcome") == "not judged":
        ok = None
    key = json.dumps(["specs", series, ok])
    return cast(dict[str, JsonDict], json.loads(drawings.once(key, lambda: _specs(series, ok))))


def _specs(series: Json, ok: bool | None) -> str:
    charts: dict[str, JsonDict] = {}
    if loss := drawable(series["loss"], "torch", "jax"):
        charts["loss"] = _loss(loss, ok)
    if weights := drawable(series["weights"], "torch", "jax"):
        charts["weights"] = _weights(weights, ok)
    distance = [dict(row) for row in series["distance"] if math.isfinite(numbers.number(row["float32"]))]
    for tensor in list(dict.fromkeys(row["tensor"] for row in distance))[:_DISTANCE_CHARTS]:
        rows = [row for row in distance if row["tensor"] == tensor]
        charts[_slug(f"distance-{tensor}", charts)] = _distance(rows, tensor)
    if series["data"] is not None and (points := drawable(series["data"]["points"], "x", "y")):
        charts["data"] = _data(points, series["data"], ok)
    return json.dumps(charts, allow_nan=False)


def svg(spec: Json) -> str:
    """Draw a specification as a static SVG of fixed width, for light and dark surroundings alike."""
    return drawings.once(json.dumps(["svg", spec]), lambda: _svg(spec))


def _svg(spec: Json) -> str:
    still = [layer for layer in spec["layer"] if "params" not in layer]
    fixed = {**spec, "layer": still, "width": WIDTH, "height": HEIGHT}
    drawing: str = vl_convert.vegalite_to_svg(fixed, config=LIGHT, allowed_base_urls=[])
    # Vega numbers its clips through the life of the process; the same chart must give the same file.
    numbered = {name: f"clip{i}" for i, name in enumerate(dict.fromkeys(_CLIP.findall(drawing)))}
    return _CLIP.sub(lambda match: numbered[match.group()], drawing)


def _slug(text: str, taken: Json) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower())[:60].strip("-")
    candidates = [slug, *(f"{slug}-{i}" for i in range(2, len(taken) + 3))]
    return next(name for name in candidates if name not in taken)


def _pair(x: alt.X, title: str, values: Sequence[float], log: bool, **detail: alt.Detail) -> list[alt.Chart]:
    """Draw PyTorch broad and pale, and JAX thin and dashed on top: both stay visible where they coincide."""
    thick = alt.Chart().mark_line(
        strokeWidth=_TORCH_STROKE_PIXELS, opacity=_TORCH_OPACITY, strokeCap="round", clip=True
    )
    thin = alt.Chart().mark_line(strokeWidth=_JAX_STROKE_PIXELS, strokeDash=_JAX_DASH_PIXELS, clip=True)
    torch, own = (axes.axis(field, title, values, log) for field in ("torch", "jax"))
    return [
        thick.transform_calculate(side="'PyTorch'").encode(x=x, y=torch, color=_SIDE, **detail),
        thin.transform_calculate(side="'JAX'").encode(x=x, y=own, color=_SIDE, **detail),
    ]


def _tooltip(**titles: str) -> list[alt.Tooltip]:
    return [_value(field, title, ",d" if field == "step" else ".9~g") for field, title in titles.items()]


def _value(field: str, title: str, form: str) -> alt.Tooltip:
    return alt.Tooltip(field=field, type="quantitative", title=title, format=form)


def _word(field: str, title: str) -> alt.Tooltip:
    return alt.Tooltip(field=field, type="nominal", title=title)


def _hover(x: alt.X, y: alt.Y, tooltip: list[alt.Tooltip], nearest: bool = True) -> alt.Chart:
    """Mark the point at the pointer and show its values; nothing moves and nothing grabs the scroll wheel.

    Vega-Lite has no words in the tooltip of the ``nearest`` point, only numbers: it looks for them in the wrong place.
    """
    near = alt.selection_point(on="pointerover", clear="pointerout", nearest=nearest, empty=False, name="near")
    marks = alt.Chart().mark_point(filled=True, size=45 if nearest else 150, opacity=0)
    shown = alt.condition(near, alt.value(0.9), alt.value(0))
    return marks.encode(x=x, y=y, opacity=shown, tooltip=tooltip).add_params(near)


def finish(
    layers: Sequence[alt.Chart], rows: Sequence[Json], title: str, description: str, height: int = HEIGHT
) -> JsonDict:
    """Return the specification of layers over rows, as wide as its container."""
    chart = alt.layer(*layers, data=alt.InlineData(values=[])).properties(
        width="container", height=height, title=title, description=description
    )
    # Altair's own theme would override the page's.
    with alt.theme.enable("none"):
        spec = chart.to_dict(context={"consolidate_datasets": False})
    # Put in only now, because Altair would hold every row against its schema, which takes most of the time.
    return {**spec, "data": {"values": list(rows)}}


def _loss(rows: list[JsonDict], ok: bool | None) -> JsonDict:
    values = chart_titles.both(rows)
    log = axes.is_log(values)
    x = axes.steps(rows)
    tooltip = _tooltip(step="step", torch="PyTorch", jax="JAX")
    together = chart_titles.together(rows, values if log else axes.linear(values), _STROKE_SHARE, log)
    title = chart_titles.title(
        "Loss", "JAX’s dashed line lies on PyTorch’s", "where does JAX’s line leave PyTorch’s?", ok, together
    )
    layers = [*_pair(x, "loss", values, log), _hover(x, axes.axis("torch", "loss", values, log), tooltip)]
    return finish(layers, rows, title, "The loss over the steps, of PyTorch and of JAX.")


def _weights(rows: list[JsonDict], ok: bool | None) -> JsonDict:
    for row in rows:
        row["tensor"] = visible(row["tensor"])
    values = chart_titles.both(rows)
    x, detail = axes.steps(rows), alt.Detail(field="tensor", type="nominal")
    tooltip = [_word("tensor", "weight"), *_tooltip(step="step", torch="PyTorch", jax="JAX")]
    together = chart_titles.together(rows, axes.linear(values), _STROKE_SHARE)
    title = chart_titles.title(
        "Weights", "both sides take the same path", "where does JAX’s path leave PyTorch’s?", ok, together
    )
    y = axes.axis("torch", "weight", values)
    layers = [*_pair(x, "weight", values, False, detail=detail), _hover(x, y, tooltip, False)]
    labels = _line_labels(rows)
    text = alt.Chart(alt.InlineData(values=labels)).mark_text(align="right", baseline="bottom", fontWeight=600)
    if labels:
        layers.append(text.encode(x=x, y=y, text=alt.Text(field="tensor", type="nominal")))
    return finish(layers, rows, title, "Each element of the weights over the steps, of PyTorch and of JAX.")


def _line_labels(rows: list[JsonDict]) -> list[JsonDict]:
    """Put each line's name above its end; lines that end close together get theirs one above the other."""
    last = {row["tensor"]: row for row in rows}
    if len(last) > _LABELLED_LINES:
        return []
    values = [row[side] for row in rows for side in ("torch", "jax")]
    gap = 0.07 * (max(values) - min(values))
    labels: list[JsonDict] = []
    for row in sorted(last.values(), key=lambda row: cast(float, row["torch"])):
        y = row["torch"] + gap / 4
        labels.append({**row, "torch": max(y, labels[-1]["torch"] + gap) if labels else y})
    return labels


def _distance(rows: list[JsonDict], tensor: str) -> JsonDict:
    keys = ("float32", "float64", "bound")
    long = [
        {"step": row["step"], "kind": kind, "value": numbers.number(row[key])}
        for row in rows
        for key, kind in zip(keys, _DISTANCES, strict=True)
        # Before the first step nothing is rounded, and a bound of zero would be a line straight up from the floor.
        if key != "bound" or numbers.number(row[key]) > 0
    ]
    long = [row for row in long if math.isfinite(row["value"])]
    positive = [min(max(row["value"], _LEAST_DISTANCE), axes.LARGEST) for row in long if row["value"] > 0]
    low = math.floor(math.log10(min(positive, default=1e-8)))
    high = max(math.ceil(math.log10(max(positive, default=1e-7))), low + 1)
    # Room for words below all distances.
    room = max(1.0, (high - low) / 12)
    floor, domain = 10.0 ** (low - room), [10.0 ** (low - 1.7 * room), 10.0**high]
    for row in long:
        # A logarithmic axis has no zero, and exactly equal is the most common distance of all.
        row["shown"] = min(max(row["value"], 10.0**low), 10.0**high) if row["value"] > 0 else floor
    every = max(1, math.ceil((high - low) / 6))
    decades = [10.0**power for power in range(low, high + 1, every)]
    axis = alt.Axis(values=[floor, *decades], labelExpr=f"datum.value <= {floor * 2} ? '0' : {axes.label(domain)}")
    y = alt.Y(
        field="shown", type="quantitative", title="distance", scale=alt.Scale(type="log", domain=domain), axis=axis
    )
    name = visible(tensor)
    title = f"Distance between the two sides: {name}"
    kinds = [kind for kind in _DISTANCES if any(row["kind"] == kind for row in long)]
    layers = _distance_layers(axes.steps(rows), y, floor, rows[0]["step"], kinds)
    description = (
        f"The largest difference between PyTorch and JAX in {name} over the steps: as trained, with the bound on its "
        "rounding, and in float64."
    )
    return finish(layers, long, title, description)


def _distance_layers(x: alt.X, y: alt.Y, floor: float, first: int, kinds: list[str]) -> list[alt.Chart]:
    # The bound is a dashed line, and so it is in the legend. Static drawings measure words too narrow: so the padding.
    bound = f"datum.value == '{_DISTANCES[2]}'"
    legend = alt.Legend(
        title=None,
        orient="top",
        symbolType=alt.ExprRef(f"{bound} ? 'stroke' : 'circle'"),
        symbolDash=alt.ExprRef(f"{bound} ? [4, 3] : []"),
        symbolSize=alt.ExprRef(f"{bound} ? 500 : 90"),
        symbolOpacity=1,
        columnPadding=28,
        offset=6,
        labelLimit=0,
    )
    color = alt.Color(
        field="kind",
        type="nominal",
        scale=alt.Scale(domain=kinds, range=_COLOURS[: len(kinds)]),
        legend=legend,
    )
    tooltip = [_word("kind", "what"), _value("step", "step", ",d"), _value("value", "distance", ".3~g")]
    # Where both are exactly equal, the small dot of float64 lies inside the larger one.
    size = alt.condition(f"datum.kind == '{_DISTANCES[0]}'", alt.value(44), alt.value(14))
    is_bound = alt.FieldEqualPredicate(field="kind", equal=_DISTANCES[2])
    at_floor = alt.Chart(alt.InlineData(values=[{"step": first, "shown": floor, "label": _FLOOR_LABEL}]))
    label = at_floor.mark_text(align="left", baseline="top", dx=4, dy=5, fontStyle="italic")
    return [
        at_floor.mark_rule(strokeDash=[2, 3]).encode(y=y),
        alt.Chart()
        .mark_line(strokeWidth=1.5, strokeDash=[6, 3], clip=True)
        .transform_filter(is_bound)
        .encode(x, y, color),
        alt.Chart()
        .mark_point(filled=True, opacity=0.65, clip=True)
        .transform_filter({"not": is_bound})
        .encode(x=x, y=y, color=color, size=size, tooltip=tooltip),
        label.encode(x=x, y=y, text=alt.Text(field="label", type="nominal")),
    ]


def _data(points: list[JsonDict], data: Json, ok: bool | None) -> JsonDict:
    lines = drawable(data["lines"], "x", "torch", "jax")
    seen = [row["y"] for row in points] + chart_titles.both(lines)
    x = axes.across("x", visible(data["x_label"]), [row["x"] for row in [*points, *lines]])
    label = visible(data["y_label"])
    y = axes.axis("y", label, seen)
    tooltip = [_value("x", "x", ".6~g"), _value("y", "y", ".6~g")]
    dots = alt.Chart(alt.InlineData(values=points)).mark_point(filled=True, size=34, opacity=0.55)
    layers = [dots.encode(x=x, y=y, tooltip=tooltip)]
    if lines:
        layers += [side.properties(data=alt.InlineData(values=lines)) for side in _pair(x, label, seen, False)]
    together = not lines or chart_titles.together(lines, axes.linear(seen), _STROKE_SHARE)
    holds, asks = "both sides fit the same line", "do both sides fit the same line?"
    title = chart_titles.title("The data", holds, asks, ok, together)
    if not lines:
        return finish(layers, points, "The data", "The data.")
    return finish(layers, points, title, "The data, with the line that PyTorch fits and the line that JAX fits.")

"""A sample document of a model with many tensors, whose tables fold."""

from __future__ import annotations

from tests.helpers import sample_report as sample
from tests.helpers.sample_report import Document

TENSORS = [f"blocks.{block}.{name}" for block in range(10) for name in ("attn.weight", "attn.bias", "mlp.weight")]
STAGES = ("gradient", "optimizer state", "update", "trajectory", "final weights")
# At which step the tensors of the update fail that do; all other stages hold, but for one gradient.
FAILING = {name: 30 - place for place, name in enumerate(TENSORS[:9])}


def findings() -> list[Document]:
    """150 checks: nine updates fail, the last in order first in time; one gradient does; the rest holds."""
    rows = []
    for stage in STAGES:
        for place, name in enumerate(TENSORS):
            row = sample.finding(stage, name, difference=place * 1e-8, float64_difference=place * 1e-17)
            if stage == "update" and name in FAILING:
                row.update(holds=False, same_program=False, off="program", step=FAILING[name], message="another rate")
                row.update(bound_used={"torch": 0.5, "jax": 40.0}, within={"torch": True, "jax": False})
            if stage == "gradient" and place == 29:
                row.update(holds=False, off="jax", step=40, message="beyond its bound")
                row.update(bound_used={"torch": 0.5, "jax": "NaN"}, within={"torch": True, "jax": False})
            rows.append(row)
    return rows


def large() -> Document:
    """One program of 30 tensors."""
    document = sample.failing()
    [program] = document["programs"] = document["programs"][:1]
    program["findings"] = findings()
    program["causes"].append(sample.cause(name="no fix known", fix="", stage=None, tensor=None, step=None))
    return document

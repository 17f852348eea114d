"""Sample documents: small trainings, run here in NumPy with two orders of summation, as two frameworks would."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from parity.report.render import numbers

Document = dict[str, Any]

TORCH_CODE = '''\
"""A line through noisy points."""
import torch

torch.manual_seed(0)
model = torch.nn.Linear(1, 1)
loss_fn = torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

x = torch.randn(100, 1)
y = 2 * x + torch.randn(100, 1)

for i in range(1000):
    loss = loss_fn(model(x), y)
    optimizer.zero_grad()  # gradients accumulate otherwise
    loss.backward()
    optimizer.step()

print("Estimated weight:", model.weight.item())
'''
JAX_CODE = '''\
"""The same training in JAX, as one compiled program."""
import jax
import jax.numpy as jnp
import jaxreg


@jax.jit
def train(params, x, y):
    def step(params, _):
        loss, grads = jax.value_and_grad(mean_squared_error)(params, x, y)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), loss

    return jax.lax.scan(step, params, length=1000)
'''


def _train(x: np.ndarray, y: np.ndarray, rate: float, steps: int, *, dtype: type, order: int) -> np.ndarray:
    """Fit a line by gradient descent; return loss, weight and bias a step. ``order`` is that of the summation."""
    x, y = x.astype(dtype)[::order], y.astype(dtype)[::order]
    weight, bias, rows = dtype(0.3), dtype(-0.2), []
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            error = weight * x + bias - y
            rows.append((np.mean(error * error), weight, bias))
            weight = dtype(weight - dtype(rate) * dtype(2) * np.mean(error * x))
            bias = dtype(bias - dtype(rate) * dtype(2) * np.mean(error))
    rows.append((rows[-1][0], weight, bias))
    return np.asarray(rows)


def _ulps(a: float, b: float) -> int | float:
    if not np.isfinite(a) or not np.isfinite(b):
        return float("nan")
    return round(abs(a - b) / float(np.spacing(np.float32(max(abs(a), abs(b))))))


def _apart(a: float, b: float) -> float:
    return float(abs(a - b)) if np.isfinite(a) and np.isfinite(b) else float("nan")


def _series(x: np.ndarray, y: np.ndarray, sides: list[np.ndarray], data: Document) -> Document:
    torch, jax, torch64, jax64 = sides
    steps = range(0, len(torch), max(1, len(torch) // 250))
    names = ["weight", "bias"]
    line = np.linspace(x.min(), x.max(), 2)
    return {
        "loss": [{"step": i, "torch": torch[i, 0], "jax": jax[i, 0]} for i in steps],
        "weights": [
            {
                "tensor": f"{name}[0{', 0' if name == 'weight' else ''}]",
                "step": i,
                "torch": torch[i, k],
                "jax": jax[i, k],
            }
            for k, name in enumerate(names, 1)
            for i in steps
        ],
        "distance": [
            {
                "tensor": name,
                "step": i,
                "float32": _apart(torch[i, k], jax[i, k]),
                "float64": _apart(torch64[i, k], jax64[i, k]),
                "bound": 6e-7 * abs(torch64[i, k]) * (1 + i) ** 0.5,
            }
            for k, name in enumerate(names, 1)
            for i in steps
        ],
        "data": {
            **data,
            "points": [{"x": a, "y": b} for a, b in zip(x, y, strict=True)],
            "lines": [
                {"x": a, "torch": torch[-1, 1] * a + torch[-1, 2], "jax": jax[-1, 1] * a + jax[-1, 2]} for a in line
            ],
        },
    }


def finding(stage: str, tensor: str, **changes: Any) -> Document:
    """Build a finding that holds, with changes."""
    return {
        "stage": stage,
        "tensor": tensor,
        "holds": True,
        "same_program": True,
        "zero": False,
        "difference": 1.19e-7,
        "ulps": 1,
        "float64_difference": 1.6e-16,
        "float64_bound": 4.4e-14,
        "bound_used": {"torch": 0.031, "jax": 0.0247},
        "unbounded": 0.0,
        "within": {"torch": True, "jax": True},
        "off": None,
        "step": None,
        "message": "",
        **changes,
    }


def _findings() -> list[Document]:
    used = {"torch": 0.062, "jax": 0.0034}
    return [
        finding("forward", "predictions", difference=2.38e-7, ulps=2),
        finding("loss", "loss", difference=0.0, ulps=0, bound_used={"torch": 0.001, "jax": 0.001}),
        finding("gradient", "weight", difference=4.77e-7, ulps=17, bound_used=used),
        finding("gradient", "bias", difference=1.79e-7, ulps=1234567, bound_used=used),
        finding("update", "weight", difference=0.0, ulps=0, float64_difference=0.0),
        finding("update", "bias", bound_used={"torch": 0.48, "jax": 0.51}),
        finding("trajectory", "weight", float64_bound=1.2e-12, bound_used={"torch": 2e-6, "jax": 1e-6}),
        finding("trajectory", "bias", float64_bound=1.2e-12),
        finding("final weights", "weight"),
        finding("final weights", "bias", difference=0.0, ulps=0),
    ]


def _final(torch: np.ndarray, jax: np.ndarray, torch64: np.ndarray) -> list[Document]:
    return [
        {
            "tensor": name,
            "element": element,
            "torch": torch[-1, k],
            "jax": jax[-1, k],
            "float64": torch64[-1, k],
            "ulps": _ulps(torch[-1, k], jax[-1, k]),
        }
        for k, name, element in ((1, "weight", "[0, 0]"), (2, "bias", "[0]"))
    ]


def _program(name: str, x: np.ndarray, y: np.ndarray, rate: float, steps: int = 1000, **changes: Any) -> Document:
    sides = [_train(x, y, rate, steps, dtype=dtype, order=o) for dtype in (np.float32, np.float64) for o in (1, -1)]
    data = changes.pop("data")
    return {
        "name": name,
        "title": changes.pop("title"),
        "verdict": {
            "ok": True,
            "headline": "The same training.",
            "sentences": [
                f"All {steps:,} steps agree: in float64 the two sides differ by 1.6e-16 at most, as by rounding.",
                "In float32 each side stays within 51% of what its own rounding explains.",
            ],
        },
        "facts": [
            {"label": "Model", "value": "Linear(in_features=1, out_features=1, bias=True)"},
            {"label": "Loss", "value": "MSELoss(reduction='mean')"},
            {"label": "Optimizer", "value": f"SGD(lr={rate:g})"},
            {"label": "Data", "value": f"{len(x)} rows, one input, one target, float32"},
            {"label": "Steps", "value": f"{steps:,}, full batch"},
        ],
        "code": {
            "torch": {"file": f"{name}.py", "text": TORCH_CODE},
            "jax": {"file": f"{name}_jax.py", "text": JAX_CODE},
        },
        "printed": [
            {
                "torch": f"Estimated weight: {sides[0][-1, 1]}",
                "jax": f"Estimated weight: {sides[0][-1, 1]}",
                "same": True,
            }
        ],
        "findings": _findings(),
        "first_divergence": None,
        "final": _final(*sides[:3]),
        "timing": {
            "steps": steps,
            "repeats": 7,
            "torch_seconds": 0.1873,
            "jax_seconds": 0.00131,
            "ratio": 143.0,
            "ratio_low": 131.2,
            "ratio_high": 150.9,
            "compile_seconds": 0.212,
        },
        "series": _series(x, y, sides, data),
        **changes,
    }


def _line() -> Document:
    random = np.random.default_rng(0)
    x = random.standard_normal(100)
    y = 2 * x + random.standard_normal(100)
    return _program("line", x, y, 0.01, title="The fitted line", data={"x_label": "x", "y_label": "y"})


def _houses(**changes: Any) -> Document:
    x = np.array([850, 900, 1200, 1500, 1700, 1850, 2100, 2200, 2300, 2400], dtype=np.float64)
    y = np.array([150, 160, 200, 240, 280, 300, 340, 360, 380, 400], dtype=np.float64)
    labels = {"x_label": "living area (square feet)", "y_label": "price (1,000 dollars)"}
    program = _program("houses", x, y, 1e-7, title="House prices", data=labels)
    lines = [f"Epoch [{epoch}/1000], Loss: {50 + 4e4 / epoch:.4f}" for epoch in range(100, 1001, 100)]
    lines.append("The predicted price of a house with 2000 square feet is: 331.5038146972656 thousand dollars.")
    program["printed"] = [{"torch": line, "jax": line, "same": True} for line in lines]
    program.update(changes)
    return program


def holding() -> Document:
    """Both programs hold."""
    document = {
        "version": 1,
        "ok": True,
        "headline": "Both programs are the same training in PyTorch and in JAX.",
        "command": "parity report",
        "created": "2026-01-05T12:00:00+00:00",
        "environment": {
            "python": "3.11.2",
            "platform": "Linux x86_64, 2 processors",
            "versions": {"torch": "2.12.0", "jax": "0.11.0", "flax": "0.12.1", "optax": "0.2.6", "numpy": "2.4.6"},
            "devices": {"torch": "cpu", "jax": "cpu"},
            "precision": "highest (no TF32, no bfloat16)",
            "threads": {"torch": 1, "jax": 2},
        },
        "programs": [_line(), _houses()],
    }
    return dict(numbers.encode(document))


def cause(**changes: Any) -> Document:
    """What explains the failing program."""
    return {
        "name": "half loss",
        "sentence": "With its gradients doubled the two agree within 1e-15: the loss is half of PyTorch's.",
        "fix": "use 2 * optax.l2_loss, or jaxreg.mse_loss",
        "stage": "gradient",
        "tensor": "weight",
        "step": 1,
        "agreement": 1e-15,
        **changes,
    }


def matrix() -> Document:
    """A CPU where all holds, and a GPU that rounds its products' operands or has not the precision."""
    cells = []
    for platform, precision, error in [("cpu", "highest", 1e-8), ("gpu", "highest", 1e-8), ("gpu", "high", 1e-4)]:
        used = {"holds": error < 1e-6, "tensor": "weight", "bound_used": error * 1e7, "relative_error": error}
        stages = [{"stage": stage, **used} for stage in ("forward", "gradient", "update")]
        where = {"platform": platform, "device": f"a {platform}", "precision": precision, "failure": ""}
        cells.append({**where, "holds": error < 1e-6, "stages": stages})
    lacking = {"platform": "gpu", "device": "a gpu", "precision": "BF16_BF16_F32", "failure": "not | supported here"}
    return {"holds": True, "cells": [*cells, {**lacking, "holds": False, "stages": []}]}


def failing() -> Document:
    """One program holds; the other's port has a gradient of the wrong size."""
    document = holding()
    document.update(ok=False, headline="One of two programs is not the same training in JAX.")
    program = document["programs"][0]
    message = "the gradient is 0.5 times PyTorch's: is the loss halved, or summed where PyTorch takes the mean?"
    out = {"holds": False, "same_program": False, "float64_difference": 0.5, "off": "program", "step": 1}
    program["verdict"] = {
        "ok": False,
        "headline": "Not the same training: the gradients part at step 1.",
        "sentences": ["The forward pass and the loss agree.", "Halving the loss explains every difference."],
    }
    for row in program["findings"]:
        if row["stage"] == "gradient":
            row.update(out, difference=1.87, ulps=8388608, message=message)
            row.update(bound_used={"torch": 0.06, "jax": 2.4e6}, within={"torch": True, "jax": False})
        if row["stage"] in ("trajectory", "final weights"):
            row.update(out, difference=0.12, ulps=1006633, step=2, message="follows from the gradient")
    program["first_divergence"] = {"stage": "gradient", "tensor": "weight", "step": 1, "message": message}
    program["causes"] = [cause()]
    program["warnings"] = ["The probabilistic bound is exceeded at 2 of 1,000 steps."]
    program["matrix"] = matrix()
    program["printed"] = [{"torch": "Estimated weight: 1.9984", "jax": "Estimated weight: 1.8611", "same": False}]
    program["timing"] = None
    for row in program["series"]["weights"]:
        row["jax"] *= 1 - np.exp(-row["step"] / 300).item() * 0.5
    for row in program["series"]["loss"]:
        row["jax"] *= 1 + np.exp(-row["step"] / 300).item() * 0.5
    for row in program["series"]["distance"]:
        row["float64"] = row["float32"] = 0.5 * np.exp(-row["step"] / 400).item()
    return document


def diverging() -> Document:
    """A learning rate so large that the training leaves the numbers, on both sides alike."""
    random = np.random.default_rng(1)
    x = random.standard_normal(40)
    program = _program(
        "diverging", x, 2 * x, 4.0, 250, title="A training that diverges", data={"x_label": "x", "y_label": "y"}
    )
    inf = float("inf")
    program["findings"][6].update(difference=float("nan"), ulps=float("nan"), float64_difference=inf, float64_bound=inf)
    program["timing"].update(ratio=float("nan"), ratio_low=float("nan"), ratio_high=inf)
    for row in program["series"]["distance"]:
        row["bound"] = inf
    document = holding()
    document["programs"] = [dict(numbers.encode(program))]
    return document


HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"quotes' `ticks` | pipe \u2028 \u202e{{ 7*7 }}"
    " ${1} <!-- [link](http://example.invalid) ](x) \x1b[31mred \\ & &lt; é 漢字 𝔘"
)


def hostile() -> Document:
    """Every string that may hold anything holds the worst; names that become file names cannot."""

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: spoil(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [spoil(item, key) for item in value]
        plain = not isinstance(value, str) or value in ("NaN", "Infinity", "-Infinity")
        return value if plain or key in ("name", "stage", "off") else f"{HOSTILE} {value}"

    document = failing()
    document["programs"][0]["printed"].append({"torch": "```", "jax": "~~~\n# heading", "same": False})
    return dict(spoil(copy.deepcopy(document)))

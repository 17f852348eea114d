"""The judge: recording, replay and bounds into findings, stage by stage and tensor by tensor; NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from parity._bounds import Bounds
from parity._recording import Array, Recording, Trace
from parity._replay import Replay

STAGES = (
    "initial weights",
    "forward",
    "loss",
    "gradient",
    "optimizer state",
    "update",
    "trajectory",
    "final weights",
)
# The field of a trace that each locked stage looks at.
_LOCKED_FIELDS = {
    "forward": "predictions",
    "loss": "losses",
    "gradient": "gradients",
    "optimizer state": "state",
    "update": "weights",
}
Off = Literal["torch", "jax", "both", "program"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found for one tensor at one stage, over all steps.

    Attributes:
        stage: one of ``STAGES``.
        tensor: which tensor of that stage.
        same_program: whether the two float64 runs agree within their own bound.
        torch_within, jax_within: whether each side's own run is within its bound of the float64 values.
        difference: largest distance of JAX's run from PyTorch's, absolute.
        ulps: the same in units of the last place, largest over all elements; it explodes where values cancel.
        float64_difference: largest distance of the float64 runs, relative to the tensor's largest element.
        float64_bound: largest distance that rounding explains there, in the same unit.
        torch_used, jax_used: largest share of its bound that each side's error uses.
        step: the first step at which it does not hold.
        message: what is wrong, where it does not hold.
    """

    stage: str
    tensor: str
    same_program: bool
    torch_within: bool
    jax_within: bool
    difference: float
    ulps: float
    float64_difference: float
    float64_bound: float
    torch_used: float
    jax_used: float
    step: int | None
    message: str

    @property
    def holds(self) -> bool:
        """Whether both sides are the same program here, and each is as accurate as its arithmetic."""
        return self.step is None

    @property
    def off(self) -> Off | None:
        """Which side is off: the program, where it differs in float64; else the side beyond its bound."""
        if self.holds:
            return None
        if not self.same_program:
            return "program"
        if self.torch_within:
            return "jax"
        return "torch" if self.jax_within else "both"


@dataclasses.dataclass(frozen=True, eq=False)
class _Case:
    """One tensor of one stage: a row of each array is a step, or a part of one."""

    stage: str
    tensor: str
    torch: Array
    jax: Array
    torch64: Array
    jax64: Array
    torch_bound: Array
    jax_bound: Array
    bound64: Array
    steps: Array


def judge(recording: Recording, replay: Replay, bounds: Bounds) -> tuple[Finding, ...]:
    """All findings, in the order of the stages."""
    return (*_initial(recording, replay), *map(_find, _cases(recording, replay, bounds)))


def first_divergence(findings: Sequence[Finding]) -> Finding | None:
    """The failing finding at the earliest step, and there at the earliest stage."""
    failing = [finding for finding in findings if not finding.holds]
    return min(failing, key=lambda finding: (finding.step or 0, STAGES.index(finding.stage)), default=None)


def _initial(recording: Recording, replay: Replay) -> Iterator[Finding]:
    """The port's own initial weights are compared to the last bit: there is nothing yet that could round."""
    for name, torch in recording.initial.items():
        jax = np.asarray(replay.initial[name]).astype(torch.dtype)
        if np.array_equal(torch, jax, equal_nan=True):
            continue
        gap = np.abs(np.asarray(jax, np.float64) - np.asarray(torch, np.float64))
        message = (
            f"the port starts from other weights: {name} differs by up to {np.nanmax(gap):.3g}. Start it from the "
            "recorded ones, recording.initial"
        )
        size = float(np.abs(torch).max()) or 1.0
        yield Finding(
            stage="initial weights",
            tensor=name,
            same_program=False,
            torch_within=True,
            jax_within=False,
            difference=float(np.nanmax(gap)),
            ulps=_largest(ulps(torch, jax)),
            float64_difference=float(np.nanmax(gap)) / size,
            float64_bound=0.0,
            torch_used=0.0,
            jax_used=np.inf,
            step=0,
            message=message,
        )


# -- pairing


def _cases(recording: Recording, replay: Replay, bounds: Bounds) -> Iterator[_Case]:
    locked = (recording.observed, replay.locked, recording.arbiter_locked, replay.locked64)
    locked_bounds = (bounds.locked, bounds.locked, bounds.locked64, bounds.locked64)
    for stage, field in _LOCKED_FIELDS.items():
        yield from _stage_cases(stage, field, locked, locked_bounds)
    free = (recording.observed, replay.free, recording.arbiter_free, replay.free64)
    free_bounds = (bounds.free_torch, bounds.free_jax, bounds.free_torch64, bounds.free_jax64)
    for field in ("losses", "gradients", "weights"):
        yield from _stage_cases("trajectory", field, free, free_bounds)
    yield from (_last(case) for case in _stage_cases("final weights", "weights", free, free_bounds))


Four = tuple[Trace, Trace, Trace, Trace]


def _stage_cases(stage: str, field: str, runs: Four, bounds: Four) -> Iterator[_Case]:
    for tensor in _tensors(field, runs):
        values = [_values(run, field, tensor) for run in runs]
        limits = [_values(bound, field, tensor) for bound in bounds]
        (torch, steps), (jax, _), (torch64, _), (jax64, _) = values
        name = f"{tensor}.grad" if (stage, field) == ("trajectory", "gradients") else tensor
        yield _Case(
            stage, name, torch, jax, torch64, jax64, limits[0][0], limits[1][0], limits[2][0] + limits[3][0], steps
        )


def _tensors(field: str, runs: Four) -> list[str]:
    if field in ("predictions", "losses"):
        return ["loss" if field == "losses" else field]
    if field == "state":
        shared = [key for key in runs[0].state if key in runs[1].state]
        return [f"{key}/{name}" for key in shared for name in runs[0].state[key] if name in runs[1].state[key]]
    return list(getattr(runs[0], field))


def _values(run: Trace, field: str, tensor: str) -> tuple[Array, Array]:
    """One tensor over all steps as rows, and the step of each row. Predictions may differ in shape between steps."""
    if field == "predictions":
        rows = [values.reshape(-1) for values in run.predictions]
        steps = np.repeat(np.arange(len(rows)), [row.size for row in rows])
        return np.concatenate(rows)[:, None], steps
    if field == "losses":
        values: Any = run.losses
    elif field == "state":
        key, _, name = tensor.partition("/")
        values = run.state[key][name]
    else:
        values = getattr(run, field)[tensor]
    return values.reshape(len(values), -1), np.arange(len(values))


def _last(case: _Case) -> _Case:
    cut = {
        field.name: getattr(case, field.name)[-1:]
        for field in dataclasses.fields(case)
        if field.name not in ("stage", "tensor")
    }
    return dataclasses.replace(case, **cut)


# -- comparing


def ulps(a: Array, b: Array) -> Array:
    """How many representable numbers lie between ``a`` and ``b``, as float64; NaN where either is not finite."""
    integer = np.dtype(f"i{a.dtype.itemsize}")

    def ordered(values: Array) -> Array:
        bits = np.ascontiguousarray(values).view(integer)
        # Negative numbers count downwards from zero, so that neighbours are one apart everywhere.
        return np.where(bits < 0, np.iinfo(integer).min - bits, bits).astype(np.float64)

    both = np.isfinite(a) & np.isfinite(b)
    return np.where(both, np.abs(ordered(a) - ordered(b.astype(a.dtype))), np.nan)


def _largest(values: Array) -> float:
    finite = values[~np.isnan(values)]
    return float(finite.max()) if finite.size else 0.0


def _within(value: Array, exact: Array, bound: Array, largest: float) -> Array:
    """Element by element: near enough, or beyond the ``largest`` finite number where the exact value is, or may be."""
    with np.errstate(invalid="ignore", over="ignore"):
        near = (np.abs(value - exact) <= bound) | np.isposinf(bound)
        overflown = ~np.isfinite(value) & (np.abs(exact) + bound > largest)
    return np.where(np.isfinite(exact), near | overflown, ~np.isfinite(value))


def _used(value: Array, exact: Array, bound: Array, within: Array) -> float:
    """The largest share of the bound that the error uses, where there is a bound and it did not overflow duly."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = np.abs(value - exact)
        share = np.where(error == 0, 0.0, error / bound)
    share = share[np.isfinite(exact) & np.isfinite(bound) & (np.isfinite(value) | ~within)]
    return float(np.nan_to_num(share, nan=np.inf).max(initial=0.0))


def _find(case: _Case) -> Finding:
    wide = {name: np.asarray(getattr(case, name), np.float64) for name in ("torch", "jax", "torch64", "jax64")}
    exact = wide["torch64"]
    torch_bound, jax_bound = case.torch_bound + case.bound64, case.jax_bound + case.bound64
    largest, largest64 = float(np.finfo(case.torch.dtype).max), float(np.finfo(np.float64).max)
    torch_ok = _within(wide["torch"], exact, torch_bound, largest)
    jax_ok = _within(wide["jax"], exact, jax_bound, largest)
    same = _within(wide["jax64"], exact, case.bound64, largest64)
    bad = np.flatnonzero(~(torch_ok & jax_ok & same).all(1))
    size = np.abs(exact[np.isfinite(exact)]).max(initial=0.0) or 1.0
    with np.errstate(invalid="ignore"):
        gap, gap64 = np.abs(wide["jax"] - wide["torch"]), np.abs(wide["jax64"] - exact)
    finding = Finding(
        stage=case.stage,
        tensor=case.tensor,
        same_program=bool(same.all()),
        torch_within=bool(torch_ok.all()),
        jax_within=bool(jax_ok.all()),
        difference=_largest(gap),
        ulps=_largest(ulps(case.torch, case.jax)),
        float64_difference=_largest(gap64) / size,
        float64_bound=_largest(case.bound64) / size,
        torch_used=_used(wide["torch"], exact, torch_bound, torch_ok),
        jax_used=_used(wide["jax"], exact, jax_bound, jax_ok),
        step=int(case.steps[bad[0]]) if bad.size else None,
        message="",
    )
    if finding.holds:
        return finding
    row = int(bad[0])
    column = int(np.flatnonzero(~(torch_ok & jax_ok & same)[row])[0])
    values = {name: float(array[row, column]) for name, array in wide.items()}
    values["bound"] = float((case.bound64 if not finding.same_program else jax_bound)[row, column])
    return dataclasses.replace(finding, message=_explain(finding, values))


def _explain(finding: Finding, at: dict[str, float]) -> str:
    """What is wrong at the first element that does not hold."""
    if finding.off == "program":
        gap = abs(at["jax64"] - at["torch64"])
        apart = f"{gap:.3g} apart" if np.isfinite(gap) else "one of them not finite"
        ratio = at["jax64"] / at["torch64"] if at["torch64"] else np.inf
        factor = f", a factor of {ratio:.6g}" if np.isfinite(ratio) and abs(ratio - 1) > 1e-6 else ""
        return (
            f"in float64 PyTorch has {at['torch64']:.9g} and JAX {at['jax64']:.9g}, {apart}{factor}; rounding "
            f"explains {at['bound']:.2g}. The two are not the same program"
        )
    side = {"jax": "JAX's", "torch": "PyTorch's", "both": "each side's"}[str(finding.off)]
    own = at["torch"] if finding.off == "torch" else at["jax"]
    advice = {
        "jax": "The same program in a lower precision: look at the precision of its products and its dtypes",
        "torch": "PyTorch's recorded value is not what its model, loss and optimizer give: something changed it on the "
        "way (clipping?), or its products ran in a lower precision",
        "both": "Both run in a lower precision than their dtype's",
    }[str(finding.off)]
    return (
        f"{side} value {own:.9g} is {abs(own - at['torch64']):.3g} from the exact {at['torch64']:.9g}; "
        f"rounding explains {at['bound']:.2g}, and the float64 runs agree. {advice}"
    )

"""What a training gives back: the model, what happened, and how it prints."""

from __future__ import annotations

import dataclasses
import functools
import html
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from flax import nnx

from jaxreg._traced import is_tracer
from jaxreg._types import HostArray


@dataclasses.dataclass(frozen=True)
class Trace:
    """What was kept of every step, each a tree like the model's parameters with a leading axis of length ``steps``.

    Attributes:
        gradients: the loss's gradients, taken at the weights before the step; ``None`` where not asked for.
        weights: the weights after the step; ``None`` where not asked for.
    """

    gradients: Any = None
    weights: Any = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FitResult:
    """The outcome of :func:`jaxreg.fit`.

    Attributes:
        trained: makes the trained model when it is first asked for: for a small training that takes longer than it.
        losses: shape ``(steps,)``, the loss before each step (or each of the steps ``at``).
        trace: gradients and weights of every step, as asked for with ``record``.
        plan: name of the plan that ran.
        steps: number of optimizer steps made.
        at: the steps that ``losses`` and ``trace`` are of, counted from 0; ``None`` for all.
        watch: what works out :attr:`shortfall`; ``None`` where it is not known.
    """

    trained: Callable[[], nnx.Module]
    losses: jax.Array
    trace: Trace
    plan: str
    steps: int
    at: HostArray | None = None
    watch: Callable[[], str] | None = None

    @functools.cached_property
    def model(self) -> nnx.Module:
        """Return the trained model, a new object; the one passed in is as it was."""
        return self.trained()

    @functools.cached_property
    def shortfall(self) -> str:
        """Return a sentence where a linear layer stopped far from the least squares of its data, else nothing.

        Far is where it explains less of the targets' variance than they do by more than a hundredth of it. It is worked
        out when it is first asked for, from the data, if they are there still: of up to 8 MiB they are kept. Where the
        optimizer decays the weights the least squares are not what it makes for, and nothing is said.
        """
        return "" if self.watch is None else self.watch()

    def __getstate__(self) -> dict[str, object]:
        """Return all but the data, which are not the result's own; what they say of it is worked out before."""
        return {**self.__dict__, "shortfall": self.shortfall, "watch": None}

    def __repr__(self) -> str:
        return f"FitResult({self._summary()})"

    def _summary(self) -> str:
        text = f"{self.steps:,} step{'' if self.steps == 1 else 's'}, plan {self.plan!r}"
        if is_tracer(self.losses):
            return f"{text}, loss known when the traced program runs"
        losses = np.asarray(self.losses)
        if not losses.size:
            return text
        first, last = f"{losses[0]:.6g}", f"{losses[-1]:.6g}"
        text += f", loss {last}" if first == last else f", loss {first} to {last}"
        bad = np.flatnonzero(~np.isfinite(losses))
        if not bad.size:
            return f"{text}; {self.shortfall}" if self.shortfall else text
        step = bad[0] if self.at is None else self.at[bad[0]]
        advice = "try a smaller learning rate" if step else "look for inf and NaN in the data and the initial weights"
        return f"{text}; not finite from step {step:,} on: {advice}"

    def _repr_html_(self) -> str:
        """Return the summary and the loss over the steps, as a notebook shows it."""
        losses = np.empty(0) if is_tracer(self.losses) else np.asarray(self.losses, np.float64)
        return f"<p>{html.escape(self._summary())}</p>{_loss_curve(losses)}"


def _loss_curve(losses: npt.NDArray[np.float64], width: int = 480, height: int = 120) -> str:
    """Return a small SVG of the losses on a log axis where all are above zero; empty where there is nothing to draw."""
    steps = np.unique(np.linspace(0, losses.size - 1, 240).astype(int)) if losses.size else np.empty(0, int)
    steps = steps[np.isfinite(losses[steps])]
    if steps.size < 2:
        return ""
    values = losses[steps]
    values = np.log10(values) if (values > 0).all() else values
    span = np.ptp(values) or 1.0
    x = 4 + (width - 8) * steps / max(losses.size - 1, 1)
    y = 4 + (height - 8) * (values.max() - values) / span
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="loss over the steps">'
        f'<polyline points="{points}" fill="none" stroke="#0b7a75" stroke-width="2"/></svg>'
    )

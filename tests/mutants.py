"""Faults that are put into the code to see whether the tests notice: ``python -m tests.mutants``.

Each is one change of a line in what decides: judging, bounds, replay, plans, the optimizer, the losses. A fault that no
test notices asks for a test.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
_COPIED = ("jaxreg", "parity", "tests", "examples", "pyproject.toml", "README.md", "constraints.txt")
_SECONDS_A_FAULT = 1200


class Mutant(NamedTuple):
    """A line's part, what to write in its place, and the tests that should notice."""

    file: str
    before: str
    after: str
    tests: tuple[str, ...]


_JUDGING = ("tests/judging",)
_BOUNDS = ("tests/bounds", "tests/optimizers", "tests/judging")
_REPLAY = ("tests/replay", "tests/porting", "tests/judging")
_PLANS = ("tests/jaxreg/plans", "tests/jaxreg/training")
_SGD = ("tests/jaxreg/optim", "tests/jaxreg/test_pytorch_databases.py")
_LOSSES = ("tests/jaxreg/nn", "tests/jaxreg/test_pytorch_databases.py")


def _in(file: str, tests: tuple[str, ...], *pairs: tuple[str, str]) -> list[Mutant]:
    return [Mutant(file, before, after, tests) for before, after in pairs]


MUTANTS = [
    *_in(
        "parity/judging/judge.py",
        _JUDGING,
        ("<= bound + UNDERFLOW) | np.isposinf(bound)", "< bound + UNDERFLOW) | np.isposinf(bound)"),
        ("near = (np.abs(value - exact) <= bound", "near = (np.abs(value - exact) <= 2 * bound"),
        ("(np.abs(exact) + bound > most)", "(np.abs(exact) > most)"),
        ("edge = float(info.max) * float(info.eps)", "edge = 0.0"),
        ("return float((bound > size)[judged].mean())", "return float((bound >= 0)[judged].mean())"),
        ("pair.likely + pair.bound64, within)", "pair.likely, within)"),
        ('& (pair.stage not in ("forward", "loss"))', '& (pair.stage not in ("forward", "gradient"))'),
        ("np.flatnonzero(~(torch_ok & jax_ok & same).all(1))", "np.flatnonzero(~(jax_ok & same).all(1))"),
        ("pair.torch_bound + pair.bound64, pair.jax_bound + pair.bound64", "pair.torch_bound, pair.jax_bound"),
        ("torch_within=loss.side != \"torch\"", "torch_within=True"),
        ('pair.stage not in ("forward", "loss", "gradient") or size', 'pair.stage not in ("loss", "gradient") or size'),
    ),
    *_in(
        "parity/judging/scales.py",
        _JUDGING,
        ("np.where(np.isfinite(a) != np.isfinite(b), np.inf,", "np.where(np.isfinite(a) != np.isfinite(b), 0.0,"),
        ("error >= size and is_zero(exact, bound)", "is_zero(exact, bound)"),
        ("int(exponent) - 1)", "int(exponent))"),
    ),
    *_in(
        "parity/judging/accuracy_loss.py",
        _JUDGING,
        ("witnesses = int(finite.any(1).sum()) if by_row else count", "witnesses = count"),
        ("own[side] > level * max(own[other], least)", "own[side] > max(own[other], least)"),
    ),
    *_in(
        "parity/judging/comparisons.py",
        _JUDGING,
        ("(limits[2] + limits[3])[:rows]", "limits[2][:rows]"),
        ("np.array_equal(np.sort(torch, axis=None), np.sort(other, axis=None), equal_nan=True)", "torch.size == 0"),
    ),
    *_in(
        "parity/bounds/zonotope.py",
        _BOUNDS,
        ("spread = np.abs(power)", "spread = np.abs(power) / 2"),
        ("local[: len(local) - ago] @ (spread.T", "local[: len(local) - ago] @ (spread"),
        ("bound[step] = np.abs(columns).sum(1)", "bound[step] = np.abs(columns).max(1)"),
        ("_STEP_SLACK_FACTOR * np.abs(frame.T @ columns).sum(1))", "np.abs(frame.T @ columns).max(1))"),
    ),
    *_in(
        "parity/bounds/affine_steps.py",
        _BOUNDS,
        ("if not _same(curvatures[0], elsewhere) or", "if"),
        ("maps = steps[:, :, :size] + steps", "maps = steps[:, :, :size] - steps"),
        ("return maps[:1] if (maps == maps[0]).all() else maps", "return maps[:1]"),
    ),
    *_in(
        "parity/bounds/propagation.py",
        _BOUNDS,
        ("jnp.maximum(weights[name], error)", "weights[name]"),
        ("jnp.where(inexact, form.unit * jnp.abs(leaf), 0.0)", "jnp.zeros_like(leaf)"),
        ("lambda value, error: error + form.unit * jnp.abs(value), constants", "lambda value, error: error, constants"),
    ),
    *_in("parity/bounds/monte_carlo.py", _BOUNDS, ("np.isfinite(gaps).all() else np.inf", "True else np.inf")),
    *_in(
        "parity/optimizers/updates.py",
        _BOUNDS,
        ("(1 - rule.beta2) * gradients * gradients,", "(1 - rule.beta2) * gradients,"),
        ("else (below + eps) / root", "else below / root + eps"),
        ("if not rule.first_damped:", "if rule.first_damped:"),
        ("1 + of(rule.lr_decay) * step)", "1 + of(rule.lr_decay) * (step + 1))"),
        ("squares = squares - mean * mean", "squares = squares + mean * mean"),
    ),
    *_in(
        "parity/replay/step.py",
        _REPLAY,
        ("_sum([one.gradients for one in passes])", "passes[-1].gradients"),
        ("            model = passes[-1].model\n", ""),
        ("if leaf.ndim and len(leaf) == ends[-1] else leaf", "if leaf.ndim else leaf"),
    ),
    *_in(
        "parity/replay/session.py",
        _REPLAY,
        ("update(self.names.to_port(recorded.gradients), state", "update(made.gradients, state"),
        ("values[: rows.stop - 1]]) for n, values", "values[1 : rows.stop]]) for n, values"),
        ("return own if self.names.buffers is None else self.names.buffers.to_port(buffers, own)", "return own"),
        ("if name in after.gradients else np.zeros(", "if name in after.gradients else np.ones("),
    ),
    *_in(
        "parity/replay/scan_loop.py",
        _REPLAY,
        ("np.searchsorted(slots, np.arange(len(feed.order)))", "np.arange(len(feed.order)) % len(slots)"),
        ("values[judged:] = np.nan", "values[judged + 1 :] = np.nan"),
    ),
    *_in(
        "jaxreg/_plans/closed_form.py",
        _PLANS,
        ("first = rate * curvature * (1 + nesterov * momentum)", "first = rate * curvature"),
        ("product = rate * curvature * (1 - dampening)", "product = rate * curvature"),
        ("pull = (far - first) * slope * power_far", "pull = (far - first) * slope * power_near"),
        ("jnp.where((distance > 1) & _is_odd(steps), -1.0, 1.0)", "jnp.where(distance > 1, -1.0, 1.0)"),
        ("share = jnp.cos(steps * angle) - (first - half)", "share = jnp.cos(steps * angle) + (first - half)"),
    ),
    *_in(
        "jaxreg/_plans/compressed.py",
        _PLANS,
        ("jnp.where(over, number, epochs))", "jnp.where(over, number + 1, epochs))"),
        ("return jnp.asarray(problem.scale * squares)", "return jnp.asarray(squares)"),
        ("if first == request.epochs or request.statistics is not None:", "if True:"),
    ),
    *_in(
        "jaxreg/_plans/minibatch.py",
        _PLANS,
        ("if last:  # a step", "if False:  # a step"),
        ("jax.random.fold_in(key, number), data.inputs.shape[0])", "key, data.inputs.shape[0])"),
        ("number * size, count)\n            return leaf.at", "number, count)\n            return leaf.at"),
    ),
    *_in(
        "jaxreg/_plans/spectral.py",
        _PLANS,
        ("if not request.batches.is_full:", "if False:"),
        ("momentum, at = bool(numbers[1] != 0), request.at", "momentum, at = False, request.at"),
    ),
    *_in(
        "jaxreg/_optim/sgd.py",
        _SGD,
        ("first = state.step == 0", "first = state.step < 0"),
        ("_times(1 - dampening, _wide(gradient))", "_wide(gradient)"),
        ("(_wide(gradient) + _times(weight_decay", "(_wide(gradient) - _times(weight_decay"),
        ("ahead = jax.tree.map(lookahead, updates, buffer) if nesterov else buffer", "ahead = buffer"),
        ("scaled(learning_rate(state.count), updates)", "scaled(learning_rate(count), updates)"),
    ),
    *_in(
        "jaxreg/_nn/losses.py",
        _LOSSES,
        ("return jnp.sum(weighed) / jnp.sum(spread)", "return jnp.mean(weighed)"),
        ("(values > 0).astype(values.dtype) - (values < 0).astype(values.dtype)", "jnp.sign(values) + (values == 0)"),
        ("on_line = size >= beta", "on_line = size > 2 * beta"),
        ("size - 0.5 * beta, 0.5 * near", "size - beta, 0.5 * near"),
        ("delta * (size - 0.5 * delta)", "delta * (size - delta)"),
        ("weights, reduction, over_weights=False)\n    size", "weights, reduction)\n    size"),
    ),
]  # fmt: skip


def _try(mutant: Mutant, thorough: bool) -> tuple[bool, float]:
    """Put a fault into a copy of the project and run its tests; return whether one noticed, and the seconds it took."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        target = copy / mutant.file
        target.write_text(target.read_text("utf-8").replace(mutant.before, mutant.after), "utf-8")
        options = ["-n0", "-x", "-q", *(["--thorough"] if thorough else [])]
        words = [sys.executable, "-m", "pytest", *options, *mutant.tests]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        given: dict[str, Any] = {"cwd": copy, "env": environment, "timeout": _SECONDS_A_FAULT}
        done = subprocess.run(words, capture_output=True, check=False, **given)
    return done.returncode == 1, time.perf_counter() - begin


def main() -> int:
    """Try every fault; return 0 where all are noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORDS", help="faults in files with these words in their path")
    parser.add_argument("--thorough", action="store_true", help="with the tests that take long")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="at a time (default: 2)")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if re.search(arguments.only, mutant.file)]
    noticed = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.processes) as pool:
        tried = pool.map(lambda mutant: _try(mutant, arguments.thorough), chosen)
        for mutant, (killed, seconds) in zip(chosen, tried, strict=True):
            noticed += killed
            said = "noticed " if killed else "SURVIVED"
            print(f"{said} {seconds:4.0f} s  {mutant.file}: {mutant.before.strip()[:70]}", flush=True)
    print(f"{noticed} of {len(chosen)} faults were noticed")
    return 0 if noticed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())

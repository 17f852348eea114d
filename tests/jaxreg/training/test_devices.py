"""Data and trainings over several devices, and TPUs' way through the host, in a process that has four CPU devices."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_BEGIN = """
import itertools, re
import jax, numpy as np, jaxreg
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

assert len(jax.devices()) == 4
random = np.random.default_rng(0)
mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
spread = NamedSharding(mesh, PartitionSpec("rows"))

def problem(rows, dtype):
    x = random.standard_normal((rows, 7)).astype(dtype)
    y = (x @ random.standard_normal((7, 2)) + random.standard_normal((rows, 2))).astype(dtype)
    return x, y, random.random(rows).astype(dtype), jaxreg.Linear(7, 2, rngs=nnx.Rngs(0), param_dtype=dtype)

def same(a, b, rows, dtype):
    # Sums of the rows in another order; the columns are nearly orthogonal, their condition below 10.
    error = 10 * rows * 8 * np.finfo(dtype).eps
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=error, atol=error)

def weights(result):
    return nnx.state(result.model), result.losses
"""
_SPREAD_ROWS = """
for rows, dtype in ((4000, np.float32), (20, np.float32), (4000, np.float64)):
    with jax.enable_x64(dtype == np.float64):
        x, y, w, model = problem(rows, dtype)
        X, Y, W = jax.device_put((x, y, w), spread)
        for plan, optimizer in itertools.product(("spectral", "compressed", "stepwise"), (0.0, 0.5)):
            how = dict(optimizer=jaxreg.sgd(0.1, optimizer), epochs=20, plan=plan)
            expected = weights(jaxreg.fit(model, x, y, **how))
            for given in ((X, Y), (X, y)):
                same(weights(jaxreg.fit(model, *given, **how)), expected, rows, dtype)
            same(weights(jaxreg.fit(model, X, Y, weights=W, **how)), weights(jaxreg.fit(model, x, y, weights=w, **how)),
                 rows, dtype)
        summed = jaxreg.SufficientStatistics.of(X, Y, W)
        how = dict(optimizer=jaxreg.sgd(0.1), epochs=20)
        same(nnx.state(jaxreg.fit(model, summed, **how).model),
             nnx.state(jaxreg.fit(model, x, y, weights=w, **how).model), rows, dtype)
"""
_SPREAD_BATCHES = """
x, y, w, model = problem(4000, np.float32)
X, Y = jax.device_put((x, y), spread)
how = dict(optimizer=jaxreg.sgd(0.1), epochs=200, batch_size=256)
expected, found = jaxreg.fit(model, x, y, **how), jaxreg.fit(model, X, Y, **how)
assert (expected.plan, found.plan) == ("compressed", "stepwise")
same(weights(found), weights(expected), 4000, np.float32)
try:
    jaxreg.fit(model, X, Y, plan="compressed", **how)
except jaxreg.ArgumentError as error:
    assert "several devices" in str(error)
else:
    raise AssertionError
"""
_NOTHING_GATHERED = """
from jaxreg._statistics import gram_root
x, y, _, _ = problem(4000, np.float32)
X, Y = jax.device_put((x, y), spread)
with jax.enable_x64(True):
    lowered = gram_root.sharded_gram_root.lower((X, Y, None), dtype="float32", mesh=mesh, axes="rows")
words = lowered.compile().as_text()
moved = re.findall(r"= (\\S+) (?:all-reduce|all-gather|all-to-all|collective-permute)\\(", words)
assert moved and all(re.match(r"f64\\[10,10\\]", each) for each in moved), moved
"""
_SPREAD_TRAININGS = """
x, y, w, model = problem(200, np.float32)
grid = {"learning_rate": [0.01, 0.1, 0.2, 3.0], "momentum": [0.0, 0.9]}
for plan in ("spectral", "compressed", "stepwise"):
    several = jaxreg.sweep(model, x, y, settings=grid, epochs=10, plan=plan)
    for number, setting in enumerate(several.settings):
        alone = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(**setting), epochs=10, plan=plan)
        size = 1 + abs(np.asarray(alone.model.kernel[...])).max()
        same(nnx.state(several.model(number)), nnx.state(alone.model),
             200 * size, np.float32)
    assert len(jax.tree.leaves(several.params)[0].sharding.device_set) == 4, plan
groups = np.arange(200) % 8
found = jaxreg.fit_groups(model, x, y, groups=groups, optimizer=jaxreg.sgd(0.05), epochs=10)
for number in range(8):
    rows = groups == number
    alone = jaxreg.fit(model, x[rows], y[rows], optimizer=jaxreg.sgd(0.05), epochs=10)
    same(nnx.state(found.model(number)), nnx.state(alone.model), 25, np.float32)
"""
_BY_THE_HOST = """
from jaxreg._plans import solver_device
x, y, w, model = problem(4000, np.float32)
how = dict(optimizer=jaxreg.sgd(0.1, 0.5), epochs=20)
grid = {"learning_rate": [0.01, 0.1, 5.0]}
plans = ("spectral", "compressed")
batched = dict(plan="compressed", batch_size=64, **how)
expected = [weights(jaxreg.fit(model, x, y, plan=plan, **how)) for plan in plans]
in_batches = weights(jaxreg.fit(model, x, y, **batched))
diverged = [weights(jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(5.0), epochs=100, plan=plan)) for plan in plans]
swept = [jaxreg.sweep(model, x, y, settings=grid, epochs=100, plan=plan) for plan in plans]
there = jax.devices()[2]
X, Y = jax.device_put((x, y), there)
model = nnx.merge(nnx.graphdef(model), jax.device_put(nnx.state(model), there))
solver_device.solver_device = lambda: jax.devices()[0]
result = jaxreg.fit(model, X, Y, **batched)
assert result.model.kernel[...].devices() == {there}
same(weights(result), in_batches, 4000, np.float32)
for number, plan in enumerate(plans):
    for result in (jaxreg.fit(model, X, Y, plan=plan, **how),
                   jaxreg.fit(model, jaxreg.SufficientStatistics.of(X, Y), plan=plan, **how)):
        assert result.model.kernel[...].devices() == {there}
        same(weights(result), expected[number], 4000, np.float32)
    lost = jaxreg.fit(model, X, Y, optimizer=jaxreg.sgd(5.0), epochs=100, plan=plan)
    np.testing.assert_array_equal(np.isfinite(lost.losses), np.isfinite(diverged[number][1]))
    assert not np.isfinite(lost.losses[-1])
    several = jaxreg.sweep(model, X, Y, settings=grid, epochs=100, plan=plan)
    np.testing.assert_allclose(several.losses, swept[number].losses, rtol=1e-6)
"""


@pytest.mark.parametrize(
    "words",
    [_SPREAD_ROWS, _SPREAD_BATCHES, _NOTHING_GATHERED, _SPREAD_TRAININGS, _BY_THE_HOST],
    ids=["spread rows", "spread batches", "nothing gathered", "spread trainings", "by the host"],
)
def test_on_four_devices(words: str) -> None:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _BEGIN + words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]

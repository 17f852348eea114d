"""Every plan, the sweep, the groups and the judge's replay, compiled for TPUs by their own compiler, without a TPU.

    python -m venv tpu && tpu/bin/pip install -c constraints.txt -e '.[parity,tpu]'
    tpu/bin/python examples/tpu_compile.py                          # all of them; minutes
    tpu/bin/python examples/tpu_compile.py v5e:2x2 -o table.json    # one topology

The data lie spread over all chips of a topology, a million rows of 64 columns on each. For every program it prints the
memory of a chip, its floating-point operations, the bytes it moves, how many collectives there are in it, and the least
time that this takes at the chip's published limits. XLA counts the body of a loop once: figures of programs that loop
over the steps are those of one step (eight, where eight are laid out in a row), and so are their collectives.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxreg
from jaxreg import _many, _reduction
from jaxreg._plans import compressed, reduced, spectral, stepwise
from jaxreg._plans.stepwise import Data

TOPOLOGIES = ("v4:2x2x1", "v5e:2x2", "v5e:16x16", "v5p:2x2x1", "v5p:8x8x16", "v6e:2x2", "v6e:16x16")
ROWS, COLUMNS, EPOCHS = 1 << 20, 64, 1000
TRAININGS, GROUP_ROWS, GROUP_COLUMNS = 1024, 100, 8
COLLECTIVES = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
RESULTS = Path(__file__).parent / "results" / "tpu_compile.json"


class Chip(NamedTuple):
    """A chip's published limits: bfloat16 operations and bytes of its memory a second, and gigabytes of memory."""

    operations: float
    bandwidth: float
    memory: int


# https://cloud.google.com/tpu/docs/v4, v5e, v5p and v6e.
CHIPS = {
    "v4": Chip(275e12, 1228e9, 32),
    "v5e": Chip(197e12, 819e9, 16),
    "v5p": Chip(459e12, 2765e9, 95),
    "v6e": Chip(918e12, 1638e9, 32),
}


class Program(NamedTuple):
    """What is compiled: a jitted function and the shapes of its arguments, to be lowered with or without float64."""

    name: str
    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    wide: bool


class Shapes:
    """Arrays that are not there, laid over a topology's chips."""

    def __init__(self, chips: list[Any]) -> None:
        self.mesh = Mesh(np.array(chips), ("chips",))
        self.count = len(chips)

    def spread(self, *shape: int, dtype: Any = np.float32) -> Any:
        """An array whose first axis is spread over all chips."""
        return self._of(shape, dtype, PartitionSpec("chips"))

    def whole(self, *shape: int, dtype: Any = np.float32) -> Any:
        """An array that every chip has."""
        return self._of(shape, dtype, PartitionSpec())

    def like(self, tree: Any) -> Any:
        """A tree whose leaves every chip has."""
        return jax.tree.map(lambda leaf: self.whole(*leaf.shape, dtype=leaf.dtype), tree)

    def _of(self, shape: tuple[int, ...], dtype: Any, spec: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, spec))


def programs(on: Shapes) -> Iterator[Program]:
    """All that is compiled for one topology."""
    rows = ROWS * on.count
    data = Data(on.spread(rows, COLUMNS), on.spread(rows, 1))
    graph, params, rest = nnx.split(jaxreg.Linear(COLUMNS, 1, rngs=nnx.Rngs(0)), nnx.Param, ...)
    how = {"graph": graph, "loss": jaxreg.mse_loss, "epochs": EPOCHS, "record": frozenset()}
    start = (on.like(params), on.like(rest), data)
    yield Program("stepwise", stepwise.run, start, {**how, "optimizer": jaxreg.sgd(0.1, 0.9)}, False)
    yield Program("stepwise, Adam", stepwise.run, start, {**how, "optimizer": optax.adam(0.1)}, False)
    over = {"dtype": "float32", "mesh": on.mesh, "axes": "chips"}
    yield Program("one pass over the data", _reduction.root_over, (tuple(data),), over, True)
    yield _compressed(on, params)
    yield _spectral(on)
    yield _sweep(on)
    yield _groups(on)
    yield from _replay(on, rows)


def _wide(on: Shapes, *shape: int) -> Any:
    return on.whole(*shape, dtype=np.float64)


def _compressed(on: Shapes, params: Any) -> Program:
    side = COLUMNS + 2
    problem = reduced.Problem(*(_wide(on, side, n) for n in (side - 1, 1)), 1.0, _wide(on, side - 1, 1), _wide(on))
    how = {"structure": jax.tree.structure(params), "epochs": EPOCHS, "record": frozenset(), "largest": 3e38}
    return Program("compressed, its steps", compressed.solve, (problem,), {**how, "optimizer": optax.adam(0.1)}, True)


def _numbers(on: Shapes, *leading: int) -> Any:
    return _wide(on, *leading, len(spectral.Numbers._fields))


def _spectral(on: Shapes) -> Program:
    root, kernel, bias = _wide(on, COLUMNS + 2, COLUMNS + 2), on.whole(COLUMNS, 1), on.whole(1)
    arguments = (root, kernel, bias, _numbers(on), _wide(on, 1))
    how = {"dtype": "float32", "every": None, "momentum": True, "record": frozenset()}
    return Program("spectral, all its steps", spectral.run, arguments, how, True)


def _sweep(on: Shapes) -> Program:
    count, side = TRAININGS * on.count, COLUMNS + 2
    starts = {"kernel": on.spread(count, COLUMNS, 1), "bias": on.spread(count, 1)}
    numbers = on.spread(count, len(spectral.Numbers._fields), dtype=np.float64)
    which = on.spread(count, dtype=np.int32)
    arguments = (_wide(on, side, side - 1), _wide(on, 1, side, 1), starts, which, numbers, _wide(on, 1))
    return Program(f"sweep of {TRAININGS:,} trainings a chip", _many.by_modes, arguments, {"momentum": True}, True)


def _groups(on: Shapes) -> Program:
    count = TRAININGS * on.count
    groups = Data(on.spread(count, GROUP_ROWS, GROUP_COLUMNS), on.spread(count, GROUP_ROWS, 1))
    return Program(f"{TRAININGS:,} groups a chip, their pass", _many.roots, (groups,), {"dtype": "float32"}, True)


def _replay(on: Shapes, rows: int) -> Iterator[Program]:
    """A locked step of the judge's replay, of a PyTorch program that is recorded here on few rows."""
    try:
        import torch
    except ImportError:
        print("the judge's replay is left out: it needs PyTorch (-e '.[parity,tpu]')", file=sys.stderr)
        return
    import parity
    from parity import _feed, _locked, _names, _steps

    def program() -> None:
        model = torch.nn.Linear(COLUMNS, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x, y = torch.randn(8, COLUMNS), torch.randn(8, 1)
        for _ in range(2):
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    recording = parity.record(program)
    port = parity.port(recording)
    names = _names.of(port, recording)
    step = _steps.locked_step(port, names, tuple(recording.observed.state))
    state, recorded, _, _ = next(_locked.arguments(port, names, recording, np.dtype(np.float32), [1]))
    batch = (on.spread(rows, COLUMNS), on.spread(rows, 1))
    first = on.like(jax.tree.map(jnp.asarray, (state, _feed.cast(recorded, np.dtype(np.float32)))))
    yield Program("a locked step of the replay", jax.jit(step, static_argnums=3), (*first, batch, (rows,)), {}, False)


def figures(program: Program, chip: Chip) -> dict[str, Any]:
    """Compile a program; what its compiler says of it, for one chip."""
    begin = time.perf_counter()
    with jax.enable_x64(program.wide), jax.default_matmul_precision("highest"):
        compiled = program.function.lower(*program.arguments, **program.keywords).compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    found = [match[1] for match in COLLECTIVES.finditer(compiled.as_text())]
    operations, moved = float(cost.get("flops", 0.0)), float(cost.get("bytes accessed", 0.0))
    return {
        "program": program.name,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "operations": operations,
        "bytes": moved,
        "collectives": {kind: found.count(kind) for kind in sorted(set(found))},
        "least_seconds": max(operations / chip.operations, moved / chip.bandwidth),
        "compile_seconds": round(time.perf_counter() - begin, 2),
    }


def table(results: list[dict[str, Any]]) -> str:
    """The figures in rows."""
    heads = ("program", "memory", "temporary", "operations", "bytes", "least time", "collectives")
    lines = []
    for result in results:
        lines += ["", f"{result['topology']}, {result['chips']:,} chips, jax {result['jax']}", _row(*heads)]
        for each in result["programs"]:
            memory = each["argument_bytes"] + each["temporary_bytes"] + each["output_bytes"]
            collectives = ", ".join(f"{count} {kind}" for kind, count in each["collectives"].items()) or "none"
            sizes = [f"{size / 2**20:,.1f} MiB" for size in (memory, each["temporary_bytes"])]
            counts = [f"{each[key]:.3g}" for key in ("operations", "bytes")]
            lines.append(_row(each["program"], *sizes, *counts, f"{each['least_seconds'] * 1e6:,.1f} µs", collectives))
    return "\n".join(lines[1:])


def _row(*cells: str) -> str:
    return f"{cells[0]:<34}" + "".join(f"{cell:>14}" for cell in cells[1:-1]) + f"  {cells[-1]}"


def main(argv: list[str] | None = None) -> None:
    """Compile for each topology, print the table and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("topologies", nargs="*", default=TOPOLOGIES, metavar="TOPOLOGY", help="such as v5e:2x2")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="FILE", help="where the figures go")
    arguments = parser.parse_args(argv)
    results = []
    for name in arguments.topologies:
        chips = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
        print(f"{name}: {len(chips):,} chips of {chips[0].device_kind}", file=sys.stderr, flush=True)
        made = []
        for program in programs(Shapes(chips)):
            made.append(figures(program, CHIPS[name.partition(":")[0]]))
            print(f"  {program.name}: {made[-1]['compile_seconds']} s", file=sys.stderr, flush=True)
        results.append({"topology": name, "chips": len(chips), "jax": jax.__version__, "programs": made})
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()

"""Two figures of docs/benchmark.md: what more epochs cost the spectral plan, and what the plans need besides the data.

The second one is Linux's own count of the process's memory, taken after a first training has compiled everything and
what that left behind was given back.
"""

import ctypes
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxreg

ROWS, COLUMNS, TURNS = 1_000_000, 128, 15
EPOCHS = (10**3, 10**6, 10**9, 10**12)


def data(rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, columns), np.float32)
    return jnp.asarray(x), jnp.asarray(x[:, :1] + random.standard_normal((rows, 1), np.float32))


def train(x: jax.Array, y: jax.Array, epochs: int, plan: str = "spectral") -> None:
    model = jaxreg.Linear(x.shape[1], 1, rngs=jaxreg.torch_random.Generator(0))
    at = [0, epochs - 1]
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.01), epochs=epochs, plan=plan, at=at)
    jax.block_until_ready((result.losses, nnx.state(result.model)))  # type: ignore[no-untyped-call]


def kilobytes(name: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))


def more_epochs(rows: int, columns: int) -> None:
    x, y = data(rows, columns)
    taken: dict[int, list[float]] = {epochs: [] for epochs in EPOCHS}
    for turn in range(TURNS + 1):
        for epochs in EPOCHS:
            begin = time.perf_counter()
            train(x, y, epochs)
            if turn:  # the first one compiles
                taken[epochs].append(time.perf_counter() - begin)
    medians = [1000 * statistics.median(each) for each in taken.values()]
    times = ", ".join(f"{each:.3g}" for each in medians)
    print(
        f"{rows:,} × {columns}, 10³, 10⁶, 10⁹, 10¹² epochs: {times} ms; {max(medians) / min(medians):.2f} between them"
    )


def memory(plan: str) -> None:
    x, y = data(ROWS, COLUMNS)
    train(x, y, 100, plan)
    ctypes.CDLL(None).malloc_trim(0)
    before = kilobytes("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # forgets the highest count so far
    train(x, y, 100, plan)
    more, size = 1024 * (kilobytes("VmHWM") - before), x.nbytes + y.nbytes
    print(f"{plan}: {more / 2**20:.1f} MiB besides {size / 2**20:.0f} MiB of data, {100 * more / size:.1f} %")


more_epochs(100, 1)
more_epochs(100_000, 64)
if sys.platform == "linux":
    memory("spectral")
    memory("compressed")

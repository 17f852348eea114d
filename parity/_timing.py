"""How long the two trainings took, as a verdict keeps it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Timing:
    """Medians of interleaved repeats, in seconds.

    Attributes:
        steps: length of the training.
        repeats: how often each side was run.
        torch_seconds: the program's own loop, Python and all, without recording.
        jax_seconds: the compiled training, losses kept.
        ratio: PyTorch's time over JAX's, the median over the repeats.
        ratio_low, ratio_high: 95 % bootstrap interval of that median.
        compile_seconds: what compiling the JAX side took, once.
    """

    steps: int
    repeats: int
    torch_seconds: float
    jax_seconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    compile_seconds: float

"""``record``: run a PyTorch program unmodified and write down what its training does, through torch's public hooks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from parity import _validation
from parity._errors import UnsupportedError
from parity.capture import float64_rerun, graph_recording, run_program
from parity.capture.graph_observer import GraphObserver
from parity.capture.observed_run import Seen
from parity.capture.observer import Observer
from parity.capture.output_origins import Span, settled
from parity.capture.run_program import Program
from parity.recording import clipping
from parity.recording.program_output import PrintedLine
from parity.recording.recording import Recording, fresh_state

# Bytes for the tensors of a recording, where nothing else is asked for.
MEMORY_LIMIT = 400_000_000


def record(
    program: Program,
    *,
    seed: int | None = None,
    argv: Sequence[str] = (),
    dropout: bool = True,
    memory_limit: float = MEMORY_LIMIT,
    graphs: bool = True,
) -> Recording:
    """Run a PyTorch training program and record it.

    The program is not edited and computes just what it computes alone: forward hooks of modules and step hooks of
    optimizers copy what passes by, and are gone afterwards. Then PyTorch trains once more in float64, on the recorded
    data and from the recorded weights, to tell rounding from differences between programs.

    Args:
        program: path of a script, run as ``python script.py`` would, or a callable without arguments.
        seed: used in place of the number the program gives to ``torch.manual_seed``; ``None`` keeps the program's.
        argv: the script's command-line arguments.
        dropout: ``False`` switches dropout off for the run: no two frameworks drop the same values.
        memory_limit: bytes for all tensors that are kept, those of the float64 runs among them. Where they are more,
            losses are kept of every step and tensors of the first steps, every k-th and the last. A training that is
            recorded in both ways, see ``graphs``, may take twice as many.
        graphs: whether steps are followed as graphs too, from weights to losses, so that parity can port any training.
            ``False`` records one model, one loss of its output and one optimizer, which ports of one's own are for.

    Returns:
        A :class:`Recording`: NumPy arrays and plain values.

    Raises:
        ProgramError: the program is not there, raised, or exited with a status other than 0.
        UnsupportedError: it never steps an optimizer, or does something that cannot be recorded; the message names it.

    Example:
        >>> import torch
        >>> def program():
        ...     torch.manual_seed(0)
        ...     model, loss_fn = torch.nn.Linear(2, 1), torch.nn.MSELoss()
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     x, y = torch.randn(8, 2), torch.randn(8, 1)
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         loss_fn(model(x), y).backward()
        ...         optimizer.step()
        >>> recording = record(program)
        >>> recording.steps, recording.observed.gradients["weight"].shape
        (3, (3, 1, 2))
    """
    name, source = run_program.describe(program)
    _validation.check_flag(dropout, "dropout")
    _validation.check_flag(graphs, "graphs")
    _validation.check_memory(memory_limit)
    printed: list[tuple[str, int, int, list[Span]]] = []
    namespace = getattr(program, "__globals__", None)
    observer = Observer(name, dropout=dropout, memory_limit=memory_limit, namespace=namespace)
    whole = GraphObserver(name, memory_limit, observer.clips, lambda: observer.is_linear)
    with whole if graphs else contextlib.nullcontext(), observer:

        def on_line(text: str) -> None:
            if not observer.stopped:
                printed.append((text, observer.done, whole.done, observer.written.line(text)))

        run_program.run(program, on_line, observer.written.write, seed=seed, argv=argv)
    given = {"name": name, "source": source, "seed": seed}
    try:
        recording = _of_one_model(observer, printed, given, dropout)
    except UnsupportedError as reason:
        if not graphs:
            raise
        return _of_graphs(whole, printed, given, observer, dropout, reason)
    if not graphs or observer.is_linear:
        return recording
    try:
        return dataclasses.replace(recording, whole=_of_graphs(whole, printed, given, observer, dropout))
    except UnsupportedError as error:
        return dataclasses.replace(recording, environment={**recording.environment, "not_whole": str(error)})


def _of_graphs(
    graphs: GraphObserver, printed: Any, given: Any, observer: Observer, dropout: bool, reason: Exception | None = None
) -> Recording:
    """The recording of a training by its graphs; ``reason``: why it is not one of one model and one loss."""
    environment: dict[str, Any] = {"seconds": observer.seconds, "dropout": dropout}
    if reason is not None:
        environment["no_model"] = str(reason)
    try:
        return graph_recording.recording_of(
            graphs,
            printed=tuple(PrintedLine(text, step, ()) for text, _, step, _ in printed),
            environment=environment,
            notes=[],
            **given,
        )
    except UnsupportedError as error:
        if reason is None:
            raise
        raise error from reason


def _of_one_model(observer: Observer, printed: Any, given: Any, dropout: bool) -> Recording:
    """The recording of one model, one loss of its output and one optimizer."""
    seen = observer.finish()
    evaluations = observer.evaluations()
    rates = {name: np.array(values, np.float64) for name, values in seen.learning_rates.items()}
    observed, starts = seen.keeper.finish(
        np.array(seen.losses), lambda key, name, like: fresh_state(key, seen.rules[name], rates[name][0], like)
    )
    locked, free = float64_rerun.rerun(seen, observed, starts)
    kept = seen.keeper.kept
    return Recording(
        **given,
        model=seen.model,
        loss=seen.loss,
        optimizer=seen.optimizer,
        rules=seen.rules,
        learning_rates=rates,
        initial=seen.initial,
        batches=tuple(seen.pool.batches),
        batch_of_step=np.array(seen.batch_of_step, np.int64),
        observed=observed,
        arbiter_locked=locked,
        arbiter_free=free,
        evaluations=tuple(seen.evaluations),
        printed=tuple(PrintedLine(text, step, settled(spans, evaluations)) for text, step, _, spans in printed),
        environment={
            **seen.environment,
            "seconds": observer.seconds,
            "dropout": dropout,
            "layers": ", ".join(sorted({type(module).__name__ for module in seen.live[0].modules()})),
        },
        initial_buffers={
            name: values for name, values in seen.initial_buffers.items() if np.issubdtype(values.dtype, np.floating)
        },
        thinned=None if starts is None else np.array(kept, np.int64),
        starts=starts,
        notes=(*seen.notes, *_notes(seen, dropout, starts is not None)),
        clipping=dict(seen.clipping),
    )


def _notes(seen: Seen, dropout: bool, thinned: bool) -> list[str]:
    notes = []
    if not dropout:
        notes.append("Dropout was switched off for the recording.")
    if seen.clipping:
        notes.append(
            f"Gradients are clipped {clipping.told(seen.clipping)} before each step; they are compared as they were "
            "before it, and the clipping is the optimizer's, on both sides."
        )
    if thinned:
        kept = seen.keeper.kept
        notes.append(
            f"Tensors were kept of {len(kept):,} of {len(seen.batch_of_step):,} steps, to stay within the memory limit "
            f"of {seen.keeper.limit:,.0f} bytes; losses were kept of every step."
        )
    return notes

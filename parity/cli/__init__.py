"""The ``parity`` command: parse, call the library, print, set the exit code."""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import sys
import traceback
from collections.abc import Sequence

from parity.cli import bench, check, listing, report
from parity.cli.terminal import NOT_JUDGED, failed, unread

_EPILOG = """\
exit codes:
  0  parity holds        1  the two sides part        2  parity could not judge it

examples:
  parity report                          the two built-in programs, into parity-report/
  parity report train.py -o out          your program: parity ports a linear layer, squared error and SGD by itself
  parity check train.py --port port.py:port
                                         any program, with your port: port.py defines port, a parity.Port or a
                                         function that makes one from the Recording, such as
                                           def port(recording):
                                               return parity.Port.from_nnx(model, loss, optimizer)
  parity check run.npz --port port.py:port
                                         a recording that parity.record(...).save("run.npz") wrote
  parity check train.py --json -         the verdict as JSON, for another program to read
  parity check train.py --markdown -     the verdict as Markdown, for a comment on a pull request
  parity check train.py --matrix         also on every platform that JAX finds here, at each precision of products

In your own tests, with pytest:           def test_port(parity): parity.check("train.py", port=build)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; the process's own where left out.

    Returns:
        0 where parity holds, 1 where the sides part, 2 where it could not be judged.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal has no letters for is no reason to say nothing
            stream.reconfigure(errors="replace")
    arguments = _parser().parse_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    if not getattr(arguments, "quiet", True):
        # To load them takes seconds; nothing above has.
        print("parity: loading PyTorch and JAX", file=sys.stderr, flush=True)
    from jaxreg import JaxregError
    from parity._errors import ProgramError

    try:
        code: int = arguments.run(arguments, words)
        sys.stdout.flush()
    except JaxregError as error:
        if isinstance(error, ProgramError) and error.program_traceback:
            sys.stderr.write(error.program_traceback)
        if getattr(arguments, "traceback", False):
            traceback.print_exception(error)
        print(f"parity: {error}", file=sys.stderr)
        return NOT_JUDGED
    except KeyboardInterrupt:
        print("parity: stopped; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return unread()
    except Exception as error:
        return failed(error, arguments.traceback if "traceback" in arguments else False)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parity",
        description="Run a PyTorch training program unmodified, replay it in JAX, and say whether both are the same "
        "training.\nEach stage is held against a rounding bound that is derived from the program.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"parity {importlib.metadata.version('jaxreg')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (report, check, bench, listing):
        command.add(commands)
    return parser

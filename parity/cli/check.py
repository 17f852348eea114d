"""``parity check``: judge one program, in the terminal, as JSON or as Markdown."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from parity.cli import output
from parity.cli.arguments import Commands, common
from parity.cli.programs import chosen, exit_code, judge, show
from parity.cli.terminal import HOLDS, PARTS


def add(commands: Commands) -> None:
    """Add the command to the parser's commands."""
    check = commands.add_parser(
        "check",
        help="judge one program in the terminal",
        description="Judge one program and print the verdict: where the two sides first part, why, and what to change.",
    )
    check.add_argument("program", metavar="PROGRAM", help="a PyTorch script, or the name of a built-in one")
    common(check)
    check.add_argument(
        "--json", metavar="FILE", help="also write the verdict as JSON; - prints it in place of the table"
    )
    check.add_argument(
        "--markdown",
        metavar="FILE",
        help="also write the verdict as Markdown for a pull request; - prints it in place of the table",
    )
    check.add_argument(
        "--matrix",
        action="store_true",
        help="also replay every step on each platform that JAX finds here, at each precision of matrix products "
        "(highest, high, the platform's default, bfloat16)",
    )
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace, words: list[str]) -> int:
    from parity._errors import OutputError

    # The program may go to another folder, and print; what it prints goes elsewhere where a result goes to "-".
    wanted = {flag: output.checked_target(getattr(arguments, flag)) for flag in ("json", "markdown")}
    if list(wanted.values()).count("-") > 1:
        raise OutputError("--json - and --markdown - would print into one another; give one of them a file")
    arguments.repeats = 0
    with output.stdout_for_result() if "-" in wanted.values() else contextlib.nullcontext(sys.stdout) as stream:
        verdict = judge(chosen([arguments.program])[0], arguments)
        if wanted["json"] is not None:
            from parity.report.render import numbers

            text = json.dumps(numbers.encode(verdict.to_dict()), indent=1, allow_nan=False) + "\n"
            output.write_result(wanted["json"], text, stream)
        if wanted["markdown"] is not None:
            output.write_result(wanted["markdown"], verdict.to_markdown(), stream)
    if "-" not in wanted.values():
        show(verdict)
    return exit_code([verdict]) or (HOLDS if verdict.matrix is None or verdict.matrix.ok else PARTS)

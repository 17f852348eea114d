"""The drawing process: programs of a document in, a line each; drawings out, a line for the script and for each."""

from __future__ import annotations

import json
import sys

from parity.report.render import chart_process, charts, html


def main() -> None:
    """Draw until the input ends."""
    told: set[str] = set()

    def tell() -> None:
        fresh = {key: drawing for key, drawing in chart_process.kept().items() if key not in told}
        told.update(fresh)
        sys.stdout.write(json.dumps(fresh) + "\n")
        sys.stdout.flush()

    html.javascript()
    tell()
    for line in sys.stdin:
        for spec in charts.specs(json.loads(line)).values():
            charts.svg(spec)
        tell()


if __name__ == "__main__":
    main()

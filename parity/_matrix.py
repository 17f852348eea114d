"""The Matrix: what holds on which platform and at which precision, for people to call and to print."""

from __future__ import annotations

from parity.judging.platforms import PlatformJudgement


class Matrix(PlatformJudgement):
    """What holds where: a cell for each platform and precision. It prints as a table and draws itself in a notebook."""

    def __repr__(self) -> str:
        from parity.report.render import terminal

        return terminal.matrix_alone({"matrix": self.to_dict()})

    def _repr_html_(self) -> str:
        from parity.report.render import html

        return html.matrix_alone({"matrix": self.to_dict()})

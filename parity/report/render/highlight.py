"""Python source with its syntax marked up, one element a line."""

from __future__ import annotations

from functools import lru_cache

from markupsafe import Markup
from pygments import highlight as pygments_highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from parity.report.render.escaping import visible


def highlight(source: str) -> list[Markup]:
    """Mark up Python source: a list of lines, escaped, with Pygments' class names."""
    lexer, formatter = _tools()
    marked = pygments_highlight(visible(source).rstrip("\n") + "\n", lexer, formatter)
    # The formatter closes its elements at the end of each line, so a line is well-formed by itself.
    return [Markup(line) for line in marked.removesuffix("\n").split("\n")]


@lru_cache(maxsize=1)
def _tools() -> tuple[PythonLexer, HtmlFormatter]:
    return PythonLexer(stripnl=False, ensurenl=True), HtmlFormatter(nowrap=True)

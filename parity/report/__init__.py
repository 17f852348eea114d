"""The report: a plain document in; a page, Markdown, JSON and a terminal's table out.

:func:`write` makes the folder. ``text`` is for the terminal, ``html.fragment`` for a notebook.
"""

from parity.report.render.drawing_process import drawing_ahead
from parity.report.write import check_writable, write

__all__ = ["check_writable", "drawing_ahead", "write"]

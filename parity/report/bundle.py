"""The charts' JavaScript, bundled once; on request in a process of its own, while other work goes on.

Bundling takes two seconds and holds the interpreter's lock, so a thread would not help.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_CODE = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle(sys.argv[1]).encode())"
_begun: list[subprocess.Popen[bytes]] = []


@contextlib.contextmanager
def bundling() -> Iterator[None]:
    """Have the bundle made meanwhile; whoever leaves without having used it leaves no process behind."""
    process = subprocess.Popen([sys.executable, "-c", _CODE, _SNIPPET], stdout=subprocess.PIPE)
    _begun.append(process)
    try:
        yield
    finally:
        if process in _begun:
            _begun.remove(process)
            process.kill()
            process.communicate()


@lru_cache(maxsize=1)
def javascript() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets ``window.vegaEmbed``."""
    if _begun:
        process = _begun.pop()
        made, _ = process.communicate()
        if process.returncode == 0:
            return made.decode()
    import vl_convert

    return vl_convert.javascript_bundle(_SNIPPET)

"""Pages opened in a real browser, served from this process, which sees every request that reaches it."""

from __future__ import annotations

import html
import http.server
import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

_NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
    "--virtual-time-budget=60000",
    "--window-size=1800,1200",
]
# Nothing but the server here has an address, so that a request that got past the page's policy could not leave.
_NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
_TIMEOUT = 180

_HARNESS = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><pre id="result">none</pre>
<script>
const frames = %s;
const ready = (page) => [...page.querySelectorAll("figure.chart")].every((figure) => figure.dataset.drawn);
const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
async function open([key, path, width, charts]) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.src = path;
  document.body.append(frame);
  await new Promise((resolve) => { frame.onload = resolve; });
  for (let i = 0; charts && i < 200 && !ready(frame.contentDocument); i++) await pause();
  return [key, measure(frame.contentWindow, frame.contentDocument)];
}
%s
const results = {};
(async () => {
  for (const frame of frames) { const [key, value] = await open(frame); results[key] = value; }
  document.getElementById("result").textContent = JSON.stringify(results);
})();
</script>"""


@dataclass
class Visit:
    """What a browser did: what each frame measured, what the console told, and what it asked the server for."""

    results: dict[str, Any] = field(default_factory=dict)
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def browser() -> str:
    """Find a Chromium, or fail: a page that no browser opened is not tested."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(f"the page is tested in a browser and none is installed; install chromium (looked for {_NAMES})")
    return found


def visit(
    pages: Mapping[str, bytes], frames: Mapping[str, tuple[str, int]], measure: str, *flags: str, charts: bool = True
) -> Visit:
    """Open pages in frames of given widths, one after another, in one browser.

    Args:
        pages: paths to pages.
        frames: names to path and width in pixels.
        measure: a JavaScript function ``measure(window, document)`` of plain values.
        flags: more flags for the browser.
        charts: wait until all charts are drawn.
    """
    chosen = [[key, path, width, charts] for key, (path, width) in frames.items()]
    harness = (_HARNESS % (json.dumps(chosen), measure)).encode()
    executable, seen = browser(), Visit()
    served = {"/": harness, **{f"/{path}": page for path, page in pages.items()}}
    with _served(served, seen.requests) as address, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [executable, *_FLAGS, _NOWHERE, f"--user-data-dir={profile}", *flags, address]
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=True)
    stderr, dom = done.stderr.decode(errors="replace"), done.stdout.decode(errors="replace")
    seen.console = [line for line in stderr.splitlines() if "CONSOLE" in line]
    result = re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)
    assert result, f"the browser gave no page:\n{stderr}"
    assert result[1] != "none", f"the pages were not measured in time:\n{stderr}"
    seen.results = json.loads(html.unescape(result[1]))
    return seen


@contextmanager
def _served(pages: Mapping[str, bytes], requests: list[str]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            body = pages.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()

"""What a watch shows over HTTP: /metrics and /healthz, on the loopback address alone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cellsync.errors import UsageError

LOG = logging.getLogger(__name__)

MISSED = 3
"""After so many intervals without a round that ended, a watch is not healthy."""


class Board:
    """The last round, as the outside may see it. Written by the watch, read by the server's threads."""

    def __init__(self, interval: float) -> None:
        self._patience = MISSED * interval
        self._lock = threading.Lock()
        self._metrics = ""
        self._said = "no round has ended yet"
        self._sound = False
        self._ended = time.monotonic()

    def show(self, metrics: str, said: str, *, sound: bool) -> None:
        """Put up what a round came to."""
        with self._lock:
            self._metrics, self._said, self._sound = metrics, said, sound
            self._ended = time.monotonic()

    @property
    def metrics(self) -> str:
        """The metrics of the last round."""
        with self._lock:
            return self._metrics

    def health(self) -> tuple[bool, str]:
        """Say whether rounds end, and end well."""
        with self._lock:
            age = time.monotonic() - self._ended
            late = age > self._patience
            text = f"{self._said} ({age:.0f} s ago)"
            return self._sound and not late, f"no round has ended since: {text}" if late else text


@contextmanager
def serving(board: Board, port: int) -> Iterator[int]:
    """Serve the board on 127.0.0.1 and give the port (0 takes a free one). Raises UsageError."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sound, said = board.health()
            found = {
                "/metrics": (200, board.metrics, "text/plain; version=0.0.4; charset=utf-8"),
                "/healthz": (200 if sound else 503, f"{said}\n", "text/plain; charset=utf-8"),
            }
            code, text, kind = found.get(self.path, (404, "/metrics or /healthz\n", "text/plain"))
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: whoever scrapes has a log of its own."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Log it: whoever goes away in the middle of an answer is no error of the watch."""
            LOG.debug("an answer was not taken", exc_info=True)

    try:
        server = Server(("127.0.0.1", port), Handler)
    except OSError as error:
        raise UsageError(f"--metrics-port {port}: {error.strerror}") from None
    server.daemon_threads = True
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True, name="cellsync-http")
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()

"""What a watch shows over HTTP: /metrics and /healthz, on the loopback address alone."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cellsync.errors import UsageError

LOG = logging.getLogger(__name__)

ANSWER_WITHIN = 5.0
"""Seconds in which a client must have asked, and taken the answer: a scrape takes milliseconds."""

MOST_CLIENTS = 16
"""So many connections are open at once; the oldest is closed for one more, which may not be an idle one."""

PAUSE = 0.2
"""Seconds to wait where the process has no descriptor left for a client: the comparison needs those first."""

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
        timeout = ANSWER_WITHIN

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
        request_queue_size = 128  # of 5, a kernel makes clients wait for seconds

        def __init__(self) -> None:
            super().__init__(("127.0.0.1", port), Handler)
            self._clients: dict[socket.socket, float] = {}
            self._lock = threading.Lock()
            self._places = threading.Semaphore(MOST_CLIENTS)

        def get_request(self) -> tuple[socket.socket, Any]:
            """Take the next client; without a place or a descriptor for it, wait before asking again."""
            if not self._places.acquire(blocking=False):
                with self._lock:
                    for oldest in [*self._clients][:1]:
                        _hang_up(oldest)
                if not self._places.acquire(timeout=PAUSE):
                    raise BlockingIOError
            try:
                client, address = super().get_request()
            except OSError:
                self._places.release()
                time.sleep(PAUSE)
                raise
            with self._lock:
                self._clients[client] = time.monotonic()
            return client, address

        def service_actions(self) -> None:
            """Hang up on who takes too long, a byte now and then too; twice a second."""
            with self._lock:
                late = time.monotonic() - ANSWER_WITHIN
                for client in [client for client, since in self._clients.items() if since < late]:
                    _hang_up(client)

        def close_request(self, request: Any) -> None:
            """Close a connection, and forget it."""
            with self._lock:
                if self._clients.pop(request, None) is not None:
                    self._places.release()
                super().close_request(request)

        def handle_error(self, request: object, client_address: object) -> None:
            """Log it: whoever goes away in the middle of an answer is no error of the watch."""
            LOG.debug("an answer was not taken", exc_info=True)

    try:
        server = Server()
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


def _hang_up(client: socket.socket) -> None:
    """End a connection; the thread that waits for it closes it then."""
    with suppress(OSError):  # it has gone by itself
        client.shutdown(socket.SHUT_RDWR)

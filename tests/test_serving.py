"""The watch's HTTP server with clients that do not ask, and with no descriptor left for them."""

from __future__ import annotations

import resource
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

from cellsync.cli import serving
from cellsync.cli.serving import Board


@pytest.fixture
def port() -> Iterator[int]:
    """Serve a board of metrics, and give the port."""
    board = Board(60)
    board.show("cellsync_up 1\n", "in step", sound=True)
    with serving.serving(board, 0) as port:
        yield port


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _ended(client: socket.socket, within: float) -> bool:
    client.settimeout(within)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_a_client_that_does_not_ask_is_left(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some seconds; so is one that sends a byte now and then."""
    monkeypatch.setattr(serving, "ANSWER_WITHIN", 1.0)
    with socket.create_connection(("127.0.0.1", port)) as idle:
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < 10:
                idle.send(b"G")
                time.sleep(0.1)
        assert time.monotonic() - began < 9
    assert _scrape(port) == "cellsync_up 1\n"


def test_idle_clients_keep_nobody_out(port: int) -> None:
    """Two hundred of them: no more than a few have a connection, and who asks is answered at once."""
    before = threading.active_count()
    idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(200)]
    try:
        began = time.monotonic()
        assert _scrape(port) == "cellsync_up 1\n"
        assert time.monotonic() - began < 5
        assert threading.active_count() <= before + serving.MOST_CLIENTS + 1
        assert _ended(idle[0], within=10)
    finally:
        for client in idle:
            client.close()


def test_no_descriptors_left_is_no_busy_loop(port: int) -> None:
    """The server waits for one, and goes on when there is one again."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(("127.0.0.1", port)) as first:
        time.sleep(0.2)
        client = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
        try:
            client.connect(("127.0.0.1", port))
            began = time.process_time()
            time.sleep(1)
            assert time.process_time() - began < 0.5
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            client.close()
        del first
    assert _scrape(port) == "cellsync_up 1\n"

"""One database does not answer: the others are compared and repaired, and nobody waits for long."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import nova
import pytest
import sqlalchemy as sa
from deployment import Deploy, Deployment
from servers import PrivateServer, Server


@contextmanager
def _listening(answer: bytes = b"") -> Iterator[int]:
    """Give a port that accepts connections and says this much, and never a word more."""
    with socket.socket() as listener, ExitStack() as accepted:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)

        def accept() -> None:
            with contextlib.suppress(OSError):  # it was shut
                while True:
                    connection = accepted.enter_context(listener.accept()[0])
                    connection.sendall(answer)

        thread = threading.Thread(target=accept)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def _closed() -> Iterator[int]:
    """Give a port on which nobody listens: bound, so that nobody else takes it meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def _at_port(cells: Deployment, cell: str, port: int) -> Deployment:
    url = sa.make_url(cells.urls[cell]).set(port=port).render_as_string(hide_password=False)
    return cells.configure(urls={**cells.urls, cell: url})


def test_a_child_that_is_gone_holds_nobody_up(cells: Deployment) -> None:
    """Exit 4, which and why; the other child is repaired, but for hosts that might be the lost one's."""
    cells.sql("parent", nova.insert("aggregate_hosts", {"aggregate_id": 4, "host": "compute-2-4"}))
    before = cells.checksums()
    with _closed() as port:
        broken = _at_port(cells, "c1", port)
        done = broken.json("diff")
        # The oracle does not know whose hosts might be the lost one's.
        repaired = replace(broken, judged=False).repair()
        text = broken.run("diff")
    assert done.code == 4
    lost = done.cell("c1")
    assert (lost["status"], lost["tables"], lost["changes"]) == ("unreachable", [], None)
    assert f"127.0.0.1:{port}" in lost["error"]
    assert "***" in lost["error"]
    assert done.table("c2", "aggregates")["missing"] == 5
    assert done.cell("c2")["status"] == "incomplete"
    # Plain hosts may be the lost child's too: they are unknown, neither missing nor orphans.
    assert done.counts("aggregate-hosts") == {"c1": {}, "c2": {"aggregate-hosts": (1, 0, 1)}}
    (unknown,) = done.table("c2", "aggregate-hosts")["unknown"]
    assert "c1" in unknown
    assert done.findings() == []

    assert repaired.code == 4
    assert repaired.cell("c2")["changes"] == {"planned": 22, "applied": 22, "conflicts": 0, "failed": 0}
    assert cells.sql("c2", "SELECT * FROM aggregate_hosts WHERE host = 'compute-2-4'") == []
    assert cells.checksums()["c1"] == before["c1"]

    assert text.code == 4
    assert "could not be reached" in text.out
    assert f"127.0.0.1:{port}" in text.out
    assert "unknown" in text.out


@pytest.mark.parametrize(
    "greeting",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x01\x00\x00\x00\x0a"],
)
def test_a_child_that_accepts_and_says_nothing_sensible_is_given_up(
    greeting: bytes, cells: Deployment
) -> None:
    """A stuck server, or a port that is no database's: unreachable within seconds, the other goes on."""
    with _listening(greeting) as port:
        broken = replace(_at_port(cells, "c1", port), judged=False)  # the oracle cannot log in either
        started = time.monotonic()
        done = broken.repair("--rule", "aggregates")
        assert time.monotonic() - started < 20
    assert done.code == 4
    assert done.cell("c1")["status"] == "unreachable", done.cell("c1")["error"]
    assert f"127.0.0.1:{port}" in done.cell("c1")["error"]
    assert done.cell("c2")["changes"]["applied"] == 5


def test_a_parent_that_does_not_answer_stops_everything(cells: Deployment) -> None:
    """Nothing is known to be desired, so nothing is extra and nothing is written: exit 4."""
    before = cells.checksums()
    with _closed() as port:
        broken = _at_port(cells, "parent", port)
        done = broken.repair()
        text = broken.run("diff")
    assert done.code == 4
    for cell in done.report["cells"]:
        assert (cell["status"], cell["tables"]) == ("incomplete", [])
        assert "the parent could not be read" in cell["error"]
        assert f"127.0.0.1:{port}" in cell["error"]
    assert cells.checksums() == before
    assert cells.journals() == {"parent": {}, "c1": {}, "c2": {}}
    assert text.code == 4
    assert "in step with" not in text.out


def test_a_cell_that_is_not_in_scope_need_not_answer(cells: Deployment) -> None:
    """Rules without look-ups do not ask it; those with a look-up say what they could not know."""
    with _closed() as port:
        broken = _at_port(cells, "c1", port)
        flavors = broken.repair("c2", "--feature", "flavors")
        hosts = broken.json("diff", "c2", "--rule", "aggregate-hosts")
    assert flavors.code == 0
    assert [cell["cell"] for cell in flavors.report["cells"]] == ["c2"]
    assert hosts.code == 4
    assert len(hosts.table("c2", "aggregate-hosts")["unknown"]) == 1


def test_an_undo_goes_on_where_it_can(
    throwaway_server: PrivateServer, server: Server, deploy: Deploy
) -> None:
    """One server is gone: the other child is taken back, exit 4; later the rest is, once more asked."""
    cells = deploy(servers={"parent": server, "c1": server, "c2": throwaway_server})
    before = cells.checksums()
    run = cells.repair().report["run"]
    throwaway_server.stop()
    done = cells.json("undo", run, "--yes")
    assert done.code == 4
    assert done.cell("c2")["status"] == "unreachable"
    throwaway_server.start()
    assert cells.checksums()["c1"] == before["c1"]
    assert cells.checksums()["c2"] != before["c2"]
    rest = cells.json("undo", run, "--yes")
    assert rest.code == 0, rest.said
    assert cells.checksums() == before


def test_history_and_undo_say_which_journal_they_could_not_read(cells: Deployment) -> None:
    """A run that is not found may be in the journal of the lost child: exit 4, not 'no such run'."""
    run = cells.repair().report["run"]
    with _closed() as port:
        broken = _at_port(cells, "c1", port)
        history = broken.run("history")
        undo = broken.run("undo", "20200101-000000-abcd", "--yes")
    assert history.code == 4
    assert run in history.out
    assert "c1" in history.err and f"127.0.0.1:{port}" in history.err
    assert undo.code == 4
    assert "c1" in undo.said

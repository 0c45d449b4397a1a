"""Two runs at once, and two children on one server: one writer to a database, one journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import sqlalchemy as sa
from deployment import Deployment
from servers import sql

from cellsync import cells as cell_files
from cellsync import db, journal


@contextmanager
def _holding(url: str, name: str) -> Iterator[int]:
    """Hold a named lock on a connection of its own; gives the connection's id."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT GET_LOCK(:name, 0)"), {"name": name}).scalar() == 1
        yield int(connection.execute(sa.text("SELECT CONNECTION_ID()")).scalar() or 0)


def _schema(cells: Deployment, cell: str) -> str:
    return str(sa.make_url(cells.urls[cell]).database)


def test_a_second_run_ends_with_5_and_names_the_holder(cells: Deployment) -> None:
    """The locked database is not written; the other child, which nobody holds, is."""
    before = cells.checksums()
    with _holding(cells.urls["c1"], f"cellsync:{_schema(cells, 'c1')}") as holder:
        done = cells.repair()
        text = cells.run("repair", "--yes")
    assert done.code == 5
    assert done.cell("c1")["locked"] is True
    (problem,) = done.cell("c1")["problems"]
    assert "another cellsync run" in problem
    assert str(holder) in problem
    assert done.cell("c1")["changes"]["applied"] == 0
    assert done.cell("c2")["changes"] == {"planned": 24, "applied": 24, "conflicts": 0, "failed": 0}
    assert cells.checksums()["c1"] == before["c1"]
    assert text.code == 5
    assert str(holder) in text.said
    assert cells.repair().cell("c1")["changes"]["applied"] == 28  # and then it goes on


def test_an_undo_keeps_out_of_a_locked_database_too(cells: Deployment) -> None:
    """The lock is for every writer, whatever its verb."""
    run = cells.repair().report["run"]
    before = cells.checksums()
    with _holding(cells.urls["c2"], f"cellsync:{_schema(cells, 'c2')}"):
        done = cells.json("undo", run, "--yes")
    assert done.code == 5
    assert cells.checksums()["c2"] == before["c2"]
    assert cells.checksums()["c1"] != before["c1"]


def test_a_reader_needs_no_lock(cells: Deployment) -> None:
    """A diff and a dry run look while another run writes."""
    with _holding(cells.urls["c1"], f"cellsync:{_schema(cells, 'c1')}"):
        assert cells.run("diff").code == 1
        assert cells.run("repair", "--dry-run").code == 1


def test_children_of_one_server_make_its_journal_together(cells: Deployment) -> None:
    """Whoever comes second finds the journal made, at whatever point the first one is."""
    topology = cell_files.load(cells.config, environ=os.environ)
    together = 6
    for _ in range(5):
        sql(cells.urls["parent"], "DROP DATABASE IF EXISTS cellsync")
        barrier = Barrier(together)

        def make(number: int, barrier: Barrier = barrier) -> None:
            with db.connect(topology.children[number % 2], db.Timeouts()) as database:
                barrier.wait(30)
                journal.prepare(database, cell=f"c{number}")

        with ThreadPoolExecutor(together) as pool:
            list(pool.map(make, range(together)))
        assert sql(cells.urls["parent"], "SELECT version FROM cellsync.format") == [(journal.VERSION,)]

"""Others write on both sides while cellsync repairs: none of their writes is lost or overwritten.

Every row belongs to one writer, who keeps a ledger of what he last committed. So what must be there
in the end can be said exactly, whenever his writes and cellsync's fell:

parent's rows   "p...": made, changed, renamed and deleted in the parent alone. The child follows.
child's rows    "c...": the child's own; no rule may touch them, whatever happens.
marks           a column of the parent's rows in the child that the rule leaves out, written in the
                child alone: cellsync never writes it, though it writes the row all the time.
fought over     "f...": both sides write the same column; every write of the child is a conflict or is
                journaled as what was there before. The parent's value wins in the end.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from agreement import journaled
from edges import Stand, execute, opened, rows, ruleset
from servers import AnyServer

from cellsync.errors import ExitCode
from cellsync.model import Action, CellResult, Report, TableDiff

TABLE = """
CREATE TABLE things (
    id int PRIMARY KEY AUTO_INCREMENT,
    name varchar(40) NOT NULL,
    size int,
    mark int NOT NULL DEFAULT 0,
    deleted int NOT NULL DEFAULT 0,
    deleted_at datetime,
    UNIQUE KEY (name, deleted)
)"""
RULES = """
rules:
  - table: things
    key: [name]
    columns: {exclude: [mark]}
    soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}
    on_insert: {deleted: 0, mark: 0}
    on_extra: soft_delete
    where: "name NOT LIKE 'c%'"
    limits: {updates: 100%, deletes: 100%}
"""
SECONDS = 8
SEED = 7


@dataclass
class Writer:
    """One thread with one connection, and the ledger of what it committed."""

    url: sa.engine.URL
    act: Callable[[Writer], None]
    random: random.Random
    prefix: str = ""
    ledger: dict[str, Any] = field(default_factory=dict)
    """Row -> what was last committed to it; None when it was deleted."""
    writes: int = 0
    pause: float = 0.002

    def run(self, until: threading.Event) -> None:
        """Write, until told to stop."""
        place = {"host": self.url.host, "port": self.url.port, "user": self.url.username}
        login = {"password": str(self.url.password), "database": self.url.database, "autocommit": True}
        self.connection = pymysql.connect(**place, **login)
        try:
            while not until.is_set():
                try:
                    self.act(self)
                except pymysql.err.OperationalError as error:
                    if error.args[0] not in (1205, 1213):  # cellsync held the row: not written
                        raise
                time.sleep(self.pause)
        finally:
            self.connection.close()

    def sql(self, statement: str, *values: Any) -> int:
        """Run one statement and commit it; return how many rows it changed."""
        with self.connection.cursor() as cursor:
            changed = cursor.execute(statement, values)
        self.writes += bool(changed)
        return changed


def own_rows(writer: Writer) -> None:
    """Make, change, rename or soft-delete a row that nobody else writes."""
    number, chance = writer.random.randrange(60), writer.random.random()
    live = [name for name, value in writer.ledger.items() if value is not None]
    if chance < 0.3 or not live:
        name = f"{writer.prefix}{number}-{writer.writes}"
        writer.sql("INSERT INTO things (name, size) VALUES (%s, %s)", name, number)
        writer.ledger[name] = number
        return
    name = writer.random.choice(live)
    if chance < 0.7:
        size = writer.random.randrange(1_000_000)
        if writer.sql("UPDATE things SET size = %s WHERE name = %s AND deleted = 0", size, name):
            writer.ledger[name] = size
    elif chance < 0.85:
        other = f"{writer.prefix}{number}-{writer.writes}r"
        if writer.sql("UPDATE things SET name = %s WHERE name = %s AND deleted = 0", other, name):
            writer.ledger[other], writer.ledger[name] = writer.ledger[name], None
    # A row that was renamed and deleted between two runs is reported and stays: the parent's tombstone
    # has another name than the child's row.
    elif not name.endswith("r") and writer.sql(
        "UPDATE things SET deleted = id, deleted_at = UTC_TIMESTAMP() WHERE name = %s AND deleted = 0", name
    ):
        writer.ledger[name] = None


def marks(writer: Writer) -> None:
    """Count up the mark of a parent's row in the child: a column that no rule writes."""
    with writer.connection.cursor() as cursor:
        cursor.execute("SELECT id FROM things WHERE name LIKE 'p%%' AND deleted = 0 ORDER BY RAND() LIMIT 1")
        found = cursor.fetchone()
    if found and writer.sql("UPDATE things SET mark = mark + 1 WHERE id = %s", found[0]):
        writer.ledger[found[0]] = writer.ledger.get(found[0], 0) + 1


def fought_over(writer: Writer) -> None:
    """Write a row that the other side writes too; every value is written once."""
    name, value = f"f{writer.random.randrange(5)}", writer.writes * 2 + (writer.prefix == "api")
    if writer.sql("UPDATE things SET size = %s WHERE name = %s AND deleted = 0", value, name):
        writer.ledger[name] = value


@contextmanager
def writing(writers: list[Writer]) -> Iterator[None]:
    """Let all of them write while the block runs."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(writers)) as pool:
        futures = [pool.submit(writer.run, stop) for writer in writers]
        try:
            yield
        finally:
            stop.set()
        for future in futures:
            future.result()


@pytest.mark.slow
def test_nobody_else_s_write_is_lost(servers: Mapping[str, AnyServer], database: Callable[..., str]) -> None:
    """Hundreds of writes a second on both sides, during several repairs; quiet in the end."""
    urls = {"api": database(servers["parent"]), "c1": database(servers["c1"])}
    for url in urls.values():
        execute(
            url,
            TABLE,
            "INSERT INTO things (name, size) VALUES " + ", ".join(f"('f{n}', 0)" for n in range(5)),
        )
    stand = Stand(urls, ruleset(RULES))
    busy = replace(stand, judged=False)

    def writer(cell: str, act: Callable[[Writer], None], prefix: str) -> Writer:
        return Writer(sa.make_url(urls[cell]), act, random.Random(f"{SEED}{cell}{prefix}"), prefix)

    parents = [writer("api", own_rows, f"p{n}") for n in range(2)]
    children = [writer("c1", own_rows, f"c{n}") for n in range(2)]
    marker = writer("c1", marks, "m")
    fighters = [writer(cell, fought_over, cell) for cell in urls]
    everybody = [*parents, *children, marker, *fighters]
    started = time.monotonic()
    runs, applied, conflicts = 0, 0, 0
    with writing(everybody):
        while time.monotonic() < started + SECONDS:
            runs += 1
            (cell,) = busy.repair(f"r{runs}").cells
            assert isinstance(cell, CellResult), cell
            applied += cell.counts.applied
            conflicts += cell.counts.conflicts
            failed = [line for line in cell.problems if ": failed: " in line]
            assert not failed, failed
        seconds = time.monotonic() - started
    rates = {cell: sum(w.writes for w in everybody if w.url == sa.make_url(urls[cell])) for cell in urls}
    told = ", ".join(f"{writes / seconds:.0f} writes/s in {cell}" for cell, writes in rates.items())
    print(f"\n{runs} repairs in {seconds:.0f} s beside {told}: {applied} applied, {conflicts} conflicts")
    last = stand.repair("last")
    assert last.exit_code is ExitCode.IN_STEP, left(last)
    assert stand.diff().exit_code is ExitCode.IN_STEP
    check_rows(urls["api"], urls["c1"], parents, children)
    check_marks(urls["c1"], marker)
    check_fought_over(urls, fighters[1])
    assert min(rates.values()) / seconds > 100, told
    assert applied > 50
    assert conflicts > 0, "nobody ever met: the test shows nothing"


def left(report: Report) -> list[Any]:
    """Return what a repair left undone."""
    (cell,) = report.cells
    assert isinstance(cell, CellResult)
    undone = [
        d for table in cell.tables for d in getattr(table, "differences", ()) if d.action is Action.REPORT
    ]
    return [
        *undone,
        *(table.findings for table in cell.tables if isinstance(table, TableDiff)),
        cell.problems,
        cell.skipped,
    ]


def live(url: str, prefix: str) -> dict[str, int]:
    """Return name -> size of the live rows of some owner."""
    query = f"SELECT name, size FROM things WHERE deleted = 0 AND name LIKE '{prefix}%'"
    return {row["name"]: row["size"] for row in rows(url, query)}


def check_rows(api: str, child: str, parents: list[Writer], children: list[Writer]) -> None:
    """The parent's rows are as he left them, on both sides; the child's own are as it left them."""
    for writer in (*parents, *children):
        kept = {name: value for name, value in writer.ledger.items() if value is not None}
        assert live(child, writer.prefix) == kept
        assert live(api, writer.prefix) == (kept if writer in parents else {})


def check_marks(child: str, marker: Writer) -> None:
    """Every mark was kept, on rows that cellsync kept writing."""
    found = {row["id"]: row["mark"] for row in rows(child, "SELECT id, mark FROM things WHERE mark > 0")}
    assert found == marker.ledger


def check_fought_over(urls: Mapping[str, str], child: Writer) -> None:
    """The parent's value stands; what cellsync wrote over was read, guarded and journaled before.

    Each journaled ``before`` is what was really there: a value that the child wrote, or one that
    cellsync itself wrote the time before.
    """
    assert live(urls["c1"], "f") == live(urls["api"], "f")
    with opened(urls["c1"]) as database:
        changes = [each.change for each in journaled(database)[1]]
    for name in live(urls["api"], "f"):
        written: set[Any] = {0}
        for change in changes:
            if change.action is Action.UPDATE and change.key == (name,):
                before, after = change.before or {}, change.after or {}
                own = before["size"] % 2 == 0 and before["size"] <= child.writes * 2
                assert own or before["size"] in written, change
                written.add(after["size"])

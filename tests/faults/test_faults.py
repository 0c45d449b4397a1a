"""What servers and networks do to a repair: what passes is waited for, what stays is named."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from agreement import contents, disagreements, journaled
from edges import Stand, add, execute, opened, result, rows, ruleset, table
from proxy import Fault, Proxy
from servers import AnyServer, DatabaseFactory, PrivateServer

from cellsync import db, run
from cellsync.apply import executing
from cellsync.demo.database import connected
from cellsync.errors import ExitCode
from cellsync.model import CellFailure, Report, Status, TableFailure

pytestmark = pytest.mark.slow

THINGS = "CREATE TABLE things (id int PRIMARY KEY AUTO_INCREMENT, name varchar(20) NOT NULL, note longtext)"
OTHERS = "CREATE TABLE others (id int PRIMARY KEY AUTO_INCREMENT, name varchar(20) NOT NULL, note longtext)"
CELLS = ("api", "c1", "c2")
RULES = """
defaults: {on_extra: delete, limits: {updates: 100%, deletes: 100%}}
rules:
  - {table: things, key: [name]}
  - {table: others, key: [name]}
"""


def stand(api: str, child: str, rules: str = RULES) -> Stand:
    """Return a parent and a child with two empty tables each."""
    for url in (api, child):
        execute(url, THINGS, OTHERS)
    return Stand({"api": api, "c1": child}, ruleset(rules))


def fill(place: Stand, number: int = 3) -> None:
    """Make things and others differ: missing, changed and too many."""
    for name in ("things", "others"):
        add(place.urls["api"], name, *({"name": f"n{n}", "note": "new"} for n in range(number)))
        add(place.urls["c1"], name, {"name": "n0", "note": "old"}, {"name": "extra", "note": "x"})


def names(url: str, table: str = "things") -> dict[str, str]:
    """Return name -> note."""
    return {row["name"]: row["note"] for row in rows(url, f"SELECT name, note FROM {table}")}


def through(place: Stand, proxy: Proxy, cell: str = "c1") -> Stand:
    """Return the stand with one cell behind a proxy."""
    return Stand({**place.urls, cell: proxy.url}, place.rules, direct=place.urls)


def problems(report: Report, cell: str = "c1") -> str:
    """Return all that a report says went wrong in a cell."""
    found = next(each for each in report.cells if each.cell == cell)
    if isinstance(found, CellFailure):
        return found.error
    errors = [table.error for table in found.tables if isinstance(table, TableFailure)]
    return "; ".join([*found.problems, *errors])


def agrees(place: Stand, before: Any) -> bool:
    """Say whether the child's journal and data agree."""
    with opened(place.urls["c1"]) as database:
        return disagreements(before, database) == []


def before(place: Stand) -> Any:
    """Return the child's rows."""
    with opened(place.urls["c1"]) as database:
        return contents(database, "things", "others")


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread of its own while the block runs; fail when it fails."""
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    assert not failed


def process(url: str, holding: str, *, beside: Sequence[int] = (), seconds: float = 20) -> int:
    """Wait for a statement that holds this text; return the id of its connection."""
    query = (
        "SELECT ID, INFO FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()"
    )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for row in rows(url, query):
            if holding in str(row["INFO"]) and row["ID"] not in beside:
                return int(row["ID"])
        time.sleep(0.01)
    raise AssertionError(f"nobody runs {holding}")


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def place(database: DatabaseFactory) -> Stand:
    """Give a parent and a child that differ."""
    made = stand(database(), database())
    fill(made)
    return made


# -- The server goes away ----------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_server_that_is_killed_and_started_again_is_waited_for(
    throwaway_server: PrivateServer, database: DatabaseFactory, at: int
) -> None:
    """At the commit of each batch: the run goes on where it was and ends clean."""
    place = stand(database(), database(throwaway_server))
    fill(place)
    place_before = before(place)
    with Proxy(place.urls["c1"]) as proxy:

        def restart() -> None:
            until(lambda: proxy.struck)
            assert throwaway_server.process
            throwaway_server.process.kill()
            throwaway_server.process.wait()
            throwaway_server.start()

        proxy.arm(at, Fault.AFTER, holding="^COMMIT")
        with meanwhile(restart):
            report = through(place, proxy).repair("r1")
    assert (report.exit_code, problems(report)) == (ExitCode.IN_STEP, "")
    assert result(report, "c1").counts.applied == 8
    assert agrees(place, place_before)
    assert names(place.urls["c1"]) == names(place.urls["api"])


def test_a_server_that_refuses_connections_for_a_while_is_waited_for(place: Stand) -> None:
    """In the middle of the writing; the tries are spread over some seconds."""
    start = before(place)
    with Proxy(place.urls["c1"]) as proxy:

        def refuse() -> None:
            until(lambda: proxy.struck)
            with proxy.refusing(1):
                pass

        proxy.arm(2, Fault.BEFORE, holding="^COMMIT")
        with meanwhile(refuse):
            report = through(place, proxy).repair("r1")
    assert (report.exit_code, problems(report)) == (ExitCode.IN_STEP, "")
    assert agrees(place, start)
    assert names(place.urls["c1"]) == names(place.urls["api"])


def test_a_server_that_stays_away_is_named_and_what_was_made_counts(
    place: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch stands and is in the report; the rest failed, with the cause."""
    monkeypatch.setattr(executing, "TRIES", 1)
    start = before(place)
    with Proxy(place.urls["c1"]) as proxy:

        def leave() -> None:
            until(lambda: proxy.struck)
            proxy.refuse()
            proxy.cut()

        proxy.arm(2, Fault.BEFORE, holding="^COMMIT")
        with meanwhile(leave):
            report = through(place, proxy).repair("r1")
    assert report.exit_code is ExitCode.INCOMPLETE
    with opened(place.urls["c1"]) as database:
        made = len(journaled(database)[1])
    assert result(report, "c1").counts.applied == made > 0
    assert result(report, "c1").counts.failed == 8 - made
    assert "cannot connect" in problems(report)
    assert agrees(place, start)
    again = place.repair("r2")
    assert again.exit_code is ExitCode.IN_STEP
    assert any("r1" in note and "cut off" in note for note in result(again, "c1").notices)
    assert agrees(place, start)


@pytest.mark.parametrize("cell", ["api", "c1"])
def test_a_server_that_never_answers_is_named(place: Stand, cell: str) -> None:
    """Refused connections write nothing and are no differences."""
    start = before(place)
    with Proxy(place.urls[cell]) as proxy:
        away = through(place, proxy, cell)
        proxy.refuse()
        report = away.repair("r1")
    assert report.exit_code is ExitCode.INCOMPLETE
    assert isinstance(report.cells[0], CellFailure)
    assert f"cannot connect to {cell}" in report.cells[0].error
    assert before(place) == start


@pytest.mark.parametrize(
    ("side", "holding"),
    [
        ("api", "SELECT .* FROM `things`"),
        ("c1", "SELECT .* FROM `things`"),
        ("c1", "INSERT INTO `things` .*VALUES"),
        ("c1", "^COMMIT"),
    ],
)
def test_a_network_that_swallows_everything_is_given_up(place: Stand, side: str, holding: str) -> None:
    """An answer is waited for as long as a statement may take and a little longer, then no more.

    The server cannot know that its client has given up: the locks of the lost transaction are let
    go by the limit on idle writers, and until then the next try waits for them.
    """
    limits = db.Timeouts(connect=2, statement=2, answer=1, lock=1, idle_transaction=3, idle_writer=3)
    start = before(place)
    started = time.monotonic()
    with Proxy(place.urls[side]) as proxy:
        proxy.arm(1, Fault.STALL, holding=holding)
        request = replace(through(place, proxy, side).request("repair", "r1"), timeouts=limits)
        report = run.write(request, run.compare(request))
        assert proxy.struck
    assert time.monotonic() - started < 20
    if "SELECT" in holding:
        assert report.exit_code is ExitCode.INCOMPLETE
        assert re.search("timed out|Lost connection", problems(report))
    else:
        assert (report.exit_code, problems(report)) == (ExitCode.IN_STEP, "")
        assert names(place.urls["c1"]) == names(place.urls["api"])
    assert agrees(place, start)


# -- A scan that ends early --------------------------------------------------------------------


@pytest.mark.parametrize("side", ["api", "c1"])
@pytest.mark.parametrize("rule", ["things", "others"])
def test_a_scan_that_ends_early_is_an_error_and_no_end_of_rows(
    database: DatabaseFactory, side: str, rule: str
) -> None:
    """Half of a large table came through: no row of the other half is missing or extra."""
    place = stand(database(), database())
    for url in place.urls.values():
        for name in ("things", "others"):
            execute(url, f"INSERT INTO {name} (name, note) SELECT seq, REPEAT('x', 500) FROM seq_1_to_3000")
    start = before(place)
    with Proxy(place.urls[side]) as proxy:
        proxy.arm(1, Fault.HALF, holding=f"SELECT .* FROM `{rule}`")
        report = through(place, proxy, side).repair("r1")
        assert proxy.struck
    assert report.exit_code is ExitCode.INCOMPLETE
    assert result(report, "c1").counts.planned == 0
    (table,) = (each for each in result(report, "c1").tables if each.rule == rule)
    assert isinstance(table, TableFailure)
    assert "Lost connection" in table.error
    assert before(place) == start


@pytest.mark.parametrize("side", ["api", "c1"])
@pytest.mark.parametrize("asked", ["GET_LOCK.*cellsync-same", "IS_USED_LOCK", "RELEASE_LOCK.*cellsync-same"])
def test_a_cell_is_not_written_while_nobody_knows_whose_database_it_is(
    servers: Mapping[str, AnyServer],
    database: DatabaseFactory,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
    asked: str,
) -> None:
    """Where a server has no uid, a named lock tells; the connection is lost while it is asked for."""
    known = db.Database.identity
    monkeypatch.setattr(db.Database, "identity", lambda self: replace(known(self), server=""))
    urls = {name: database(servers[where], name="same") for name, where in zip(CELLS, servers, strict=True)}
    for url in urls.values():
        execute(url, THINGS, OTHERS)
    add(urls["api"], "things", {"name": "a"})
    place = Stand(urls, ruleset(RULES))
    with Proxy(urls[side]) as proxy:
        proxy.arm(1, Fault.AFTER, holding=asked)
        report = through(place, proxy, side).repair("r1")
        struck = proxy.struck
    written = [name for name in ("c1", "c2") if names(urls[name])]
    if not struck:  # the lock is taken through the one and looked for through the other
        assert (report.exit_code, written) == (ExitCode.IN_STEP, ["c1", "c2"])
        return
    assert report.exit_code is ExitCode.INCOMPLETE
    assert written == (["c2"] if side == "c1" else [])
    assert "could not be told" in problems(report)


# -- Killed from outside -----------------------------------------------------------------------

SLOW = """
rules:
  - {table: things, key: [name], on_extra: delete, where: "SLEEP(0.02) = 0"}
  - {table: others, key: [name]}
"""


@pytest.mark.parametrize("how", ["QUERY", "CONNECTION"])
@pytest.mark.parametrize("side", ["api", "c1"])
def test_a_reading_that_is_killed_is_named(database: DatabaseFactory, how: str, side: str) -> None:
    """KILL QUERY and KILL during the reading of a table: the table failed, and nothing is written."""
    place = stand(database(), database(), SLOW)
    for url in place.urls.values():
        execute(url, "INSERT INTO things (name, note) SELECT seq, 'x' FROM seq_1_to_100")
    start = before(place)
    with meanwhile(
        lambda: execute(place.urls[side], f"KILL {how} {process(place.urls[side], 'SLEEP(0.02)')}")
    ):
        report = replace(place, judged=False).repair("r1")
    assert report.exit_code is ExitCode.INCOMPLETE
    assert re.search("interrupted|Lost connection|killed", problems(report)), problems(report)
    assert before(place) == start
    assert report.cells[0].status is not Status.REPAIRED


def test_a_write_whose_query_is_killed_fails_by_name_and_the_other_rule_is_written(place: Stand) -> None:
    """Somebody wanted it to stop: it is not tried again."""
    start = before(place)
    with held(place, "things", "n0") as release:

        def kill() -> None:
            execute(place.urls["c1"], f"KILL QUERY {process(place.urls['c1'], 'FOR UPDATE')}")
            time.sleep(0.3)
            release()

        with meanwhile(kill):
            report = place.repair("r1")
    assert report.exit_code is ExitCode.INCOMPLETE
    assert "interrupted" in problems(report)
    assert names(place.urls["c1"], "others") == names(place.urls["api"], "others")
    assert agrees(place, start)
    assert place.repair("r2").exit_code is ExitCode.IN_STEP


def test_a_write_whose_connection_is_killed_is_made_again(place: Stand) -> None:
    """A connection may die for any reason; the transaction is made once, as a whole."""
    start = before(place)
    with held(place, "things", "n0") as release:

        def kill() -> None:
            execute(place.urls["c1"], f"KILL {process(place.urls['c1'], 'FOR UPDATE')}")
            release()

        with meanwhile(kill):
            report = place.repair("r1")
    assert (report.exit_code, problems(report)) == (ExitCode.IN_STEP, "")
    assert agrees(place, start)
    assert names(place.urls["c1"]) == names(place.urls["api"])


# -- Locks -------------------------------------------------------------------------------------


@contextmanager
def held(place: Stand, table: str, name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of a row of the child until the block ends or what it is given is called."""
    with connected(sa.make_url(place.urls["c1"])) as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(f"SELECT * FROM {table} WHERE name = '{name}' FOR UPDATE")
        yield lambda: connection.exec_driver_sql("ROLLBACK") and None


@pytest.mark.parametrize("seconds", [0.5, 1.5], ids=["shorter", "longer"])
def test_a_row_that_is_locked_for_a_while_is_waited_for(place: Stand, seconds: float) -> None:
    """Shorter than the bound of one wait (1 s), and longer: then the transaction is made again."""
    start = before(place)
    with held(place, "things", "n0") as release:

        def let_go() -> None:
            process(place.urls["c1"], "FOR UPDATE")
            time.sleep(seconds)
            release()

        with meanwhile(let_go):
            report = place.repair("r1")
    assert (report.exit_code, problems(report)) == (ExitCode.IN_STEP, "")
    assert agrees(place, start)
    assert names(place.urls["c1"]) == names(place.urls["api"])


def test_a_row_that_stays_locked_fails_its_rule_by_name(
    place: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded: the other rule is written, and the next run does the rest."""
    monkeypatch.setattr(executing, "TRIES", 1)
    start = before(place)
    with held(place, "things", "n0"):
        started = time.monotonic()
        report = place.repair("r1")
    assert time.monotonic() - started < 10
    assert report.exit_code is ExitCode.INCOMPLETE
    assert "Lock wait timeout exceeded" in problems(report)
    assert names(place.urls["c1"], "others") == names(place.urls["api"], "others")
    assert agrees(place, start)
    assert place.repair("r2").exit_code is ExitCode.IN_STEP
    assert agrees(place, start)


# -- Galera ------------------------------------------------------------------------------------


@pytest.fixture
def certification(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Let that many commits fail as they do on Galera: rolled back, with its words."""
    plain = pymysql.cursors.Cursor.execute
    failed: list[str] = []

    def certification(times: int) -> list[str]:
        def execute(cursor: Any, query: str, args: Any = None) -> int:
            if query == "COMMIT" and len(failed) < times:
                failed.append(query)
                plain(cursor, "ROLLBACK")
                words = "WSREP detected deadlock/conflict and aborted the transaction. Try restarting it"
                raise pymysql.err.OperationalError(1213, words)
            return int(plain(cursor, query, args))

        monkeypatch.setattr(pymysql.cursors.Cursor, "execute", execute)
        return failed

    return certification


def test_a_certification_failure_is_tried_again(
    place: Stand, certification: Callable[[int], list[str]]
) -> None:
    """Galera finds a conflict at COMMIT: the whole transaction is made again."""
    start = before(place)
    failed = certification(2)
    report = place.repair("r1")
    assert (report.exit_code, problems(report), len(failed)) == (ExitCode.IN_STEP, "", 2)
    assert agrees(place, start)
    assert names(place.urls["c1"]) == names(place.urls["api"])


def test_a_certification_failure_that_stays_is_named(
    place: Stand, certification: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded tries; nothing is written, and the cause is in the report."""
    monkeypatch.setattr(executing, "TRIES", 1)
    start = before(place)
    certification(1000)
    report = place.repair("r1")
    assert report.exit_code is ExitCode.INCOMPLETE
    assert "WSREP detected deadlock" in problems(report)
    assert result(report, "c1").counts.applied == 0
    assert agrees(place, start)
    assert before(place) == start


# -- Packets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["insert", "update"])
@pytest.mark.parametrize("size", [2_000_000, 600_000, 400_000, 200_000, 100_000])
def test_a_row_larger_than_a_packet_fails_alone(
    database: DatabaseFactory,
    server_with: Callable[..., AnyServer],
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    size: int,
) -> None:
    """By itself or with its journal's row, which holds what it was and what it is: it is not even tried."""
    monkeypatch.setattr(executing, "TRIES", 0)
    place = stand(database(), database(server_with("--max-allowed-packet=1M")))
    note = "'\"\\x" * (size // 4)
    add(place.urls["api"], "things", {"name": "a", "note": "1"}, {"name": "b", "note": note})
    add(place.urls["api"], "things", {"name": "c", "note": "1"})
    if action == "update":
        was = {"note": "y" * min(size, 400_000)}
        add(place.urls["c1"], "things", *({"name": name, **was} for name in "abc"))
    start = before(place)
    report = place.repair("r1")
    found = names(place.urls["c1"])
    assert (found["a"], found["c"]) == ("1", "1"), problems(report)
    assert (report.exit_code is ExitCode.IN_STEP) == (found.get("b") == note)
    if report.exit_code is not ExitCode.IN_STEP:
        assert (report.exit_code, problems(report)) == (ExitCode.DIFFERENCES, "")
        (finding,) = table(report, "c1", "things").findings
        assert (finding.code, finding.key) == ("unwritable-value", ("b",))
        assert "max_allowed_packet" in finding.message
    assert agrees(place, start)


# -- What a stuck cellsync holds up ------------------------------------------------------------


def test_every_session_has_its_limits(database: DatabaseFactory) -> None:
    """As they are given, or by default; a stuck run holds nobody up for longer."""
    names_of = ("lock_wait_timeout", "innodb_lock_wait_timeout", "idle_transaction_timeout")
    more = ("idle_write_transaction_timeout", "net_write_timeout")
    limits = db.Timeouts()
    with opened(database()) as own, db.connect(own.cell, limits) as usual:
        query = f"SELECT {', '.join(f'@@{name}' for name in (*names_of, *more))}, @@max_statement_time"
        (found,) = usual.connection.exec_driver_sql(query).all()
    idle = limits.idle_transaction
    assert tuple(found) == (limits.lock, limits.lock, idle, limits.idle_writer, idle, limits.statement)


STUCK = """
import sys, time
from edges import cell
from cellsync import db

with db.connect(cell("c1", sys.argv[1]), db.Timeouts(idle_transaction=2)) as database:
    with database.snapshot():
        cursor = database.connection.execution_options(stream_results=True).exec_driver_sql(sys.argv[2])
        cursor.fetchone()
        print("ready", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("reading", ["one row", "in the middle of many"])
def test_an_alter_table_does_not_wait_for_a_stuck_cellsync(database: DatabaseFactory, reading: str) -> None:
    """Stopped while it holds a snapshot, between two statements or in the middle of a result."""
    url = database()
    execute(url, THINGS, "INSERT INTO things (name, note) SELECT seq, REPEAT('x', 20000) FROM seq_1_to_2000")
    query = "SELECT * FROM things" + (" LIMIT 1" if reading == "one row" else "")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", STUCK, url, query]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as stuck:
        try:
            assert stuck.stdout
            assert stuck.stdout.readline() == b"ready\n"
            stuck.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            execute(url, "SET SESSION lock_wait_timeout = 20", "ALTER TABLE things ADD COLUMN more int")
            assert time.monotonic() - started < 10
        finally:
            stuck.kill()

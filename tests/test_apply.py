"""Every write is guarded, recorded with its record or not at all, and fails by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from edges import Stand, add, execute, opened, result, rows, ruleset, table
from servers import DatabaseFactory, checksums

from cellsync import apply, db, run
from cellsync.apply import executing, verifying
from cellsync.errors import TransactionLost, WriteFailed
from cellsync.journal import Journal, prepare
from cellsync.model import Action, Change, Family, Fate, Outcome, Projected, Projection, Row, Secrets

THINGS = """
CREATE TABLE things (
    id int PRIMARY KEY AUTO_INCREMENT,
    name varchar(20) NOT NULL,
    size int,
    touched timestamp(6) NOT NULL DEFAULT current_timestamp(6) ON UPDATE current_timestamp(6),
    doubled int AS (size * 2) STORED
) COLLATE utf8mb4_general_ci"""
PARTS = """
CREATE TABLE parts (
    id int PRIMARY KEY AUTO_INCREMENT,
    thing_id int,
    label varchar(20),
    CONSTRAINT parts_of_things FOREIGN KEY (thing_id) REFERENCES things (id)
)"""
RULES = """
rules:
  - table: things
    key: [name]
    columns: {exclude: [touched]}
    on_extra: delete
    limits: {updates: 100%, deletes: 100%}
  - {table: parts, key: [thing_id, label], references: {thing_id: things}, on_extra: delete}
"""


@pytest.fixture
def stand(database: DatabaseFactory) -> Stand:
    """Give a parent and a child that share nothing but their schema; ids differ."""
    urls = {"api": database(), "c1": database()}
    for start, url in zip((1, 100), urls.values(), strict=True):
        execute(url, THINGS, PARTS, f"ALTER TABLE things AUTO_INCREMENT = {start}")
    return Stand(urls, ruleset(RULES))


def things(stand: Stand, name: str = "c1") -> dict[str, Any]:
    """Return name -> size of the things of a cell."""
    return {row["name"]: row["size"] for row in rows(stand.urls[name], "SELECT name, size FROM things")}


def journaled(stand: Stand) -> int:
    """Return how many changes the child's journal holds."""
    return int(rows(stand.urls["c1"], "SELECT COUNT(*) AS n FROM cellsync.changes")[0]["n"])


def after(stand: Stand, *statements: str) -> tuple[Sequence[str], int]:
    """Plan a repair, change the child behind its back, write; return the problems and what was applied."""
    request, prepared = stand.prepare("r1")
    execute(stand.urls["c1"], *statements)
    done = result(run.write(request, prepared), "c1")
    assert done.counts.applied == journaled(stand)
    return done.problems, done.counts.applied


# -- Guards ------------------------------------------------------------------------------------


def test_a_row_that_moved_is_left_alone_and_its_neighbour_is_written(stand: Stand) -> None:
    """The conflict says what the row was and what it is."""
    add(stand.urls["api"], "things", {"name": "a", "size": 1}, {"name": "b", "size": 2})
    add(stand.urls["c1"], "things", {"name": "a", "size": 7}, {"name": "b", "size": 8})
    problems, applied = after(stand, "UPDATE things SET size = 9 WHERE name = 'a'")
    assert problems == ("update things name=a: conflict: size was 7 and is 9",)
    assert applied == 1
    assert things(stand) == {"a": 9, "b": 2}


@pytest.mark.parametrize("now", ["A", "a ", "á"])
def test_a_row_whose_key_has_another_spelling_now_has_moved(stand: Stand, now: str) -> None:
    """Guards compare binary, whatever the collation takes for equal."""
    add(stand.urls["api"], "things", {"name": "a", "size": 1})
    add(stand.urls["c1"], "things", {"name": "a", "size": 7})
    problems, applied = after(stand, f"UPDATE things SET name = '{now}'")
    assert problems == (f"update things name=a: conflict: name was a and is {now}",)
    assert (applied, things(stand)) == (0, {now: 7})


def test_a_row_that_is_gone_is_a_conflict(stand: Stand) -> None:
    """For an update and for a delete."""
    add(stand.urls["api"], "things", {"name": "a", "size": 1})
    add(stand.urls["c1"], "things", {"name": "a", "size": 7}, {"name": "x", "size": 7})
    problems, applied = after(stand, "DELETE FROM things")
    assert problems == (
        "update things name=a: conflict: the row is gone",
        "delete things name=x: conflict: the row is gone",
    )
    assert applied == 0


@pytest.mark.parametrize("name", ["a", "A", "a ", "á"])
def test_a_key_that_was_taken_meanwhile_is_not_inserted(stand: Stand, name: str) -> None:
    """Also not when it was taken in another spelling, which no unique index forbids here."""
    add(stand.urls["api"], "things", {"name": "a", "size": 1}, {"name": "b", "size": 2})
    problems, applied = after(stand, f"INSERT INTO things (id, name) VALUES (7, '{name}')")
    assert problems == ("insert things name=a: conflict: the key is taken by id 7",)
    assert applied == 1
    assert set(things(stand)) == {name, "b"}


def test_a_reference_that_is_gone_or_doubled_is_a_conflict(stand: Stand) -> None:
    """The row is written by looking its reference up, so the reference must name one row."""
    for name, url in stand.urls.items():
        add(url, "things", {"id": 5, "name": "a"}, {"id": 6, "name": "b"}, {"id": 7, "name": "c"})
        for number in (5, 6, 7) if name == "api" else ():
            add(url, "parts", {"thing_id": number, "label": "x"})
    problems, applied = after(
        stand,
        "DELETE FROM things WHERE name = 'a'",
        "INSERT INTO things (name) VALUES ('b')",
        "INSERT INTO things (name) VALUES ('C')",
    )
    assert problems == (
        "insert parts thing_id=a label=x: conflict: the things row a that it refers to is not there",
        "insert parts thing_id=b label=x: conflict: the things row b that it refers to is there 2 times",
    )
    assert applied == 1
    assert [row["thing_id"] for row in rows(stand.urls["c1"], "SELECT * FROM parts")] == [7]


def test_a_row_in_limbo_takes_no_key(database: DatabaseFactory) -> None:
    """The application does not see it and no unique key holds for it: the live row is inserted."""
    urls = {"api": database(), "c1": database()}
    for url in urls.values():
        execute(url, "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), deleted int)")
    add(urls["api"], "t", {"name": "a", "deleted": 0})
    add(urls["c1"], "t", {"name": "a", "deleted": None})
    soft = "{column: deleted, live: 0, tombstone: id}"
    stand = Stand(urls, ruleset(f"rules: [{{table: t, key: [name], soft_delete: {soft}}}]"))
    assert result(stand.repair("r1"), "c1").problems == ()
    assert [row["deleted"] for row in rows(urls["c1"], "SELECT * FROM t ORDER BY id")] == [None, 0]


def test_a_row_that_refers_to_a_deleted_row_takes_no_key(database: DatabaseFactory) -> None:
    """A leftover of the deleted "a" does not keep the row of the live "a" out."""
    urls = {"api": database(), "c1": database()}
    for url in urls.values():
        execute(
            url,
            "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), deleted int)",
            "CREATE TABLE h (id int PRIMARY KEY AUTO_INCREMENT, t_id int, host varchar(9))",
        )
    add(urls["api"], "t", {"id": 3, "name": "a", "deleted": 0})
    add(urls["api"], "h", {"t_id": 3, "host": "x"})
    add(urls["c1"], "t", {"id": 8, "name": "a", "deleted": 8})
    add(urls["c1"], "h", {"t_id": 8, "host": "x"})
    soft = "{column: deleted, live: 0, tombstone: id}"
    known = ruleset(
        f"""
        rules:
          - {{table: t, key: [name], soft_delete: {soft}}}
          - {{table: h, key: [t_id, host], references: {{t_id: t}}}}
        """
    )
    stand = Stand(urls, known)
    assert result(stand.repair("r1"), "c1").problems == ()
    assert [row["t_id"] for row in rows(urls["c1"], "SELECT * FROM h ORDER BY id")] == [8, 9]


def test_an_undo_is_not_stopped_by_a_tombstone_of_the_same_key(database: DatabaseFactory) -> None:
    """A re-created aggregate stands beside its tombstone; neither an update nor a delete of it is new."""
    urls = {"api": database(), "c1": database()}
    for url in urls.values():
        execute(
            url,
            "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), size int, deleted int, "
            "deleted_at datetime, created_at datetime)",
        )
        add(url, "t", {"id": 1, "name": "a", "deleted": 1}, {"id": 2, "name": "b", "deleted": 2})
    add(urls["api"], "t", {"id": 3, "name": "a", "size": 1, "deleted": 0})
    execute(urls["api"], "UPDATE t SET deleted_at = '2026-01-01' WHERE deleted > 0")
    add(urls["c1"], "t", {"id": 4, "name": "a", "size": 7, "deleted": 0})
    add(urls["c1"], "t", {"id": 5, "name": "b", "deleted": 0, "created_at": "2025-01-01 00:00:00"})
    known = ruleset(
        """
        rules:
          - table: t
            key: [name]
            soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}
            on_insert: {created_at: now}
            on_extra: soft_delete
        """
    )
    stand = Stand(urls, known)
    before = checksums(urls["c1"])
    assert result(stand.repair("r1"), "c1").counts.applied == 2
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(urls["c1"]) == before


# -- Rows that the server does not take ----------------------------------------------------------

UNFIT = {
    "too long": ("varchar(20)", "varchar(3)", "abcd"),
    "wrong charset": ("varchar(20)", "varchar(20) CHARACTER SET latin1", "😀"),
    "three bytes": ("varchar(20)", "varchar(20) CHARACTER SET utf8mb3", "😀"),
    "out of range": ("int", "tinyint", 300),
    "unsigned": ("int", "int unsigned", -1),
    "not null": ("int", "int NOT NULL", None),
    "check": ("int", "int CHECK (v < 5)", 7),
    "enum": ("enum('a','b')", "enum('a')", "b"),
    "unique": ("varchar(20)", "varchar(20) UNIQUE", "taken"),
    "json": ("longtext", "json", "{"),
    "inet6": ("varchar(20)", "inet6", "nonsense"),
    # The server says nothing about these, or only whispers it in a note.
    "spaces cut": ("varchar(20)", "varchar(3)", "abc  "),
    "padding": ("varchar(20)", "char(20)", "a "),
    "zeros added": ("varbinary(4)", "binary(4)", b"a"),
    "fraction": ("datetime(6)", "datetime", "2026-01-01 00:00:00.500000"),
    "rounded": ("decimal(10,4)", "decimal(10,2)", "1.2345"),
    "single": ("double", "float", 0.1),
}


@pytest.mark.parametrize("update", [False, True], ids=["insert", "update"])
@pytest.mark.parametrize("case", UNFIT)
def test_a_row_that_does_not_fit_fails_alone_and_nothing_is_mangled(
    database: DatabaseFactory, case: str, update: bool
) -> None:
    """Its neighbours are written, it is named, and the child holds no other value than the parent."""
    wide, narrow, value = UNFIT[case]
    urls = {"api": database(), "c1": database()}
    for url in urls.values():
        execute(url, f"CREATE TABLE t (name varchar(9) PRIMARY KEY, v {wide}, n int)")
    add(urls["api"], "t", *({"name": name, "v": value, "n": 1} for name in "b"))
    add(urls["api"], "t", {"name": "a", "n": 1}, {"name": "c", "n": 1}) if case not in {"not null"} else add(
        urls["api"], "t", {"name": "a", "v": 1, "n": 1}, {"name": "c", "v": 1, "n": 1}
    )
    if case == "unique":
        add(urls["c1"], "t", {"name": "z", "v": "taken"})
    if update:
        held = {} if case != "not null" else {"v": 1}
        add(urls["c1"], "t", *({"name": name, "n": 0, **held} for name in "abc"))
    before = rows(urls["c1"], "SELECT * FROM t WHERE name = 'b'")
    stand = Stand(urls, ruleset("rules: [{table: t, key: [name], limits: {updates: 100%}}]"))
    request, prepared = stand.prepare("r1")
    execute(urls["c1"], f"ALTER TABLE t MODIFY v {narrow}")  # later it would be a finding: nothing is tried
    done = result(run.write(request, prepared), "c1")
    assert (done.counts.applied, done.counts.failed) == (2, 1)
    assert len(done.problems) == 1 and "t name=b: failed: " in done.problems[0]
    assert rows(urls["c1"], "SELECT * FROM t WHERE name = 'b'") == before
    assert {
        row["name"]: row["n"] for row in rows(urls["c1"], "SELECT * FROM t WHERE name IN ('a', 'c')")
    } == {
        "a": 1,
        "c": 1,
    }
    assert rows(urls["c1"], "SELECT COUNT(*) AS n FROM cellsync.changes")[0]["n"] == 2


FITTING = {
    **dict.fromkeys(("too long", "wrong charset", "three bytes", "enum", "spaces cut", "padding"), "aa"),
    **dict.fromkeys(("out of range", "unsigned", "not null", "check"), 1),
    "enum": "a",
    "unique": None,
    "json": "1",
    "inet6": "::1",
    "zeros added": b"aaaa",
    "fraction": "2026-01-01 00:00:00",
    "rounded": "1.2",
    "single": 0.5,
}
"""What the server takes in the same cases."""


@pytest.mark.parametrize("case", UNFIT)
def test_a_row_that_does_not_fit_fails_alone_among_rows_that_are_updated_at_once(
    database: DatabaseFactory, case: str
) -> None:
    """Rows that are known by a number and are given values in the same columns are one statement."""
    wide, narrow, value = UNFIT[case]
    urls = {"api": database(), "c1": database()}
    for url in urls.values():
        execute(url, f"CREATE TABLE t (id int PRIMARY KEY, v {wide}, n int)")
    add(urls["c1"], "t", *({"id": number, "v": 0 if case == "not null" else None} for number in (1, 2, 3)))
    fit = FITTING[case]
    add(
        urls["api"],
        "t",
        {"id": 1, "v": fit, "n": 1},
        {"id": 2, "v": value, "n": 1},
        {"id": 3, "v": fit, "n": 1},
    )
    if case == "unique":
        add(urls["c1"], "t", {"id": 9, "v": "taken"})
    before = rows(urls["c1"], "SELECT * FROM t WHERE id = 2")
    stand = Stand(urls, ruleset("rules: [{table: t, key: [id], limits: {updates: 100%}}]"))
    request, prepared = stand.prepare("r1")
    execute(urls["c1"], f"ALTER TABLE t MODIFY v {narrow}")  # later it would be a finding: nothing is tried
    done = result(run.write(request, prepared), "c1")
    assert (done.counts.applied, done.counts.failed) == (2, 1)
    assert len(done.problems) == 1 and "t id=2: failed: " in done.problems[0]
    assert rows(urls["c1"], "SELECT * FROM t WHERE id = 2") == before
    assert rows(urls["c1"], "SELECT id FROM t WHERE n = 1") == [{"id": 1}, {"id": 3}]
    again = stand.repair("r2")
    assert (result(again, "c1").counts.planned, len(table(again, "c1", "t").findings)) == (0, 1)


def updates(url: str) -> int:
    """Return how many statements have updated rows on a server."""
    return int(rows(url, "SHOW GLOBAL STATUS LIKE 'Com_update'")[0]["Value"])


def test_rows_that_are_given_the_same_columns_are_updated_at_once(stand: Stand) -> None:
    """One that moved is named, and its neighbours are still one statement; an undo is one as well."""
    names = [f"n{number:02}" for number in range(30)]
    add(stand.urls["api"], "things", *({"name": name, "size": 1} for name in names))
    add(stand.urls["c1"], "things", *({"name": name, "size": 7} for name in names))
    request, prepared = stand.prepare("r1")
    execute(stand.urls["c1"], "UPDATE things SET size = 9 WHERE name = 'n17'")
    before = updates(stand.urls["c1"])
    done = result(run.write(request, prepared), "c1")
    assert done.problems == ("update things name=n17: conflict: size was 7 and is 9",)
    assert things(stand) == {**dict.fromkeys(names, 1), "n17": 9}
    assert result(stand.undo("r1", "u1"), "c1").counts.applied == 29
    assert things(stand) == {**dict.fromkeys(names, 7), "n17": 9}
    # One each, beside those of the journal's own rows.
    assert updates(stand.urls["c1"]) - before < 10


def test_a_row_that_a_trigger_refuses_fails_alone(stand: Stand) -> None:
    """SIGNAL is the server's way to refuse a row; the rule was waived through its triggers."""
    url = stand.urls["c1"]
    execute(
        url,
        "CREATE TRIGGER guard BEFORE INSERT ON things FOR EACH ROW "
        "BEGIN IF NEW.name = 'b' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no b'; END IF; END",
    )
    add(stand.urls["api"], "things", *({"name": name} for name in "abc"))
    done = result(stand.repair("r1", ["triggers"]), "c1")
    assert done.problems == ("insert things name=b: failed: c1: no b (error 1644)",)
    assert set(things(stand)) == {"a", "c"}


# -- What is recorded ----------------------------------------------------------------------------


def test_an_undo_restores_the_bytes_that_the_server_changed_by_itself(stand: Stand) -> None:
    """What a trigger writes is taken back too; a column with ON UPDATE is not written at all."""
    add(stand.urls["api"], "things", *({"name": n, "size": 1} for n in ("a", "b", "new")))
    old = "2001-01-01 00:00:00.123456"
    add(stand.urls["c1"], "things", *({"name": n, "size": 7, "touched": old} for n in ("a", "b", "extra")))
    before = checksums(stand.urls["c1"])
    done = result(stand.repair("r1"), "c1")
    assert (done.counts.applied, done.problems) == (4, ())
    assert checksums(stand.urls["c1"]) != before
    touched = "SELECT touched FROM things WHERE name <> 'new'"
    assert {str(row["touched"]) for row in rows(stand.urls["c1"], touched)} == {old}
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(stand.urls["c1"]) == before
    assert result(stand.undo("u1", "u2"), "c1").problems == ()
    assert things(stand) == things(stand, "api")


def test_an_undo_leaves_the_rows_that_changed_since(stand: Stand) -> None:
    """And names them; the others go back."""
    add(stand.urls["api"], "things", *({"name": n, "size": 1} for n in ("a", "b", "c", "d")))
    add(stand.urls["c1"], "things", {"name": "a", "size": 7}, {"name": "b", "size": 8})
    stand.repair("r1")
    execute(
        stand.urls["c1"],
        "UPDATE things SET size = 3 WHERE name = 'a'",
        "UPDATE things SET size = 4 WHERE name = 'c'",
    )
    problems = result(stand.undo("r1", "u1"), "c1").problems
    assert len(problems) == 2
    assert problems[0].startswith("update things name=a: conflict: size was 1 and is 3")
    assert problems[1].startswith("delete things name=c: conflict: size was 1 and is 4, touched was ")
    assert things(stand) == {"a": 3, "b": 8, "c": 4}


@pytest.mark.parametrize("kind", ["varchar(40) NOT NULL", "varchar(9)", "int NOT NULL", "bigint NOT NULL"])
def test_unique_values_change_places(database: DatabaseFactory, kind: str) -> None:
    """(0,1)(1,2) -> (0,2)(1,1), a ring of three and a chain: no order of single updates would do."""
    urls = {"api": database(), "c1": database()}
    for url, values in zip(urls.values(), ("2134756", "1234567"), strict=True):
        execute(url, f"CREATE TABLE t (k int PRIMARY KEY, v {kind}, UNIQUE (v))")
        add(url, "t", *({"k": number, "v": value} for number, value in enumerate(values)))
    add(urls["api"], "t", {"k": 10, "v": "12"}, {"k": 11, "v": "13"}, {"k": 12, "v": "14"})
    add(urls["c1"], "t", {"k": 10, "v": "11"}, {"k": 11, "v": "12"}, {"k": 12, "v": "13"})
    stand = Stand(urls, ruleset("rules: [{table: t, key: [k], limits: {updates: 100%}}]"))
    before = checksums(urls["c1"])
    assert result(stand.repair("r1"), "c1").problems == ()
    assert checksums(urls["c1"]) == checksums(urls["api"])
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(urls["c1"]) == before


# -- Batches and faults --------------------------------------------------------------------------


def changes_for(stand: Stand, names: Sequence[str]) -> tuple[Sequence[Change], dict[str, Projection]]:
    """Plan the insertion of things of these names."""
    add(stand.urls["api"], "things", *({"name": name} for name in names))
    _, prepared = stand.prepare("r1")
    return prepared.edges[0].plan.changes, dict(prepared.edges[0].targets)


@contextmanager
def journal(stand: Stand) -> Iterator[tuple[db.Database, Journal]]:
    """Open the child and its journal, as a run does."""
    with opened(stand.urls["c1"]) as database:
        prepare(database, cell="c1")
        made = stand.request("repair", "r1").run
        yield database, Journal(database, made, cell="c1", database=database.identity().schema)


class Hooked:
    """A journal that does something more when it records."""

    def __init__(self, kept: Journal, hook: Callable[[], None]) -> None:
        self._kept, self._hook = kept, hook

    def mark_transaction(self) -> None:
        self._kept.mark_transaction()

    def record(self, outcomes: Sequence[Outcome]) -> None:
        self._kept.record(outcomes)
        self._hook()

    def refuses(self, change: Change) -> str | None:
        return self._kept.refuses(change)

    def recorded(self, changes: Sequence[Change]) -> Sequence[bool]:
        return self._kept.recorded(changes)


def made(changes: Iterable[Change], **doors: Any) -> list[Outcome]:
    """Make all the changes, and return what became of them."""
    return list(apply.execute(changes, **doors))


class CommitUnseen:
    """A database whose first commit comes through, but whose connection dies before it says so."""

    def __init__(self, database: db.Database, kill: Callable[[], None]) -> None:
        self._database, self._kill, self._lost = database, kill, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._database.transaction():
            yield
        if not self._lost:
            self._lost = True
            self._kill()
            raise TransactionLost("c1: Lost connection to server during query (error 2013)")


def killer(stand: Stand, database: db.Database, *, times: int = 1) -> Callable[[], None]:
    """Return what kills the connection of a database from another one, the first few times."""
    left = [times]

    def kill() -> None:
        if left[0]:
            left[0] -= 1
            number = database.connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar()
            execute(stand.urls["c1"], f"KILL {number}")
            time.sleep(0.05)

    return kill


def test_changes_are_made_in_bounded_batches_in_their_order(stand: Stand) -> None:
    """A batch is one transaction; new rows are few to a server, others would wait for changed ones."""
    planned, targets = changes_for(stand, [f"n{number:04}" for number in range(2500)])
    sizes: list[int] = []
    with journal(stand) as (database, kept):
        recorder = Hooked(kept, lambda: sizes.append(journaled(stand)))
        outcomes = made(planned, writer=database, recorder=recorder, targets=targets)
    assert [outcome.change.key for outcome in outcomes] == [change.key for change in planned]
    assert {outcome.fate for outcome in outcomes} == {Fate.APPLIED}
    # Another connection sees the journal of a batch only once its transaction has ended.
    assert (sizes, journaled(stand)) == ([0, 1000, 2000], 2500)


@pytest.mark.parametrize("known", [True, False], ids=["returned", "one by one"])
def test_a_row_that_is_not_taken_fails_by_itself_among_many(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Whether the server can insert and return many at once or not."""
    if not known:
        monkeypatch.setattr("cellsync.db.writing._RETURNING", (99,))
    names = [f"n{number:04}" for number in range(30)]
    planned, targets = changes_for(stand, names)
    execute(stand.urls["c1"], "ALTER TABLE things ADD CONSTRAINT no_17 CHECK (name <> 'n0017')")
    with journal(stand) as (database, kept):
        outcomes = made(planned, writer=database, recorder=kept, targets=targets)
    fates = {outcome.change.key[0]: outcome.fate for outcome in outcomes}
    assert [name for name, fate in fates.items() if fate is Fate.FAILED] == ["n0017"]
    assert journaled(stand) == len(rows(stand.urls["c1"], "SELECT id FROM things")) == 29
    assert all(o.change.identity and o.change.after for o in outcomes if o.fate is Fate.APPLIED)


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
def test_a_lost_connection_writes_every_row_once(stand: Stand, when: str) -> None:
    """Where nobody saw whether the commit came through, the journal decides."""
    planned, targets = changes_for(stand, ["a", "b", "c"])
    with journal(stand) as (database, kept):
        kill = killer(stand, database)
        writer: Any = database if when == "before the commit" else CommitUnseen(database, kill)
        recorder: Any = Hooked(kept, kill) if when == "before the commit" else kept
        outcomes = made(planned, writer=writer, recorder=recorder, targets=targets)
    assert [outcome.fate for outcome in outcomes] == [Fate.APPLIED] * 3
    assert sorted(row["name"] for row in rows(stand.urls["c1"], "SELECT * FROM things")) == ["a", "b", "c"]
    assert journaled(stand) == 3


def test_a_connection_that_is_always_lost_fails_the_rest_by_name(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded tries; what was never written is FAILED and not in the journal."""
    monkeypatch.setattr(executing, "TRIES", 1)
    monkeypatch.setattr(executing, "INSERTS", 2)
    planned, targets = changes_for(stand, ["a", "b", "c", "d", "e"])
    with journal(stand) as (database, kept):
        calls: list[None] = []
        kill = killer(stand, database, times=99)

        def second_batch() -> None:
            calls.append(None)
            if len(calls) > 1:
                kill()

        recorder = Hooked(kept, second_batch)
        outcomes = made(planned, writer=database, recorder=recorder, targets=targets)
    assert [outcome.fate for outcome in outcomes] == [Fate.APPLIED] * 2 + [Fate.FAILED] * 3
    assert all("c1: " in outcome.message for outcome in outcomes[2:])
    assert (len(things(stand)), journaled(stand)) == (2, 2)


def test_a_record_that_cannot_be_written_takes_its_changes_with_it(stand: Stand) -> None:
    """No journal row, no data row."""
    planned, targets = changes_for(stand, ["a", "b"])
    with journal(stand) as (database, kept):

        def fail() -> None:
            raise WriteFailed("the journal is full")

        outcomes = made(planned, writer=database, recorder=Hooked(kept, fail), targets=targets)
        assert [(outcome.fate, outcome.message) for outcome in outcomes] == [
            (Fate.FAILED, "the journal is full")
        ] * 2
        assert (things(stand), journaled(stand)) == ({}, 0)
        again = made(planned, writer=database, recorder=kept, targets=targets)
    assert {outcome.fate for outcome in again} == {Fate.APPLIED}


def test_a_lock_that_is_held_for_a_while_is_waited_for(stand: Stand) -> None:
    """The transaction ends in a lock wait (1 s here) and is tried again as a whole."""
    add(stand.urls["api"], "things", {"name": "a", "size": 1}, {"name": "b", "size": 2})
    add(stand.urls["c1"], "things", {"name": "a", "size": 7}, {"name": "b", "size": 8})
    request, prepared = stand.prepare("r1")
    with opened(stand.urls["c1"], "other") as other:
        other.connection.exec_driver_sql("START TRANSACTION")
        other.connection.exec_driver_sql("SELECT * FROM things WHERE name = 'b' FOR UPDATE")
        timer = threading.Timer(1.6, lambda: other.connection.exec_driver_sql("ROLLBACK"))
        timer.start()
        done = result(run.write(request, prepared), "c1")
        timer.join()
    assert (done.counts.applied, done.problems, journaled(stand)) == (2, (), 2)


def test_a_deadlock_is_tried_again_as_a_whole(stand: Stand) -> None:
    """The victim's rows are all written in the end, each once."""
    names = ["a", "b"]
    add(stand.urls["api"], "things", *({"name": name, "size": 1} for name in names))
    add(stand.urls["c1"], "things", *({"name": name, "size": 7} for name in names))
    _, prepared = stand.prepare("r1")
    planned, targets = prepared.edges[0].plan.changes, prepared.edges[0].targets
    with journal(stand) as (database, kept), opened(stand.urls["c1"], "other") as other:
        execute(stand.urls["c1"], "CREATE TABLE elsewhere (id int PRIMARY KEY, n int)")
        add(stand.urls["c1"], "elsewhere", {"id": 1, "n": 0})
        other.connection.exec_driver_sql("START TRANSACTION")
        # It has changed much, so the server takes the other one for its victim.
        other.connection.exec_driver_sql("INSERT INTO elsewhere SELECT seq + 1, 0 FROM seq_1_to_1000")
        other.connection.exec_driver_sql("UPDATE elsewhere SET n = 1 WHERE id = 1")
        threads: list[threading.Thread] = []

        def cross() -> None:
            if threads:
                return
            waiting = threading.Thread(target=lambda: _cross(other))
            threads.append(waiting)
            waiting.start()
            time.sleep(0.3)
            database.connection.exec_driver_sql("SELECT 1")
            database.update("elsewhere", {"id": 1}, {"n": 2})

        outcomes = made(planned, writer=database, recorder=Hooked(kept, cross), targets=targets)
        threads[0].join()
    assert [outcome.fate for outcome in outcomes] == [Fate.APPLIED] * 2
    assert (things(stand), journaled(stand)) == ({"a": 1, "b": 1}, 2)


def _cross(other: db.Database) -> None:
    other.connection.exec_driver_sql("SELECT * FROM things FOR UPDATE")
    other.connection.exec_driver_sql("ROLLBACK")


# -- Verifying -----------------------------------------------------------------------------------


class Found:
    """A reader that finds these rows, whatever it is asked for."""

    def __init__(self, *found: Row) -> None:
        self._found = found

    def rows(self, projection: Projection, *, keys: Any = None, tombstones: bool = False) -> Iterator[Row]:
        return iter(self._found)


@pytest.mark.parametrize(
    ("action", "found", "expected"),
    [
        (Action.INSERT, ((("a",), (1,)),), ()),
        (Action.INSERT, (), ("t a was written, and is not there",)),
        (Action.INSERT, ((("a",), (2,)),), ("t a was written, but v is 2 instead of 1",)),
        (Action.DELETE, (), ()),
        (Action.DELETE, ((("a",), (1,)),), ("t a was deleted, and is there again",)),
    ],
)
def test_verifying_names_what_is_not_as_planned(action: Action, found: Any, expected: Any) -> None:
    """Somebody else may have written since; that shows."""
    columns = tuple(Projected(column=name, family=Family.INTEGER) for name in ("k", "v"))
    target = Projection(
        rule="t", table="t", key=columns[:1], columns=columns[1:], identity=("k",),
        identity_families=(Family.TEXT,), parent="api", child="c1",
    )  # fmt: skip
    values: Any = {"k": "a", "v": 1}
    gone = action is Action.DELETE
    change = Change(
        rule="t", table="t", action=action, key=("a",), key_columns=("k",), identity_columns=("k",),
        identity=("a",), before=values if gone else None, after=None if gone else values,
    )  # fmt: skip
    reader = Found(*(Row(key=key, values=row, identity=("a",)) for key, row in found))
    assert tuple(apply.verify([change], reader=reader, targets={"t": target})) == expected


@pytest.mark.parametrize("secrets", [Secrets(hide=("t.v",)), Secrets(packs=("v",))])
def test_verifying_shows_no_value_that_is_hidden(secrets: Secrets) -> None:
    """By the configuration or by a rule file: neither what was to be written nor what is there."""
    columns = tuple(Projected(column=name, family=Family.INTEGER) for name in ("k", "v"))
    target = Projection(
        rule="t", table="t", key=columns[:1], columns=columns[1:], identity=("k",),
        identity_families=(Family.TEXT,), parent="api", child="c1",
    )  # fmt: skip
    change = Change(
        rule="t", table="t", action=Action.INSERT, key=("a",), key_columns=("k",), identity_columns=("k",),
        identity=("a",), before=None, after={"k": "a", "v": 71},
    )  # fmt: skip
    reader = Found(Row(key=("a",), values=(72,), identity=("a",)))
    (line,) = apply.verify([change], reader=reader, targets={"t": target}, secrets=secrets)
    assert line == "t a was written, but v is (not shown) instead of (not shown)"


@pytest.mark.parametrize(
    ("filled", "row", "expected"),
    [
        (1, (1, 5), ()),
        (None, (1, 5), ("t a was written, but v is 1 instead of NULL",)),
        (1, (2, 5), ("t a was written, but v is 2 instead of 1",)),
        (1, (1, 6), ("t a was written, but v is 1 instead of NULL, w is 6 instead of 5",)),
    ],
)
def test_verifying_a_row_that_was_filled_later(
    filled: int | None, row: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change that fills it may be far behind; what that does not write must be as it was inserted."""
    monkeypatch.setattr(verifying, "KEYS_AT_ONCE", 1)
    columns = tuple(Projected(column=name, family=Family.INTEGER) for name in ("k", "v", "w"))
    target = Projection(
        rule="t", table="t", key=columns[:1], columns=columns[1:], identity=("k",),
        identity_families=(Family.TEXT,), parent="api", child="c1",
    )  # fmt: skip
    made_ = Change(
        rule="t", table="t", action=Action.INSERT, key=("a",), key_columns=("k",), identity_columns=("k",),
        identity=("a",), before=None, after={"k": "a", "v": None, "w": 5},
    )  # fmt: skip
    later = made_.but(action=Action.UPDATE, before={"v": None}, after={"v": filled})
    reader = Found(Row(key=("a",), values=row, identity=("a",)))
    changes = [made_, later] if filled else [made_]
    assert tuple(apply.verify(changes, reader=reader, targets={"t": target})) == expected

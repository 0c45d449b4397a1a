"""The record of every change: made once, beside the data, understood by those who come later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from edges import execute, opened, rows
from servers import DatabaseFactory, Server, load

from cellsync import db, journal
from cellsync.errors import JournalUnavailable, WriteFailed
from cellsync.journal import Journal, streaks
from cellsync.model import Action, Change, Fate, JournaledChange, JournaledRun, Outcome, Run

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)
RUN = Run(
    id="r1",
    verb="repair",
    started=NOON,
    topology="api",
    operator="o",
    host="h",
    command="cellsync 主😀",
    reason="why",
)
INSERT = Change(
    rule="things", table="things", action=Action.INSERT, key=("a", ("b", None)), key_columns=("x", "y"),
    identity_columns=("id",), identity=(7,), before=None,
    after={"x": "主😀", "y": 5, "z": b"\xff", "w": -0.0},
    origin=(3,), reason="because", together="circle-1",
)  # fmt: skip


@pytest.fixture
def url(database: DatabaseFactory) -> str:
    """Give a database whose server has no journal yet."""
    return database()


def recorder(database: db.Database, run: Run = RUN, name: str = "nova") -> Journal:
    """Return the journal of a run in one database."""
    return Journal(database, run, cell="c1", database=name)


def applied(*changes: Change) -> list[Outcome]:
    """Return the outcomes of changes that were made."""
    return [Outcome(change=change, fate=Fate.APPLIED) for change in changes]


def told(database: db.Database, name: str = "nova") -> tuple[JournaledRun, ...]:
    """Return what the journal says of one database's runs."""
    return journal.runs(database, database=name, cell="c1")


def test_preparing_twice_is_preparing_once(url: str) -> None:
    """And what is in the journal stays there."""
    with opened(url) as database:
        assert told(database) == ()
        assert journal.changes(database, "r1", database="nova", cell="c1") == ()
        journal.prepare(database, cell="c1")
        recorder(database).begin()
        journal.prepare(database, cell="c1")
        assert [each.run for each in told(database)] == [RUN]
        assert rows(url, "SELECT version FROM cellsync.format") == [{"version": journal.VERSION}]


def test_a_journal_of_a_newer_version_is_left_alone(url: str) -> None:
    """Nothing is written to it; the message names both versions."""
    with opened(url) as database:
        journal.prepare(database, cell="c1")
        execute(url, f"UPDATE cellsync.format SET version = {journal.VERSION + 1}")
        with pytest.raises(
            JournalUnavailable, match=r"c1 was written by a newer cellsync \(version 3; this one knows 2\)"
        ):
            journal.prepare(database, cell="c1")


class Raced:
    """A session that is overtaken: another run prepares the journal just before it writes its version."""

    makes_schemas = True
    is_clustered = False

    def __init__(self, database: db.Database, url: str) -> None:
        self._database, self._url = database, url

    def has_table(self, name: str, *, schema: str) -> bool:
        return self._database.has_table(name, schema=schema)

    def execute(self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]] = ()) -> sa.Result[Any]:
        if rows:
            execute(self._url, f"INSERT INTO cellsync.format VALUES ({journal.VERSION})")
        return self._database.execute(statement, rows)


def test_two_cells_of_one_server_may_prepare_at_once(url: str) -> None:
    """Whoever comes second finds it made."""
    with opened(url) as database:
        journal.prepare(Raced(database, url), cell="c1")
        assert rows(url, "SELECT version FROM cellsync.format") == [{"version": journal.VERSION}]


def test_where_it_may_not_be_made_the_administrator_is_told_how(url: str, server: Server) -> None:
    """The refusal holds the SQL; run as it stands on a bare server, it makes a journal that works."""
    name = sa.make_url(url).database
    execute(url, "CREATE USER weak@'%' IDENTIFIED BY 'pw'", f"GRANT ALL ON `{name}`.* TO weak@'%'")
    try:
        weak = server.url(str(name)).set(username="weak", password="pw").render_as_string(hide_password=False)
        with opened(weak) as database, pytest.raises(JournalUnavailable) as refused:
            journal.prepare(database, cell="c1")
        told_how = str(refused.value)
        assert told_how.endswith(journal.sql("'weak'@'%'"))
        load(url, told_how[told_how.index("CREATE DATABASE") :])
        with opened(weak) as database:
            journal.prepare(database, cell="c1")
            kept = recorder(database)
            kept.begin()
            kept.record(applied(INSERT))
            kept.finish(status="done", at=NOON)
            assert [each.applied for each in told(database)] == [1]
    finally:
        execute(url, "DROP USER weak@'%'")


def test_the_statements_for_streaks_name_the_login_that_was_refused(url: str, server: Server) -> None:
    """As those for the journal do; run as they stand, they are enough."""
    name = sa.make_url(url).database
    execute(url, "CREATE USER weak@'%' IDENTIFIED BY 'pw'", f"GRANT ALL ON `{name}`.* TO weak@'%'")
    try:
        weak = server.url(str(name)).set(username="weak", password="pw").render_as_string(hide_password=False)
        with opened(weak) as database, pytest.raises(JournalUnavailable) as refused:
            streaks.make(database)
        told_how = str(refused.value)
        assert told_how.endswith(journal.sql("'weak'@'%'"))
        load(url, told_how[told_how.index("CREATE DATABASE") :])
        with opened(weak) as database:
            assert streaks.load(database, database=str(name)) == {}
    finally:
        execute(url, "DROP USER weak@'%'")


def test_an_older_journal_is_extended_where_that_is_allowed(url: str, server: Server) -> None:
    """Where it is not, it is as good as it was: only a Galera cluster cannot do without the new tables."""
    name = sa.make_url(url).database
    execute(url, "CREATE USER weak@'%' IDENTIFIED BY 'pw'", f"GRANT ALL ON `{name}`.* TO weak@'%'")
    execute(url, "GRANT SELECT, INSERT, UPDATE, DELETE ON cellsync.* TO weak@'%'")
    made = "SELECT TABLE_NAME AS t FROM information_schema.TABLES WHERE TABLE_NAME = 'writers'"
    try:
        weak = server.url(str(name)).set(username="weak", password="pw").render_as_string(hide_password=False)
        with opened(url) as database:
            journal.prepare(database, cell="c1")
            for statement in ("DROP TABLE cellsync.writers", "DROP TABLE cellsync.heartbeats"):
                execute(url, statement)
            execute(url, "UPDATE cellsync.format SET version = 1")
            with opened(weak) as other:
                journal.prepare(other, cell="c1")
                recorder(other).begin()
            assert rows(url, made) == []
            journal.prepare(database, cell="c1")
            assert rows(url, made) == [{"t": "writers"}]
            assert [each.run for each in told(database)] == [RUN]
            assert max(row["version"] for row in rows(url, "SELECT version FROM cellsync.format")) == 2
    finally:
        execute(url, "DROP USER weak@'%'")


def test_the_sql_for_the_administrator_makes_what_cellsync_makes(url: str) -> None:
    """Table for table and column for column."""

    def described() -> list[dict[str, Any]]:
        return rows(
            url,
            "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_KEY, EXTRA, COLLATION_NAME "
            "FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'cellsync' ORDER BY 1, ORDINAL_POSITION",
        )

    with opened(url) as database:
        journal.prepare(database, cell="c1")
    made = described()
    execute(url, "DROP DATABASE cellsync")
    load(url, "\n".join(line for line in journal.sql().splitlines() if not line.startswith("GRANT")))
    assert described() == made
    assert {"format", "runs", "changes"} <= {row["TABLE_NAME"] for row in made}


def test_a_change_comes_back_as_it_was_recorded(url: str) -> None:
    """With its keys, rows, reason and order."""
    other = replace(INSERT, action=Action.UPDATE, key=("c", None), before={"x": None}, together="")
    with opened(url) as database:
        journal.prepare(database, cell="c1")
        kept = recorder(database)
        kept.begin()
        kept.record(applied(INSERT, other))
        kept.record([])
        found = journal.changes(database, "r1", database="nova", cell="c1")
    assert [repr(each.change) for each in found] == [repr(INSERT), repr(other)]
    assert [each.cell for each in found] == ["c1", "c1"]
    assert found[0].sequence < found[1].sequence


def test_the_journal_knows_which_changes_it_has(url: str) -> None:
    """By rule, action and key; of this run and this database alone."""
    unnumbered = replace(INSERT, identity=())
    others = [
        replace(INSERT, identity=(8,)),
        replace(INSERT, key=("A", ("b", None))),
        replace(INSERT, action=Action.DELETE),
        replace(INSERT, rule="parts"),
    ]
    with opened(url) as database:
        journal.prepare(database, cell="c1")
        recorder(database).record(applied(INSERT))
        assert recorder(database).recorded([INSERT, unnumbered, *others]) == [True, True, *[False] * 4]
        assert recorder(database, replace(RUN, id="r2")).recorded([INSERT]) == [False]
        assert recorder(database, name="nova2").recorded([INSERT]) == [False]


def test_a_record_is_rolled_back_with_its_data(url: str) -> None:
    """One transaction spans both schemas."""
    execute(url, "CREATE TABLE things (id int PRIMARY KEY)")
    with opened(url) as database:
        journal.prepare(database, cell="c1")
        with suppress(WriteFailed), database.transaction():
            database.insert("things", {"id": 1})
            recorder(database).record(applied(INSERT))
            raise WriteFailed("the end")
        assert journal.changes(database, "r1", database="nova", cell="c1") == ()
        assert rows(url, "SELECT * FROM things") == []


def test_databases_of_one_server_have_their_own_history(url: str) -> None:
    """They share the tables, not the rows."""
    with opened(url) as database:
        journal.prepare(database, cell="c1")
        recorder(database).begin()
        recorder(database).record(applied(INSERT))
        recorder(database, name="nova2").begin()
        assert [(each.run.id, each.applied) for each in told(database)] == [("r1", 1)]
        assert [(each.run.id, each.applied) for each in told(database, "nova2")] == [("r1", 0)]


def test_a_run_that_was_cut_off_shows_and_is_closed_by_the_next(url: str) -> None:
    """Its changes are complete; only its end is missing."""
    with opened(url) as database:
        journal.prepare(database, cell="c1")
        kept = recorder(database)
        kept.begin()
        kept.record(applied(INSERT))
        (cut,) = told(database)
        assert (cut.finished, cut.status, cut.applied) == (None, "running", 1)
        later = replace(RUN, id="r2", started=NOON + timedelta(minutes=5))
        after = recorder(database, later)
        assert [each.run.id for each in after.settle_cut_off(at=later.started)] == ["r1"]
        after.begin(undoes="r1")
        after.finish(status="done", at=later.started)
        second, first = told(database)
        assert (first.run.id, first.status, first.finished) == ("r1", "cut off", later.started)
        assert (second.run.id, second.status, second.undoes) == ("r2", "done", "r1")
        assert after.settle_cut_off(at=later.started) == ()


def one(run: str, cell: str, minute: int, **more: Any) -> JournaledRun:
    """Return what one journal says of a run."""
    given: dict[str, Any] = {"finished": NOON, "status": "done", "applied": 1, **more}
    return JournaledRun(
        run=replace(RUN, id=run, started=NOON + timedelta(minutes=minute)), cells=(cell,), **given
    )


def test_the_journals_of_several_databases_are_one_history() -> None:
    """Newest first; finished where all are, done where all are; taken back by the runs that say so."""
    merged = journal.merged(
        [
            one("r1", "c1", 1),
            one("r2", "c1", 2),
            one("r3", "c1", 3, undoes="r1"),
            one("r1", "c2", 1, status="incomplete", applied=4),
            one("r2", "c2", 2, finished=None, status="running"),
        ]
    )
    assert [each.run.id for each in merged] == ["r3", "r2", "r1"]
    told = {each.run.id: each for each in merged}
    assert (told["r1"].cells, told["r1"].applied, told["r1"].status) == (("c1", "c2"), 5, "incomplete")
    assert told["r1"].undone_by == ("r3",)
    assert (told["r2"].finished, told["r2"].status) == (None, "running")
    assert (told["r3"].undone_by, told["r3"].undoes) == ((), "r1")


def test_the_inverses_begin_with_the_last_change() -> None:
    """Whatever order they were read in."""
    made = [
        JournaledChange(sequence=n, cell="c1", change=replace(INSERT, identity=(n,)), at="")
        for n in (2, 3, 1)
    ]
    found = list(journal.inverses(made))
    assert [change.identity for change in found] == [(3,), (2,), (1,)]
    assert {(change.action, change.reason) for change in found} == {(Action.DELETE, "undo of insert")}
    assert journal.written(made) == {"things"}


def test_times_are_utc_to_the_millisecond() -> None:
    """Text that sorts as the time does."""
    zone = timezone(timedelta(hours=5, minutes=30))
    assert (
        journal.timestamp(datetime(2026, 1, 1, 5, 30, 0, 123456, tzinfo=zone)) == "2026-01-01T00:00:00.123Z"
    )

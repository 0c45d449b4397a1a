"""The durable record of every change, in the schema ``cellsync`` on the written server.

It lives beside the data, so that a change and its record commit in one transaction. Rows say
which database they are about: several cells may share a server and so a journal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import schema
from sqlalchemy.dialects import mysql

from cellsync import codec
from cellsync.errors import JournalUnavailable, TransactionLost, WriteFailed
from cellsync.model import Action, Change, Identity, JournaledChange, JournaledRun, Outcome, Run

SCHEMA = "cellsync"
VERSION = 1
"""The version of these tables; a journal of a newer one is not touched."""

_STATEMENT = 1024
"""More bytes than an INSERT into these tables takes beside its values."""

_ASKED = 1000
"""Rows whose origin is asked for in one query."""

_MAKING = "cellsync-journal"
"""The named lock under which the tables are made."""

_METADATA = sa.MetaData(schema=SCHEMA)
_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
_LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_NAME = sa.String(255)
_SHORT = sa.String(64)

_FORMAT = sa.Table(
    "format",
    _METADATA,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    **_OPTIONS,
)

_RUNS = sa.Table(
    "runs",
    _METADATA,
    sa.Column("run", _SHORT, primary_key=True),
    sa.Column("database_name", _SHORT, primary_key=True),
    sa.Column("cell", _NAME, nullable=False),
    sa.Column("topology", _NAME, nullable=False),
    sa.Column("verb", _SHORT, nullable=False),
    # Text, as everywhere in cellsync: UTC, "2026-11-23T15:00:59Z".
    sa.Column("started", _SHORT, nullable=False),
    sa.Column("finished", _SHORT),
    sa.Column("status", _SHORT, nullable=False),
    sa.Column("operator", _NAME, nullable=False),
    sa.Column("host", _NAME, nullable=False),
    sa.Column("command", _LONG, nullable=False),
    sa.Column("reason", _LONG, nullable=False),
    sa.Column("undoes", _SHORT),
    **_OPTIONS,
)

_CHANGES = sa.Table(
    "changes",
    _METADATA,
    sa.Column(
        "sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    sa.Column("run", _SHORT, nullable=False),
    sa.Column("database_name", _SHORT, nullable=False),
    sa.Column("cell", _NAME, nullable=False),
    sa.Column("rule", _NAME, nullable=False),
    sa.Column("table_name", _SHORT, nullable=False),
    sa.Column("action", _SHORT, nullable=False),
    sa.Column("row_key", _LONG, nullable=False),
    sa.Column("key_columns", _LONG, nullable=False),
    sa.Column("identity_columns", _LONG, nullable=False),
    # The written row's primary key, and the primary key of the row it was made from.
    sa.Column("identity", _LONG, nullable=False),
    sa.Column("origin", _LONG, nullable=False),
    sa.Column("before_row", _LONG),
    sa.Column("after_row", _LONG),
    sa.Column("reason", _LONG, nullable=False),
    sa.Column("together", _SHORT, nullable=False),
    sa.Column("made", _SHORT, nullable=False),
    sa.Index("changes_run_idx", "run", "database_name", "sequence"),
    **_OPTIONS,
)


class Session(Protocol):
    """An open connection that turns the driver's errors into cellsync's; ``db.Database`` is one."""

    makes_schemas: bool
    """False where a schema is a file of its own (SQLite)."""

    def has_table(self, name: str, *, schema: str) -> bool: ...

    def packet(self) -> int:
        """Return how large a statement may be, in bytes."""

    def sent(self, values: Iterable[object]) -> int:
        """Return how many bytes values take in a statement."""

    def execute(self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]] = ()) -> sa.Result[Any]: ...


_PUSHED = sa.Table(
    "pushed",
    _METADATA,
    sa.Column("database_name", _SHORT, primary_key=True),
    sa.Column("rule", _NAME, primary_key=True),
    # The pushed row's primary key, and that of the row it was made from, as in changes.
    sa.Column("identity", _NAME, primary_key=True),
    sa.Column("origin", _NAME, nullable=False),
    sa.Column("origin_cell", _NAME, nullable=False),
    sa.Column("run", _SHORT, nullable=False),
    **_OPTIONS,
)


def _statements() -> list[schema.ExecutableDDLElement]:
    made: list[schema.ExecutableDDLElement] = []
    for table in _METADATA.sorted_tables:
        made.append(schema.CreateTable(table, if_not_exists=True))
        made += [schema.CreateIndex(index, if_not_exists=True) for index in table.indexes]
    return made


def sql() -> str:
    """Return what an administrator runs where cellsync may not make its own schema."""
    dialect = sa.create_mock_engine("mysql+pymysql://", lambda *_: None).dialect
    statements = [
        f"CREATE DATABASE IF NOT EXISTS {SCHEMA} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        # Without tabs: a report shows them as \t, and what it shows must be fit for a client.
        *(str(statement.compile(dialect=dialect)).strip().replace("\t", "  ") for statement in _statements()),
        f"INSERT IGNORE INTO {SCHEMA}.format (version) VALUES ({VERSION})",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {SCHEMA}.* TO 'cellsync'@'%'",
    ]
    return "".join(f"{statement};\n" for statement in statements)


def prepare(session: Session, *, cell: str) -> None:
    """Make the journal's tables where they are not there yet.

    Raises JournalUnavailable, with what an administrator must run, when that is not allowed, or
    when the journal is of a newer version. Not inside a transaction: making tables commits.
    """
    try:
        version = _version(session)
        if version is None:
            _make(session)
        for statement in _PROBES:
            session.execute(statement)
    except TransactionLost:
        raise  # whoever lost a connection needs no administrator
    except WriteFailed as error:
        raise JournalUnavailable(
            f"the journal cannot be made or read, and nothing is written without it: {error}. "
            f"An administrator of {cell}'s server can make it:\n{sql()}"
        ) from None
    if version is not None and version > VERSION:
        raise JournalUnavailable(
            f"the journal of {cell} was written by a newer cellsync (version {version}; this one knows "
            f"{VERSION}): use that one"
        )


# What a run does to the journal, done to no row: what this login may not is known before a write.
_PROBES = (
    _RUNS.update().values(status=_RUNS.c.status).where(sa.false()),
    *(
        table.insert().from_select(
            [column.name for column in table.columns], sa.select(*table.columns).where(sa.false())
        )
        for table in (_RUNS, _CHANGES, _PUSHED)
    ),
    _PUSHED.delete().where(sa.false()),
)


def _make(session: Session) -> None:
    if not session.makes_schemas:
        _create(session)
        return
    # Cells that share a server come here at the same time.
    session.execute(sa.select(sa.func.get_lock(_MAKING, 30)))
    try:
        _create(session)
    finally:
        session.execute(sa.select(sa.func.release_lock(_MAKING)))


def _create(session: Session) -> None:
    if session.makes_schemas:
        session.execute(schema.CreateSchema(SCHEMA, if_not_exists=True))
    for statement in _statements():
        session.execute(statement)
    # Two children on one server may be here at once; whoever comes second finds all of it made.
    unless_there = (
        _FORMAT.insert().prefix_with("IGNORE", dialect="mysql").prefix_with("OR IGNORE", dialect="sqlite")
    )
    session.execute(unless_there, [{"version": VERSION}])


def _version(session: Session) -> int | None:
    """Return the journal's version, or None when there is no journal."""
    if not session.has_table(_FORMAT.name, schema=SCHEMA):
        return None
    found: int | None = session.execute(sa.select(sa.func.max(_FORMAT.c.version))).scalar()
    return found


def timestamp(moment: datetime) -> str:
    """Return a time as the journal writes it: UTC, to the millisecond, in ISO 8601."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


_names = lru_cache(maxsize=256)(codec.tuple_to_text)
"""The names of columns, which all changes of a rule have."""


@dataclass(frozen=True)
class _Entry:
    """What is written about one change, and how many bytes of a statement it takes."""

    change: Change
    row: dict[str, Any]
    size: int


class Journal:
    """The record of one run's changes to one database; the Recorder of ``apply.execute``."""

    def __init__(self, session: Session, run: Run, *, cell: str, database: str) -> None:
        self._session = session
        self._run = run
        self._origin_cell = run.topology
        self._about = {"run": run.id, "database_name": database, "cell": cell}
        self._entries: dict[int, _Entry] = {}

    def takes_from(self, cell: str) -> None:
        """Say which cell the rows that are recorded from now on were made from."""
        self._origin_cell = cell

    def begin(self, *, undoes: str | None = None) -> None:
        """Record that the run starts to write to this database."""
        run = self._run
        row = {
            **self._about,
            "topology": run.topology,
            "verb": run.verb,
            "started": timestamp(run.started),
            "status": "running",
            "operator": run.operator,
            "host": run.host,
            "command": run.command,
            "reason": run.reason,
            "undoes": undoes,
        }
        self._session.execute(_RUNS.insert(), [row])

    def finish(self, *, status: str, at: datetime) -> None:
        """Record how the run ended in this database."""
        mine = sa.and_(_RUNS.c.run == self._run.id, _RUNS.c.database_name == self._about["database_name"])
        self._session.execute(_RUNS.update().where(mine).values(finished=timestamp(at), status=status))

    def settle_cut_off(self, *, at: datetime) -> tuple[JournaledRun, ...]:
        """Close the runs that were cut off in this database, and return them.

        Called under the database's lock, where no other run can be at work.
        """
        database = self._about["database_name"]
        found = runs(self._session, database=database, cell=self._about["cell"])
        cut_off = tuple(each for each in found if each.finished is None and each.run.id != self._run.id)
        for each in cut_off:
            theirs = sa.and_(_RUNS.c.run == each.run.id, _RUNS.c.database_name == database)
            ended = {"finished": timestamp(at), "status": "cut off"}
            self._session.execute(_RUNS.update().where(theirs).values(**ended))
        return cut_off

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Write the changes of one batch; the caller's transaction holds them both."""
        entries = [self._entry(outcome.change) for outcome in outcomes]
        self._entries.clear()
        for part in self._parted(entries):
            self._session.execute(_CHANGES.insert(), part)
        if entries:
            self._remember(entries)

    def _entry(self, change: Change) -> _Entry:
        """Return what is written about a change; made once for the question and for the record."""
        entry = self._entries.get(id(change))
        if entry is None or entry.change is not change:
            row = self._row(change)
            entry = self._entries[id(change)] = _Entry(change, row, self._session.sent(row.values()))
        return entry

    def refuses(self, change: Change) -> str | None:
        """Return why a change cannot be recorded, or None: its rows may be too large for one statement."""
        size = self._entry(change).size + _STATEMENT
        if size <= self._session.packet():
            return None
        return (
            f"its record in the journal takes {size} bytes on its way, more than the server's "
            f"max_allowed_packet of {self._session.packet()}; raise that"
        )

    def _parted(self, entries: Iterable[_Entry]) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows in parts that fit into one statement each, which the driver makes of them."""
        part: list[dict[str, Any]] = []
        size = _STATEMENT
        for entry in entries:
            if part and size + entry.size > self._session.packet():
                yield part
                part, size = [], _STATEMENT
            part.append(entry.row)
            size += entry.size
        if part:
            yield part

    def _remember(self, made: Sequence[_Entry]) -> None:
        """Keep which rows cellsync pushed, and from which rows; prune does not touch it."""
        inserts = [each for each in made if each.change.action is Action.INSERT and each.change.origin]
        coming = [each.row for each in inserts if self._is_short(each.row)]
        going = [each.row for each in made if each.change.action is Action.DELETE]
        if coming or going:
            theirs = sa.and_(
                _PUSHED.c.database_name == self._about["database_name"],
                _PUSHED.c.rule == made[0].change.rule,  # a batch is of one rule
                _PUSHED.c.identity.in_([row["identity"] for row in (*going, *coming)]),
            )
            self._session.execute(_PUSHED.delete().where(theirs))
        if coming:
            self._session.execute(_PUSHED.insert(), [self._pushed_row(row) for row in coming])

    @staticmethod
    def _is_short(row: Mapping[str, Any]) -> bool:
        """Say whether a row's identity fits the memory; a long one is a name, which its key holds too."""
        return all(len(row[name]) <= (_NAME.length or 0) for name in ("identity", "origin"))

    def _pushed_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: row[name] for name in ("database_name", "rule", "identity", "origin", "run")}
        return {**kept, "origin_cell": self._origin_cell}

    def recorded(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Say for each change whether it is in the journal."""
        mine = sa.and_(
            _CHANGES.c.run == self._run.id, _CHANGES.c.database_name == self._about["database_name"]
        )
        columns = (_CHANGES.c.rule, _CHANGES.c.action, _CHANGES.c.row_key, _CHANGES.c.identity)
        # Shared: a COMMIT that the lost connection sent may still be on its way through the server,
        # and until it is decided nobody may say that its changes are not there.
        asked = sa.select(*columns).where(mine).with_for_update(read=True)
        rows = self._session.execute(asked).all()
        known = {tuple(row) for row in rows} | {tuple(row[:3]) for row in rows}
        return [self._name(change) in known for change in changes]

    def _name(self, change: Change) -> tuple[str, ...]:
        name = (change.rule, change.action.value, codec.tuple_to_text(change.key))
        return (*name, codec.tuple_to_text(change.identity)) if change.identity else name

    def _row(self, change: Change) -> dict[str, Any]:
        return {
            **self._about,
            "rule": change.rule,
            "table_name": change.table,
            "action": change.action.value,
            "row_key": codec.tuple_to_text(change.key),
            "key_columns": _names(change.key_columns),
            "identity_columns": _names(change.identity_columns),
            "identity": codec.tuple_to_text(change.identity),
            "origin": codec.tuple_to_text(change.origin),
            "before_row": codec.row_to_text(change.before),
            "after_row": codec.row_to_text(change.after),
            "reason": change.reason,
            "together": change.together,
            "made": timestamp(datetime.now(timezone.utc)),
        }


# -- Reading it back ---------------------------------------------------------------------------


def runs(session: Session, *, database: str, cell: str) -> tuple[JournaledRun, ...]:
    """Return what one database's journal says of its runs, newest first; () without a journal."""
    if _version(session) is None:
        return ()
    counted = (
        sa.select(_CHANGES.c.run, sa.func.count().label("applied"))
        .where(_CHANGES.c.database_name == database)
        .group_by(_CHANGES.c.run)
        .subquery()
    )
    query = (
        sa.select(_RUNS, counted.c.applied)
        .join(counted, counted.c.run == _RUNS.c.run, isouter=True)
        .where(_RUNS.c.database_name == database)
        .order_by(_RUNS.c.started.desc(), _RUNS.c.run.desc())
    )
    return tuple(_journaled(row, cell) for row in session.execute(query).mappings())


def _journaled(row: sa.RowMapping, cell: str) -> JournaledRun:
    return JournaledRun(
        run=Run(
            id=row["run"],
            verb=row["verb"],
            started=_moment(row["started"]),
            topology=row["topology"],
            operator=row["operator"],
            host=row["host"],
            command=row["command"],
            reason=row["reason"],
        ),
        finished=_moment(row["finished"]) if row["finished"] else None,
        status=row["status"],
        cells=(cell,),
        applied=int(row["applied"] or 0),
        undoes=row["undoes"],
    )


def merged(found: Iterable[JournaledRun]) -> tuple[JournaledRun, ...]:
    """Join what the journals of several databases say of the same runs, newest first.

    A run is finished when it is finished everywhere; its status is the first that is not "done".
    """
    together: dict[str, JournaledRun] = {}
    for each in found:
        known = together.get(each.run.id)
        together[each.run.id] = each if known is None else _joined(known, each)
    undone: dict[str, list[str]] = {}
    for each in together.values():
        if each.undoes:
            undone.setdefault(each.undoes, []).append(each.run.id)
    ordered = sorted(together.values(), key=lambda each: (each.run.started, each.run.id), reverse=True)
    return tuple(replace(each, undone_by=tuple(undone.get(each.run.id, ()))) for each in ordered)


def _joined(one: JournaledRun, other: JournaledRun) -> JournaledRun:
    finished = max(one.finished, other.finished) if one.finished and other.finished else None
    return replace(
        one,
        finished=finished,
        status=one.status if one.status != "done" else other.status,
        cells=tuple(dict.fromkeys((*one.cells, *other.cells))),
        applied=one.applied + other.applied,
    )


def pushed(
    session: Session, rule: str, identities: Iterable[Identity], *, database: str, origin_cell: str
) -> Mapping[Identity, Identity]:
    """Return which rows of a rule cellsync pushed to a database: primary key -> that of its origin.

    Only those of ``identities``. Empty where there is no journal, or none that this login may see.
    """
    asked = map(codec.tuple_to_text, identities)
    found: dict[Identity, Identity] = {}
    theirs = sa.and_(
        _PUSHED.c.database_name == database, _PUSHED.c.origin_cell == origin_cell, _PUSHED.c.rule == rule
    )
    if not session.has_table(_PUSHED.name, schema=SCHEMA):
        return found
    if session.execute(sa.select(_PUSHED.c.run).where(theirs).limit(1)).first() is None:
        return found  # and the identities need not be gathered at all
    while part := list(islice(asked, _ASKED)):
        mine = sa.and_(theirs, _PUSHED.c.identity.in_(part))
        for row in session.execute(sa.select(_PUSHED.c.identity, _PUSHED.c.origin).where(mine)).all():
            found[codec.tuple_from_text(row.identity)] = codec.tuple_from_text(row.origin)
    return found


def changes(session: Session, run: str, *, database: str, cell: str) -> tuple[JournaledChange, ...]:
    """Return the changes of a run to one database, in the order in which they were made."""
    if _version(session) is None:
        return ()
    mine = sa.and_(_CHANGES.c.run == run, _CHANGES.c.database_name == database)
    rows = session.execute(sa.select(_CHANGES).where(mine).order_by(_CHANGES.c.sequence))
    return tuple(
        JournaledChange(sequence=row["sequence"], cell=cell, change=_change(row), at=row["made"])
        for row in rows.mappings()
    )


def _change(row: sa.RowMapping) -> Change:
    return Change(
        rule=row["rule"],
        table=row["table_name"],
        action=Action(row["action"]),
        key=codec.tuple_from_text(row["row_key"]),
        key_columns=codec.tuple_from_text(row["key_columns"]),
        identity_columns=codec.tuple_from_text(row["identity_columns"]),
        identity=codec.tuple_from_text(row["identity"]),
        before=codec.row_from_text(row["before_row"]),
        after=codec.row_from_text(row["after_row"]),
        origin=codec.tuple_from_text(row["origin"]),
        reason=row["reason"],
        together=row["together"],
    )


def prune(session: Session, *, database: str, before: datetime) -> int:
    """Forget the finished runs of one database that started before a time; return how many."""
    if _version(session) is None:
        return 0
    old = sa.and_(
        _RUNS.c.database_name == database,
        _RUNS.c.finished.is_not(None),
        _RUNS.c.started < timestamp(before),
    )
    found = [row[0] for row in session.execute(sa.select(_RUNS.c.run).where(old)).all()]
    for run in found:
        # Changes first: a run without its changes could still be listed, but not the reverse.
        theirs = sa.and_(_CHANGES.c.run == run, _CHANGES.c.database_name == database)
        session.execute(_CHANGES.delete().where(theirs))
        mine = sa.and_(_RUNS.c.run == run, _RUNS.c.database_name == database)
        session.execute(_RUNS.delete().where(mine))
    return len(found)


def inverses(made: Sequence[JournaledChange]) -> Iterator[Change]:
    """Yield the changes that take a run back, the last one first."""
    for each in sorted(made, key=lambda each: each.sequence, reverse=True):
        yield each.change.inverse()


def written(made: Collection[JournaledChange]) -> frozenset[str]:
    """Return the names of the tables that a run wrote."""
    return frozenset(each.change.table for each in made)

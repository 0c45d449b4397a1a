"""The tables of the journal, and how they come to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import schema
from sqlalchemy.dialects import mysql

from cellsync.errors import JournalUnavailable, TransactionLost, WriteFailed

SCHEMA = "cellsync"
VERSION = 2
"""The version of these tables; a journal of a newer one is not touched."""
FENCED = 2
"""The first version with ``writers`` and ``heartbeats``: on Galera, a cellsync that does not know them must
not write beside one that does."""

_MAKING = "cellsync-journal"
"""The named lock under which the tables are made."""

METADATA = sa.MetaData(schema=SCHEMA)
OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
_LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
NAME = sa.String(255)
SHORT = sa.String(64)

FORMAT = sa.Table(
    "format",
    METADATA,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    **OPTIONS,
)

RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("run", SHORT, primary_key=True),
    sa.Column("database_name", SHORT, primary_key=True),
    sa.Column("cell", NAME, nullable=False),
    sa.Column("topology", NAME, nullable=False),
    sa.Column("verb", SHORT, nullable=False),
    # Text, as everywhere in cellsync: UTC, "2026-11-23T15:00:59Z".
    sa.Column("started", SHORT, nullable=False),
    sa.Column("finished", SHORT),
    sa.Column("status", SHORT, nullable=False),
    sa.Column("operator", NAME, nullable=False),
    sa.Column("host", NAME, nullable=False),
    sa.Column("command", _LONG, nullable=False),
    sa.Column("reason", _LONG, nullable=False),
    sa.Column("undoes", SHORT),
    **OPTIONS,
)

CHANGES = sa.Table(
    "changes",
    METADATA,
    sa.Column(
        "sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    sa.Column("run", SHORT, nullable=False),
    sa.Column("database_name", SHORT, nullable=False),
    sa.Column("cell", NAME, nullable=False),
    sa.Column("rule", NAME, nullable=False),
    sa.Column("table_name", SHORT, nullable=False),
    sa.Column("action", SHORT, nullable=False),
    sa.Column("row_key", _LONG, nullable=False),
    sa.Column("key_columns", _LONG, nullable=False),
    sa.Column("identity_columns", _LONG, nullable=False),
    # The written row's primary key, and the primary key of the row it was made from.
    sa.Column("identity", _LONG, nullable=False),
    sa.Column("origin", _LONG, nullable=False),
    sa.Column("before_row", _LONG),
    sa.Column("after_row", _LONG),
    sa.Column("reason", _LONG, nullable=False),
    sa.Column("together", SHORT, nullable=False),
    sa.Column("made", SHORT, nullable=False),
    sa.Index("changes_run_idx", "run", "database_name", "sequence"),
    **OPTIONS,
)


class Session(Protocol):
    """An open connection that turns the driver's errors into cellsync's; ``db.Database`` is one."""

    makes_schemas: bool
    """False where a schema is a file of its own (SQLite)."""

    @property
    def is_clustered(self) -> bool:
        """Say whether the server is a node of a Galera cluster."""

    def has_table(self, name: str, *, schema: str) -> bool: ...

    def hides(self, name: str, *, schema: str) -> bool: ...

    def packet(self) -> int:
        """Return how large a statement may be, in bytes."""

    def sent(self, values: Iterable[object]) -> int:
        """Return how many bytes values take in a statement."""

    def execute(self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]] = ()) -> sa.Result[Any]: ...

    def transaction(self) -> AbstractContextManager[None]: ...

    def run(self, sql: str) -> sa.CursorResult[Any]:
        """Execute a statement that holds its values already."""

    def literal(self, value: object) -> str:
        """Return a value as it stands in a statement."""

    def append(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows with the same columns, in the same order; they fit into one statement."""


PUSHED = sa.Table(
    "pushed",
    METADATA,
    sa.Column("database_name", SHORT, primary_key=True),
    sa.Column("rule", NAME, primary_key=True),
    # The pushed row's primary key, and that of the row it was made from, as in changes.
    sa.Column("identity", NAME, primary_key=True),
    sa.Column("origin", NAME, nullable=False),
    sa.Column("origin_cell", NAME, nullable=False),
    sa.Column("run", SHORT, nullable=False),
    **OPTIONS,
)


STREAKS = sa.Table(
    "streaks",
    METADATA,
    sa.Column("database_name", SHORT, primary_key=True),
    sa.Column("cell", NAME, primary_key=True),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("answered", sa.Integer, nullable=False),
    sa.Column("checked", SHORT, nullable=False),
    # The id of the row that a check took out; NULL where none did, or it is back.
    sa.Column("isolated_row", sa.BigInteger),
    # When checks took the cell out, newest last, as JSON.
    sa.Column("isolations", _LONG, nullable=False),
    **OPTIONS,
)


# Beside STREAKS, and not more columns of it: no table of an older journal needs to be altered.
SILENCES = sa.Table(
    "silences",
    METADATA,
    sa.Column("database_name", SHORT, primary_key=True),
    sa.Column("cell", NAME, primary_key=True),
    # Checks in a row in which nobody took messages at a living broker.
    sa.Column("silent", sa.Integer, nullable=False),
    # 1 once a check has seen somebody take them: then the queues' names are known to be right.
    sa.Column("heard", sa.Integer, nullable=False),
    **OPTIONS,
)


# What keeps runs through several nodes of a Galera cluster apart; see ``journal.writers``.
WRITERS = sa.Table(
    "writers",
    METADATA,
    sa.Column("database_name", SHORT, primary_key=True),
    # The run that has taken the database; "" where none has.
    sa.Column("run", SHORT, nullable=False),
    sa.Column("transactions", sa.BigInteger, nullable=False),
    **OPTIONS,
)

HEARTBEATS = sa.Table(
    "heartbeats",
    METADATA,
    sa.Column("database_name", SHORT, primary_key=True),
    sa.Column("run", SHORT, nullable=False),
    sa.Column("node", SHORT, nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
    # No text here: the server, whose clock it is, counts with it.
    sa.Column("seen", sa.DateTime, nullable=False),
    **OPTIONS,
)


def _statements() -> list[schema.ExecutableDDLElement]:
    made: list[schema.ExecutableDDLElement] = []
    for table in METADATA.sorted_tables:
        made.append(schema.CreateTable(table, if_not_exists=True))
        made += [schema.CreateIndex(index, if_not_exists=True) for index in table.indexes]
    return made


ANY_HOST = "'cellsync'@'%'"
"""The login of the documentation's examples."""


def sql(*logins: str) -> str:
    """Return what an administrator runs where cellsync may not make its own schema.

    ``logins`` are accounts as GRANT spells them; without any it is 'cellsync' from every host.
    """
    dialect = sa.create_mock_engine("mysql+pymysql://", lambda *_: None).dialect
    statements = [
        f"CREATE DATABASE IF NOT EXISTS {SCHEMA} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        # Without tabs: a report shows them as \t, and what it shows must be fit for a client.
        *(str(statement.compile(dialect=dialect)).strip().replace("\t", "  ") for statement in _statements()),
        f"INSERT IGNORE INTO {SCHEMA}.format (version) VALUES ({VERSION})",
        *(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {SCHEMA}.* TO {each}" for each in logins or (ANY_HOST,)),
    ]
    return "".join(f"{statement};\n" for statement in statements)


def name_login(session: Session) -> str:
    """Return the account that the server took this connection for, as GRANT spells it."""
    found: str = session.execute(sa.select(sa.func.current_user())).scalar_one()
    user, _, host = found.rpartition("@")
    return "@".join("'" + part.replace("'", "''") + "'" for part in (user, host))


def prepare(session: Session, *, cell: str) -> None:
    """Make the journal's tables where they are not there yet.

    Raises JournalUnavailable, with what an administrator must run, when that is not allowed, or
    when the journal is of a newer version. Not inside a transaction: making tables commits.
    """
    try:
        version = version_of(session)
        if version is None:
            _make(session)
        elif version < VERSION:
            _extend(session)
        for statement in (*_PROBES, *(_CLUSTER_PROBES if session.is_clustered else ())):
            session.execute(statement)
    except TransactionLost:
        raise  # whoever lost a connection needs no administrator
    except WriteFailed as error:
        raise JournalUnavailable(
            f"the journal cannot be made or read, and nothing is written without it: {error}. "
            f"An administrator of {cell}'s server can make it:\n{sql(name_login(session))}"
        ) from None
    if version is not None and version > VERSION:
        raise JournalUnavailable(
            f"the journal of {cell} was written by a newer cellsync (version {version}; this one knows "
            f"{VERSION}): use that one"
        )


# What a run does to the journal, done to no row: what this login may not is known before a write.
_PROBES = (
    RUNS.update().values(status=RUNS.c.status).where(sa.false()),
    *(
        table.insert().from_select(
            [column.name for column in table.columns], sa.select(*table.columns).where(sa.false())
        )
        for table in (RUNS, CHANGES, PUSHED)
    ),
    PUSHED.delete().where(sa.false()),
)


_CLUSTER_PROBES = tuple(
    probe
    for table in (WRITERS, HEARTBEATS)
    for probe in (
        table.update().values(run=table.c.run).where(sa.false()),
        table.insert().from_select(
            [column.name for column in table.columns], sa.select(*table.columns).where(sa.false())
        ),
    )
)


def _extend(session: Session) -> None:
    """Add what an older journal lacks; without the right to it only a Galera cluster cannot do without."""
    try:
        _make(session)
    except TransactionLost:
        raise
    except WriteFailed:
        if session.is_clustered:
            raise


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
        FORMAT.insert().prefix_with("IGNORE", dialect="mysql").prefix_with("OR IGNORE", dialect="sqlite")
    )
    session.execute(unless_there, [{"version": VERSION}])


def version_of(session: Session) -> int | None:
    """Return the journal's version, or None when there is no journal."""
    if not session.has_table(FORMAT.name, schema=SCHEMA):
        return None
    found: int | None = session.execute(sa.select(sa.func.max(FORMAT.c.version))).scalar()
    return found


def unseen(session: Session) -> bool:
    """Say whether there may be a journal that this login may not see: to it that looks like none."""
    return session.hides(FORMAT.name, schema=SCHEMA)

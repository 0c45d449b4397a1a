"""Whether a journal and the data beside it tell one story, row by row."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from cellsync import db, journal
from cellsync.model import Action, Identity, JournaledChange, JournaledRun, shown

Contents = Mapping[str, Mapping[Identity, Mapping[str, Any]]]
"""Table -> primary key -> the whole row."""


def query(database: db.Database, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement as it stands and return its rows, [] where it has none."""
    result = database.connection.exec_driver_sql(statement)
    return [tuple(row) for row in result] if result.returns_rows else []


def contents(database: db.Database, *tables: str) -> Contents:
    """Return every row of some tables, by primary key, to the byte."""
    found = {}
    for name, table in database.tables(tables).items():
        columns = ", ".join(f"`{column}`" for column in table.identity)
        keys = query(database, f"SELECT {columns} FROM `{name}`")
        found[name] = dict(database.read_back(name, table.identity, keys))
    return found


def journaled(database: db.Database) -> tuple[list[JournaledRun], list[JournaledChange]]:
    """Return the runs of a database's journal, oldest first, and their changes in order."""
    about = {"database": database.identity().schema, "cell": "c1"}
    runs = journal.runs(database, **about)
    made = [change for each in runs for change in journal.changes(database, each.run.id, **about)]
    return [*reversed(runs)], sorted(made, key=lambda change: change.sequence)


def disagreements(before: Contents, database: db.Database) -> list[str]:
    """Say where a database is not what its journal makes of what was there before; see ``unlike``."""
    return unlike(before, journaled(database)[1], contents(database, *before))


def unlike(before: Contents, made: Sequence[JournaledChange], now: Contents) -> list[str]:
    """Replay the changes of all runs over what was there before; say where it is otherwise now.

    Nothing to say means: whatever is journaled happened, once, in this order and with these
    values; and whatever happened is journaled. For databases that only cellsync writes.
    """
    wrong = []
    told = {table: dict(rows) for table, rows in before.items()}
    for each in made:
        change, rows = each.change, told[each.change.table]
        held = rows.get(change.identity)
        name = f"{change.action.value} {change.table} {change.identity}"
        if change.action is Action.INSERT:
            wrong += [f"{name}: it was there"] if held is not None else []
            rows[change.identity] = dict(change.after or {})
            continue
        if held is None:
            wrong.append(f"{name}: it was not there")
            continue
        wrong += [
            f"{name}: {column} was {shown(held[column])}, not {shown(value)}"
            for column, value in (change.before or {}).items()
            if held[column] != value
        ]
        if change.action is Action.DELETE:
            del rows[change.identity]
        else:
            rows[change.identity] = {**held, **(change.after or {})}
    return wrong + _unlike(told, now)


def _unlike(told: Contents, data: Contents) -> list[str]:
    return [
        f"{table} {identity}: by the journal {rows.get(identity)}, and it is {data[table].get(identity)}"
        for table, rows in told.items()
        for identity in sorted(rows.keys() | data[table].keys(), key=str)
        if rows.get(identity) != data[table].get(identity)
    ]


def quiet(database: db.Database, seconds: float = 10) -> None:
    """Wait until nobody else is connected to a database: what was begun there has ended."""
    others = (
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST "
        "WHERE DB = DATABASE() AND ID <> CONNECTION_ID() AND COMMAND <> 'Killed'"
    )
    deadline = time.monotonic() + seconds
    while query(database, others)[0][0]:
        assert time.monotonic() < deadline, "somebody stays connected"
        time.sleep(0.002)

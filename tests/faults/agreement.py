"""Whether a journal and the data beside it tell one story, row by row."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from edges import opened
from servers import sql

from cellsync import journal
from cellsync.model import Action, Identity, JournaledChange, JournaledRun, shown

Contents = Mapping[str, Mapping[Identity, Mapping[str, Any]]]
"""Table -> primary key -> the whole row."""


def contents(url: str, *tables: str) -> Contents:
    """Return every row of some tables, by primary key, to the byte."""
    found = {}
    with opened(url) as database:
        for name, table in database.tables(tables).items():
            columns = ", ".join(f"`{column}`" for column in table.identity)
            keys = [tuple(row) for row in sql(url, f"SELECT {columns} FROM `{name}`")]
            found[name] = dict(database.read_back(name, table.identity, keys))
    return found


def journaled(url: str, cell: str = "c1") -> tuple[list[JournaledRun], list[JournaledChange]]:
    """Return the runs of a database's journal, oldest first, and their changes in order."""
    schema = str(sa.make_url(url).database)
    with opened(url) as database:
        runs = journal.runs(database, database=schema, cell=cell)
        made = [
            change
            for each in runs
            for change in journal.changes(database, each.run.id, database=schema, cell=cell)
        ]
    return [*reversed(runs)], sorted(made, key=lambda change: change.sequence)


def disagreements(before: Contents, url: str, cell: str = "c1") -> list[str]:
    """Replay the journal of all runs over what was there before; say where the data is otherwise.

    Nothing to say means: whatever is journaled happened, once, in this order and with these
    values; and whatever happened is journaled. For databases that only cellsync writes.
    """
    wrong = []
    story = {table: dict(rows) for table, rows in before.items()}
    for each in journaled(url, cell)[1]:
        change, rows = each.change, story[each.change.table]
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
    return wrong + _unlike(story, contents(url, *before))


def _unlike(story: Contents, data: Contents) -> list[str]:
    wrong = []
    for table, rows in story.items():
        for identity in sorted(rows.keys() | data[table].keys(), key=str):
            one, other = rows.get(identity), data[table].get(identity)
            if one != other:
                wrong.append(f"{table} {identity}: the journal makes it {one}, and it is {other}")
    return wrong


def quiet(url: str, seconds: float = 10) -> None:
    """Wait until nobody is connected to a database any more: what was begun there has ended."""
    made = sa.make_url(url)
    query = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = :db AND ID <> CONNECTION_ID()"
    deadline = time.monotonic() + seconds
    while sql(made.set(database="mysql"), query, db=made.database)[0][0]:
        assert time.monotonic() < deadline, f"somebody stays connected to {made.database}"
        time.sleep(0.002)

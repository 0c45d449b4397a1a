"""Look at all tables of a parent, and at those of its children that answer: what `rules init` drafts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cellsync import db
from cellsync.errors import UsageError
from cellsync.model import Cell, CellFailure, Survey, Table
from cellsync.rules.complaints import suggest
from cellsync.run.look import VERSION_TABLES
from cellsync.run.request import Request, each_cell, executor


def survey(request: Request, names: Sequence[str]) -> Survey:
    """Read the schemas of the parent and, as far as they answer, of the children. Reads no rows.

    Raises UsageError for a name that is no table of the parent, and Unreachable where the parent does
    not answer. Three queries a database, or four.
    """
    parent = request.topology.parent
    with db.connect(parent, request.timeouts) as database:
        known = database.table_names()
        tables = database.tables([name for name in known if name not in VERSION_TABLES])
    for name in names:
        if name not in tables:
            raise UsageError(
                f"{parent.name} has no table {name!r} that rows could be copied from: {suggest(name, tables)}"
            )

    def task(cell: Cell) -> Mapping[str, Table]:
        with db.connect(cell, request.timeouts) as database:
            return database.tables(list(tables))

    with executor(request.jobs) as pool:
        found = each_cell(pool, task, request.children)
    return Survey(
        parent=parent.name,
        tables=tables,
        children={
            name: each.error if isinstance(each, CellFailure) else each for name, each in found.items()
        },
        version_tables=tuple(name for name in VERSION_TABLES if name in known),
    )

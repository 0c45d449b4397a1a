"""A cell's database: the Reader of diff and the Writer of apply, through one connection."""

from __future__ import annotations

import sqlalchemy
from oslo_db import exception as oslo_errors

from cellsync.db.clashing import Clashing
from cellsync.db.connect import NOT_A_SERVER, Deadline, Timeouts, engine, unreachable
from cellsync.db.reading import Reading
from cellsync.db.writing import Writing
from cellsync.errors import Unreachable
from cellsync.model import (
    Cell,
)


def connect(cell: Cell, timeouts: Timeouts) -> Database:
    """Open one connection to a cell's database.

    Raises Unreachable when the server does not answer, refuses the login, or has no such schema,
    and where what should be its URL is none.
    """
    deadline = Deadline(timeouts.whole)
    if cell.database.fault:
        raise Unreachable(f"cannot connect to {cell.name}: {cell.database.fault}")
    try:
        made = engine(cell, timeouts, deadline)
    except ValueError as error:
        raise Unreachable(f"cannot connect to {cell.name} at {cell.database.shown}: {error}") from None
    try:
        connection = made.connect()
    except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError, OSError, *NOT_A_SERVER) as error:
        made.dispose()
        raise unreachable(cell, error) from None
    return Database(cell, made, connection, deadline)


class Database(Reading, Writing, Clashing):
    """A cell's database, read and written through one connection. Not for several threads at once."""

"""What is asked of one database, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from cellsync.model import Answer, Value


@dataclass(frozen=True, kw_only=True)
class Question:
    """One SELECT for one database."""

    cell: str
    database: str
    """One of ``Cell.databases``; empty for the cell's own."""
    sql: str
    child: str
    """The value of :child; empty where the query has none, so that it is asked once for all children."""
    given: tuple[tuple[str, tuple[Value, ...]], ...]
    """Other parameters, each with all of its values."""
    most: int


NOTHING: tuple[Value, ...] = (None,)
"""All values of a parameter of which there is none: nothing is IN (NULL), and SQL has no empty list."""

Told = Union[Answer, str]
"""What was answered, or why nothing was."""

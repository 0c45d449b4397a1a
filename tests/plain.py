"""Tables and rows as plain values, for tests that need no database."""

from __future__ import annotations

from typing import Any

from cellsync.db.schema import family
from cellsync.model import Column, Key, KeyPart, Row, Table


def table(name: str, *columns: str, **more: Any) -> Table:
    """Return a table of columns like "id int auto_increment" and "name varchar(9)"."""
    made = []
    for text in columns:
        column, kind, *flags = text.split(" ")
        made.append(
            Column(
                name=column,
                type=kind,
                family=family(kind),
                auto_increment="auto_increment" in flags,
                generated="generated" in flags,
                nullable="required" not in flags,
            )
        )
    return Table(name=name, columns=tuple(made), **{"primary_key": ("id",), "engine": "InnoDB", **more})


def row(key: KeyPart | Key, *values: KeyPart, number: int = 1, **more: Any) -> Row:
    """Return a row; a key that is no tuple is its only part."""
    whole = key if isinstance(key, tuple) else (key,)
    return Row(key=whole, values=values, identity=(number,), **more)

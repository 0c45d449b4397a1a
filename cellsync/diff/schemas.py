"""What differs between two tables themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cellsync.model import (
    Column,
    SchemaDifference,
    Table,
)


def schema(desired: Table, existing: Table, *, used: set[str]) -> Iterator[SchemaDifference]:
    """Yield what differs between two tables, in order of path.

    ``used`` holds the lower-case names of the columns that a rule reads: one of these that is
    missing, or of another family, blocks the rule. The order of columns is not a difference.
    """
    one, other = _described(desired), _described(existing)
    if one == other:
        return  # deepdiff takes 10 ms and more to say the same, for every rule of every child
    from deepdiff import DeepDiff  # takes a tenth of a second to import

    delta = DeepDiff(one, other, view="tree", ignore_order=False)
    found = {
        (tuple(level.path(output_format="list")), _text(level.t1), _text(level.t2))
        for levels in delta.values()
        for level in levels
    }
    for path, before, after in sorted(found, key=repr):
        whole = path[0] == "columns" and len(path) == 2
        blocking = (
            path[0] == "columns" and path[1] in used and ((whole and after is None) or path[-1] == "family")
        )
        yield SchemaDifference(path=_path(path), desired=before, existing=after, blocking=blocking)


def _path(path: tuple[Any, ...]) -> str:
    singular = {"columns": "column", "indexes": "index", "foreign keys": "foreign key"}
    head = " ".join([singular.get(path[0], path[0]), *map(str, path[1:2])])
    return ": ".join([head, *map(str, path[2:])])


def _text(value: object) -> str | None:
    if isinstance(value, dict):
        return str(value.get("type", "present"))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    # deepdiff has a marker object where a side has nothing.
    return str(value) if isinstance(value, (str, int, bool)) else None


def _described(table: Table) -> dict[str, Any]:
    return {
        "engine": (table.engine or "").lower(),
        "primary key": ", ".join(table.primary_key),
        "columns": {column.name.lower(): _column(column) for column in table.columns},
        "indexes": {
            index.name: f"{'unique ' if index.unique else ''}({', '.join(index.columns)})"
            for index in table.indexes
        },
        "foreign keys": {
            key.name: f"({', '.join(key.columns)}) -> {key.table} ({', '.join(key.references)})"
            f" on delete {key.on_delete} on update {key.on_update}"
            for key in table.foreign_keys
        },
        "triggers": ", ".join(table.triggers),
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "type": column.type,
        "family": column.family.value,
        "nullable": column.nullable,
        "default": column.default or "none",
        "charset": column.charset or "none",
        "collation": column.collation or "none",
        "auto_increment": column.auto_increment,
        "generated": column.generated,
    }

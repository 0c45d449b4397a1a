"""The keys of rows as they stand in the table, for changes that are taken back without their rule."""

from __future__ import annotations

from cellsync.model import (
    Action,
    Change,
    Dangling,
    Key,
    Projected,
    Projection,
    Reference,
    Rule,
    ServerTime,
    Stored,
    Table,
    Value,
)


def project_raw_key(table: Table | None, change: Change, rule: Rule | None) -> Projection:
    """Return a projection onto the raw key columns, for changes that are taken back.

    ``rule`` says, where there still is one with this key, which rows of the table hold a key: those that it
    does not see, and those that are soft-deleted, may have had the same one all the time.
    """
    assert table is not None
    seen = rule if rule is not None and rule.key == change.key_columns else None
    soft_delete = seen.soft_delete if seen is not None else None
    columns = [c for name in change.key_columns if (c := table.column(name))]
    if any(column.generated for column in columns) and change.action is not Action.INSERT:
        columns = []  # what it will be only the server knows
    identity = [column for name in table.identity if (column := table.column(name))]
    return Projection(
        rule=change.rule,
        table=table.name,
        key=tuple(Projected(column=column.name, family=column.family) for column in columns),
        columns=(),
        identity=tuple(column.name for column in identity),
        identity_families=tuple(column.family for column in identity),
        where=seen.where_existing if seen is not None else None,
        soft_delete=soft_delete if soft_delete and table.column(soft_delete.column) else None,
        parent="",
        child="",
    )


def read_raw_key(change: Change, target: Projection) -> Key:
    """Return the key that a change leaves its row with, as ``project_raw_key`` projects it."""
    after = change.after or {}
    # What the server computes is in no row that is written; the key tells it.
    computed = dict(zip(change.key_columns, change.key, strict=False))
    parts = [after.get(part.column, computed.get(part.column)) for part in target.key]
    return tuple(None if isinstance(part, (tuple, Dangling)) else plain_value(part) for part in parts)


def plain_value(stored: Stored) -> Value:
    """Return a value that is neither a reference nor the server's time."""
    assert not isinstance(stored, (Reference, ServerTime))
    return stored

"""What became of the rows from which cellsync made others: they are known by their primary keys."""

from __future__ import annotations

from dataclasses import replace

from cellsync.model import (
    Action,
    Difference,
    Kind,
    Pairing,
    Projected,
    Projection,
    TableDiff,
    keep_differences,
)
from cellsync.run.look import State


def find_deletions(state: State, pairing: Pairing, table: TableDiff) -> TableDiff:
    """Return a table that says of extra rows that cellsync pushed when their origins were deleted.

    Their keys do not tell: such a row may have been renamed before. Raises ReadFailed.
    """
    if pairing.rule.on_extra is not Action.SOFT_DELETE:
        return table
    origins = [d.origin for d in table.differences if _asks(d)]
    if not origins:
        return table
    database, projection = state.databases[pairing.desired_cell], _project_identity(pairing.desired)
    with database.busy():
        deleted = {
            row.key: row.since or "an unknown time"
            for row in database.rows(projection, keys=list(dict.fromkeys(origins)), tombstones=True)
        }
    if not deleted:
        return table
    told = (
        replace(d, tombstone=deleted[d.origin]) if _asks(d) and d.origin in deleted else d
        for d in table.differences
    )
    return replace(table, differences=keep_differences(told))


def _asks(difference: Difference) -> bool:
    extra = difference.kind is Kind.EXTRA and bool(difference.origin)
    return extra and difference.tombstone is None


def _project_identity(projection: Projection) -> Projection:
    """Return a projection onto the primary key alone, by which its rows are found."""
    pairs = zip(projection.identity, projection.identity_families, strict=True)
    key = tuple(Projected(column=name, family=family) for name, family in pairs)
    return replace(projection, key=key, columns=(), carried=(), where=None, route=None, unique=True)

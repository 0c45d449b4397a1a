"""Read what was written once more: it must be as the plan wanted it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cellsync.apply.doors import Reader
from cellsync.model import (
    Action,
    Change,
    Fate,
    KeyPart,
    Outcome,
    Projection,
    Reference,
    Row,
    ServerTime,
    Stored,
    shown,
)


def verify(
    outcomes: Sequence[Outcome],
    planned: Collection[Change],
    *,
    reader: Reader,
    targets: Mapping[str, Projection],
) -> tuple[str, ...]:
    """Read the written keys again and return a line for each that is not as planned.

    ``planned`` are the changes as the plan had them; those that were applied must now read, through
    the projection, as the plan wanted them. What somebody else changed in the meantime shows too.
    """
    applied = {(o.change.rule, o.change.key) for o in outcomes if o.fate is Fate.APPLIED}
    problems: list[str] = []
    for rule, target in targets.items():
        # The last one of each key: a row that was parked has moved on.
        changes = {c.key: c for c in planned if c.rule == rule and (c.rule, c.key) in applied}
        found = {row.key: row for row in reader.rows(target, keys=list(changes)) if not row.limbo}
        problems += [
            line for change in changes.values() if (line := _unlike(change, found.get(change.key), target))
        ]
    return tuple(problems)


def _unlike(change: Change, row: Row | None, target: Projection) -> str | None:
    name = f"{change.table} {'/'.join(shown(part) for part in change.key)}"
    if change.action is Action.DELETE or (change.after is not None and deletes(change, target)):
        return None if row is None else f"{name} was deleted, and is there again"
    if row is None:
        return f"{name} was written, and is not there"
    held: dict[str, KeyPart] = {p.column: value for p, value in zip(target.columns, row.values, strict=True)}
    wrong = [
        f"{column} is {shown(held[column])} instead of {shown(_plain(value))}"
        for column, value in (change.after or {}).items()
        if column in held and held[column] != _plain(value)
    ]
    return f"{name} was written, but {', '.join(wrong)}" if wrong else None


def deletes(change: Change, target: Projection) -> bool:
    """Say whether an update is a soft delete."""
    soft_delete = target.soft_delete
    return (
        change.action is Action.UPDATE
        and soft_delete is not None
        and (change.after or {}).get(soft_delete.column, soft_delete.live) != soft_delete.live
    )


def _plain(stored: Stored) -> KeyPart:
    if isinstance(stored, Reference):
        return stored.key
    return None if isinstance(stored, ServerTime) else stored

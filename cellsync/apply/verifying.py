"""Read what was written once more: it must be as the plan wanted it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, islice

from cellsync.apply.doors import Reader
from cellsync.apply.loading import checksum
from cellsync.model import (
    Action,
    Change,
    KeyPart,
    Load,
    Projection,
    Reference,
    Row,
    ServerTime,
    Stored,
    safe,
    shown,
)
from cellsync.spool import parts

KEYS_AT_ONCE = 5_000
"""Written rows that are read again together."""


def verify(applied: Iterable[Change], *, reader: Reader, targets: Mapping[str, Projection]) -> Iterator[str]:
    """Read the written keys again and yield a line for each that is not as planned.

    ``applied`` are the changes that were made, as the plan had them: they must now read, through
    the projection, as the plan wanted them, in all compared columns. What somebody else changed in the
    meantime shows too.
    """
    together: list[Change] = []
    waiting = (change for change in applied if change.rule in targets)
    while part := list(islice(waiting, KEYS_AT_ONCE)):
        together += [change for change in part if change.together]
        yield from _verified([change for change in part if not change.together], reader, targets)
    yield from _verified(together, reader, targets)


def verify_all(
    changes: Sequence[Change], applied: Sequence[int], *, reader: Reader, targets: Mapping[str, Projection]
) -> Iterator[str]:
    """Yield a line for each of the changes that were made, as ``applied`` says, and are not as planned.

    Rows that were loaded into an empty table are told by its checksum; where it is another one now, each
    of them is read again.
    """
    begin = 0
    for part in parts(changes):
        made = applied[begin : begin + len(part)]
        begin += len(part)
        if not isinstance(part, Load) or not _holds(part, made, reader, targets):
            yield from verify(compress(part, made), reader=reader, targets=targets)


def _holds(load: Load, made: Sequence[int], reader: Reader, targets: Mapping[str, Projection]) -> bool:
    """Say whether a table holds just what was loaded into it."""
    expected = sum(made), checksum(compress(load.packed, made))
    return reader.total(targets[load.sample.rule], load.fold) == expected


def _verified(applied: Sequence[Change], reader: Reader, targets: Mapping[str, Projection]) -> Iterator[str]:
    for rule in dict.fromkeys(change.rule for change in applied):
        # The last one of each key: a row that was parked has moved on.
        changes = {change.key: change for change in applied if change.rule == rule}
        found = {row.key: row for row in reader.rows(targets[rule], keys=list(changes)) if not row.limbo}
        at = {part.column: number for number, part in enumerate(targets[rule].columns)}
        for change in changes.values():
            if line := _unlike(change, found.get(change.key), targets[rule], at):
                yield line


def _unlike(change: Change, row: Row | None, target: Projection, at: Mapping[str, int]) -> str | None:
    """Return what a row is otherwise than planned; ``at`` says where each column stands in it."""
    if change.action is Action.DELETE or (change.after is not None and deletes(change, target)):
        return None if row is None else f"{_named(change)} was deleted, and is there again"
    if row is None:
        return f"{_named(change)} was written, and is not there"
    held, after = row.values, change.after or {}
    wrong = [
        f"{column} is {shown(safe(column, held[at[column]]))} instead of {shown(safe(column, _plain(value)))}"
        for column, value in after.items()
        if column in at and held[at[column]] != value and held[at[column]] != _plain(value)
    ]
    wrong += [
        f"{column} is {shown(safe(column, held[at[column]]))} instead of {shown(safe(column, part))}, which "
        f"was not written"
        for column, part in change.unwritten.items()
        if column in at and held[at[column]] != part
    ]
    return f"{_named(change)} was written, but {', '.join(wrong)}" if wrong else None


def _named(change: Change) -> str:
    return f"{change.table} {'/'.join(shown(part) for part in change.key)}"


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

"""Read what was written once more: it must be as the plan wanted it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, islice
from typing import NamedTuple

from cellsync.apply.doors import Reader
from cellsync.apply.loading import checksum
from cellsync.model import (
    USUAL_SECRETS,
    Action,
    Change,
    Key,
    KeyPart,
    Load,
    Projection,
    Reference,
    Row,
    Secrets,
    ServerTime,
    Stored,
    shown,
)
from cellsync.model.making import Pick, make_pick
from cellsync.spool import parts

KEYS_AT_ONCE = 5_000
"""Written rows that are read again together."""


class _Unlike(NamedTuple):
    """A change that was made, and does not read as planned."""

    place: tuple[str, Key]
    """Its rule and key."""
    line: str
    columns: frozenset[str]
    """The columns that are wrong; none where it is the whole row."""
    is_open: bool
    """Whether it wrote a NULL: it may be there for a moment."""

    def is_settled_by(self, later: Change) -> bool:
        """Say whether a later change of the same row is the one to be held against it."""
        after = later.after or {}
        return later.action is Action.DELETE or (bool(self.columns) and after.keys() >= self.columns)


def verify(
    applied: Iterable[Change],
    *,
    reader: Reader,
    targets: Mapping[str, Projection],
    secrets: Secrets = USUAL_SECRETS,
) -> Iterator[str]:
    """Read the written keys again and yield a line for each that is not as planned.

    ``applied`` are the changes that were made, as the plan had them: they must now read, through
    the projection, as the plan wanted them, in all compared columns. What somebody else changed in the
    meantime shows too. A line shows no value that ``secrets`` hides.
    """
    yield from _Verifying(reader, targets, secrets).finish(applied)


def verify_all(
    changes: Sequence[Change],
    applied: Sequence[int],
    *,
    reader: Reader,
    targets: Mapping[str, Projection],
    secrets: Secrets = USUAL_SECRETS,
) -> Iterator[str]:
    """Yield a line for each of the changes that were made, as ``applied`` says, and are not as planned.

    Rows that were loaded into an empty table are told by its checksum; where it is another one now, each
    of them is read again.
    """
    verifying = _Verifying(reader, targets, secrets)
    begin = 0
    for part in parts(changes):
        made = applied[begin : begin + len(part)]
        begin += len(part)
        if not isinstance(part, Load) or not _holds(part, made, reader, targets):
            yield from verifying.verify(compress(part, made))
    yield from verifying.finish(())


class _Verifying:
    """Reads keys again, some thousands at a time."""

    def __init__(self, reader: Reader, targets: Mapping[str, Projection], secrets: Secrets) -> None:
        self._reader = reader
        self._targets = targets
        self._secrets = secrets
        self._open: dict[tuple[str, Key], _Unlike] = {}
        """Of rows that lack something for a moment: a change far behind may fill it, or remove the row."""

    def verify(self, applied: Iterable[Change]) -> Iterator[str]:
        """Yield a line for each change that is not as planned, but for those that are not settled yet."""
        together: list[Change] = []
        waiting = (change for change in applied if change.rule in self._targets)
        while part := list(islice(waiting, KEYS_AT_ONCE)):
            together += [change for change in part if change.together]
            yield from self._verify_part([change for change in part if not change.together])
        yield from self._verify_part(together)

    def finish(self, applied: Iterable[Change]) -> Iterator[str]:
        """Yield a line for each that is left, too."""
        yield from self.verify(applied)
        yield from (each.line for each in self._open.values())

    def _verify_part(self, applied: Sequence[Change]) -> Iterator[str]:
        for change in applied if self._open else ():
            unlike = self._open.get((change.rule, change.key))
            if unlike is not None and unlike.is_settled_by(change):
                del self._open[change.rule, change.key]
        for unlike in _find_unlike(applied, self._reader, self._targets, self._secrets):
            if unlike.is_open:
                self._open[unlike.place] = unlike
            else:
                yield unlike.line


def _holds(load: Load, made: Sequence[int], reader: Reader, targets: Mapping[str, Projection]) -> bool:
    """Say whether a table holds just what was loaded into it."""
    expected = sum(made), checksum(compress(load.packed, made))
    return reader.total(targets[load.sample.rule], load.fold) == expected


def _find_unlike(
    applied: Sequence[Change], reader: Reader, targets: Mapping[str, Projection], secrets: Secrets
) -> Iterator[_Unlike]:
    for rule in dict.fromkeys(change.rule for change in applied):
        # The last one of each key: a row that was parked has moved on.
        changes = {change.key: change for change in applied if change.rule == rule}
        found = {row.key: row for row in reader.rows(targets[rule], keys=list(changes)) if not row.limbo}
        at = {part.column: number for number, part in enumerate(targets[rule].columns)}
        picks: dict[tuple[str, ...], Pick] = {}
        for change in changes.values():
            names = change.unwritten_columns
            if names not in picks:
                picks[names] = make_pick([at[name] for name in names if name in at])
            row = found.get(change.key)
            if unlike := _compare_row(change, row, targets[rule], at, pick=picks[names], secrets=secrets):
                yield unlike


def _compare_row(
    change: Change,
    row: Row | None,
    target: Projection,
    at: Mapping[str, int],
    *,
    pick: Pick,
    secrets: Secrets,
) -> _Unlike | None:
    """Return what a row is otherwise than planned; ``at`` says where each column stands in it.

    ``pick`` takes the values out of it that the change must have left alone.
    """
    if change.action is Action.DELETE or (change.after is not None and deletes(change, target)):
        return None if row is None else _describe_unlike(change, "was deleted, and is there again")
    if row is None:
        return _describe_unlike(change, "was written, and is not there")
    held = row.values
    wrong: dict[str, str] = {}

    def safe(column: str, value: object) -> str:
        return shown(secrets.safe(column, value, table=change.table))  # type: ignore[arg-type]

    for column, value in (change.after or {}).items():
        number = at.get(column)
        if number is not None and held[number] != value and held[number] != _plain(value):
            wrong[column] = safe(column, _plain(value))
    altered = pick(held) != change.unwritten_values
    for column, part in change.unwritten.items() if altered else ():
        number = at.get(column)
        if number is not None and held[number] != part:
            wrong[column] = f"{safe(column, part)}, which was not written"
    if not wrong:
        return None
    told = [f"{name} is {safe(name, held[at[name]])} instead of {text}" for name, text in wrong.items()]
    return _describe_unlike(change, f"was written, but {', '.join(told)}", wrong)


def _describe_unlike(change: Change, line: str, columns: Iterable[str] = ()) -> _Unlike:
    is_open = change.after is not None and None in change.after.values()
    return _Unlike((change.rule, change.key), f"{_named(change)} {line}", frozenset(columns), is_open)


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

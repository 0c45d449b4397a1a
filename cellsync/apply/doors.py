"""What apply needs of a database and of a journal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from cellsync.model import (
    Action,
    Cascade,
    Change,
    Fold,
    Identity,
    Join,
    Key,
    Load,
    Outcome,
    Packed,
    Projection,
    Row,
    ServerTime,
    Spelled,
    Table,
    Use,
    Value,
)

RawRow = Mapping[str, Value]
"""A row as the server has it, whole, generated columns left out."""


class Writer(Protocol):
    """The database that is written; ``db.Database`` says what each call does."""

    @property
    def lost(self) -> bool: ...
    def transaction(self) -> AbstractContextManager[None]: ...
    def all_or_none(self) -> AbstractContextManager[None]: ...
    def reconnect(self) -> None: ...
    def tables(self, names: Iterable[str]) -> Mapping[str, Table]: ...
    def taken(self, projection: Projection, keys: Sequence[Key]) -> Sequence[Row]: ...
    def resolve(self, join: Join, keys: Sequence[Key]) -> Mapping[Key, tuple[Value, ...]]: ...
    def insert(self, table: str, values: Mapping[str, Value | ServerTime]) -> int: ...
    def insert_many(
        self, table: str, rows: Sequence[Mapping[str, Value | ServerTime]]
    ) -> Sequence[RawRow] | None: ...
    def load(
        self,
        table: str,
        columns: Sequence[str],
        filled: Mapping[str, Value | ServerTime],
        texts: Sequence[str],
        *,
        numbered: bool,
    ) -> Sequence[int]: ...
    def packet(self) -> int: ...
    def total(
        self, projection: Projection, fold: Fold, numbers: Sequence[int] | None = None
    ) -> tuple[int, int]: ...
    def spelled(self, table: str, key: Sequence[str]) -> Spelled: ...
    def delete(self, table: str, identity: RawRow) -> int: ...
    def count_uses(self, use: Use) -> int: ...
    def follows(self, cascade: Cascade, row: RawRow) -> bool: ...
    def probe(self, table: str, action: Action, columns: Sequence[str]) -> None: ...

    def lock(
        self, table: str, identity: tuple[str, ...], identities: Sequence[Identity]
    ) -> Mapping[Identity, RawRow]: ...

    def read_back(
        self, table: str, identity: tuple[str, ...], identities: Sequence[Identity]
    ) -> Mapping[Identity, RawRow]: ...

    def update_many(
        self,
        table: str,
        identity: tuple[str, ...],
        rows: Mapping[Identity, Mapping[str, Value | ServerTime]],
    ) -> bool: ...

    def update(self, table: str, identity: RawRow, values: Mapping[str, Value | ServerTime]) -> int: ...


class Reader(Protocol):
    """The same database, read once more after the writing."""

    def rows(
        self, projection: Projection, *, keys: Sequence[Key] | None = None, tombstones: bool = False
    ) -> Iterator[Row]: ...
    def total(
        self, projection: Projection, fold: Fold, numbers: Sequence[int] | None = None
    ) -> tuple[int, int]: ...


class Recorder(Protocol):
    """The journal of the written database."""

    def mark_transaction(self) -> None:
        """Do what each transaction that writes begins with, before it locks or reads anything."""

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Write the rows of a batch's changes, inside the transaction that makes them."""

    def record_load(self, load: Load, rows: Sequence[tuple[Packed, int]], *, spelled: Spelled) -> None:
        """Write the rows of a batch of packed rows, each with its primary key here, as ``record`` would.

        ``spelled`` is what the writer says of their table and key.
        """

    def refuses(self, change: Change) -> str | None:
        """Return why a change that was made cannot be recorded, or None."""

    def recorded(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Say for each change whether the journal has it: a commit may have come through unseen."""


class Desired(Protocol):
    """The side that is right, looked at again while the other one is written.

    All raise DesiredChanged where a rule must not write any more, and ReadFailed or Unreachable.
    """

    @property
    def name(self) -> str:
        """Its cell."""

    def confirm(self, changes: Sequence[Change]) -> None:
        """Look whether it still is what the changes were planned from, where it is time for that."""

    def confirm_load(self, load: Load, packed: Sequence[Packed]) -> None:
        """Do the same for packed rows."""

    def present(self, rule: str, keys: Sequence[Key]) -> Collection[Key]:
        """Return which of the keys it has now: rows that were to be deleted because it lacks them."""


class Lane(NamedTuple):
    """One connection that writes, and the journal through it."""

    writer: Writer
    recorder: Recorder

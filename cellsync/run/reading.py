"""Read from all cells at once: whole tables, digests, or the rows of some keys.

What is to be read is a value, so what several children need of the parent is read once for all.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, Union

from cellsync import db, diff
from cellsync.diff import Owners, Routed
from cellsync.errors import ReadFailed
from cellsync.model import (
    Bucketing,
    Bundle,
    Cell,
    CellFailure,
    Digest,
    Fold,
    Key,
    Packed,
    Projection,
    Row,
    Rule,
    TableFailure,
)
from cellsync.run.look import State, needed
from cellsync.run.request import each_cell
from cellsync.spool import kept

FEW_BUNDLES = 100
"""So many wait in memory: each has hundreds of keys."""

FEW_WIDE = 4
"""The same where each has thousands."""

T_co = TypeVar("T_co", covariant=True)


class Want(Hashable, Protocol[T_co]):
    """One reading of one database."""

    def read(self, database: db.Database) -> Sequence[T_co]:
        """Read to the end. Raises ReadFailed."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a projection, or of some of its keys."""

    projection: Projection
    keys: tuple[Key, ...] | None = None
    tombstones: bool = False

    def __hash__(self) -> int:
        # Without the keys, which are thousands: they are compared only where all else is the same.
        return hash((self.projection, self.tombstones))

    def read(self, database: db.Database) -> Sequence[Row]:
        """Read the rows."""
        return tuple(database.rows(self.projection, keys=self.keys, tombstones=self.tombstones))


@dataclass(frozen=True, kw_only=True)
class Digests:
    """The digests of some buckets of a projection, or of all."""

    projection: Projection
    bucketing: Bucketing
    buckets: tuple[int, ...] | None = None

    def read(self, database: db.Database) -> Sequence[Digest]:
        """Read the digests."""
        return tuple(database.digest(self.projection, self.bucketing, self.buckets))


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many rows each bucket of a projection holds."""

    projection: Projection
    bucketing: Bucketing

    def read(self, database: db.Database) -> Sequence[Digest]:
        """Read the numbers, as digests without a checksum."""
        return tuple(database.sizes(self.projection, self.bucketing))


@dataclass(frozen=True, kw_only=True)
class Bundles:
    """The keys and checksums of some buckets of a projection, or of all, in order of the buckets."""

    projection: Projection
    bucketing: Bucketing
    buckets: tuple[int, ...] | None
    parts: int = 1
    apart: bool = False
    """True where the buckets are so wide that each is read by itself."""

    def read(self, database: db.Database) -> Sequence[Bundle]:
        """Read the bundles; many of them wait on disk."""
        bundles = database.bundles(
            self.projection, self.bucketing, self.buckets, parts=self.parts, apart=self.apart
        )
        return kept(bundles, short=FEW_WIDE if self.apart else FEW_BUNDLES)


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """All rows of a projection, packed, with their checksums."""

    projection: Projection
    fold: Fold

    def read(self, database: db.Database) -> Sequence[Packed]:
        """Read the rows; they wait on disk."""
        return kept(database.packed(self.projection, self.fold))


@dataclass(frozen=True, kw_only=True)
class Total:
    """How many rows of a projection there are."""

    projection: Projection
    fold: Fold

    def read(self, database: db.Database) -> Sequence[int]:
        """Read the number."""
        return (database.total(self.projection, self.fold)[0],)


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many rows of a projection there are, those in limbo left out."""

    projection: Projection

    def read(self, database: db.Database) -> Sequence[int]:
        """Read the number."""
        return (database.count_rows(self.projection),)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of all rows of a projection."""

    projection: Projection

    def read(self, database: db.Database) -> Sequence[Key]:
        """Read the keys; they wait on disk."""
        return kept(row.key for row in database.rows(self.projection))


@dataclass(frozen=True, kw_only=True)
class Span:
    """The smallest and the largest key of a projection; nothing where the table is empty."""

    projection: Projection

    def read(self, database: db.Database) -> Sequence[tuple[int, int]]:
        """Read the two."""
        span = database.span(self.projection)
        return () if span is None else (span,)


@dataclass(frozen=True)
class Got:
    """What was read."""

    _results: Mapping[tuple[str, Want[Any]], Union[Sequence[Any], ReadFailed]]
    since: float
    """When the last of the snapshots was opened, by ``Request.elapsed``."""

    def of(self, cell: str, want: Want[T_co]) -> Sequence[T_co]:
        """Return what one reading of one cell gave. Raises ReadFailed where it failed."""
        result = self._results[cell, want]
        if isinstance(result, ReadFailed):
            raise result
        return result


def read(state: State, wants: Mapping[str, Sequence[Want[Any]]]) -> Got:
    """Read from all cells at once, each in one snapshot; what one cell wants twice is read once."""
    cells = [cell for cell in needed(state.request) if wants.get(cell.name)]
    readings = {cell.name: list(dict.fromkeys(wants[cell.name])) for cell in cells}
    opened = [state.request.elapsed()]

    def task(cell: Cell) -> dict[Want[Any], Sequence[Any] | ReadFailed]:
        database = state.databases[cell.name]
        with database.snapshot():
            opened.append(state.request.elapsed())
            return {want: _read(database, want) for want in readings[cell.name]}

    results: dict[tuple[str, Want[Any]], Sequence[Any] | ReadFailed] = {}
    waiting = state.request.waiting("reading")
    for name, found in each_cell(state.pool, task, cells, waiting=waiting).items():
        for want in readings[name]:
            results[name, want] = ReadFailed(found.error) if isinstance(found, CellFailure) else found[want]
    return Got(results, max(opened))


def _read(database: db.Database, want: Want[Any]) -> Sequence[Any] | ReadFailed:
    try:
        return want.read(database)
    except ReadFailed as error:
        return error


def failed(rule: Rule, error: str) -> TableFailure:
    """Return the result of a rule that could not be compared."""
    return TableFailure(rule=rule.id, table=rule.table, direction=rule.direction, error=error)


class Router:
    """Deal the parent's rows to the children, once for all children that share a reading."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._routed: dict[Projection, Routed] = {}
        self._owners: dict[str, Owners] = {}

    def whole(self, rule: Rule, projection: Projection, rows: Sequence[Row]) -> Routed:
        """Return the routing of a whole reading of the parent."""
        if projection not in self._routed:
            self._routed[projection] = self.again(rule, rows)
        return self._routed[projection]

    def again(self, rule: Rule, rows: Sequence[Row]) -> Routed:
        """Return the routing of some rows of the parent."""
        owners = self.owners(rule)
        assert owners is not None, rule.id
        return diff.route(rows, rule, owners, parent=self._state.parent)

    def owners(self, rule: Rule) -> Owners | None:
        """Return who owns the values of a routed rule; None for a rule without a route."""
        if rule.route is None:
            return None
        if rule.id not in self._owners:
            children = [child.name for child in self._state.request.topology.children]
            owns = {child: self._owned(rule, child) for child in children}
            made = Owners(rule, parent=self._state.parent, children=children, owns=owns)
            self._owners[rule.id] = made
        return self._owners[rule.id]

    def _owned(self, rule: Rule, child: str) -> frozenset[str] | None:
        look_up = rule.route.else_where_exists if rule.route else None
        if look_up is None or child not in self._state.looks:
            return None
        owned = self._state.looks[child].owns[look_up]
        return owned if isinstance(owned, frozenset) else None

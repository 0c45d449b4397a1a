"""How one side is read: projections, rows, buckets and their digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cellsync.model.rules import Rule, SoftDelete
from cellsync.model.schemas import Family, SchemaDifference
from cellsync.model.values import Identity, Key, KeyPart, Value


@dataclass(frozen=True, kw_only=True)
class Join:
    """How a reference is replaced by the key of the row that it refers to."""

    rule: str
    table: str
    column: str
    """The column of ``table`` that the reference holds; unique there."""
    key: tuple[Projected, ...]
    soft_delete: SoftDelete | None


@dataclass(frozen=True, kw_only=True)
class Projected:
    """One column of a projection."""

    column: str
    family: Family
    transform: str | None = None
    join: Join | None = None


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The one SELECT through which a rule reads one side.

    The key columns come first, then the compared columns, references replaced by the key of the
    referenced row, transforms applied. With the same rule, the two sides have the same keys and
    columns in the same order.
    """

    rule: str
    table: str
    key: tuple[Projected, ...]
    columns: tuple[Projected, ...]
    identity: tuple[str, ...]
    """The columns of the primary key, with ``identity_families`` beside them."""
    identity_families: tuple[Family, ...]
    where: str | None = None
    soft_delete: SoftDelete | None = None
    route: str | None = None
    """The column whose raw value says which child a row belongs to."""
    age: tuple[str, ...] = ()
    """Columns that say since when a row is what it is; the latest one counts."""
    parent: str
    child: str
    """The names that transforms may use."""


class Row(NamedTuple):
    """One row as a projection reads it; ``values`` pair with the projection's columns."""

    key: Key
    values: tuple[KeyPart, ...]
    identity: Identity
    route: Value = None
    since: str | None = None
    """When a live row became what it is (the latest ``age`` column), or when a tombstone was
    made, as text, in UTC."""
    limbo: bool = False
    """True when the soft-delete column is NULL: neither live nor deleted to its application."""


@dataclass(frozen=True, kw_only=True)
class Bucketing:
    """How the rows of a table are dealt into buckets, the same way on both sides.

    By ``width`` consecutive values of an integer key, or by a hash of the key into ``count``.
    Bucket numbers mean nothing outside one bucketing.
    """

    width: int | None = None
    count: int | None = None


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Count and checksum of the projected rows of one bucket, computed inside the server."""

    bucket: int
    rows: int
    checksum: int


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """A rule that can be compared on one edge, and how each side is read."""

    rule: Rule
    desired: Projection
    existing: Projection
    desired_cell: str
    existing_cell: str
    schema: tuple[SchemaDifference, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the compared columns, in the order of ``Row.values``."""
        return tuple(projected.column for projected in self.existing.columns)

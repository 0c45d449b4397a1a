"""How one side is read: projections, rows, buckets and their digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

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
    carried: tuple[Projected, ...] = ()
    """Of the desired side: columns that are read with a row, and are no part of a comparison."""
    identity: tuple[str, ...]
    """The columns of the primary key, with ``identity_families`` beside them."""
    identity_families: tuple[Family, ...]
    where: str | None = None
    soft_delete: SoftDelete | None = None
    route: str | None = None
    """The column whose raw value says which child a row belongs to."""
    age: tuple[str, ...] = ()
    """Columns that say since when a row is what it is; the latest one counts."""
    ranged: bool = False
    """True when the key is one integer that is never NULL and that an index begins with."""
    unique: bool = False
    """True when the schema lets no two live rows have one key, unless it holds a NULL."""
    nullable: tuple[str, ...] = ()
    """The key columns that may be NULL."""
    parent: str
    child: str
    """The names that transforms may use."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the key columns and of the compared columns, in the order of a row's parts."""
        return tuple(projected.column for projected in (*self.key, *self.columns))

    @cached_property
    def joins(self) -> Mapping[str, Join]:
        """The columns that are references, key columns and compared ones, and where each leads."""
        return {part.column: part.join for part in (*self.key, *self.columns) if part.join is not None}


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
    carried: tuple[KeyPart, ...] = ()
    """Pair with the projection's ``carried``."""


class Packed(NamedTuple):
    """A row as the server that has it spells it for an INSERT of another one, so that nobody takes it apart.

    Only of projections that have no references, and whose primary key is one number.
    """

    text: str
    """The key, the compared columns and the carried ones, as they stand in VALUES."""
    number: int
    """Its primary key."""
    checksum: int
    """The row's, as digests have it: of the key and the compared columns."""
    since: str | None = None
    """As in a Row."""

    def packed(self) -> tuple[Any, ...]:
        """Return the row as plain values (see ``spool``)."""
        return tuple(self)

    @classmethod
    def unpacked(cls, plain: tuple[Any, ...]) -> Packed:
        """Return what ``packed`` gave these values."""
        return cls._make(plain)


class Fold(str, Enum):
    """How the SHA-1 of an encoded row becomes 64 bits; both sides of an edge must fold alike."""

    CRC = "crc"
    """CRC32 and CRC32C of it, side by side: the quicker way, from MariaDB 10.8 on."""
    CUT = "cut"
    """Its first 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Bucketing:
    """How the rows of a table are dealt into buckets, the same way on both sides.

    By ``width`` consecutive values of an integer key, or by a hash of the key into ``count``.
    Bucket numbers mean nothing outside one bucketing.
    """

    width: int | None = None
    count: int | None = None
    fold: Fold = Fold.CUT


class Digest(NamedTuple):
    """Count and checksum of the projected rows of one bucket, computed inside the server."""

    bucket: int
    rows: int
    """How many rows there are, those in limbo left out."""
    checksum: int
    odd: bool = False
    """True when some row must be looked at whatever the other side holds: it is in limbo, refers to
    nothing, or has the key of another row."""
    route: Value = None
    """Whose rows they are, where the projection is routed: a bucket has a digest for each owner."""


class Bundle(NamedTuple):
    """The keys and checksums of one bucket as one text, so that a driver has no work with each.

    Two rows have the same text exactly if they have the same key and the same checksum, on
    whatever server, unless they are odd. ``Reader.pairs`` takes the text apart.
    """

    bucket: int
    part: int
    """Rows of a large bucket come in parts, dealt by their keys; the same ones on both sides."""
    texts: tuple[str, ...]
    odd: bool = False
    """True when some row is in limbo or refers to nothing."""
    route: Value = None
    """Whose rows they are, as in a digest."""

    def packed(self) -> tuple[Any, ...]:
        """Return the bundle as plain values (see ``spool``)."""
        return tuple(self)

    @classmethod
    def unpacked(cls, plain: tuple[Any, ...]) -> Bundle:
        """Return what ``packed`` gave these values."""
        return cls._make(plain)


class Pair(NamedTuple):
    """The key of one row and the checksum of the rest of it."""

    key: Key
    checksum: int
    odd: bool = False
    """True when the row is in limbo or refers to nothing."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a database answers to a question of a detector, to the end."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """A rule that can be compared on one edge, and how each side is read."""

    rule: Rule
    desired: Projection
    existing: Projection
    desired_cell: str
    existing_cell: str
    schema: tuple[SchemaDifference, ...] = ()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the compared columns, in the order of ``Row.values``."""
        return tuple(projected.column for projected in self.existing.columns)

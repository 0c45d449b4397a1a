"""The database as diff sees it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

from cellsync.model import (
    Bucketing,
    Bundle,
    Digest,
    Fold,
    Key,
    Packed,
    Pair,
    Projection,
    Row,
)


class Reader(Protocol):
    """One database, read through projections."""

    def rows(
        self, projection: Projection, *, keys: Sequence[Key] | None = None, tombstones: bool = False
    ) -> Iterator[Row]:
        """Yield the live rows (and those in limbo) of a projection, in no particular order.

        With ``keys``, only rows whose key equals one of them *under the table's own collation*:
        more than binary equality finds, so the caller must look again. With ``tombstones``, the
        soft-deleted rows instead, whose ``since`` is the time of their deletion.
        Raises ReadFailed when the read does not come to its end.
        """

    def classify_keys(self, projection: Projection, keys: Sequence[Key]) -> Sequence[Hashable]:
        """Return for each key what the collations of its columns take it for.

        Two keys have equal classes if a row of the one key would meet a row of the other in a UNIQUE index.
        The tables are not read: one query for a thousand texts. Raises ReadFailed.
        """

    @property
    def digests(self) -> bool:
        """Say whether this database computes digests; where it does not, its rows must be read."""

    def span(self, projection: Projection) -> tuple[int, int] | None:
        """Return the smallest and the largest key of a ranged projection; None for an empty table."""

    def digest(
        self, projection: Projection, bucketing: Bucketing, buckets: Sequence[int] | None = None
    ) -> Iterator[Digest]:
        """Yield count and checksum of every bucket that holds rows, computed inside the server.

        One query and one pass, and another one where the schema does not keep keys unique; with
        ``buckets``, of these alone, and keys that occur twice are not looked for. Sets of equal
        rows, stored alike, give equal digests on every server, whatever the column order or the
        ids; unequal sets give unequal ones but for chance (64 bits, not linear in the rows).
        Equal rows that are stored in other types (a fraction of zeros more) may give unequal digests.
        """

    def sizes(self, projection: Projection, bucketing: Bucketing) -> Iterator[Digest]:
        """Yield the digests as far as an index knows them: the numbers of rows, without checksums."""

    def bundles(
        self,
        projection: Projection,
        bucketing: Bucketing,
        buckets: Sequence[int] | None = None,
        *,
        parts: int = 1,
        apart: bool = False,
    ) -> Iterator[Bundle]:
        """Yield the keys and checksums of all rows of some buckets, or of all, in order of the buckets.

        With ``apart``, each of ``buckets`` is a range that a statement of its own reads: the server
        need not group rows, which costs as much as reading them. Not for a projection with a route.

        Raises ReadFailed also where a bundle is too large for the server: then more parts are needed.
        """

    def summed(self, bucket: int, bundles: Sequence[Bundle]) -> Digest:
        """Return the digest that the bundles of one bucket add up to; no query."""

    def packed(self, projection: Projection, fold: Fold) -> Iterator[Packed]:
        """Yield the rows of a projection as the server spells them for another one, with their checksums.

        Only of a projection without references, whose primary key is one number, and of columns that can
        be spelled. Raises ReadFailed where a row cannot be, because it is too long or in limbo, too.
        """

    def total(
        self, projection: Projection, fold: Fold, numbers: Sequence[int] | None = None
    ) -> tuple[int, int]:
        """Return how many rows there are, those in limbo included, and the checksum of them all.

        With ``numbers``, of the rows with these primary keys.
        """

    def unpack(self, projection: Projection) -> Callable[[Packed], Row]:
        """Return what makes the rows of packed ones; no query."""

    def unpack_key(self, projection: Projection) -> Callable[[Packed], Key]:
        """Return what reads the keys of packed rows; no query."""

    def pairs(self, projection: Projection) -> Callable[[str], Pair]:
        """Return what takes the texts of a bundle apart."""

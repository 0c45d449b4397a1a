"""Which rows to read, of a table that is too large to read whole.

    digests of both sides   -> the buckets that differ
    pairs of those buckets  -> the keys that differ, as differences whose rows are not read yet

What is found here is a suspicion: equal rows that are stored in other types look different too.
`confirming` reads the rows themselves, and has the last word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from cellsync.diff.routing import Owners
from cellsync.model import Bucketing, Difference, Digest, Fold, Key, Kind, Pair, Pairing

READ_WHOLE = 5_000
"""A table that is not expected to have more rows on either side is read whole, in one query."""

ROWS_PER_BUCKET = 256
"""A differing row makes so many keys and checksums cross the network."""

MOST_BUCKETS = 1 << 16


def bucketing(pairing: Pairing, rows: int, span: tuple[int, int] | None, fold: Fold) -> Bucketing:
    """Return how to deal about so many rows into buckets.

    ``span`` holds the smallest and the largest key where the key is an integer that both sides
    can be searched by.
    """
    count = min(MOST_BUCKETS, max(1, rows // ROWS_PER_BUCKET))
    if span is None or not ranged(pairing):
        return Bucketing(count=count, fold=fold)
    low, high = span
    return Bucketing(width=-(-(high - low + 1) // count), fold=fold)


def ranged(pairing: Pairing) -> bool:
    """Say whether both sides can be dealt into ranges of the key."""
    return pairing.desired.ranged and pairing.existing.ranged


def dealt(digests: Iterable[Digest], owners: Owners | None) -> dict[str | None, list[Digest]]:
    """Deal the digests of a routed projection to the children; under None is what nobody owns."""
    found: dict[str | None, list[Digest]] = {}
    for digest in digests:
        claimed = owners.of(digest.route) if owners is not None else None
        found.setdefault(claimed[0] if claimed and len(claimed) == 1 else None, []).append(digest)
    return found


def summed(digests: Iterable[Digest]) -> dict[int, Digest]:
    """Add up the digests of each bucket."""
    found: dict[int, Digest] = {}
    for digest in digests:
        other = found.get(digest.bucket, Digest(digest.bucket, 0, 0))
        rows, checksum = digest.rows + other.rows, digest.checksum ^ other.checksum
        found[digest.bucket] = Digest(digest.bucket, rows, checksum, digest.odd or other.odd)
    return found


def differing(desired: Mapping[int, Digest], existing: Mapping[int, Digest]) -> Iterator[int]:
    """Yield the buckets whose rows must be looked at."""
    for bucket, digest in desired.items():
        other = existing.get(bucket)
        same = other is not None and digest[1:3] == other[1:3]
        if not same or digest.odd or (other is not None and other.odd):
            yield bucket
    yield from existing.keys() - desired.keys()


def portions(buckets: Collection[int], rows: Mapping[int, int], most: int) -> Iterator[list[int]]:
    """Divide buckets, in order, so that no portion has many more than ``most`` rows."""
    portion: list[int] = []
    held = 0
    for bucket in sorted(buckets):
        if portion and held + rows.get(bucket, 0) > most:
            yield portion
            portion, held = [], 0
        portion.append(bucket)
        held += rows.get(bucket, 0)
    if portion:
        yield portion


def suspects(desired: Iterable[Pair], existing: Iterable[Pair]) -> tuple[Difference, ...]:
    """Return the keys that differ, are odd, or occur twice on a side; no row of them is read yet."""
    wanted, odd = _by_key(desired)
    held, more = _by_key(existing)
    odd |= more
    kinds: dict[Key, Kind] = dict.fromkeys(odd, Kind.CHANGED)
    for key, checksum in wanted.items():
        if key not in held:
            kinds[key] = Kind.MISSING
        elif held[key] != checksum:
            kinds[key] = Kind.CHANGED
    kinds.update((key, Kind.EXTRA) for key in held.keys() - wanted.keys())
    return tuple(Difference(kind=kind, key=key, desired=None, existing=None) for key, kind in kinds.items())


def _by_key(pairs: Iterable[Pair]) -> tuple[dict[Key, int], set[Key]]:
    checksums: dict[Key, int] = {}
    odd: set[Key] = set()
    for pair in pairs:
        if pair.odd or pair.key in checksums:
            odd.add(pair.key)
        checksums[pair.key] = pair.checksum
    return checksums, odd


def owned(pairs: Sequence[Pair], owners: Owners, child: str) -> Iterator[Pair]:
    """Yield the rows of a child, and those that nobody owns: they may have its keys."""
    for pair in pairs:
        claimed = owners.of(pair.route)
        if claimed is None or len(claimed) != 1:
            yield pair._replace(odd=True)
        elif claimed[0] == child:
            yield pair

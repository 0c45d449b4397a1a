"""Which rows to read, of a table that is too large to read whole.

    digests of both sides   -> the buckets that differ
    bundles of those        -> the keys that differ, as differences whose rows are not read yet

What is found here is a suspicion: equal rows that are stored in other types look different too.
`confirming` reads the rows themselves, and has the last word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cellsync.diff.routing import Owners
from cellsync.model import Bucketing, Bundle, Difference, Digest, Fold, Key, Kind, Pair, Pairing, rank

READ_WHOLE = 5_000
"""A table that is not expected to have more rows on either side is read whole, in one query."""

ROWS_PER_BUCKET = 256
"""A differing row makes so many keys and checksums cross the network."""

MOST_BUCKETS = 1 << 16

MOST_IN_BUNDLE = 2_048
"""Rows whose keys come as one value: with the longest keys that an index takes, a few megabytes."""

ROWS_AT_ONCE = 8_192
"""Rows whose keys are read by one statement where all keys of ranges are read: few enough to wait in
memory, many enough that statements cost nothing."""

SAMPLE = 32
"""Buckets by which it is told whether most of them differ."""


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


def most_differ(desired: Mapping[int, Digest], existing: Mapping[int, Digest]) -> bool:
    """Say whether, by the digests of a few buckets, looking for the differing ones is not worth it."""
    several = len(desired.keys() | existing.keys())
    return several > 0 and len(list(differing(desired, existing))) * 2 > several


def sample(span: tuple[int, int], bucketing: Bucketing) -> tuple[int, ...]:
    """Return a few buckets, spread over all ranges of a key; () where there are few ranges at all."""
    assert bucketing.width is not None
    low, high = (cut(end, bucketing.width) for end in span)
    step = (high - low + 1) // SAMPLE
    return tuple(range(low + step // 2, high + 1, step)) if step > 1 else ()


def wider(sizes: Mapping[int, int], bucketing: Bucketing) -> tuple[Bucketing, int]:
    """Return a bucketing by wider ranges of the same key, and how many old ranges make a new one.

    ``sizes`` says how many rows the buckets have; no new one has more than ROWS_AT_ONCE, unless an
    old one has.
    """
    assert bucketing.width is not None
    factor = 1
    while max(_joined(sizes, factor * 2), default=0) <= ROWS_AT_ONCE and factor < len(sizes):
        factor *= 2
    return replace(bucketing, width=bucketing.width * factor), factor


def _joined(sizes: Mapping[int, int], factor: int) -> Iterable[int]:
    joined: Counter[int] = Counter()
    for bucket, rows in sizes.items():
        joined[cut(bucket, factor)] += rows
    return joined.values()


def cut(number: int, width: int) -> int:
    """Divide as the server's DIV does: towards zero."""
    return number // width if number >= 0 else -(-number // width)


def parts(sizes: Iterable[int]) -> int:
    """Return in how many parts the keys of each bucket must come, by the rows of all of them."""
    return -(-max(sizes, default=1) // MOST_IN_BUNDLE)


def owned(bundles: Iterable[Bundle], owners: Owners, child: str) -> tuple[Sequence[Bundle], Sequence[Bundle]]:
    """Return the bundles of a child, and those that nobody owns."""
    mine: list[Bundle] = []
    stray: list[Bundle] = []
    for bundle in bundles:
        claimed = owners.of(bundle.route)
        if claimed is None or len(claimed) != 1:
            stray.append(bundle)
        elif claimed[0] == child:
            mine.append(bundle)
    return mine, stray


def suspects(
    desired: Sequence[Bundle],
    existing: Sequence[Bundle],
    pairs: Callable[[str], Pair],
    *,
    exact: bool,
    stray: Sequence[Bundle] = (),
) -> tuple[Difference, ...]:
    """Return the keys that differ, are odd, or occur twice on a side; no row of them is read yet.

    The bundles are those of one bucket. ``exact`` says that the schema lets no key occur twice.
    ``stray`` are rows of the parent that nobody owns: they may have a child's keys. A key of which checksums
    cannot tell more than that it is odd is EXTRA where the existing side has it: that it may be.
    """
    wanted = [text for bundle in desired for text in bundle.texts]
    held = [text for bundle in existing for text in bundle.texts]
    if exact and not any(bundle.odd for bundle in (*desired, *existing)):
        wanted, held = [*{*wanted}.difference(held)], [*{*held}.difference(wanted)]
    found = _suspects([*map(pairs, wanted)], [*map(pairs, held)])
    found.update((pairs(text).key, Kind.EXTRA) for bundle in stray for text in bundle.texts)
    return tuple(
        Difference.found(kind, key) for key, kind in sorted(found.items(), key=lambda each: rank(each[0]))
    )


def _suspects(desired: Sequence[Pair], existing: Sequence[Pair]) -> dict[Key, Kind]:
    wanted, odd = _by_key(desired)
    held, more = _by_key(existing)
    kinds: dict[Key, Kind] = dict.fromkeys([*odd, *more], Kind.EXTRA)
    for key, checksum in wanted.items():
        if key not in held:
            kinds[key] = Kind.MISSING
        elif held[key] != checksum and key not in kinds:
            kinds[key] = Kind.CHANGED
    kinds.update((key, Kind.EXTRA) for key in held if key not in wanted)
    return kinds


def _by_key(pairs: Iterable[Pair]) -> tuple[dict[Key, int], dict[Key, None]]:
    checksums: dict[Key, int] = {}
    odd: dict[Key, None] = {}
    for pair in pairs:
        if pair.odd or pair.key in checksums:
            odd[pair.key] = None
        checksums[pair.key] = pair.checksum
    return checksums, odd

"""How the rows that come with others are found: by the part of their key that says with which.

An instance has one info cache and many metadata; all of them are read by the uuids of the instances
that are missing, and then have the keys of their own rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from cellsync.model import Key, Pairing, Projection, Row


def by_leader(pairing: Pairing, projection: Projection) -> Projection:
    """Return the projection whose key says with which row each row comes; the rest are its columns."""
    return narrow_key(projection, pairing.rule.shared())


def narrow_key(projection: Projection, shared: Collection[int]) -> Projection:
    """Return the projection whose key is a part of the rule's own; the rest of that are its columns."""
    rest = [part for at, part in enumerate(projection.key) if at not in shared]
    return replace(
        projection,
        key=tuple(projection.key[at] for at in shared),
        columns=(*rest, *projection.columns),
        ranged=False,
        unique=False,
    )


def rekeyed(pairing: Pairing, rows: Iterable[Row], keys: Iterable[Key]) -> Iterator[Row]:
    """Yield the rows of that projection as the rule's own, those that come with one of ``keys``.

    ``rows`` may hold others, which are equal under the collation only.
    """
    return restore_keys(pairing, rows, keys, pairing.rule.shared())


def restore_keys(
    pairing: Pairing, rows: Iterable[Row], keys: Iterable[Key], shared: Collection[int]
) -> Iterator[Row]:
    """Yield the rows of a narrowed projection as the rule's own, those with one of ``keys``."""
    wanted = set(keys)
    rest = [at for at in range(len(pairing.rule.key)) if at not in shared]
    for row in rows:
        if row.key not in wanted:
            continue
        parts = {**dict(zip(shared, row.key, strict=True)), **dict(zip(rest, row.values, strict=False))}
        key = tuple(parts[at] for at in range(len(pairing.rule.key)))
        yield row._replace(key=key, values=row.values[len(rest) :])

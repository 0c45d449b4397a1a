"""Rows that go and come with a row that is replaced, as differences of their own rules.

A row that has another preserved id than the desired one is removed and inserted again. So are the rows that
refer to it by their keys, in step or not, for they hold its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cellsync.diff.rows import apply_overrides, changed
from cellsync.model import Action, Difference, Key, Kind, Pairing, Row, dangles


def index_rows(rows: Iterable[Row]) -> dict[Key, Row] | None:
    """Return live rows by key; None where one cannot be told from another, or refers to nothing."""
    found: dict[Key, Row] = {}
    for row in rows:
        if row.limbo:
            continue
        if row.key in found or dangles(row.key) or dangles(row.values):
            return None
        found[row.key] = row
    return found


def compare_replaced(
    pairing: Pairing, desired: Mapping[Key, Row], existing: Mapping[Key, Row], *, child: str, reason: str
) -> Iterator[Difference]:
    """Yield each row of both sides as one that is replaced, whether it differs or not."""
    wanted = apply_overrides(pairing, desired, child)
    for key, row in wanted.items():
        held = existing.get(key)
        columns = tuple(changed(pairing, row, held)) if held is not None else ()
        kind = Kind.MISSING if held is None else Kind.CHANGED
        yield Difference.found(kind, key, row, held, columns).decided(Action.REPLACE, reason)
    for key, held in existing.items():
        if key not in wanted:
            yield Difference.found(Kind.EXTRA, key, existing=held).decided(Action.REPLACE, reason)

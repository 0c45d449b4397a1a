"""What still differs when it is read again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from cellsync.diff.routing import Routed
from cellsync.diff.rows import compare
from cellsync.diff.twins import Classify, Seen, find_twins, set_aside
from cellsync.model import (
    Difference,
    Key,
    Kind,
    Pairing,
    Row,
    Status,
    TableDiff,
)


def unsettled(table: TableDiff) -> tuple[Key, ...]:
    """Return the keys that must be read again before their differences count."""
    return tuple(difference.key for difference in table.differences)


def confirm(
    pairing: Pairing,
    first: TableDiff,
    desired: Iterable[Row],
    existing: Iterable[Row],
    *,
    child: str,
    classify: Classify,
    seen: Seen | None = None,
    tombstones: Mapping[Kind, Sequence[Row]] | None = None,
    there: Collection[Key] = (),
    routed: Routed | None = None,
) -> TableDiff:
    """Return what still differs, now that the differing rows were read again.

    ``desired`` and ``existing`` are the rows that equal an unsettled key under their table's
    collation. A missing row whose key has a twin is a finding (see ``twins.find_twins``, which
    ``classify`` and ``seen`` are for). ``tombstones`` are the deleted rows
    with the keys of the EXTRA rows, on the desired side, and of the MISSING ones, on the existing
    side, and ``there`` the keys of MISSING rows that rows of that side have all the same, which the rule
    leaves out. ``routed`` is what the rows of a routed rule were dealt by: what it could not deal is found or
    set aside here as well.

    A row that is extra only now is marked as ``turned``: the desired side lost it between the readings.
    """
    kinds = {difference.key: difference.kind for difference in first.differences}
    keys = kinds.keys()
    held = list(existing)
    again = compare(
        pairing,
        [row for row in desired if row.key in keys],
        [row for row in held if row.key in keys],
        child=child,
        aside=routed.aside if routed else frozenset(),
    )
    known = {(finding.code, finding.cell, finding.key) for finding in first.findings}
    stray = [finding for finding in (routed.findings if routed else ()) if finding.key in keys]
    fresh = [f for f in (*again.findings, *stray) if (f.code, f.cell, f.key) not in known]
    twins = list(find_twins(pairing, again.differences, held, classify, seen=seen))
    clashing = {key for finding in twins for key in (finding.key, *finding.twins) if key is not None}
    left = set_aside(again.differences, clashing)
    differences = tuple(_tell_more(difference, kinds, tombstones or {}, there) for difference in left)
    findings = (*first.findings, *fresh, *twins)
    return replace(
        first,
        differences=differences,
        findings=findings,
        status=Status.DIFFERS if differences or findings else Status.IN_STEP,
        aside=(*first.aside, *again.aside),
        unknown=first.unknown or (routed.unknown if routed else ()),
    )


def _tell_more(
    difference: Difference,
    kinds: Mapping[Key, Kind],
    tombstones: Mapping[Kind, Sequence[Row]],
    there: Collection[Key],
) -> Difference:
    """Return a difference with what else the recheck found about its key."""
    kind, key = difference.kind, difference.key
    if kind is Kind.EXTRA and kinds[key] is not Kind.EXTRA:
        difference = replace(difference, turned=kinds[key])
    if deleted := tombstones.get(kind):
        difference = _with_tombstone(difference, deleted)
    if kind is Kind.MISSING and key in there:
        difference = replace(difference, left_out=True)
    return difference


def _with_tombstone(difference: Difference, tombstones: Sequence[Row]) -> Difference:
    times = [row.since or "" for row in tombstones if row.key == difference.key]
    if not times or (difference.kind is Kind.EXTRA and not any(times)):
        return difference  # a deletion without a time is newer than nothing
    return replace(difference, tombstone=max(times) or "an unknown time")

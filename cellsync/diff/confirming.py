"""What still differs when it is read again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cellsync.diff.routing import Routed
from cellsync.diff.rows import compare
from cellsync.model import (
    Difference,
    Family,
    Finding,
    Key,
    Kind,
    Pairing,
    Row,
    Status,
    TableDiff,
    dangles,
    folded,
    shown,
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
    colliding: Callable[[Key], Iterable[Row]],
    tombstones: Mapping[Kind, Sequence[Row]] | None = None,
    there: Collection[Key] = (),
    routed: Routed | None = None,
) -> TableDiff:
    """Return what still differs, now that the differing rows were read again.

    ``desired`` and ``existing`` are the rows that equal an unsettled key under their table's
    collation. A missing row whose key equals another row's only under the collation is a finding:
    inserting it would clash, or make two rows of what the application takes for one.
    ``colliding`` asks the existing side's server for all rows that equal one key under its
    collation; it is called only where two spellings look alike. ``tombstones`` are the deleted rows
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
    twins = list(_twins(pairing, again, held, colliding))
    clashing = {finding.key for finding in twins}
    differences = tuple(
        _left_out(
            _with_tombstone(_turned(difference, kinds), (tombstones or {}).get(difference.kind, ())), there
        )
        for difference in again.differences
        if difference.key not in clashing
    )
    findings = (*first.findings, *fresh, *twins)
    return replace(
        first,
        differences=differences,
        findings=findings,
        status=Status.DIFFERS if differences or findings else Status.IN_STEP,
        unknown=first.unknown or (routed.unknown if routed else ()),
    )


def _twins(
    pairing: Pairing, table: TableDiff, held: Sequence[Row], colliding: Callable[[Key], Iterable[Row]]
) -> Iterator[Finding]:
    """Yield the missing rows whose key the existing side has in another spelling.

    Only the server knows its collations; Python's folding merely chooses what to ask it about.
    What the folding overlooks, the guard of the INSERT stops.
    """
    if not any(part.join or part.family is Family.TEXT for part in pairing.existing.key):
        return  # numbers and bytes have one spelling
    alike: dict[object, set[Key]] = {}
    for row in held:
        alike.setdefault(folded(row.key), set()).add(row.key)
    for difference in table.differences:
        if difference.kind is not Kind.MISSING or not alike.get(folded(difference.key), set()) - {
            difference.key
        }:
            continue
        for twin in colliding(difference.key):
            if twin.key != difference.key and not twin.limbo and not dangles(twin.key):
                yield _twin(pairing, difference, twin)
                break


def _twin(pairing: Pairing, difference: Difference, twin: Row) -> Finding:
    message = (
        f"{pairing.rule.table} has {pairing.rule.named(twin.key)} in {pairing.existing_cell}, but "
        f"{', '.join(map(shown, difference.key))} in {pairing.desired_cell}: one key to the database, two "
        f"to the application; rename one of them"
    )
    return Finding(code="collation-twin", cell=pairing.existing_cell, message=message, key=difference.key)


def _with_tombstone(difference: Difference, tombstones: Sequence[Row]) -> Difference:
    times = [row.since or "" for row in tombstones if row.key == difference.key]
    if not times or (difference.kind is Kind.EXTRA and not any(times)):
        return difference  # a deletion without a time is newer than nothing
    return replace(difference, tombstone=max(times) or "an unknown time")


def _turned(difference: Difference, kinds: Mapping[Key, Kind]) -> Difference:
    was = kinds[difference.key]
    if difference.kind is not Kind.EXTRA or was is Kind.EXTRA:
        return difference
    return replace(difference, turned=was)


def _left_out(difference: Difference, there: Collection[Key]) -> Difference:
    left_out = difference.kind is Kind.MISSING and difference.key in there
    return replace(difference, left_out=True) if left_out else difference

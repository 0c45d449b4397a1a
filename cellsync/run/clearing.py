"""What is left of a plan without the rows that would clash: those are findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from cellsync.model import Difference, Key, Kind, sort_of
from cellsync.plan import Claim, Clashes, Compared
from cellsync.plan.clashes import Settled
from cellsync.spool import kept


def remove_clashes(each: Compared, settled: Settled) -> Compared:
    """Return a compared rule without the rows that must not be written, and with findings about them."""
    rule = each.pairing.rule
    failed = {planned.key: claim for planned, claim in settled.failed.items() if planned.rule == rule.id}
    clashes = Clashes(
        first=frozenset(planned.key for planned in settled.early if planned.rule == rule.id),
        waits={
            planned.key: {index: other.key for index, other in needs.items()}
            for planned, needs in settled.waits.items()
            if planned.rule == rule.id
        },
        lost=frozenset(_find_lost(each, failed)) if failed else frozenset(),
    )
    if not failed:
        return replace(each, clashes=clashes)
    left = (difference for difference in each.table.differences if not _is_failed(difference, failed))
    findings = tuple(claim.finding for claim in failed.values())
    table = replace(
        each.table,
        differences=kept(left, tally=sort_of),
        findings=(*each.table.findings, *findings),
    )
    return replace(each, table=table, clashes=clashes)


def _is_failed(difference: Difference, failed: Mapping[Key, Claim]) -> bool:
    return difference.key in failed


def _find_lost(each: Compared, failed: Mapping[Key, Claim]) -> Iterator[Key]:
    """Yield the keys that no row will have: of rows that are not inserted, or do not get them."""
    for difference in each.table.differences:
        if difference.key in failed and (
            difference.kind is Kind.MISSING
            or any(column.column in each.pairing.rule.key for column in difference.columns)
        ):
            yield difference.key

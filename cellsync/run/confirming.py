"""Read what differs once more, in new snapshots: only what still differs counts.

Two servers cannot be read at one instant, so what was on its way then is not a difference now. A
batch of keys at a time: memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from cellsync import diff
from cellsync.diff.twins import set_aside
from cellsync.errors import ReadFailed
from cellsync.model import (
    Action,
    Difference,
    Direction,
    Finding,
    Key,
    Kind,
    Pairing,
    Projected,
    Projection,
    Row,
    Status,
    TableDiff,
    TableFailure,
    TableResult,
    sort_of,
)
from cellsync.run import loading
from cellsync.run.digesting import Block, Edge, Found, known_of
from cellsync.run.loading import Empty
from cellsync.run.look import State
from cellsync.run.planning import Paired
from cellsync.run.reading import Got, Router, Rows, failed, read
from cellsync.spool import Collector, kept, tallied

KEYS_AT_ONCE = 5_000
"""So many rows that differ are in memory at once, of each side of all cells together."""


@dataclass
class _Settled:
    """What still differs on one edge."""

    differences: Collector[Difference] = field(default_factory=lambda: Collector(tally=sort_of))
    findings: list[Finding] = field(default_factory=list)
    unknown: tuple[str, ...] = ()
    aside: tuple[Row, ...] = ()
    seen: dict[Hashable, Key] | None = None
    """The missing keys by what the existing side takes them for, where two may be one to it."""

    def add(self, head: TableDiff, table: TableDiff) -> None:
        """Add what came of one batch."""
        self.differences.extend(table.differences)
        self.findings += table.findings[len(head.findings) :]
        self.unknown = self.unknown or table.unknown
        self.aside += table.aside[len(head.aside) :]

    def table(self, head: TableDiff) -> TableDiff:
        """Return the table with all that was found."""
        differences, findings = self.differences.kept(), (*head.findings, *self.findings)
        twins = {key for each in findings if each.twins for key in (each.key, *each.twins) if key is not None}
        if twins:  # their differences may have been in other batches
            differences = kept(set_aside(differences, twins), tally=sort_of)
            left = {difference.key for difference in differences if difference.aside}
            findings = tuple(_without_others(findings, left.union((self.seen or {}).values())))
        return replace(
            head,
            differences=differences,
            findings=findings,
            status=Status.DIFFERS if differences or findings else Status.IN_STEP,
            unknown=head.unknown or self.unknown,
            aside=(*head.aside, *self.aside),
        )


def _without_others(findings: Iterable[Finding], aside: Collection[Key]) -> Iterator[Finding]:
    """Yield the findings without the twins that are on both sides: it is clear which rows those are."""
    for finding in findings:
        if finding.code == "collation-twin" and not {*finding.twins}.issubset(aside):
            yield replace(finding, twins=tuple(key for key in finding.twins if key in aside))
        else:
            yield finding


def confirmed(
    state: State,
    pairs: Mapping[str, Paired],
    heads: Mapping[Edge, TableResult],
    blocks: Sequence[Block],
    empty: Mapping[Edge, Empty],
) -> dict[str, dict[str, TableResult]]:
    """Return all tables, by child and rule, with the differences that are still there.

    ``heads`` are the tables without their differences, ``blocks`` what they were, but for tables that
    were ``empty``.
    """
    settled: dict[Edge, _Settled] = {}
    failures: dict[Edge, TableFailure] = {}
    router = Router(state)
    known = (((edge,), each.since) for edge, each in empty.items())
    _settle(state, pairs, chain(tallied(blocks, known_of), known))
    still, filling = loading.confirmed(state, empty, heads)
    heads = {**heads, **still}
    for batch in _batches(chain(blocks, filling)):
        asked = {edge: differences for edge, differences in batch.items() if edge not in failures}
        wants = _wants(pairs, asked)
        got = read(state, {cell: [*wanted.values()] for cell, wanted in wants.items()})
        for edge, differences in asked.items():
            head = heads[edge]
            if isinstance(head, TableFailure):
                continue
            first = replace(head, differences=differences)
            pairing = _pairing(pairs, edge)
            if edge not in settled:
                settled[edge] = _Settled(seen=None if _keeps_apart(state, pairing) else {})
            seen = settled[edge].seen
            table = _confirm(state, pairing, first, edge[0], router=router, wants=wants, got=got, seen=seen)
            if isinstance(table, TableFailure):
                failures[edge] = table
            else:
                settled[edge].add(head, table)
    found: dict[str, dict[str, TableResult]] = {child: {} for child in pairs}
    for (child, rule), head in heads.items():
        table = failures.get((child, rule), head)
        if isinstance(table, TableDiff) and (child, rule) in settled:
            table = settled[child, rule].table(table)
        found[child][rule] = table
    return found


def _pairing(pairs: Mapping[str, Paired], edge: Edge) -> Pairing:
    child, rule = edge
    pairing = pairs[child][rule]
    assert isinstance(pairing, Pairing), edge
    return pairing


def _settle(
    state: State, pairs: Mapping[str, Paired], found: Iterable[tuple[tuple[Edge, ...], float]]
) -> None:
    """Wait until what was found has been so for as long as its rule says; reading takes time as well."""
    known: dict[Edge, float] = {}
    for edges, since in found:
        for edge in edges:
            known[edge] = max(since, known.get(edge, since))
    ends = []
    for edge, since in known.items():
        own = _pairing(pairs, edge).rule.settle
        ends.append(since + (state.request.settle if own is None else own).total_seconds())
    left = max(ends, default=0) - state.request.elapsed()
    if left > 0:
        state.request.progress("settling")
        state.request.sleep(left)


def _batches(blocks: Iterable[Block]) -> Iterator[Found]:
    """Join the blocks into fewer, with so many keys each as are worth a question."""
    batch: dict[Edge, list[Difference]] = {}
    size = 0
    for block in blocks:
        more = sum(map(len, block.found.values()))
        if batch and size + more > KEYS_AT_ONCE:
            yield batch
            batch, size = {}, 0
        for edge, differences in block.found.items():
            batch.setdefault(edge, []).extend(differences)
        size += more
    if batch:
        yield batch


_Wants = Mapping[str, Mapping[tuple[Projection, bool], Rows]]
"""Cell -> (projection, tombstones) -> the reading; one for all children that share it."""


def _wants(pairs: Mapping[str, Paired], asked: Found) -> _Wants:
    keys: dict[str, dict[tuple[Projection, bool], dict[Key, None]]] = {}

    def add(cell: str, projection: Projection, wanted: Sequence[Key], *, tombstones: bool = False) -> None:
        keys.setdefault(cell, {}).setdefault((projection, tombstones), {}).update(dict.fromkeys(wanted))

    for edge, differences in asked.items():
        pairing = _pairing(pairs, edge)
        unsettled = [difference.key for difference in differences]
        add(pairing.desired_cell, pairing.desired, unsettled)
        add(pairing.existing_cell, pairing.existing, unsettled)
        if pairing.rule.on_extra is Action.SOFT_DELETE:
            extras = [difference.key for difference in differences if difference.kind is Kind.EXTRA]
            add(pairing.desired_cell, pairing.desired, extras, tombstones=True)
        if not pairing.rule.revives:
            # Whatever kind they were: a row that has changed may be missing now.
            add(pairing.existing_cell, pairing.existing, unsettled, tombstones=True)
            add(pairing.existing_cell, _unnarrowed(pairing.existing), unsettled)
    return {
        cell: {
            (projection, dead): Rows(projection=projection, keys=tuple(wanted), tombstones=dead)
            for (projection, dead), wanted in readings.items()
        }
        for cell, readings in keys.items()
    }


def _keeps_apart(state: State, pairing: Pairing) -> bool:
    """Say whether no two desired rows can have keys that are one to the existing side.

    They cannot where the schema of the desired side lets them not, and compares them as the existing
    side does.
    """
    collations = [
        [*_collations(state, cell, projection.table, projection.key)]
        for cell, projection in (
            (pairing.desired_cell, pairing.desired),
            (pairing.existing_cell, pairing.existing),
        )
    ]
    return pairing.desired.unique and not pairing.desired.nullable and collations[0] == collations[1]


def _collations(state: State, cell: str, table: str, key: Sequence[Projected]) -> Iterator[str | None]:
    """Yield the collations by which a key is compared, those of referenced keys included."""
    for part in key:
        if part.join is not None:
            yield from _collations(state, cell, part.join.table, part.join.key)
        elif column := state.looks[cell].tables[table].column(part.column):
            yield column.collation


def _unnarrowed(projection: Projection) -> Projection:
    """Return the projection onto all live rows, those that the rule's where leaves out included."""
    return replace(projection, where=None)


def _confirm(
    state: State,
    pairing: Pairing,
    table: TableDiff,
    child: str,
    *,
    router: Router,
    wants: _Wants,
    got: Got,
    seen: dict[Hashable, Key] | None,
) -> TableDiff | TableFailure:
    database = state.databases[pairing.existing_cell]
    down, routed = pairing.rule.direction is Direction.DOWN, None

    def rows(cell: str, projection: Projection, *, tombstones: bool = False) -> Sequence[Row]:
        want = wants[cell].get((projection, tombstones))
        return got.of(cell, want) if want is not None else ()

    try:
        desired = rows(pairing.desired_cell, pairing.desired)
        existing = rows(pairing.existing_cell, pairing.existing)
        if pairing.rule.route is not None:
            routed = router.again(pairing.rule, desired if down else existing)
            desired, existing = (routed.rows[child], existing) if down else (desired, routed.rows[child])
        there = rows(pairing.existing_cell, _unnarrowed(pairing.existing)) if not pairing.rule.revives else ()
        return diff.confirm(
            pairing,
            table,
            desired,
            existing,
            child=child,
            routed=routed,
            classify=lambda keys: database.classify_keys(pairing.existing, keys),
            seen=seen,
            tombstones={
                Kind.EXTRA: rows(pairing.desired_cell, pairing.desired, tombstones=True),
                Kind.MISSING: rows(pairing.existing_cell, pairing.existing, tombstones=True),
            },
            there={row.key for row in there},
        )
    except ReadFailed as error:
        return failed(pairing.rule, str(error))

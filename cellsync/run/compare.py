"""Read all databases once, compare them, and plan: everything up to the first write.

The stages follow each other for all cells together: look, pair, read, compare, read what differs
again, plan. Within a stage every database is worked on by itself, so the slowest cell delays only
the end of the stage, and a cell that fails is left out of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cellsync import diff
from cellsync.errors import ReadFailed
from cellsync.model import (
    Action,
    CellFailure,
    CellResult,
    Direction,
    Key,
    Kind,
    Pairing,
    Projection,
    Report,
    Row,
    Rule,
    Status,
    TableDiff,
    TableFailure,
    TableResult,
)
from cellsync.run.digesting import bucketings, suspected
from cellsync.run.look import State, opened, unfit
from cellsync.run.planning import Found, Paired, planned, report, worst
from cellsync.run.reading import Got, Router, Rows, Want, failed, read
from cellsync.run.request import Prepared, Request


def compare(request: Request) -> Prepared:
    """Compare every child in scope with the parent, by every rule, and plan its repair.

    Reads only. Raises ConfigurationError when two cells turn out to be one database.
    """
    with opened(request) as state:
        pairs = {child: _paired(state, child) for child in state.going}
        request.progress("reading")
        first = _compared(state, pairs)
        found = _confirmed(state, pairs, first)
        return planned(state, pairs, found)


def schemas(request: Request) -> Report:
    """Compare the schemas alone, by every rule in scope; the tables of the report have no rows."""
    with opened(request) as state:
        cells: list[CellResult | CellFailure] = []
        for child in request.children:
            if child.name in state.failures:
                cells.append(state.failures[child.name])
                continue
            pairs = _paired(state, child.name)
            tables = tuple(_schema_only(each) for each in pairs.values())
            cells.append(CellResult(cell=child.name, status=worst(tables), tables=tables))
        differ = any(t.schema for cell in cells if isinstance(cell, CellResult) for t in cell.tables)
        return report(request, cells, remaining=differ)


def _schema_only(paired: Pairing | TableFailure) -> TableResult:
    if isinstance(paired, TableFailure):
        return paired
    return TableDiff(
        rule=paired.rule.id,
        table=paired.rule.table,
        direction=paired.rule.direction,
        key=paired.rule.key,
        desired_rows=0,
        existing_rows=0,
        schema=paired.schema,
        status=Status.DIFFERS if paired.schema else Status.IN_STEP,
    )


# -- Pairing -----------------------------------------------------------------------------------


def _paired(state: State, child: str) -> Paired:
    pairs: dict[str, Pairing | TableFailure] = {}
    for rule in state.request.ruleset.rules:
        admitted = rule.when is None or rule.when.admits(state.looks[state.parent].version)
        if admitted is False:
            continue
        pairs[rule.id] = _pair(state, rule, child, admitted, pairs)
    return pairs


def _pair(
    state: State, rule: Rule, child: str, admitted: bool | None, pairs: Paired
) -> Pairing | TableFailure:
    pack = next(pack for pack in state.request.ruleset.packs if pack.name == rule.pack)
    error = unfit(state, pack, child)
    if admitted is None and rule.when is not None:
        error = f"whether {rule.when.text!r} holds cannot be told from {state.looks[state.parent].version!r}"
    if error is not None:
        return failed(rule, error)
    paired = diff.pair(
        rule,
        state.request.ruleset,
        parent_tables=state.looks[state.parent].tables,
        child_tables=state.looks[child].tables,
        parent=state.parent,
        child=child,
    )
    lost = [other for other in rule.references.values() if isinstance(pairs.get(other), TableFailure)]
    if lost and isinstance(paired, Pairing):
        return failed(rule, f"refers to {', '.join(sorted(set(lost)))}, which could not be compared")
    return paired


# -- Comparing ---------------------------------------------------------------------------------


def _compared(state: State, pairs: Mapping[str, Paired]) -> dict[str, dict[str, TableResult]]:
    """Compare all edges from one reading of every database, or digests of it."""
    router = Router(state)
    dealt = bucketings(state, pairs)
    wants: dict[str, list[Want[Any]]] = {}
    for pairing in _pairings(pairs):
        if pairing.rule.id not in dealt:
            wants.setdefault(pairing.desired_cell, []).append(Rows(projection=pairing.desired))
            wants.setdefault(pairing.existing_cell, []).append(Rows(projection=pairing.existing))
    got = read(state, wants)
    large = suspected(state, pairs, dealt, router)
    return {
        child: {
            rule: large[child, rule]
            if (child, rule) in large
            else _table(state, paired, child, got, router)
            if isinstance(paired, Pairing)
            else paired
            for rule, paired in pairs[child].items()
        }
        for child in pairs
    }


def _pairings(pairs: Mapping[str, Paired]) -> Iterator[Pairing]:
    for paired in pairs.values():
        yield from (each for each in paired.values() if isinstance(each, Pairing))


def _table(state: State, pairing: Pairing, child: str, got: Got, router: Router) -> TableResult:
    try:
        desired = got.of(pairing.desired_cell, Rows(projection=pairing.desired))
        existing = got.of(pairing.existing_cell, Rows(projection=pairing.existing))
    except ReadFailed as error:
        return failed(pairing.rule, str(error))
    if pairing.rule.route is None:
        return diff.compare(pairing, desired, existing, child=child)
    down = pairing.rule.direction is Direction.DOWN
    projection, rows = (pairing.desired, desired) if down else (pairing.existing, existing)
    routed = router.whole(pairing.rule, projection, rows)
    mine = routed.rows[child]
    table = diff.compare(
        pairing,
        mine if down else desired,
        existing if down else mine,
        child=child,
        aside=routed.aside,
    )
    return replace(table, findings=(*table.findings, *routed.findings), unknown=routed.unknown)


# -- Reading what differs once more ------------------------------------------------------------


def _confirmed(
    state: State, pairs: Mapping[str, Paired], first: Mapping[str, Found]
) -> dict[str, dict[str, TableResult]]:
    """Read the differing rows again in new snapshots; only what still differs counts."""
    asked = {
        (child, rule): diff.unsettled(table)
        for child, tables in first.items()
        for rule, table in tables.items()
        if isinstance(table, TableDiff) and table.differences
    }
    found = {child: dict(tables) for child, tables in first.items()}
    if not asked:
        return found
    _settle(state, pairs, asked)
    wants = _again(pairs, asked, first)
    got = read(state, {cell: [*wanted.values()] for cell, wanted in wants.items()})
    for child, rule in asked:
        pairing, table = pairs[child][rule], first[child][rule]
        assert isinstance(pairing, Pairing) and isinstance(table, TableDiff)
        found[child][rule] = _confirm(state, pairing, table, child, wants=wants, got=got)
    return found


def _settle(state: State, pairs: Mapping[str, Paired], asked: Mapping[tuple[str, str], object]) -> None:
    waits = []
    for child, rule in asked:
        pairing = pairs[child][rule]
        own = pairing.rule.settle if isinstance(pairing, Pairing) else None
        waits.append(state.request.settle if own is None else own)
    if (longest := max(waits).total_seconds()) > 0:
        state.request.progress("settling")
        state.request.sleep(longest)


_Wants = Mapping[str, Mapping[tuple[Projection, bool], Rows]]
"""Cell -> (projection, tombstones) -> the reading; one for all children that share it."""


def _again(
    pairs: Mapping[str, Paired],
    asked: Mapping[tuple[str, str], tuple[Key, ...]],
    first: Mapping[str, Found],
) -> _Wants:
    keys: dict[str, dict[tuple[Projection, bool], dict[Key, None]]] = {}

    def add(cell: str, projection: Projection, wanted: Sequence[Key], *, tombstones: bool = False) -> None:
        keys.setdefault(cell, {}).setdefault((projection, tombstones), {}).update(dict.fromkeys(wanted))

    for (child, rule), unsettled in asked.items():
        pairing, table = pairs[child][rule], first[child][rule]
        assert isinstance(pairing, Pairing) and isinstance(table, TableDiff)
        add(pairing.desired_cell, pairing.desired, unsettled)
        add(pairing.existing_cell, pairing.existing, unsettled)
        if pairing.rule.on_extra is Action.SOFT_DELETE:
            extras = [d.key for d in table.differences if d.kind is Kind.EXTRA]
            add(pairing.desired_cell, pairing.desired, extras, tombstones=True)
    return {
        cell: {
            (projection, dead): Rows(projection=projection, keys=tuple(wanted), tombstones=dead)
            for (projection, dead), wanted in readings.items()
        }
        for cell, readings in keys.items()
    }


def _confirm(
    state: State,
    pairing: Pairing,
    table: TableDiff,
    child: str,
    *,
    wants: _Wants,
    got: Got,
) -> TableResult:
    down = pairing.rule.direction is Direction.DOWN
    router, routed = Router(state), None

    def rows(cell: str, projection: Projection, *, tombstones: bool = False) -> Sequence[Row]:
        want = wants[cell].get((projection, tombstones))
        return got.of(cell, want) if want is not None else ()

    try:
        desired = rows(pairing.desired_cell, pairing.desired)
        existing = rows(pairing.existing_cell, pairing.existing)
        if pairing.rule.route is not None:
            routed = router.again(pairing.rule, desired if down else existing)
            desired, existing = (routed.rows[child], existing) if down else (desired, routed.rows[child])
        confirmed = diff.confirm(
            pairing,
            table,
            desired,
            existing,
            child=child,
            routed=routed,
            colliding=lambda key: tuple(
                state.databases[pairing.existing_cell].rows(pairing.existing, keys=[key])
            ),
            tombstones=rows(pairing.desired_cell, pairing.desired, tombstones=True),
        )
    except ReadFailed as error:
        return failed(pairing.rule, str(error))
    return confirmed

"""Read all databases once, compare them, and plan: everything up to the first write.

The stages follow each other for all cells together: look, pair, read, compare, read what differs
again, plan. Within a stage every database is worked on by itself, so the slowest cell delays only
the end of the stage, and a cell that fails is left out of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from cellsync import diff
from cellsync.errors import ReadFailed
from cellsync.model import (
    CellFailure,
    CellResult,
    Difference,
    Direction,
    Pairing,
    Report,
    Rule,
    Status,
    TableDiff,
    TableFailure,
    TableResult,
)
from cellsync.run import recounting
from cellsync.run.coming import accompanied, claimed
from cellsync.run.confirming import confirmed
from cellsync.run.detecting import detected
from cellsync.run.digesting import Block, Edge, counted, cut, known_of, large, suspected
from cellsync.run.loading import Empty, empties
from cellsync.run.look import State, opened, unfit
from cellsync.run.planning import Paired, planned, report, worst
from cellsync.run.reading import Got, Router, Rows, failed, read
from cellsync.run.recounting import recounted
from cellsync.run.referring import set_ambiguous_aside
from cellsync.run.replacing import replace_rows
from cellsync.run.request import Prepared, Request
from cellsync.spool import kept

FEW_BLOCKS = 100
"""So many wait in memory: each may have hundreds of differences."""


def compare(request: Request) -> Prepared:
    """Compare every child in scope with the parent, by every rule, and plan its repair.

    Reads only. Raises ConfigurationError when two cells turn out to be one database.
    """
    with opened(request) as state:
        pairs = {child: _paired(state, child) for child in state.going}
        request.progress("reading")
        pairs = set_ambiguous_aside(state, pairs)
        tables, blocks, empty, first = _compared(state, pairs)
        still, counts = recounted(state, pairs, confirmed(state, pairs, tables, blocks, empty), first)
        compared = accompanied(state, pairs, claimed(pairs, still))
        compared = replace_rows(state, pairs, compared)
        return planned(state, pairs, compared, detected(state, compared), counts)


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
        if admitted is False or (rule.comes_with is not None and rule.comes_with.rule not in pairs):
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
        others={name: state.looks[name].others for name in (state.parent, child)},
    )
    lost = [other for other in rule.references.values() if isinstance(pairs.get(other), TableFailure)]
    if lost and isinstance(paired, Pairing):
        return failed(rule, f"refers to {', '.join(sorted(set(lost)))}, which could not be compared")
    return paired


# -- Comparing ---------------------------------------------------------------------------------


def _compared(
    state: State, pairs: Mapping[str, Paired]
) -> tuple[dict[Edge, TableResult], Sequence[Block], Mapping[Edge, Empty], Mapping[Edge, int]]:
    """Compare all edges from one reading of every database, or of digests of it.

    Returns the tables without their differences, what differs as far as it is known by now, which
    tables differ because one side is empty, and how many rows were counted beside that.
    """
    router = Router(state)
    found = large(state, pairs, router)
    edges = {
        (child, rule): paired
        for child, mine in pairs.items()
        for rule, paired in mine.items()
        if not _comes_along(paired)
    }
    small = {e: p for e, p in edges.items() if isinstance(p, Pairing) and e not in found.edges}
    wants = recounting.first_wants(pairs)
    for cell, more in found.wants().items():
        wants.setdefault(cell, []).extend(more)
    for pairing in small.values():
        wants.setdefault(pairing.desired_cell, []).append(Rows(projection=pairing.desired))
        wants.setdefault(pairing.existing_cell, []).append(Rows(projection=pairing.existing))
    got = read(state, wants)
    tables = {edge: _table(state, pairing, edge[0], got, router) for edge, pairing in small.items()}
    known = counted(state, found, got, router)
    empty = empties(state, pairs, found, known)
    heads, blocks = suspected(state, found, known, router, leaving=empty)
    heads.update({edge: paired for edge, paired in edges.items() if isinstance(paired, TableFailure)})
    heads.update({edge: _head(table) for edge, table in tables.items()})
    every = chain(_light(tables, got.since), blocks)
    known_blocks = kept(every, short=FEW_BLOCKS, tally=known_of)
    first = recounting.first_counts(pairs, got)
    return {edge: heads[edge] for edge in edges}, known_blocks, empty, first


def _comes_along(paired: Pairing | TableFailure) -> bool:
    """Say whether the rows of a rule are looked at later, with those that they come with."""
    return isinstance(paired, Pairing) and paired.rule.comes_with is not None


def _head(table: TableResult) -> TableResult:
    return replace(table, differences=()) if isinstance(table, TableDiff) else table


def _light(tables: Mapping[Edge, TableResult], since: float) -> Iterator[Block]:
    """Yield the differences of whole tables without their rows, which are read again anyway."""
    for rule in dict.fromkeys(rule for _, rule in tables):
        mine = {edge: t for edge, t in tables.items() if edge[1] == rule and isinstance(t, TableDiff)}
        found = {
            edge: [Difference.found(d.kind, d.key) for d in table.differences] for edge, table in mine.items()
        }
        yield from cut(found, since)


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

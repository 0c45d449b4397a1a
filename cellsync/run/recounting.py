"""Count the desired side of rules that may delete, at the first reading and after the recheck.

Rows are extra where the desired side lost them. Whether it lost some rows or collapsed only its number of
rows tells, which one statement counts; rules that delete nothing cost none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cellsync.errors import ReadFailed
from cellsync.model import Action, Direction, Kind, Pairing, TableDiff, TableResult
from cellsync.run.digesting import Edge
from cellsync.run.look import State
from cellsync.run.planning import Counts, Paired
from cellsync.run.reading import Count, Got, Want, failed, read


def first_wants(pairs: Mapping[str, Paired]) -> dict[str, list[Want[Any]]]:
    """Return what the first reading counts by itself, by cell: rows that are dealt to several children.

    Of all others the comparison knows the number.
    """
    wants: dict[str, list[Want[Any]]] = {}
    for _, pairing in _dealt(pairs):
        wants.setdefault(pairing.desired_cell, []).append(Count(projection=pairing.desired))
    return wants


def first_counts(pairs: Mapping[str, Paired], got: Got) -> dict[Edge, int]:
    """Return the numbers of ``first_wants``, by edge; a reading that failed has none, and fails by itself."""
    counts: dict[Edge, int] = {}
    for edge, pairing in _dealt(pairs):
        try:
            (counts[edge],) = got.of(pairing.desired_cell, Count(projection=pairing.desired))
        except ReadFailed:
            continue
    return counts


def recounted(
    state: State,
    pairs: Mapping[str, Paired],
    found: Mapping[str, Mapping[str, TableResult]],
    first: Mapping[Edge, int],
) -> tuple[dict[str, dict[str, TableResult]], Mapping[Edge, Counts]]:
    """Count the desired sides of rules that found rows to delete; a rule that cannot be counted fails.

    Returns the tables and, by edge, what was counted at the first reading and now.
    """
    tables = {child: dict(mine) for child, mine in found.items()}
    edges: dict[Edge, Pairing] = {}
    for child, mine in found.items():
        for rule, table in mine.items():
            pairing = pairs[child][rule]
            extra = isinstance(table, TableDiff) and table.count(Kind.EXTRA)
            if extra and isinstance(pairing, Pairing) and _may_delete(pairing):
                edges[child, rule] = pairing
    wants: dict[str, list[Want[Any]]] = {}
    for pairing in edges.values():
        wants.setdefault(pairing.desired_cell, []).append(Count(projection=pairing.desired))
    got = read(state, wants) if wants else None
    counts: dict[Edge, Counts] = {edge: Counts(first=number) for edge, number in first.items()}
    for (child, rule), pairing in edges.items():
        assert got is not None
        try:
            (now,) = got.of(pairing.desired_cell, Count(projection=pairing.desired))
            counts[child, rule] = Counts(first=first.get((child, rule)), again=now)
        except ReadFailed as error:
            tables[child][rule] = failed(pairing.rule, str(error))
    return tables, counts


def _dealt(pairs: Mapping[str, Paired]) -> Iterator[tuple[Edge, Pairing]]:
    for child, mine in pairs.items():
        for rule, pairing in mine.items():
            if not isinstance(pairing, Pairing) or pairing.rule.route is None:
                continue
            if pairing.rule.direction is Direction.DOWN and _may_delete(pairing):
                yield (child, rule), pairing


def _may_delete(pairing: Pairing) -> bool:
    removing = (Action.DELETE, Action.SOFT_DELETE)
    return pairing.rule.on_extra in removing and pairing.rule.comes_with is None

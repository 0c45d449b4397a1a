"""Tables of which one side has no row: all rows of the other are read at once, packed.

Looking for the keys that differ, and for the rows of these keys, would be several times the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cellsync import diff, spool
from cellsync.errors import ReadFailed
from cellsync.model import Difference, Fold, Key, Kind, Pairing, TableDiff, TableResult
from cellsync.run.digesting import MOST_IN_BLOCK, Block, Counted, Edge, Large
from cellsync.run.look import State
from cellsync.run.planning import Paired
from cellsync.run.reading import Got, Keys, PackedRows, Total, Want, failed, read
from cellsync.spool import Collector


@dataclass(frozen=True, kw_only=True)
class Empty:
    """An edge of which the existing side had no row, and since when that is known."""

    pairing: Pairing
    fold: Fold
    since: float

    def wants(self) -> dict[str, Want[Any]]:
        """Return the readings of both sides, by cell."""
        return {
            self.pairing.existing_cell: Total(projection=self.pairing.existing, fold=self.fold),
            self.pairing.desired_cell: PackedRows(projection=self.pairing.desired, fold=self.fold),
        }


def empties(state: State, pairs: Mapping[str, Paired], found: Large, known: Counted) -> dict[Edge, Empty]:
    """Return the edges whose existing side has no row, where no row needs a look of its own."""
    led = {
        pairing.rule.comes_with.rule
        for mine in pairs.values()
        for pairing in mine.values()
        if isinstance(pairing, Pairing) and pairing.rule.comes_with is not None
    }
    return {
        edge: Empty(pairing=pairing, fold=found.dealt[edge[1]].fold, since=known.since)
        for edge, pairing in found.edges.items()
        if edge[1] not in led and _is_empty(known, edge) and _loadable(state, pairing)
    }


def _is_empty(known: Counted, edge: Edge) -> bool:
    # As few rows as are held in memory anyway are quick to compare. A bucket may be of rows in limbo alone.
    sides, head = known.sides.get(edge), known.heads[edge]
    if sides is None or sides.existing or any(digest.odd for digest in sides.desired.values()):
        return False
    return isinstance(head, TableDiff) and head.desired_rows > spool.SHORT


def _loadable(state: State, pairing: Pairing) -> bool:
    desired = state.looks[pairing.desired_cell].tables[pairing.desired.table]
    existing = state.looks[pairing.existing_cell].tables[pairing.existing.table]
    return state.databases[pairing.existing_cell].loads and diff.loadable(pairing, desired, existing)


def confirmed(
    state: State, edges: Mapping[Edge, Empty], heads: Mapping[Edge, TableResult]
) -> tuple[dict[Edge, TableResult], Sequence[Block]]:
    """Return the tables that are still empty, with all rows that they lack, and those that failed.

    Beside them what must be looked at row by row after all, as what may be missing: of tables that have
    rows now, or are to get some that cannot be packed.
    """
    got = read(state, _by_cell(each.wants() for each in edges.values()))
    tables = {edge: _table(state, each, heads[edge], got) for edge, each in edges.items()}
    others = {edge: edges[edge] for edge, table in tables.items() if table is None}
    keys = {edge: Keys(projection=each.pairing.desired) for edge, each in others.items()}
    again = read(state, _by_cell({others[edge].pairing.desired_cell: want} for edge, want in keys.items()))
    blocks: Collector[Block] = Collector(short=len(edges))
    for edge, want in keys.items():
        pairing = others[edge].pairing
        try:
            blocks.extend(_blocks(edge, again.of(pairing.desired_cell, want), again.since))
        except ReadFailed as error:
            tables[edge] = failed(pairing.rule, str(error))
    return {edge: table for edge, table in tables.items() if table is not None}, blocks.kept()


def _by_cell(wants: Iterable[Mapping[str, Want[Any]]]) -> dict[str, list[Want[Any]]]:
    gathered: dict[str, list[Want[Any]]] = {}
    for each in wants:
        for cell, want in each.items():
            gathered.setdefault(cell, []).append(want)
    return gathered


def _blocks(edge: Edge, keys: Iterable[Key], since: float) -> Iterator[Block]:
    """Yield the keys of one edge as what is missing, in blocks."""
    waiting = (Difference.found(Kind.MISSING, key) for key in keys)
    while part := tuple(islice(waiting, MOST_IN_BLOCK)):
        yield Block({edge: part}, since)


def _table(state: State, each: Empty, head: TableResult, got: Got) -> TableResult | None:
    """Return the result of one edge; None where its rows must be looked at."""
    assert isinstance(head, TableDiff)
    pairing, wants = each.pairing, each.wants()
    try:
        (rows,) = got.of(pairing.existing_cell, wants[pairing.existing_cell])
    except ReadFailed as error:
        return failed(pairing.rule, str(error))
    try:
        packed = got.of(pairing.desired_cell, wants[pairing.desired_cell])
    except ReadFailed:
        return None  # unless a row is at fault, it fails again
    if rows or len(packed) <= spool.SHORT:
        return None
    database = state.databases[pairing.desired_cell]
    return diff.missing(head, packed, fold=each.fold, unpack=database.unpack(pairing.desired))

"""References by a column that is not unique: whether more than one row is meant is asked before all else.

Where the schema keeps the referenced column unique nothing is asked, as nearly everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cellsync import db
from cellsync.errors import ReadFailed
from cellsync.model import Join, Pairing, Projected, Projection, Table, TableFailure, Value, shown
from cellsync.run.look import State
from cellsync.run.planning import Paired
from cellsync.run.reading import Got, failed, read


@dataclass(frozen=True, kw_only=True)
class Ambiguous:
    """One value of a reference that more than one row has, where there is any."""

    projection: Projection
    column: str
    join: Join

    def read(self, database: db.Database) -> list[tuple[Value, int]]:
        """Read the value, and how many rows have it."""
        return database.find_ambiguous(self.projection, self.column, self.join)


def set_ambiguous_aside(state: State, pairs: Mapping[str, Paired]) -> dict[str, Paired]:
    """Return the pairs without rules whose rows refer to more than one row: these are failures.

    What refers to such a rule is one too, for its keys are those of that rule's rows.
    """
    wants: dict[str, list[Ambiguous]] = {}
    for paired in _list_pairings(pairs):
        for cell, want in _list_wants(state, paired):
            wants.setdefault(cell, []).append(want)
    if not wants:
        return dict(pairs)
    got = read(state, wants)
    return {child: _without_ambiguous(state, mine, got) for child, mine in pairs.items()}


def _list_pairings(pairs: Mapping[str, Paired]) -> Iterator[Pairing]:
    return (each for mine in pairs.values() for each in mine.values() if isinstance(each, Pairing))


def _list_wants(state: State, pairing: Pairing) -> Iterator[tuple[str, Ambiguous]]:
    sides = ((pairing.desired_cell, pairing.desired), (pairing.existing_cell, pairing.existing))
    for cell, projection in sides:
        for part in (*projection.key, *projection.columns):
            if part.join is not None and not _is_unique(state.looks[cell].tables.get(part.join.table), part):
                # Children that read the parent in the same way ask once.
                plain = replace(projection, key=(), columns=(), carried=(), rule="", parent="", child="")
                yield cell, Ambiguous(projection=plain, column=part.column, join=part.join)


def _is_unique(table: Table | None, part: Projected) -> bool:
    """Say whether the schema keeps the referenced column unique by itself."""
    if table is None or part.join is None:
        return True
    wanted = (part.join.column.lower(),)
    names = [table.primary_key, *(i.columns for i in table.unique_indexes if not any(i.prefixes))]
    return any(tuple(map(str.lower, each)) == wanted for each in names)


def _without_ambiguous(state: State, pairs: Paired, got: Got) -> Paired:
    left: dict[str, Pairing | TableFailure] = {}
    for name, paired in pairs.items():
        error = _find_error(state, paired, got) if isinstance(paired, Pairing) else None
        if error is None and isinstance(paired, Pairing):
            references = {*paired.rule.references.values()} - {name}
            lost = sorted(each for each in references if _is_lost(each, pairs, left))
            error = f"refers to {', '.join(lost)}, which could not be compared" if lost else None
        left[name] = failed(paired.rule, error) if error and isinstance(paired, Pairing) else paired
    return left


def _is_lost(rule: str, pairs: Paired, left: Paired) -> bool:
    return isinstance(left.get(rule), TableFailure) and isinstance(pairs[rule], Pairing)


def _find_error(state: State, pairing: Pairing, got: Got) -> str | None:
    secrets = state.request.topology.secrets
    for cell, want in _list_wants(state, pairing):
        try:
            found = got.of(cell, want)
        except ReadFailed as error:
            return str(error)
        for value, rows in found:
            table, there = want.join.table, want.join.column
            held = shown(secrets.safe(want.column, value, table=pairing.rule.table))
            return (
                f"{want.column} is ambiguous: it refers to {there} of {table}, which is not unique: in "
                f"{cell} {rows} rows of {table} have {there} {held}: refer to a column that is unique, "
                f"or take the column out of the rule"
            )
    return None

"""Read the rows that come with others: those of an instance that is to be inserted, with the instance.

Nothing of their tables is read but for the rows that are missing and would be inserted. They are
read when these have settled, in one snapshot of each database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cellsync import diff
from cellsync.diff.twins import find_twins, set_aside
from cellsync.errors import ReadFailed
from cellsync.model import (
    Action,
    Direction,
    Finding,
    Key,
    Kind,
    Pairing,
    Projection,
    Row,
    TableDiff,
    TableFailure,
    TableResult,
    keep_differences,
)
from cellsync.run.look import State
from cellsync.run.planning import Paired
from cellsync.run.reading import Got, Rows, Want, failed, read

Found = Mapping[str, TableResult]
"""Rule -> its result in one child."""


def claimed(pairs: Mapping[str, Paired], found: Mapping[str, Found]) -> Mapping[str, Found]:
    """Return all tables, in which rows say so that several children would insert into the parent.

    Which of them the parent is to have nobody can say. Keeps the keys of these rules' missing rows in memory.
    """
    marked = {child: dict(tables) for child, tables in found.items()}
    for rule in dict.fromkeys(rule for mine in pairs.values() for rule in _inserting_above(mine)):
        holders: dict[Key, tuple[str, ...]] = {}
        for child, tables in found.items():
            for key in _missing(tables.get(rule)):
                holders[key] = (*holders.get(key, ()), child)
        doubled = {key: children for key, children in holders.items() if len(children) > 1}
        for child in dict.fromkeys(child for children in doubled.values() for child in children):
            table = found[child][rule]
            assert isinstance(table, TableDiff)
            every = (replace(d, claimed=doubled.get(d.key, ())) for d in table.differences)
            marked[child][rule] = replace(table, differences=keep_differences(every))
    return marked


def _inserting_above(pairs: Paired) -> Iterator[str]:
    for name, pairing in pairs.items():
        rule = pairing.rule if isinstance(pairing, Pairing) else None
        if rule is not None and rule.direction is Direction.UP and rule.on_missing is Action.INSERT:
            yield name


def _missing(table: TableResult | None) -> Iterator[Key]:
    differences = table.differences if isinstance(table, TableDiff) else ()
    return (difference.key for difference in differences if difference.kind is Kind.MISSING)


def accompanied(
    state: State, pairs: Mapping[str, Paired], found: Mapping[str, Found]
) -> dict[str, dict[str, TableResult]]:
    """Return all tables, by child and rule, with those of the rows that come with others in their place."""
    asked = {child: list(_asked(pairs[child], tables)) for child, tables in found.items()}
    wants: dict[str, list[Want[Row]]] = {}
    for companions in asked.values():
        for pairing, keys in companions:
            for cell, projection in _both(pairing) if keys else ():
                wants.setdefault(cell, []).append(_want(pairing, projection, keys))
    got = read(state, wants)
    result: dict[str, dict[str, TableResult]] = {}
    for child, tables in found.items():
        came = {each.rule.id: _compared(state, each, keys, got, child) for each, keys in asked[child]}
        every = {**tables, **came}
        result[child] = {rule: every.get(rule) or _alone(each) for rule, each in pairs[child].items()}
    return result


def _asked(pairs: Paired, tables: Found) -> Iterator[tuple[Pairing, tuple[Key, ...]]]:
    """Yield each pairing of rows that come with others, and with which ones: parts of the leader's key."""
    for pairing in pairs.values():
        if not isinstance(pairing, Pairing) or pairing.rule.comes_with is None:
            continue
        leader, table = pairs.get(pairing.rule.comes_with.rule), tables.get(pairing.rule.comes_with.rule)
        if isinstance(leader, Pairing) and isinstance(table, TableDiff):
            inserts = leader.rule.on_missing is Action.INSERT
            missing = (d.key for d in table.differences if d.kind is Kind.MISSING) if inserts else ()
            yield pairing, tuple(dict.fromkeys(pairing.rule.led(leader.rule, key) for key in missing))


def _alone(paired: Pairing | TableFailure) -> TableFailure:
    """Return the result of a rule whose leader could not be compared, or that could not be itself."""
    if isinstance(paired, TableFailure):
        return paired
    leader = paired.rule.comes_with
    assert leader is not None, paired.rule.id
    return failed(paired.rule, f"comes with {leader.rule}, which could not be compared")


def _both(pairing: Pairing) -> tuple[tuple[str, Projection], tuple[str, Projection]]:
    return (pairing.desired_cell, pairing.desired), (pairing.existing_cell, pairing.existing)


def _want(pairing: Pairing, projection: Projection, keys: tuple[Key, ...]) -> Rows:
    return Rows(projection=diff.by_leader(pairing, projection), keys=keys)


def _compared(
    state: State, pairing: Pairing, keys: tuple[Key, ...], got: Got, child: str
) -> TableDiff | TableFailure:
    if not keys:
        return diff.compare(pairing, (), (), child=child)
    database = state.databases[pairing.existing_cell]
    try:
        desired, existing = (
            [*diff.rekeyed(pairing, got.of(cell, _want(pairing, projection, keys)), keys)]
            for cell, projection in _both(pairing)
        )
        table = diff.compare(pairing, desired, existing, child=child)
        twins = find_twins(
            pairing,
            table.differences,
            existing,
            lambda some: database.classify_keys(pairing.existing, some),
            seen={} if _keeps_keys_unique(state, pairing) else None,
        )
        return _with_twins(table, tuple(twins))
    except ReadFailed as error:
        return failed(pairing.rule, str(error))


def _keeps_keys_unique(state: State, pairing: Pairing) -> bool:
    """Say whether a unique index of the written table may keep out one of two rows with twin keys.

    Without one they are inserted side by side, as they are where they come from: they are made in one
    transaction with what they come with, and nobody looks them up by their keys.
    """
    projection, soft_delete = pairing.existing, pairing.rule.soft_delete
    table = state.looks[pairing.existing_cell].tables[projection.table]
    fixed = {part.column.lower() for part in projection.key}
    if soft_delete is not None:
        fixed.add(soft_delete.column.lower())  # all new rows are live
    # An index over columns that nobody knows has none here, and counts.
    return any(
        fixed.issuperset(name.lower() for name in table.base_columns(index)) for index in table.unique_indexes
    )


def _with_twins(table: TableDiff, twins: Sequence[Finding]) -> TableDiff:
    """Return a table whose rows have twins: what they come with is not inserted either."""
    if not twins:
        return table
    keys = {key for finding in twins for key in (finding.key, *finding.twins) if key is not None}
    differences = tuple(set_aside(table.differences, keys))
    return replace(table, differences=differences, findings=(*table.findings, *twins))

"""Rows of both sides into differences and findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cellsync.diff.twins import set_aside
from cellsync.model import (
    ColumnDifference,
    Dangling,
    Difference,
    Finding,
    Key,
    KeyPart,
    Kind,
    Pairing,
    Row,
    Status,
    Surrogate,
    TableDiff,
    dangles,
    shown,
)


def compare(
    pairing: Pairing,
    desired: Iterable[Row],
    existing: Iterable[Row],
    *,
    child: str,
    aside: frozenset[Key] = frozenset(),
) -> TableDiff:
    """Compare the rows of both sides of one rule on one edge.

    ``desired`` and ``existing`` are the rows in scope, already routed. Keys in ``aside`` are not
    judged on either side. Rows that cannot be told apart, lead nowhere or are in limbo become
    findings and are set aside as well; all other rows go on.
    """
    desired_side = _index(pairing, desired, pairing.desired_cell, desired=True)
    existing_side = _index(pairing, existing, pairing.existing_cell, desired=False)
    findings = [*desired_side.findings, *existing_side.findings]
    wanted = apply_overrides(pairing, desired_side.rows, child)
    held = dict(existing_side.rows)
    left: list[Row] = []
    for key in {*aside, *desired_side.aside, *existing_side.aside}:
        wanted.pop(key, None)
        if (row := held.pop(key, None)) is not None:
            left.append(row)
    conflicts = list(_preserved(pairing, wanted, held))
    for finding in conflicts:
        if finding.key is not None:
            wanted.pop(finding.key, None)
            if (row := held.pop(finding.key, None)) is not None:
                left.append(row)
    others = {key for finding in conflicts for key in finding.twins}
    differences = tuple(set_aside(_differences(pairing, wanted, held), others))
    findings += conflicts
    return TableDiff(
        rule=pairing.rule.id,
        table=pairing.rule.table,
        direction=pairing.rule.direction,
        key=pairing.rule.key,
        columns=pairing.columns,
        desired_rows=desired_side.count,
        existing_rows=existing_side.count,
        differences=differences,
        findings=tuple(findings),
        schema=pairing.schema,
        aside=tuple(left),
        status=Status.DIFFERS if differences or findings else Status.IN_STEP,
    )


@dataclass
class _Side:
    """One side's rows by key, and what cannot be compared."""

    rows: dict[Key, Row]
    findings: list[Finding]
    aside: set[Key]
    count: int


def _index(pairing: Pairing, rows: Iterable[Row], cell: str, *, desired: bool) -> _Side:
    side = _Side({}, [], set(), 0)
    doubles: dict[Key, list[Row]] = {}
    lost: set[Key] = set()
    for row in rows:
        if row.limbo:
            side.findings.append(_limbo(pairing, row, cell))
            lost.add(row.key)
            continue
        side.count += 1
        if dangles(row.key) or (desired and dangles(row.values)):
            side.findings.append(_dangling(pairing, row, cell))
            side.aside.add(row.key)
        elif (first := side.rows.setdefault(row.key, row)) is not row and not _one_row(first, row):
            doubles.setdefault(row.key, [first]).append(row)
    if desired:
        # Whether the other side is to have a row whose only fellow is in limbo is open.
        side.aside |= lost - side.rows.keys()
    for key, several in doubles.items():
        side.findings.append(_duplicate(pairing, several, cell))
        side.aside.add(key)
    return side


def _one_row(first: Row, second: Row) -> bool:
    """Say whether two rows are one row: read twice, or in two spellings.

    A parent may need a host both plain and with its cell path (two parts of Nova read it
    differently); through the transform both become the same row, with nothing to choose.
    """
    if first.identity and first.identity == second.identity:
        return True
    return first.route != second.route and first.values == second.values


def _where(pairing: Pairing, row: Row, cell: str) -> str:
    names = pairing.desired.identity if cell == pairing.desired_cell else pairing.existing.identity
    identity = ", ".join(f"{name} {shown(value)}" for name, value in zip(names, row.identity, strict=True))
    return f"{pairing.rule.table} {identity} in {cell}"


def _limbo(pairing: Pairing, row: Row, cell: str) -> Finding:
    soft_delete = pairing.rule.soft_delete
    assert soft_delete is not None
    message = (
        f"{_where(pairing, row, cell)} ({pairing.rule.named(row.key)}) has {soft_delete.column} NULL: its "
        f"application does not see it and unique keys do not hold for it; set {soft_delete.column} to "
        f"{shown(soft_delete.live)}, or remove the row"
    )
    return Finding(code=f"{soft_delete.column}-is-null", cell=cell, message=message, key=row.key)


def _dangling(pairing: Pairing, row: Row, cell: str) -> Finding:
    columns = [*zip(pairing.rule.key, row.key, strict=True), *zip(pairing.columns, row.values, strict=True)]
    broken = "; ".join(f"{name} is {shown(part)}" for name, part in columns if dangles((part,)))
    message = f"{_where(pairing, row, cell)} refers to a row that is not there or deleted: {broken}"
    return Finding(code="dangling-reference", cell=cell, message=message, key=row.key)


def _duplicate(pairing: Pairing, rows: Sequence[Row], cell: str) -> Finding:
    names = pairing.desired.identity if cell == pairing.desired_cell else pairing.existing.identity
    each = " and ".join(
        ", ".join(f"{name} {shown(value)}" for name, value in zip(names, row.identity, strict=True))
        for row in rows
    )
    message = (
        f"{len(rows)} rows of {pairing.rule.table} in {cell} have the key {pairing.rule.named(rows[0].key)}: "
        f"{each}; keep one of them"
    )
    return Finding(code="duplicate-key", cell=cell, message=message, key=rows[0].key)


def apply_overrides(pairing: Pairing, rows: Mapping[Key, Row], child: str) -> dict[Key, Row]:
    """Return desired rows with the values that the rule says are right in one child."""
    overrides = {**pairing.rule.overrides.get("*", {}), **pairing.rule.overrides.get(child, {})}
    if not overrides:
        return dict(rows)
    columns = pairing.columns
    return {
        key: row._replace(
            values=tuple(overrides.get(name, value) for name, value in zip(columns, row.values, strict=True))
        )
        for key, row in rows.items()
    }


def _preserved(pairing: Pairing, wanted: Mapping[Key, Row], held: Mapping[Key, Row]) -> Iterator[Finding]:
    """Yield the rows whose preserved id is another row's, on either side."""
    columns = pairing.columns
    for name, surrogate in pairing.rule.surrogate.items():
        if surrogate is not Surrogate.PRESERVE or name not in columns:
            continue
        at = columns.index(name)
        holders = {row.values[at]: key for key, row in held.items()}
        for key, row in wanted.items():
            number = row.values[at]
            if key in held and held[key].values[at] != number:
                yield _conflict(pairing, row, f"{name} {shown(held[key].values[at])}", name, number)
            elif key not in held and number in holders:
                other = ", ".join(shown(part) for part in holders[number])
                found = _conflict(pairing, row, f"{name} {shown(number)} for {other}", name, number)
                yield replace(found, twins=(holders[number],))


def _conflict(pairing: Pairing, row: Row, there: str, name: str, number: KeyPart) -> Finding:
    message = (
        f"{pairing.rule.table} {pairing.rule.named(row.key)} has {name} {shown(number)} in "
        f"{pairing.desired_cell}, but {pairing.existing_cell} has {there}: {name} must be the same "
        f"everywhere and is never changed by a repair"
    )
    return Finding(code="preserved-id", cell=pairing.existing_cell, message=message, key=row.key)


def _differences(
    pairing: Pairing, wanted: Mapping[Key, Row], held: Mapping[Key, Row]
) -> Iterator[Difference]:
    for key, row in wanted.items():
        other = held.get(key)
        if other is None:
            yield Difference.found(Kind.MISSING, key, row)
        elif row.values != other.values:
            columns = tuple(changed(pairing, row, other))
            if columns:
                yield Difference.found(Kind.CHANGED, key, row, other, columns)
    for key, other in held.items():
        if key not in wanted:
            yield Difference.found(Kind.EXTRA, key, existing=other)


def changed(pairing: Pairing, desired: Row, existing: Row) -> Iterator[ColumnDifference]:
    """Yield the compared columns that differ between two rows, by more than the rule tolerates."""
    tolerances = pairing.rule.tolerance
    for name, wanted, held in zip(pairing.columns, desired.values, existing.values, strict=True):
        if wanted != held and not _near(wanted, held, tolerances.get(name)):
            yield ColumnDifference(name, wanted, held)


def _near(desired: KeyPart, existing: KeyPart, tolerance: float | None) -> bool:
    if tolerance is None or desired is None or existing is None:
        return False
    if isinstance(desired, (str, bytes, tuple, Dangling)) or isinstance(
        existing, (str, bytes, tuple, Dangling)
    ):
        return False
    return abs(float(desired) - float(existing)) <= tolerance

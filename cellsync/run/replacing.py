"""Rows that have another preserved id than the desired one: whether they may be replaced, or what to do.

A flavor that was deleted and made again under its old name has a new id. Where the rule says so, nothing uses
the old id and the new one is free, the old row is removed and the new one inserted, with all rows that refer
to them by their keys. Else the finding says what differs, who uses the old id, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cellsync import db, diff, plan
from cellsync.diff.relating import literal
from cellsync.errors import ReadFailed
from cellsync.model import (
    Action,
    Difference,
    Finding,
    Key,
    Pairing,
    Remedy,
    Row,
    Status,
    TableDiff,
    TableResult,
    Use,
    Way,
    keep_differences,
    shown,
)
from cellsync.run import accepting
from cellsync.run.look import State
from cellsync.run.planning import Found, Paired
from cellsync.run.reading import Got, Rows, Want, read

CODE = "preserved-id"


@dataclass(frozen=True, kw_only=True)
class UseCount:
    """How many rows use another one."""

    use: Use

    def read(self, database: db.Database) -> Sequence[int]:
        """Count them."""
        return (database.count_uses(self.use),)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The rows of one rule that refer to the row by their key."""

    pairing: Pairing
    at: int
    """Where in the key the reference stands."""

    def list_wants(self, key: Key) -> tuple[tuple[str, Rows], tuple[str, Rows]]:
        """Return what is to be read of both sides, by cell."""
        pairing = self.pairing
        sides = ((pairing.desired_cell, pairing.desired), (pairing.existing_cell, pairing.existing))
        one, other = (
            (cell, Rows(projection=diff.narrow_key(projection, (self.at,)), keys=((key,),)))
            for cell, projection in sides
        )
        return one, other


@dataclass(kw_only=True)
class _Case:
    """One row whose key has another preserved id."""

    child: str
    pairing: Pairing
    finding: Finding
    desired: Row
    existing: Row
    parts: list[_Part] = field(default_factory=list)
    uses: tuple[Use, ...] = ()
    against: list[str] = field(default_factory=list)
    """Why it is not replaced."""
    listing: list[Use] = field(default_factory=list)
    """The rows that stand against it."""

    @property
    def key(self) -> Key:
        """The key of the row."""
        return self.desired.key

    @property
    def column(self) -> str:
        """The column that holds the preserved id."""
        return plan.find_preserved(self.pairing) or ""

    def find_id(self, row: Row) -> Use:
        """Return which rows of the written table, deleted ones too, have the id of a row."""
        value = plan.plain_value(row.values[self.pairing.columns.index(self.column)])
        return Use(self.pairing.existing.table, self.column, value)


def replace_rows(
    state: State, pairs: Mapping[str, Paired], found: Mapping[str, Found]
) -> dict[str, dict[str, TableResult]]:
    """Return all tables, in which rows with another preserved id are replaced where they may be.

    Reads only the rows that findings name, and those that refer to them, and nothing where there are none.
    """
    result = {child: dict(tables) for child, tables in found.items()}
    asked = list(_find_asked(state, pairs, found))
    if not asked:
        return result
    cases = list(_read_cases(state, asked))
    for case in cases:
        _look_at_rules(state, case, pairs[case.child], found[case.child])
    wants: dict[str, list[Want[object]]] = {}
    for case in cases:
        for cell, want in _list_wants(case):
            wants.setdefault(cell, []).append(want)
    got = read(state, wants)
    for case in cases:
        _decide_case(state, result[case.child], case, got)
    return result


def _find_asked(
    state: State, pairs: Mapping[str, Paired], found: Mapping[str, Found]
) -> Iterator[tuple[str, Pairing, Finding]]:
    """Yield the findings that are about one key with two ids, and that nobody has accepted."""
    entries, today = state.request.topology.accepted, accepting.day(state.request.clock())
    for child, tables in found.items():
        for rule, table in tables.items():
            pairing = pairs[child].get(rule)
            if not isinstance(table, TableDiff) or not isinstance(pairing, Pairing):
                continue
            mine = tuple(f for f in table.findings if f.code == CODE and f.key is not None and not f.twins)
            if not mine or plan.find_preserved(pairing) is None:
                continue
            bare = replace(table, findings=mine, differences=())
            (marked,) = accepting.accept_findings({rule: bare}, entries, child=child, today=today)
            assert isinstance(marked, TableDiff)
            pairs_of = zip(mine, marked.findings, strict=True)
            yield from ((child, pairing, one) for one, accepted in pairs_of if not accepted.accepted)


def _read_cases(state: State, asked: Sequence[tuple[str, Pairing, Finding]]) -> Iterator[_Case]:
    """Read the rows of both sides again; a finding about rows that are gone by now stays as it is."""
    keys: dict[tuple[str, str], tuple[Key, ...]] = {}
    for child, pairing, finding in asked:
        place = (child, pairing.rule.id)
        keys[place] = (*keys.get(place, ()), finding.key or ())

    def list_wants(child: str, pairing: Pairing) -> Sequence[tuple[str, Rows]]:
        mine = keys[child, pairing.rule.id]
        sides = ((pairing.desired_cell, pairing.desired), (pairing.existing_cell, pairing.existing))
        return [(cell, Rows(projection=projection, keys=mine)) for cell, projection in sides]

    wants: dict[str, list[Want[Row]]] = {}
    for child, pairing, _ in asked:
        for cell, want in list_wants(child, pairing):
            wants.setdefault(cell, []).append(want)
    got = read(state, wants)
    for child, pairing, finding in asked:
        try:
            sides = [got.of(cell, want) for cell, want in list_wants(child, pairing)]
        except ReadFailed:
            continue
        key = finding.key or ()
        desired, existing = (diff.index_rows(r for r in rows if r.key == key) or {} for rows in sides)
        if key in desired and key in existing:
            rows = diff.apply_overrides(pairing, desired, child)
            case = _Case(
                child=child, pairing=pairing, finding=finding, desired=rows[key], existing=existing[key]
            )
            if case.find_id(case.desired) != case.find_id(case.existing):
                yield case


def _look_at_rules(state: State, case: _Case, pairs: Paired, found: Found) -> None:
    """Find the rows that refer to a row, and what speaks against replacing it whatever rows there are."""
    rule, every = case.pairing.rule, state.request.ruleset.rules
    if rule.replaces is None:
        case.against.append(f"the rule {rule.id} does not say that rows are replaced")
    for name in state.request.ruleset.torn.get(rule.id, ()):
        case.against.append(f"rows of {name} refer to it, and that rule is not part of this run")
    others: list[Pairing] = []
    for other in every:
        if other.comes_with is not None and other.comes_with.rule == rule.id:
            case.against.append(f"rows of {other.id} come with it")
        if rule.id not in other.references.values() or other.id not in pairs:
            continue
        pairing, table = pairs[other.id], found.get(other.id)
        if not isinstance(pairing, Pairing) or not isinstance(table, TableDiff):
            case.against.append(f"{other.id} refers to it, and could not be compared")
            continue
        others.append(pairing)
        places = [at for at, name in enumerate(other.key) if other.references.get(name) == rule.id]
        if places:
            case.parts.append(_Part(pairing=pairing, at=places[0]))
            case.against += _find_hindrances(state, case, pairing, table, places)
    look = state.looks[case.pairing.existing_cell]
    table_of = look.tables[case.pairing.existing.table]
    case.uses = plan.list_uses(case.pairing, table_of, others, case.find_id(case.existing).value)


def _find_hindrances(
    state: State, case: _Case, pairing: Pairing, table: TableDiff, places: Sequence[int]
) -> Iterator[str]:
    """Yield why rows that refer to a row cannot be replaced with it."""
    rule = pairing.rule
    narrowed = rule.where_existing is not None or rule.where_desired is not None or rule.route is not None
    if (
        narrowed
        or len(places) > 1
        or rule.comes_with is not None
        or rule.direction is not case.pairing.rule.direction
    ):
        yield f"the rule {rule.id} is about some of the rows alone that refer to it"
    if rule.on_missing is not Action.INSERT:
        yield f"the rule {rule.id} does not insert rows"
    if any(rule.id in other.references.values() for other in state.request.ruleset.rules):
        yield f"rows refer to rows of {rule.id}, which would go with it"
    if any(f.key is not None and f.key[places[0]] == case.key for f in table.findings):
        yield f"there is a finding about rows of {rule.id} that refer to it"


def _list_wants(case: _Case) -> Iterator[tuple[str, Want[object]]]:
    cell = case.pairing.existing_cell
    for use in (*case.uses, case.find_id(case.desired)):
        yield cell, UseCount(use=use)
    for part in case.parts:
        yield from part.list_wants(case.key)


def _decide_case(state: State, tables: dict[str, TableResult], case: _Case, got: Got) -> None:
    """Replace a row where nothing speaks against it; else say all that is known in the finding."""
    cell, rule = case.pairing.existing_cell, case.pairing.rule
    pieces: list[tuple[_Part, list[Difference]]] = []
    try:
        for use in case.uses:
            (number,) = got.of(cell, UseCount(use=use))
            if number:
                some = "1 row" if number == 1 else f"{number} rows"
                case.against.append(f"{some} of {use.table} in {cell} use its {case.column} by {use.column}")
                case.listing.append(use)
        taken = case.find_id(case.desired)
        (number,) = got.of(cell, UseCount(use=taken))
        if number:
            case.against.append(
                f"another row of {taken.table} in {cell} has {case.column} {shown(taken.value)}"
            )
            case.listing.append(taken)
        reason = f"it goes with the row of {rule.id} that is replaced"
        for part in case.parts:
            sides = []
            for side, want in part.list_wants(case.key):
                rows = diff.restore_keys(part.pairing, got.of(side, want), ((case.key,),), (part.at,))
                sides.append(diff.index_rows(rows))
            desired, existing = sides
            if desired is None or existing is None:
                case.against.append(f"rows of {part.pairing.rule.id} that refer to it cannot be told apart")
                continue
            found = diff.compare_replaced(part.pairing, desired, existing, child=case.child, reason=reason)
            pieces.append((part, list(found)))
    except ReadFailed as error:
        case.against.append(f"what uses it could not be read: {error}")
    if case.against:
        table = tables[rule.id]
        assert isinstance(table, TableDiff)
        told = _tell_finding(state, case)
        findings = tuple(told if each is case.finding else each for each in table.findings)
        tables[rule.id] = replace(table, findings=findings)
        return
    old, new = (shown(case.find_id(row).value) for row in (case.existing, case.desired))
    name = case.column
    reason = f"nothing in {cell} uses {name} {old}: the row is removed, and inserted with {name} {new}"
    both = {case.key: case.desired}, {case.key: case.existing}
    lead = list(diff.compare_replaced(case.pairing, *both, child=case.child, reason=reason))
    tables[rule.id] = _with_replaced(tables[rule.id], lead, case.key, finding=case.finding)
    for part, found_now in pieces:
        name = part.pairing.rule.id
        tables[name] = _with_replaced(tables[name], found_now, case.key, at=part.at)


def _with_replaced(
    table: TableResult,
    replaced: Sequence[Difference],
    key: Key,
    *,
    finding: Finding | None = None,
    at: int | None = None,
) -> TableDiff:
    """Return a table with the rows of a key, or that refer to it, replaced, whatever was said of them."""
    assert isinstance(table, TableDiff)

    def is_meant(other: Key) -> bool:
        return other == key if at is None else other[at] == key

    kept = (each for each in table.differences if not is_meant(each.key))
    differences = keep_differences((*kept, *replaced))
    findings = tuple(each for each in table.findings if each is not finding)
    return replace(
        table,
        differences=differences,
        findings=findings,
        aside=tuple(row for row in table.aside if not is_meant(row.key)),
        status=Status.DIFFERS if differences or findings else Status.IN_STEP,
    )


# -- What the finding says -------------------------------------------------------------------------


def _tell_finding(state: State, case: _Case) -> Finding:
    """Return the finding with the columns that differ, what speaks against a repair, and what to do."""
    secrets, table = state.request.topology.secrets, case.pairing.existing.table
    columns = [
        f"{each.column} is {shown(secrets.safe(each.column, each.existing, table=table))} instead of "
        f"{shown(secrets.safe(each.column, each.desired, table=table))}"
        for each in diff.changed(case.pairing, case.desired, case.existing)
        if each.column != case.column
    ]
    parts = [case.finding.message, *([", ".join(columns)] if columns else ["no other column differs"])]
    parts.append(f"it is not replaced: {'; '.join(case.against)}")
    text, cell = _find_remedy(case), case.pairing.existing_cell
    return replace(case.finding, message="; ".join(parts), do=Remedy(text=text, way=Way.SQL, cell=cell))


def _find_remedy(case: _Case) -> str:
    """Return statements that list the rows that stand against it, or remove the old row as a repair would."""
    repair = f"-- then run: cellsync repair {case.child}"
    if case.listing:
        lines = [_spell_listing(use) for use in case.listing]
        return "\n".join([*lines, "-- lists what stands against it: once that is gone,", repair])
    if case.pairing.rule.replaces is not None:
        return f"{repair}, without --rule and --feature, where all rules allow it"
    old = case.find_id(case.existing)
    lines = [
        _spell_removal(part.pairing, part.pairing.existing.key[part.at].column, old) for part in case.parts
    ]
    return "\n".join([*lines, _spell_removal(case.pairing, case.column, old), repair])


def _spell_listing(use: Use) -> str:
    where = f" AND ({use.where})" if use.where else ""
    return f"SELECT * FROM `{use.table}` WHERE `{use.column}` = {literal(use.value)}{where};"


def _spell_removal(pairing: Pairing, column: str, old: Use) -> str:
    table, soft = pairing.existing.table, pairing.existing.soft_delete
    condition = f"`{column}` = {literal(old.value)}"
    if soft is None:
        return f"DELETE FROM `{table}` WHERE {condition};"
    stamp = f", `{soft.at}` = UTC_TIMESTAMP()" if soft.at else ""
    return (
        f"UPDATE `{table}` SET `{soft.column}` = `{soft.tombstone}`{stamp} "
        f"WHERE {condition} AND `{soft.column}` = {literal(soft.live)};"
    )

"""Turn what was found in every cell into plans, and everything together into a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Union

from cellsync import diff, journal, plan
from cellsync.errors import ReadFailed, WriteFailed
from cellsync.model import (
    Action,
    Cell,
    CellFailure,
    CellResult,
    Direction,
    Identity,
    Key,
    Kind,
    Pairing,
    Refusal,
    Report,
    Status,
    TableDiff,
    TableFailure,
    TableResult,
    keep_differences,
)
from cellsync.run import accepting, clashes, detecting
from cellsync.run.fitting import Fitting
from cellsync.run.look import State
from cellsync.run.origins import find_deletions
from cellsync.run.reading import Router, failed
from cellsync.run.request import Desired, Edge, Prepared, Request, exit_code, with_plans

Paired = Mapping[str, Union[Pairing, TableFailure]]
"""Rule id -> how it is compared on one edge; rules whose gate is shut are left out."""

Found = Mapping[str, TableResult]
"""Rule id -> result on one edge, in the order of the rules."""


class Counts(NamedTuple):
    """How many rows the desired side of an edge had."""

    first: int | None = None
    """At the first reading, where the comparison knows only those of one child."""
    again: int | None = None
    """After the recheck, where the rule would delete."""


def planned(
    state: State,
    pairs: Mapping[str, Paired],
    found: Mapping[str, Found],
    detected: Mapping[str, Found],
    counts: Mapping[tuple[str, str], Counts],
) -> Prepared:
    """Plan every edge from what was found on it, and put it all into a report.

    ``detected`` is what detectors found in each child: it is reported, and nothing is planned. ``counts``
    are by child and rule.
    """
    cells: list[CellResult | CellFailure] = []
    edges: list[Edge] = []
    for child in state.request.children:
        if child.name in state.failures:
            cells.append(state.failures[child.name])
            continue
        try:
            mine = {rule: each for (name, rule), each in counts.items() if name == child.name}
            result, of_cell = _plan_cell(state, child, pairs[child.name], found[child.name], mine)
        except (ReadFailed, WriteFailed) as error:
            # Without the memory of what was pushed, a renamed row would pass for another one.
            failed = f"which rows were pushed could not be read from the journal: {error}"
            cells.append(CellFailure(cell=child.name, status=Status.INCOMPLETE, error=failed))
            continue
        cells.append(_with_detected(state, result, detected[child.name]))
        edges += of_cell
    cells = [_marked(state, cell) for cell in cells]
    remaining = any(_counts(table) for cell in cells if isinstance(cell, CellResult) for table in cell.tables)
    notes = accepting.notes(state.request.topology.accepted, state.request.ruleset)
    notes += detecting.notes(state)
    made = replace(report(state.request, cells, remaining=remaining), notes=notes)
    return Prepared(report=made, edges=tuple(edges))


def _marked(state: State, cell: CellResult | CellFailure) -> CellResult | CellFailure:
    """Say of a child that it is isolated: it is compared and repaired all the same."""
    look = state.looks.get(state.parent)
    rows = look.register if look else ()
    if not diff.is_isolated(rows, cell.cell):
        return cell
    last = diff.last_removed(rows, cell.cell)
    return replace(cell, isolated=(last.deleted_at if last else None) or "an unknown time")


def _plan_cell(
    state: State, child: Cell, pairs: Paired, found: Found, counts: Mapping[str, Counts]
) -> tuple[CellResult, list[Edge]]:
    names = {"parent": state.parent, "child": child.name}
    secrets = state.request.topology.secrets
    decided: dict[str, TableResult] = {}
    for rule, table in _followed(state, child, pairs, found).items():
        pairing = pairs[rule]
        both = isinstance(table, TableDiff) and isinstance(pairing, Pairing)
        decided[rule] = plan.decide(pairing, table, names, secrets) if both else table  # type: ignore[arg-type]
    decided = _coming(pairs, _accepted(state, child, pairs, decided))
    edges: list[Edge] = []
    for direction in Direction:
        target, compared = (
            _target(state, child, direction),
            _compared(state, child, direction, pairs, decided, counts=counts),
        )
        if compared:
            compared, decided, refusals = _previewed(state, child, compared, target, decided)
            decided = _coming(pairs, decided)
            edges.append(_edge(state, direction, compared, target, found=decided, refusals=refusals))
    # A diff writes nothing, so nothing is refused: it shows what a repair would refuse.
    writing = state.request.run.verb != "diff"
    refusals = [refusal for edge in edges for refusal in edge.plan.refusals]
    refused = {refusal.rule for refusal in refusals if writing}
    waits = plan.list_waiting(refusals)
    tables = tuple(
        replace(table, status=Status.REFUSED) if rule in refused else table
        for rule, table in ((rule, _with_waits(table, waits)) for rule, table in decided.items())
    )
    result = CellResult(cell=child.name, status=worst(tables), tables=tables)
    return with_plans(result, [edge.plan for edge in edges]), edges


def _with_waits(table: TableResult, waits: Mapping[str, frozenset[Action]]) -> TableResult:
    if not isinstance(table, TableDiff) or table.rule not in waits:
        return table
    return replace(table, waits=waits[table.rule])


def _with_detected(state: State, cell: CellResult, detected: Found) -> CellResult:
    """Add what detectors found in a child to what its rules found."""
    entries, today = state.request.topology.accepted, accepting.day(state.request.clock())
    marked = accepting.accept_findings(detected, entries, child=cell.cell, today=today)
    tables = (*cell.tables, *map(_judged, marked))
    return replace(cell, tables=tables, status=worst(tables))


def _accepted(state: State, child: Cell, pairs: Paired, decided: Found) -> dict[str, TableResult]:
    """Set aside what people live with, and set the status of every table by what counts."""
    entries, today = state.request.topology.accepted, accepting.day(state.request.clock())
    marked = accepting.accept(decided, pairs, entries, child=child.name, today=today)
    return {rule: _judged(table) for rule, table in marked.items()}


def _coming(pairs: Paired, decided: Found) -> dict[str, TableResult]:
    """Leave the rows out that would come with rows which are not inserted after all."""
    left = dict(decided)
    for rule, table in decided.items():
        pairing = pairs[rule]
        if not isinstance(pairing, Pairing) or not isinstance(table, TableDiff):
            continue
        if pairing.rule.comes_with is None:
            continue
        led = _inserted(pairing, pairs, decided)
        differences = (d for d in table.differences if pairing.rule.leading(d.key) in led)
        findings = (f for f in table.findings if f.key is None or pairing.rule.leading(f.key) in led)
        kept_back = replace(table, differences=keep_differences(differences), findings=tuple(findings))
        left[rule] = _judged(kept_back)
    return left


def _inserted(pairing: Pairing, pairs: Paired, decided: Found) -> set[Key]:
    """Return with which rows others come, as the part of the key that they have in common."""
    assert pairing.rule.comes_with is not None
    name = pairing.rule.comes_with.rule
    leader, table = pairs[name], decided[name]
    if not isinstance(leader, Pairing) or not isinstance(table, TableDiff):
        return set()
    return {pairing.rule.led(leader.rule, d.key) for d in table.select({Action.INSERT})}


def _followed(state: State, child: Cell, pairs: Paired, found: Found) -> Found:
    """Recognise the rows that cellsync pushed under their old keys, rule after rule."""
    moved = {rule for rule, table in found.items() if isinstance(table, TableDiff) and _moved(table)}
    if not moved:
        return found
    known: dict[str, Mapping[Identity, Identity]] = {}
    for direction in Direction:
        rules = [rule for rule in moved if found[rule].direction is direction]
        down = direction is Direction.DOWN
        written, origin = (child.name, state.parent) if down else (state.parent, child.name)
        database, schema = state.databases[written], state.looks[written].identity.schema
        for rule, table in ((rule, found[rule]) for rule in rules):
            if isinstance(table, TableDiff) and table.count(Kind.EXTRA):
                about = {"database": schema, "origin_cell": origin}
                known[rule] = journal.pushed(database, rule, _extra(table), **about)
    followed = dict(found)
    renames: dict[str, Mapping[Key, Key]] = {}
    for rule, table in found.items():
        pairing = pairs[rule]
        if rule in moved and isinstance(table, TableDiff) and isinstance(pairing, Pairing):
            result = diff.follow(pairing, table, pushed=known.get(rule, {}), renames=renames)
            followed[rule], renames[rule] = find_deletions(state, pairing, result.table), result.renames
    return followed


def _extra(table: TableDiff) -> Iterator[Identity]:
    """Yield the primary keys of the extra rows."""
    return (d.existing.identity for d in table.differences if d.kind is Kind.EXTRA and d.existing)


def _moved(table: TableDiff) -> bool:
    """Say whether a renamed or a pushed row could be among the differences."""
    return table.count(Kind.EXTRA) > 0 or table.count(Kind.CHANGED) > 0


def _judged(table: TableResult) -> TableResult:
    """Set the status of a table by what counts: what is ignored or accepted does not."""
    if isinstance(table, TableFailure):
        return table
    return replace(table, status=Status.DIFFERS if _counts(table) else Status.IN_STEP)


def _counts(table: TableResult) -> bool:
    if isinstance(table, TableFailure):
        return False
    findings = any(not finding.accepted for finding in table.findings)
    return findings or any(sort.action is not Action.IGNORE for sort in table.tally)


_RANK = (
    Status.IN_STEP,
    Status.REPAIRED,
    Status.DIFFERS,
    Status.REFUSED,
    Status.INCOMPLETE,
    Status.UNREACHABLE,
)


def worst(tables: Sequence[TableResult]) -> Status:
    """Return how a cell stands: as its worst table, and incomplete when rows could not be judged."""
    unjudged = any(isinstance(table, TableDiff) and table.unknown for table in tables)
    statuses = [table.status for table in tables] + ([Status.INCOMPLETE] if unjudged else [])
    return max(statuses, key=_RANK.index, default=Status.IN_STEP)


def _compared(
    state: State,
    child: Cell,
    direction: Direction,
    pairs: Paired,
    found: Found,
    *,
    counts: Mapping[str, Counts],
) -> list[plan.Compared]:
    written = child if direction is Direction.DOWN else state.request.topology.parent
    tables = state.looks[written.name].tables
    compared: list[plan.Compared] = []
    for rule, table in found.items():
        pairing = pairs[rule]
        if table.direction is direction and isinstance(table, TableDiff) and isinstance(pairing, Pairing):
            existing = tables[pairing.existing.table]
            first, again = counts.get(rule, Counts())
            compared.append(
                plan.Compared(
                    pairing=pairing,
                    table=table,
                    written=existing,
                    desired_first=first,
                    desired_again=again,
                )
            )
    return compared


def _target(state: State, child: Cell, direction: Direction) -> plan.Target:
    look = state.looks[child.name if direction is Direction.DOWN else state.parent]
    return plan.Target(
        child=child.name,
        written=child.name if direction is Direction.DOWN else state.parent,
        database=look.identity,
        names={"parent": state.parent, "child": child.name},
        version=look.version,
        health=look.health,
    )


def _previewed(
    state: State, child: Cell, compared: Sequence[plan.Compared], target: plan.Target, decided: Found
) -> tuple[list[plan.Compared], dict[str, TableResult], list[Refusal]]:
    """Set the rows aside that the written tables would not take, as findings; say what guards hold back."""
    origin = state.parent if target.written == child.name else child.name
    about = Fitting(
        databases=state.databases,
        target=target,
        desired=state.looks[origin].tables,
        failed=[rule for rule, table in decided.items() if isinstance(table, TableFailure)],
        secrets=state.request.topology.secrets,
        run=state.request.run,
    )
    try:
        found, refusals = _find_clashes(state, about, about.set_unfit_aside(compared))
    except ReadFailed as error:
        why = f"what its rows would clash with could not be read: {error}"
        lost = [each for each in compared if each.table.differences]
        failures = {each.table.rule: failed(each.pairing.rule, why) for each in lost}
        return [each for each in compared if not each.table.differences], {**decided, **failures}, []
    entries, today = state.request.topology.accepted, accepting.day(state.request.clock())
    result = dict(decided)
    for before, after in zip(compared, found, strict=True):
        if after.table is not before.table:
            fresh = replace(
                after.table, differences=(), findings=after.table.findings[len(before.table.findings) :]
            )
            name = after.table.rule
            (marked,) = accepting.accept_findings({name: fresh}, entries, child=child.name, today=today)
            assert isinstance(marked, TableDiff)
            findings = (*before.table.findings, *marked.findings)
            result[name] = _judged(replace(after.table, findings=findings))
    return found, result, refusals


def _find_clashes(
    state: State, about: Fitting, compared: Sequence[plan.Compared]
) -> tuple[list[plan.Compared], list[Refusal]]:
    """Return the rules without the rows that would clash, and the guards; what waits clashes with nothing."""
    waived = state.request.waived

    def find(rules: Sequence[plan.Compared], refusals: Sequence[Refusal]) -> list[plan.Compared]:
        return clashes.find_clashes(
            state.databases,
            rules,
            about.target,
            desired=about.desired,
            failed=about.failed,
            refused=plan.list_stopped(refusals),
            secrets=about.secrets,
        )

    found = find(compared, plan.find_refusals(compared, about.target, waived))
    refusals = plan.find_refusals(found, about.target, waived)
    if not any(refusal.holds for refusal in refusals):
        return found, refusals
    again = find(plan.arrange_held(compared, refusals), refusals)
    return [_take_findings(*each) for each in zip(compared, again, strict=True)], refusals


def _take_findings(each: plan.Compared, again: plan.Compared) -> plan.Compared:
    """Return a rule with the findings about it when it had fewer changes, and without the rows of these."""
    fresh = again.table.findings[len(each.table.findings) :]
    left = plan.leave_out(each, {finding.key for finding in fresh if finding.key is not None})
    table = replace(left.table, findings=(*left.table.findings, *fresh)) if fresh else left.table
    return replace(left, table=table, clashes=again.clashes)


def _edge(
    state: State,
    direction: Direction,
    compared: Sequence[plan.Compared],
    target: plan.Target,
    *,
    found: Found,
    refusals: Sequence[Refusal],
) -> Edge:
    cells = {cell.name: cell for cell in (state.request.topology.parent, *state.request.children)}
    rules = state.request.ruleset.rules
    current = [replace(each, table=found[each.pairing.rule.id]) for each in compared]  # type: ignore[arg-type]
    desired = _desired(state, cells[target.child], direction, compared)
    return Edge(
        cell=cells[target.written],
        child=target.child,
        direction=direction,
        desired=desired,
        plan=replace(
            plan.build(
                current,
                target,
                waived=state.request.waived,
                failed=[rule for rule, table in found.items() if isinstance(table, TableFailure)],
                coming={rule.id: rule.comes_with.rule for rule in rules if rule.comes_with is not None},
                refusals=refusals,
            ),
            targets={each.pairing.rule.id: each.pairing.existing for each in compared},
            tables=state.looks[target.written].tables,
            desired_rows=desired.rows,
        ),
    )


def _desired(state: State, child: Cell, direction: Direction, compared: Sequence[plan.Compared]) -> Desired:
    """Return what the desired side of an edge was, for the checks of the writing."""
    down = direction is Direction.DOWN
    cell = state.request.topology.parent if down else child
    router = Router(state)
    dealt = [each.pairing.rule for each in compared if down and each.pairing.rule.route is not None]
    return Desired(
        cell=cell,
        child=child.name,
        database=state.looks[cell.name].identity,
        projections={each.pairing.rule.id: each.pairing.desired for each in compared},
        tables=state.looks[cell.name].tables,
        rows={
            each.pairing.rule.id: each.table.desired_rows
            if each.desired_first is None
            else each.desired_first
            for each in compared
        },
        owners={rule.id: owners for rule in dealt if (owners := router.owners(rule)) is not None},
    )


def report(request: Request, cells: Sequence[CellResult | CellFailure], *, remaining: bool) -> Report:
    """Return the report of a comparison; ``remaining`` says whether anything in it counts."""
    named = request.ruleset.named
    names = dict.fromkeys(feature for each in named for feature in each.features)
    described = {name: request.ruleset.feature(name) for name in names}
    return Report(
        run=request.run,
        finished=request.clock(),
        cells=tuple(cells),
        features={name: feature.lost if feature else "" for name, feature in described.items()},
        rule_features={each.id: each.features for each in named},
        rule_whys={each.id: each.why for each in named if each.why},
        secrets=request.topology.secrets,
        left_out=request.topology.left_out,
        exit_code=exit_code(cells, remaining=remaining, refusals=request.run.verb != "diff"),
    )

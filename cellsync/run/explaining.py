"""`explain`: what a feature needs, step by step, and in each child the first thing that is missing.

The steps stand in the pack: rules that must be in step, queries that must find something, or nothing, or
questions to the parent and the child that give one statement for each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from cellsync import db, diff, plan, rules
from cellsync.errors import CellsyncError, ReadFailed
from cellsync.model import (
    Action,
    Answer,
    Cell,
    CellFailure,
    CellResult,
    Difference,
    Explained,
    Explanation,
    Finding,
    Found,
    HopStatus,
    Kind,
    Need,
    Remedy,
    Role,
    TableDiff,
    TableFailure,
    Value,
    Way,
    shown,
)
from cellsync.rules import grammar
from cellsync.run.compare import compare
from cellsync.run.look import read_version
from cellsync.run.request import Request, each_cell, executor

UNTOLD = "whether it is needed cannot be told: the parent's schema has no version that can be compared"
SHOWN = 5
"""So many of the values that a query finds are shown."""

STATUSES: Mapping[str, HopStatus] = {
    status.value: status for status in HopStatus if status is not HopStatus.UNKNOWN
}


class _Question(NamedTuple):
    """One query for one cell."""

    cell: str
    sql: str
    child: str
    """Empty where the query does not name the child: then it is asked once for all children."""
    most: int | None
    """So many rows are taken; None for a query whose columns have no names."""


Asked = Mapping[_Question, "Answer | str"]
"""Question -> its answer, or why it could not be asked."""


class _Seen(NamedTuple):
    """All that a step is judged by."""

    parent: str
    version: Value
    results: Mapping[str, CellResult | CellFailure]
    asked: Asked
    scope: str
    """The options of ``repair`` and ``diff`` that select all rules which the feature needs."""


class _Placeholders(dict[str, str]):
    """Values for a template; a column that is not known stands there in capitals."""

    def __missing__(self, name: str) -> str:
        return name.upper()


def explain(request: Request, feature: str) -> Explanation:
    """Say what a feature needs and what of it is there. Reads only.

    Raises UsageError for a feature that no rule serves.
    """
    every = _needs(request, feature)
    # A step may name a rule of another feature.
    named = [name for need in every for name in need.rules]
    ruleset = rules.select(request.ruleset, rules=named, features=[feature])
    described = request.ruleset.feature(feature)
    report = compare(replace(request, ruleset=ruleset)).report
    results = {cell.cell: cell for cell in report.cells}
    version = _version(request)
    needs = [need for need in every if _admits(need, version) is not False]
    asked = _ask_all(request, needs)
    seen = _Seen(
        request.topology.parent.name, version, results, asked, _choose_scope(request, feature, needs)
    )
    cells = []
    for child in request.children:
        found = [found for need in needs for found in _judge_need(need, child, seen)]
        cells.append(Explained(cell=child.name, found=tuple(found)))
    return Explanation(feature=feature, lost=described.lost if described else "", cells=tuple(cells))


def _admits(need: Need, version: Value) -> bool | None:
    """Say whether a step is for this version of the parent; None where that cannot be told."""
    return True if need.when is None else need.when.admits(version)


def _needs(request: Request, feature: str) -> Sequence[Need]:
    """Return what the packs say of a feature, then the rules and detectors of it that no step has named."""
    said = [need for pack in request.ruleset.packs for need in pack.explains.get(feature, ())]
    named = {name for need in said for name in need.rules}
    serving = [
        Need(says=rule.why or f"{rule.table} is in step", rules=(rule.id,), when=rule.when)
        for rule in request.ruleset.rules
        if feature in rule.features and rule.id not in named
    ]
    looking = [
        Need(says=each.why or f"{each.id} finds nothing", rules=(each.id,))
        for each in request.ruleset.detectors
        if feature in each.features and each.id not in named
    ]
    return [*said, *serving, *looking]


def _version(request: Request) -> Value:
    """Return the schema version of the parent, None where it cannot be read: then no gate opens."""
    try:
        with db.connect(request.topology.parent, request.timeouts) as database:
            return read_version(database)
    except CellsyncError:
        return None  # the comparison has said why the parent cannot be read


def _choose_scope(request: Request, feature: str, needs: Sequence[Need]) -> str:
    """Return the options that select every rule which the steps name: rules of a feature build on each other.

    The feature itself, else another one that has all of these rules, else the rules one by one.
    """
    rules_of = {rule.id: rule for rule in request.ruleset.rules}
    needed = [
        name for name in dict.fromkeys(name for need in needs for name in need.rules) if name in rules_of
    ]
    if len(needed) > 1:
        others = (name for rule in needed for name in rules_of[rule].features)
        for name in dict.fromkeys((feature, *others)):
            if all(name in rules_of[rule].features for rule in needed):
                return f"--feature {name}"
    return " ".join(f"--rule {name}" for name in needed)


# -- Asking --------------------------------------------------------------------------------------


def _questions_of(need: Need, parent: str, child: str) -> Mapping[str, _Question]:
    """Return what a step asks about a child, by the names of the answers."""
    if need.query:
        cell = parent if need.cell is Role.PARENT else child
        return {"": _Question(cell, need.query, _named_child(need.query, child), None)}
    return {
        ask.name: _Question(
            parent if ask.of is Role.PARENT else child, ask.sql, _named_child(ask.sql, child), ask.most
        )
        for ask in need.asks
    }


def _named_child(sql: str, child: str) -> str:
    return child if "child" in grammar.parameters(sql) else ""


def _ask_all(request: Request, needs: Sequence[Need]) -> Asked:
    """Ask every question of the steps, each cell through one connection and in one snapshot."""
    parent = request.topology.parent.name
    wanted: dict[str, dict[_Question, None]] = {}
    for child in request.children:
        for need in needs:
            for question in _questions_of(need, parent, child.name).values():
                wanted.setdefault(question.cell, {})[question] = None

    def task(cell: Cell) -> dict[_Question, Answer | str]:
        within = request.timeouts.within(cell.budget.time)
        with db.connect(cell, within) as database, database.snapshot():
            return {question: _answer(database, question, parent) for question in wanted[cell.name]}

    answers: dict[_Question, Answer | str] = {}
    cells = [cell for cell in (request.topology.parent, *request.children) if cell.name in wanted]
    with executor(request.jobs) as pool:
        for name, told in each_cell(pool, task, cells).items():
            failed = isinstance(told, CellFailure)
            answers.update(dict.fromkeys(wanted[name], told.error) if failed else told)  # type: ignore[union-attr, arg-type]
    return answers


def _answer(database: db.Database, question: _Question, parent: str) -> Answer | str:
    about = {"parent": parent, "child": question.child}
    try:
        if question.most is None:
            return Answer(columns=(), rows=tuple(map(tuple, database.query(question.sql, **about))))
        return database.answer(question.sql, parameters=about, most=question.most)
    except CellsyncError as error:
        return str(error)


# -- Judging -------------------------------------------------------------------------------------


def _judge_need(need: Need, child: Cell, seen: _Seen) -> Iterator[Found]:
    """Yield how a step stands in a child: one statement, or one for each row that it finds."""
    names = {"parent": seen.parent, "child": child.name}
    if _admits(need, seen.version) is None:
        yield _state(need, names, HopStatus.UNKNOWN, UNTOLD)
        return
    answers = {
        name: seen.asked[question] for name, question in _questions_of(need, seen.parent, child.name).items()
    }
    if need.finds:
        yield from _judge_rows(need, names, answers)
    elif need.query:
        yield _state(need, names, *_of_query(need, answers[""]))
    elif need.rules:
        status, evidence, advice = _of_rules(need, seen.results[child.name], child, seen.scope)
        yield _state(need, names, status, evidence, advice)
    else:
        yield _state(need, names, HopStatus.OK, "")


def _judge_rows(need: Need, names: Mapping[str, str], answers: Mapping[str, Answer | str]) -> Iterator[Found]:
    lost = next((f"{name}: {told}" for name, told in answers.items() if isinstance(told, str)), None)
    told = {name: answer for name, answer in answers.items() if isinstance(answer, Answer)}
    try:
        if lost is not None:
            raise ReadFailed(lost)
        rows = diff.join_answers(need.finds, told, names)
        for column in ("status", "evidence"):
            if column not in rows.columns:
                raise ReadFailed(f"finds has no column {column}, but {', '.join(rows.columns)}")
    except ReadFailed as error:
        yield _state(need, names, HopStatus.UNKNOWN, f"cannot be asked: {error}")
        return
    for row in rows.rows:
        values = dict(zip(rows.columns, row, strict=True))
        status = STATUSES.get(str(values["status"]), HopStatus.UNKNOWN)
        evidence = shown(values["evidence"])
        if status is HopStatus.UNKNOWN:
            evidence = f"finds has the status {shown(values['status'])}: {evidence}"
        yield _state(
            need, {**{name: shown(value) for name, value in values.items()}, **names}, status, evidence
        )


def _state(need: Need, names: Mapping[str, str], status: HopStatus, evidence: str, advice: str = "") -> Found:
    if status is HopStatus.BROKEN and need.optional:
        status = HopStatus.WARN
    known = _Placeholders(names)
    do = need.do.format_map(known) or advice
    noted = not need.query and not need.rules and not need.finds
    return Found(
        needs=need.says.format_map(known),
        status=status,
        evidence=evidence,
        do=do if noted or status in (HopStatus.BROKEN, HopStatus.WARN) else "",
    )


def _of_query(need: Need, answer: Answer | str) -> tuple[HopStatus, str]:
    if isinstance(answer, str):
        return HopStatus.UNKNOWN, f"cannot be asked: {answer}"
    rows = answer.rows
    values = ["/".join(map(shown, row)) for row in rows]
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    listed = ", ".join(values[:SHOWN]) + more
    met = bool(rows) is not need.none
    return HopStatus.OK if met else HopStatus.BROKEN, listed or ("none" if need.none else "nothing is there")


def _of_rules(
    need: Need, cell: CellResult | CellFailure, child: Cell, scope: str
) -> tuple[HopStatus, str, str]:
    if isinstance(cell, CellFailure):
        return HopStatus.UNKNOWN, f"could not be compared: {cell.error}", ""
    tables = {table.rule: table for table in cell.tables}
    rows = 0
    doubts: list[Finding] = []
    for rule in need.rules:
        table = tables.get(rule)
        if table is None:
            continue  # its gate is shut for this version
        if isinstance(table, TableFailure):
            return HopStatus.UNKNOWN, f"{rule} could not be compared: {table.error}", ""
        lacking = list(_lacking(table))
        if lacking:
            verb = "repair" if any(each.action in plan.WRITING for each in lacking) else "diff"
            return HopStatus.BROKEN, _words(table, lacking), f"cellsync {verb} {child.name} {scope}"
        doubts += [finding for finding in table.findings if not finding.accepted]
        rows += table.desired_rows
    if doubts:
        do = next((_words_of(doubt.do) for doubt in doubts if doubt.do), "")
        evidence = "; ".join(doubt.message for doubt in doubts)
        return HopStatus.WARN, evidence, do or f"cellsync diff {child.name} has the findings"
    judged = [tables[rule] for rule in need.rules if rule in tables]
    if judged and all(table.detector for table in judged):
        return HopStatus.OK, "nothing is found", ""
    return HopStatus.OK, f"{rows} {'row is' if rows == 1 else 'rows are'} in step", ""


def _words_of(remedy: Remedy) -> str:
    """Return what to do about a finding, with the database that statements are for."""
    return f"SQL in {remedy.cell}: {remedy.text}" if remedy.way is Way.SQL else remedy.text


def _lacking(table: TableDiff) -> Iterator[Difference]:
    """Yield what of a rule's rows is not as it should be: not what only the child has."""
    for each in table.differences:
        if each.kind is not Kind.EXTRA and each.action is not Action.IGNORE and not each.accepted:
            yield each


def _words(table: TableDiff, lacking: Sequence[Difference]) -> str:
    first = lacking[0]
    key = ", ".join(f"{name}={shown(part)}" for name, part in zip(table.key, first.key, strict=True))
    more = f", and {len(lacking) - 1} more in {table.rule}" if len(lacking) > 1 else ""
    return (first.reason or f"{first.kind.value} {key}") + more

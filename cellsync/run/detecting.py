"""Detectors: ask all cells at once, relate their answers, and keep what is still so a while later.

A question is a value, so what several detectors or children ask of one database is asked once. What
could not be asked makes a detector incomplete: it could have found anything there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Union

from cellsync import db, diff
from cellsync.errors import CellsyncError, ReadFailed
from cellsync.model import (
    Answer,
    Ask,
    Cell,
    CellFailure,
    Detector,
    Direction,
    Finding,
    Source,
    TableDiff,
    TableFailure,
    TableResult,
)
from cellsync.rules import grammar
from cellsync.run.look import State, unfit
from cellsync.run.request import each_cell

Found = Mapping[str, TableResult]
"""Detector's id -> what it found in one child, in the order of the files."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One SELECT for one database."""

    cell: str
    database: str
    """One of ``Cell.databases``; empty for the cell's own."""
    sql: str
    child: str
    """The value of :child; empty where the query has none, so that it is asked once for all children."""
    most: int


Answers = Mapping[Question, Union[Answer, str]]
"""What was answered, or why nothing was."""


def detect(state: State, only: Mapping[str, Found] | None = None) -> dict[str, Found]:
    """Let all detectors look at the children in scope, and return what they find in each.

    With ``only``, what was found before, those look again that found something by asking more than
    one database: these were not read at one instant, so what they find now may be something else,
    and what they found before and do not find now counts for nothing.
    """
    plans = {child: _due(state, child, only[child] if only else None) for child in state.going}
    wanted = {
        question
        for child, detectors in plans.items()
        for detector in detectors.values()
        if isinstance(detector, Detector)
        for questions in _questions(state, detector, child).values()
        for question in questions
    }
    answers = _ask(state, wanted)
    found: dict[str, Found] = {
        child: {name: _result(state, each, child, answers) for name, each in detectors.items()}
        for child, detectors in plans.items()
    }
    return found if only is None else {child: _still(only[child], found[child]) for child in plans}


def notes(state: State) -> tuple[str, ...]:
    """Say which optional detectors were left out, as they ask a database that is not configured."""
    return tuple(
        f"{detector.id} is not looked for: cellsync.yaml names no database {lacking}"
        for detector in state.request.ruleset.detectors
        if detector.optional and (lacking := _lacking(state, detector))
    )


# -- What is to be asked ------------------------------------------------------------------------


def _due(state: State, child: str, before: Found | None) -> dict[str, Detector | TableFailure]:
    """Return the detectors that look at a child, or why one of them cannot."""
    due: dict[str, Detector | TableFailure] = {}
    for detector in state.request.ruleset.detectors:
        admitted = detector.when is None or detector.when.admits(state.looks[state.parent].version)
        if admitted is False or (detector.optional and _lacking(state, detector)):
            continue
        pack = next(pack for pack in state.request.ruleset.packs if pack.name == detector.pack)
        error = unfit(state, pack, child)
        if admitted is None and detector.when is not None:
            version = state.looks[state.parent].version
            error = f"whether {detector.when.text!r} holds cannot be told from {version!r}"
        if before is None:
            due[detector.id] = detector if error is None else _failed(detector, error)
        elif _unsettled(detector, before[detector.id]):
            due[detector.id] = detector
    return due


def unsettled(state: State, found: Mapping[str, Found]) -> bool:
    """Say whether a detector must look again: see ``detect``."""
    detectors = state.request.ruleset.detectors
    return any(_unsettled(each, mine.get(each.id)) for mine in found.values() for each in detectors)


def _unsettled(detector: Detector, found: TableResult | None) -> bool:
    several = len(detector.asks) > 1 or detector.asks[0].of is Source.CHILDREN
    return several and isinstance(found, TableDiff) and bool(found.findings)


def _lacking(state: State, detector: Detector) -> str:
    """Return the database that a detector asks and some cell lacks, "placement of api"; "" for none."""
    topology = state.request.topology
    for ask in detector.asks:
        cells = (topology.parent,) if ask.of is Source.PARENT else topology.children
        for cell in cells:
            if ask.database and ask.database not in cell.databases:
                return f"{ask.database} of {cell.name}"
    return ""


def _questions(state: State, detector: Detector, child: str) -> dict[str, list[Question]]:
    """Return the questions that a detector asks to look at a child, by their names."""
    return {ask.name: list(_each(state, ask, child)) for ask in detector.asks}


def _each(state: State, ask: Ask, child: str) -> Iterator[Question]:
    every = [each.name for each in state.request.topology.children]
    cells = {Source.PARENT: [state.parent], Source.CHILD: [child], Source.CHILDREN: every}[ask.of]
    about = "child" in grammar.parameters(ask.sql)
    for cell in cells:
        named = child if ask.of is Source.PARENT else cell
        yield Question(
            cell=cell, database=ask.database, sql=ask.sql, child=named if about else "", most=ask.most
        )


# -- Asking -------------------------------------------------------------------------------------


def _ask(state: State, wanted: Iterable[Question]) -> Answers:
    """Ask all cells at once, each database in one snapshot."""
    of: dict[str, list[Question]] = {}
    for question in wanted:
        of.setdefault(question.cell, []).append(question)
    topology = state.request.topology
    cells = [cell for cell in (topology.parent, *topology.children) if cell.name in of]
    answers: dict[Question, Answer | str] = {}
    for cell in cells:
        failure = state.failures.get(cell.name)
        if failure is not None:
            answers.update(dict.fromkeys(of[cell.name], f"{cell.name} could not be asked: {failure.error}"))
    going = [cell for cell in cells if cell.name not in state.failures]
    for name, told in each_cell(state.pool, lambda cell: _answers(state, cell, of[cell.name]), going).items():
        answers.update(
            dict.fromkeys(of[name], f"{name} could not be asked: {told.error}")
            if isinstance(told, CellFailure)
            else told
        )
    return answers


def _answers(state: State, cell: Cell, questions: Iterable[Question]) -> dict[Question, Answer | str]:
    """Ask one cell, its own database and others of it."""
    by_database: dict[str, list[Question]] = {}
    for question in questions:
        by_database.setdefault(question.database, []).append(question)
    told: dict[Question, Answer | str] = {}
    for name, mine in by_database.items():
        if not name:
            told.update(_told(state, state.databases[cell.name], mine))
        elif name not in cell.databases:
            told.update(dict.fromkeys(mine, f"cellsync.yaml names no database {name} of {cell.name}"))
        else:
            told.update(_elsewhere(state, replace(cell, database=cell.databases[name]), mine))
    return told


def _elsewhere(state: State, cell: Cell, questions: list[Question]) -> dict[Question, Answer | str]:
    try:
        with db.connect(cell, state.request.timeouts) as database:
            return _told(state, database, questions)
    except CellsyncError as error:
        return dict.fromkeys(questions, str(error))


def _told(state: State, database: db.Database, questions: list[Question]) -> dict[Question, Answer | str]:
    with database.snapshot():
        return {question: _answer(state, database, question) for question in questions}


def _answer(state: State, database: db.Database, question: Question) -> Answer | str:
    given = {"parent": state.parent, "child": question.child}
    try:
        return database.answer(question.sql, parameters=given, most=question.most)
    except ReadFailed as error:
        return str(error)


# -- What came of it ----------------------------------------------------------------------------


def _result(state: State, detector: Detector | TableFailure, child: str, answers: Answers) -> TableResult:
    if isinstance(detector, TableFailure):
        return detector
    try:
        about = child if detector.each_child else ""
        told = {
            ask.name: _of(ask, _questions(state, detector, child)[ask.name], answers) for ask in detector.asks
        }
        findings = diff.relate(detector, told, parent=state.parent, child=about)
    except ReadFailed as error:
        return _failed(detector, str(error))
    return TableDiff(
        rule=detector.id,
        table="",
        direction=Direction.DOWN,
        key=detector.key,
        desired_rows=0,
        existing_rows=0,
        findings=tuple(finding for finding in findings if _shown_in(state, finding, child)),
        detector=True,
    )


def _of(ask: Ask, questions: list[Question], answers: Answers) -> Answer:
    told: dict[str, Answer] = {}
    for question in questions:
        answer = answers[question]
        if isinstance(answer, str):
            raise ReadFailed(f"{ask.name}: {answer}")
        told[question.cell] = answer
    return diff.together(told) if ask.of is Source.CHILDREN else told[questions[0].cell]


def _shown_in(state: State, finding: Finding, child: str) -> bool:
    """Say whether a child's result has a finding: those of another child in scope have it there."""
    return finding.cell == child or finding.cell not in state.going


def _failed(detector: Detector, error: str) -> TableFailure:
    return TableFailure(rule=detector.id, table="", direction=Direction.DOWN, error=error, detector=True)


def _still(before: Found, now: Found) -> Found:
    """Return what was found before, without what is no longer so."""
    return {name: _both(table, now.get(name)) for name, table in before.items()}


def _both(before: TableResult, now: TableResult | None) -> TableResult:
    if not isinstance(now, TableDiff) or not isinstance(before, TableDiff):
        return before if now is None else now
    seen = {(finding.cell, finding.key) for finding in before.findings}
    lasting = tuple(finding for finding in now.findings if (finding.cell, finding.key) in seen)
    return replace(now, findings=lasting)

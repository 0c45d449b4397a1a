"""Detectors: ask all cells at once, relate their answers, and keep what is still so a while later.

A question is a value, so what several detectors or children ask of one database is asked once. What
could not be asked makes a detector incomplete: it could have found anything there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    Value,
)
from cellsync.rules import grammar
from cellsync.run import narrowing
from cellsync.run.asking import NOTHING, Question, Told
from cellsync.run.look import State, unfit
from cellsync.run.request import each_cell

Found = Mapping[str, TableResult]
"""Id of a rule or a detector -> what it found in one child, in the order of the files."""

Compared = Mapping[str, Found]
"""Child -> what rules found in it."""


@dataclass(kw_only=True)
class _Look:
    """One look of a detector, at one child or at all of them, and what it has been told so far."""

    detector: Detector
    child: str
    """Empty for a detector that looks at all children at once."""
    told: dict[str, Told] = field(default_factory=dict)

    def ready(self) -> list[Ask]:
        """Return the questions that can be asked now; none where one was not answered."""
        if any(isinstance(told, str) for told in self.told.values()):
            return []
        open_ = [ask for ask in self.detector.asks if ask.name not in self.told]
        return [ask for ask in open_ if all(name in self.told for name, _ in ask.given.values())]

    def values(self, ask: Ask) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        """Return the parameters of a question that earlier answers give. Raises ReadFailed."""
        return tuple((name, self._column(*place)) for name, place in ask.given.items())

    def _column(self, question: str, column: str) -> tuple[Value, ...]:
        answer = self.told[question]
        assert isinstance(answer, Answer), question
        if column not in answer.columns:
            raise ReadFailed(f"the answer to {question} has no column {column}")
        place = answer.columns.index(column)
        return tuple(dict.fromkeys(row[place] for row in answer.rows if row[place] is not None)) or NOTHING


def detected(state: State, compared: Compared) -> dict[str, Found]:
    """Let all detectors look at the children in scope, and return what they find in each.

    Those that found something by asking more than one database look again after the time in which a
    run lets things settle: these were not read at one instant. What they find now is what is said,
    and what they found before and do not find now counts for nothing.
    """
    due = {child: _due(state, child) for child in state.going}
    since = state.request.elapsed()
    found = _look(state, compared, due)
    again = {child: _unsettled(due[child], found[child]) for child in due}
    if not any(again.values()):
        return found
    early = since + state.request.settle.total_seconds() - state.request.elapsed()
    if early > 0:
        state.request.sleep(early)
    now = _look(state, compared, again)
    return {child: _still(found[child], now[child]) for child in found}


def notes(state: State) -> tuple[str, ...]:
    """Say which optional detectors were left out, as they ask a database that is not configured."""
    return tuple(
        f"{detector.id} is not looked for: cellsync.yaml names no database {lacking}"
        for detector in state.request.ruleset.detectors
        if detector.optional and (lacking := _lacking(state, detector))
    )


# -- Which detectors look -----------------------------------------------------------------------

_Due = Mapping[str, Union[Detector, TableFailure]]
"""Detector's id -> the detector, or why it cannot look at a child."""


def _due(state: State, child: str) -> dict[str, Detector | TableFailure]:
    due: dict[str, Detector | TableFailure] = {}
    version = state.looks[state.parent].version
    for detector in state.request.ruleset.detectors:
        admitted = detector.when is None or detector.when.admits(version)
        if admitted is False or (detector.optional and _lacking(state, detector)):
            continue
        pack = next(pack for pack in state.request.ruleset.packs if pack.name == detector.pack)
        error = unfit(state, pack, child)
        if admitted is None and detector.when is not None:
            error = f"whether {detector.when.text!r} holds cannot be told from {version!r}"
        due[detector.id] = detector if error is None else _failed(detector, error)
    return due


def _unsettled(due: _Due, found: Found) -> dict[str, Detector | TableFailure]:
    """Return the detectors that must look again."""
    return {
        name: detector
        for name, detector in due.items()
        if isinstance(detector, Detector)
        and (len(detector.asks) > 1 or detector.asks[0].of is Source.CHILDREN)
        and isinstance(table := found[name], TableDiff)
        and table.findings
    }


def _lacking(state: State, detector: Detector) -> str:
    """Return the database that a detector asks and some cell lacks, "placement of api"; "" for none."""
    topology = state.request.topology
    for ask in detector.asks:
        cells = (topology.parent,) if ask.of is Source.PARENT else topology.children
        for cell in cells:
            if ask.database and ask.database not in cell.databases:
                return f"{ask.database} of {cell.name}"
    return ""


# -- Looking ------------------------------------------------------------------------------------


def _look(state: State, compared: Compared, due: Mapping[str, _Due]) -> dict[str, Found]:
    """Let detectors look, all at once; a question that needs an answer is asked in a later round."""
    looks: dict[tuple[str, str], _Look] = {}
    for child, detectors in due.items():
        for name, detector in detectors.items():
            if isinstance(detector, Detector):
                about = child if detector.each_child else ""
                looks.setdefault((name, about), _Look(detector=detector, child=about))
    hearing = True
    while hearing:
        hearing = _hear(state, compared, looks.values())
    results = {place: _result(state, look) for place, look in looks.items()}
    return {
        child: {
            name: each
            if isinstance(each, TableFailure)
            else _in_child(state, results[name, child if each.each_child else ""], child)
            for name, each in detectors.items()
        }
        for child, detectors in due.items()
    }


def _hear(state: State, compared: Compared, looks: Iterable[_Look]) -> bool:
    """Ask what can be asked now and remember what was told; False when there was nothing to ask."""
    ready = [(look, ask) for look in looks for ask in look.ready()]
    asked: list[tuple[_Look, Ask, list[Question]]] = []
    pairs: list[tuple[_Look, Ask, narrowing.Pair]] = []
    for look, ask in ready:
        try:
            if ask.excepted:
                pairs.append((look, ask, _pair(state, look, ask)))
            elif ask.differs:
                look.told[ask.name] = _differing(state, compared, ask, look.child)
            else:
                asked.append((look, ask, list(_questions(state, look, ask))))
        except ReadFailed as error:
            look.told[ask.name] = str(error)
    answers = _ask(state, {question for _, _, questions in asked for question in questions})
    for look, ask, questions in asked:
        about = any(values == NOTHING for each in questions for _, values in each.given)
        look.told[ask.name] = _together(
            ask, {each.cell: answers[each] for each in questions}, about_nothing=about
        )
    left = narrowing.without((pair for _, _, pair in pairs), lambda wanted: _ask(state, wanted))
    for look, ask, pair in pairs:
        look.told[ask.name] = _together(ask, left[pair])
    return bool(ready)


def _pair(state: State, look: _Look, ask: Ask) -> narrowing.Pair:
    """Return a question with the one whose answer is taken from its own."""
    other = next(each for each in look.detector.asks if each.name == ask.excepted)
    wanted, rest = (tuple(_questions(state, look, each)) for each in (ask, other))
    return narrowing.Pair(wanted, rest, ask.most)


def _questions(state: State, look: _Look, ask: Ask) -> Iterator[Question]:
    """Yield a question for every cell that it is for. Raises ReadFailed."""
    given = look.values(ask)
    every = [each.name for each in state.request.topology.children]
    cells = {Source.PARENT: [state.parent], Source.CHILD: [look.child], Source.CHILDREN: every}[ask.of]
    about = "child" in grammar.parameters(ask.sql)
    for cell in cells:
        named = look.child if ask.of is Source.PARENT else cell
        yield Question(
            cell=cell,
            database=ask.database,
            sql=ask.sql,
            child=named if about else "",
            given=given,
            most=ask.most,
        )


def _differing(state: State, compared: Compared, ask: Ask, child: str) -> Answer:
    """Return the differences of a rule in a child as an answer. Raises ReadFailed."""
    rule = state.request.ruleset.rule(ask.differs)
    assert rule is not None, ask.differs
    table = compared[child].get(ask.differs)
    if isinstance(table, TableFailure):
        raise ReadFailed(f"{ask.differs} could not be compared: {table.error}")
    differences = () if table is None else table.differences  # its gate may be shut
    if len(differences) > ask.most:
        raise ReadFailed(
            f"{ask.differs} has {len(differences)} differences, and at most {ask.most} are taken"
        )
    return diff.keys(rule, differences)


def _together(ask: Ask, told: Mapping[str, Told], *, about_nothing: bool = False) -> Told:
    """Return what all cells told as one answer, or why one of them told nothing.

    Where there was nothing to ask about, a cell that could not be asked had nothing to tell.
    """
    answers = {cell: answer for cell, answer in told.items() if isinstance(answer, Answer)}
    lost = next((error for error in told.values() if isinstance(error, str)), None)
    if lost is not None and not (about_nothing and answers):
        return lost
    if ask.of is not Source.CHILDREN:
        return next(iter(answers.values()))
    try:
        return diff.together(answers)
    except ReadFailed as error:
        return str(error)


# -- Asking -------------------------------------------------------------------------------------


def _ask(state: State, wanted: Iterable[Question]) -> dict[Question, Told]:
    """Ask all cells at once, each database in one snapshot."""
    of: dict[str, list[Question]] = {}
    for question in wanted:
        of.setdefault(question.cell, []).append(question)
    topology = state.request.topology
    going: list[Cell] = []
    answers: dict[Question, Told] = {}
    for cell in (cell for cell in (topology.parent, *topology.children) if cell.name in of):
        failure = state.failures.get(cell.name)
        if failure is None:
            going.append(cell)
        else:
            answers.update(dict.fromkeys(of[cell.name], f"{cell.name} could not be asked: {failure.error}"))
    for name, told in each_cell(state.pool, lambda cell: _answers(state, cell, of[cell.name]), going).items():
        if isinstance(told, CellFailure):
            answers.update(dict.fromkeys(of[name], f"{name} could not be asked: {told.error}"))
        else:
            answers.update(told)
    return answers


def _answers(state: State, cell: Cell, questions: Sequence[Question]) -> dict[Question, Told]:
    """Ask one cell, its own database and others of it."""
    by_database: dict[str, list[Question]] = {}
    for question in questions:
        by_database.setdefault(question.database, []).append(question)
    told: dict[Question, Told] = {}
    for name, mine in by_database.items():
        if not name:
            told.update(_told(state, state.databases[cell.name], mine))
        elif name not in cell.databases:
            told.update(dict.fromkeys(mine, f"cellsync.yaml names no database {name} of {cell.name}"))
        else:
            told.update(_elsewhere(state, replace(cell, database=cell.databases[name]), mine))
    return told


def _elsewhere(state: State, cell: Cell, questions: Sequence[Question]) -> dict[Question, Told]:
    try:
        with db.connect(cell, state.request.timeouts.within(cell.budget.time)) as database:
            return _told(state, database, questions)
    except CellsyncError as error:
        return dict.fromkeys(questions, str(error))


def _told(state: State, database: db.Database, questions: Sequence[Question]) -> dict[Question, Told]:
    with database.snapshot():
        return {question: _answer(state, database, question) for question in questions}


def _answer(state: State, database: db.Database, question: Question) -> Told:
    parameters: dict[str, str | tuple[Value, ...]] = {"parent": state.parent, "child": question.child}
    parameters.update(question.given)
    try:
        return database.answer(question.sql, parameters=parameters, most=question.most)
    except ReadFailed as error:
        return str(error)


# -- What came of it ----------------------------------------------------------------------------


def _result(state: State, look: _Look) -> TableResult:
    detector = look.detector
    lost = next((f"{name}: {told}" for name, told in look.told.items() if isinstance(told, str)), None)
    if lost is not None:
        return _failed(detector, lost)
    answers = {name: told for name, told in look.told.items() if isinstance(told, Answer)}
    try:
        findings = diff.relate(detector, answers, parent=state.parent, child=look.child)
    except ReadFailed as error:
        return _failed(detector, str(error))
    return TableDiff(
        rule=detector.id,
        table="",
        direction=Direction.DOWN,
        key=detector.key,
        desired_rows=0,
        existing_rows=0,
        findings=findings,
        detector=True,
    )


def _in_child(state: State, result: TableResult, child: str) -> TableResult:
    """Return what is to be shown in a child: not what another child in scope has, which shows it itself."""
    if isinstance(result, TableFailure):
        return result
    findings = tuple(each for each in result.findings if _shown_in(state, each, child))
    return replace(result, findings=findings)


def _shown_in(state: State, finding: Finding, child: str) -> bool:
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

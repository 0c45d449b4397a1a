"""The detectors of a rule file: from raw values to typed ones, and what is wrong with them.

As with rules, keys that are wrong in themselves are left out, so that the other keys can be checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from cellsync import model
from cellsync.errors import Problem
from cellsync.model import Advice, Detector, Role, Source, Way
from cellsync.rules import complaints, grammar
from cellsync.rules.complaints import Complaint
from cellsync.yamlfile import Document, Path

Raw = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One detector as far as it could be read, and where its values stand."""

    document: Document
    index: int
    broken: frozenset[str]
    """The keys that have a problem of their own; ``detector`` holds defaults in their place."""
    detector: Detector

    @property
    def identified(self) -> bool:
        """Tell whether the detector's id could be read."""
        return bool(self.detector.id) and "id" not in self.broken

    def problem(self, steps: Path, message: str) -> Problem:
        """Return a problem of the value at ``steps``."""
        return self.document.problem(("detectors", self.index, *steps), message)


def read(document: Document, data: Raw, *, pack: str, wrong: Iterable[Path]) -> Iterator[Draft]:
    """Read the detectors of one file; ``wrong`` are the paths of all values that have a problem."""
    listed = data.get("detectors")
    for index, raw in enumerate(listed if isinstance(listed, list) else ()):
        if not isinstance(raw, Mapping):
            continue
        broken = {str(path[2]) for path in wrong if path[:2] == ("detectors", index) and len(path) > 2}
        sound = {key: value for key, value in raw.items() if key not in broken}
        line, column = document.places["detectors", index]
        position = model.Position(file=document.file, line=line, column=column)
        missing = {"id", "asks", "key", "says", "do"} - raw.keys()
        yield Draft(
            document=document,
            index=index,
            broken=frozenset(broken | missing),
            detector=_detector(sound, pack=pack, position=position),
        )


def _detector(raw: Raw, *, pack: str, position: model.Position) -> Detector:
    return Detector(
        id=raw.get("id", ""),
        pack=pack,
        position=position,
        why=raw.get("why", ""),
        features=tuple(raw.get("features", ())),
        when=grammar.gate(raw["when"]) if "when" in raw else None,
        asks=tuple(_ask(name, ask) for name, ask in raw.get("asks", {}).items()),
        finds=bare(raw.get("finds", "")),
        key=tuple(raw.get("key", ())),
        says=raw.get("says", ""),
        do=advice(raw["do"]) if "do" in raw else Advice(text=""),
        optional=raw.get("optional", False),
    )


def _ask(name: str, raw: Raw) -> model.Ask:
    return model.Ask(
        name=name,
        of=Source(raw["of"]),
        database=raw.get("database", ""),
        sql=bare(raw.get("sql", "")),
        given={name: _column(place) for name, place in raw.get("given", {}).items()},
        differs=raw.get("differs", ""),
        most=raw.get("most", model.MOST_ROWS),
        excepted=raw.get("except", ""),
    )


def _column(place: str) -> tuple[str, str]:
    question, _, column = place.partition(".")
    return question, column


def bare(sql: str) -> str:
    """Return a query without the semicolon at its end: it becomes part of another one."""
    return sql.strip().rstrip(";").rstrip()


def advice(raw: str | Raw) -> Advice:
    """Read what is to be done: a text, a command, or statements. Raises ValueError with what is wrong."""
    if isinstance(raw, str):
        grammar.fields(raw)
        return Advice(text=raw)
    if ("run" in raw) is ("sql" in raw):
        raise ValueError("give either run, a command, or sql, statements")
    if "in" in raw and "run" in raw:
        raise ValueError("in says whose database statements are for: a command has none")
    way = Way.SHELL if "run" in raw else Way.SQL
    text = raw["run" if way is Way.SHELL else "sql"]
    grammar.fields(text)
    return Advice(text=text, way=way, cell=Role(raw["in"]) if "in" in raw else None)


# -- What they must mean ------------------------------------------------------------------------


def check(drafts: Sequence[Draft], *, described: Mapping[str, Any] | None) -> Iterator[Problem]:
    """Yield what is wrong with the detectors of one file; ``described`` are its features, if it has any."""
    for draft in drafts:
        detector = draft.detector
        for index, name in enumerate(detector.features if described is not None else ()):
            if described is not None and name not in described:
                advice = complaints.suggest(name, described)
                message = f"{name!r} is not described in the file's features: {advice}"
                yield draft.problem(("features", index), message)
        if not {"asks", "finds"} & draft.broken:
            yield from (draft.problem(steps, message) for steps, message in _unrelated(detector))
        if "asks" not in draft.broken:
            yield from (draft.problem(steps, message) for steps, message in _childless(draft))
            yield from (draft.problem(steps, message) for steps, message in _unaskable(detector))


def _unaskable(detector: Detector) -> Iterator[Complaint]:
    """Yield the questions that cannot be asked as they stand."""
    earlier: list[str] = []
    for ask in detector.asks:
        place = ("asks", ask.name)
        if bool(ask.sql) is bool(ask.differs):
            yield place, f"{ask.name}: give either sql, a query, or differs, a rule"
        if ask.differs and (ask.of is not Source.CHILD or ask.database or ask.given):
            yield place, f"{ask.name}: what a rule found is of the child, and nothing else is given with it"
        for name, (question, _) in ask.given.items():
            if question not in earlier:
                known = complaints.suggest(question, earlier)
                yield (
                    (*place, "given", name),
                    f"no question before {ask.name} is called {question!r}: {known}",
                )
            if ask.sql and name not in grammar.parameters(ask.sql):
                yield (*place, "given", name), f"the query of {ask.name} has no :{name}"
        if ask.excepted:
            yield from _excepted(detector, ask)
        for name in sorted(grammar.parameters(ask.sql) - grammar.CELLS - ask.given.keys()):
            yield (*place, "sql"), f":{name} is not known here: add it to given, or write a colon as \\:"
        earlier.append(ask.name)


def _excepted(detector: Detector, ask: model.Ask) -> Iterator[Complaint]:
    """Yield what is wrong with a question that leaves out what another answer has."""
    place = ("asks", ask.name, "except")
    others = {each.name: each for each in detector.asks if each.name != ask.name}
    other = others.get(ask.excepted)
    if other is None:
        known = complaints.suggest(ask.excepted, others)
        yield place, f"no other question is called {ask.excepted!r}: {known}"
    elif not (ask.sql and other.sql) or ask.given or other.given:
        yield place, f"{ask.name} and {ask.excepted} must be queries that go on from no other answer"


_OF_THE_TEXT = (
    "near ",
    "incomplete input",
    "unrecognized token",
    "no such table",
    "no such function",
    "wrong number of arguments",
)
"""How SQLite's messages begin about what is wrong with a query whatever columns its tables have."""


def _unrelated(detector: Detector) -> Iterator[Complaint]:
    """Yield what is wrong with ``finds``, as far as it can be told before anything is asked."""
    if not detector.finds:
        if len(detector.asks) > 1:
            yield (
                ("asks",),
                f"{len(detector.asks)} questions are asked: say with finds how the answers relate",
            )
        return
    mistake = find_sql_mistake((ask.name for ask in detector.asks), detector.finds)
    if mistake:
        yield ("finds",), f"finds: SQLite does not understand it: {mistake}"


def find_sql_mistake(answers: Iterable[str], finds: str) -> str:
    """Return what SQLite says is wrong with a query over these answers, "" for nothing that is known now."""
    import sqlite3

    with closing(sqlite3.connect(":memory:")) as database:
        try:
            for name in answers:
                quoted = name.replace('"', '""')
                database.execute(f'CREATE TABLE "{quoted}" ("?")')
            database.execute(f"EXPLAIN SELECT * FROM (\n{finds}\n)", {"parent": "", "child": ""})
        except sqlite3.Error as error:
            # Other messages may be about columns, which only the database that is asked knows.
            return str(error) if str(error).startswith(_OF_THE_TEXT) else ""
    return ""


def _childless(draft: Draft) -> Iterator[Complaint]:
    """Yield the places that speak of a child, where the detector looks at none in particular."""
    detector = draft.detector
    if detector.each_child:
        return
    unknown = "is not known, as no question is of the child"
    for ask in detector.asks:
        if ask.of is Source.PARENT and "child" in grammar.parameters(ask.sql):
            yield ("asks", ask.name, "sql"), f":child {unknown}"
    if "finds" not in draft.broken and "child" in grammar.parameters(detector.finds):
        yield ("finds",), f":child {unknown}"
    for key, text in (("says", detector.says), ("do", detector.do.text)):
        if key not in draft.broken and "child" in grammar.fields(text):
            yield (key,), f"{{child}} {unknown}; the cell of the finding is {{cell}}"
    if "do" not in draft.broken and detector.do.cell is Role.CHILD:
        yield ("do", "in"), f"the child {unknown}"

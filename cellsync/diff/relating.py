"""Relate the answers of several databases: what a detector finds in them.

The answers become the tables of an embedded SQLite in memory, which knows joins and NOT EXISTS and
compares text to the byte, and nothing of it is ever written to disk. Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from string import Formatter
from typing import TYPE_CHECKING

from cellsync.errors import ReadFailed
from cellsync.model import (
    MOST_ROWS,
    Advice,
    Answer,
    Dangling,
    Detector,
    Difference,
    Finding,
    KeyPart,
    Remedy,
    Role,
    Rule,
    Value,
    Way,
    shown,
)

if TYPE_CHECKING:
    import sqlite3

CELL = "cell"
"""The column that says whose rows are wrong, and from which child a row of an answer is."""

_LARGEST = 2**63
"""One more than the largest integer of SQLite."""


def together(answers: Mapping[str, Answer]) -> Answer:
    """Return the answers of several cells as one, which has a column more: the cell, at the end.

    Raises ReadFailed where an answer has a column of that name, or where they have not the same columns.
    """
    columns = {answer.columns for answer in answers.values()}
    if len(columns) != 1:
        raise ReadFailed("the answers of the children have not the same columns")
    (names,) = columns
    if CELL in map(str.lower, names):
        raise ReadFailed(f"an answer of children gets a column {CELL}: call its own something else")
    rows = tuple((*row, cell) for cell, answer in answers.items() for row in answer.rows)
    return Answer(columns=(*names, CELL), rows=rows)


def keys(rule: Rule, differences: Iterable[Difference]) -> Answer:
    """Return the differences of a rule as an answer: the kind of each, and its key.

    A reference in a key is there as the text of the key that it leads to.
    """
    rows = tuple((each.kind.value, *map(_flat, each.key)) for each in differences)
    return Answer(columns=("kind", *rule.key), rows=rows)


def _flat(part: KeyPart) -> Value:
    return shown(part) if isinstance(part, (tuple, Dangling)) else part


def relate(
    detector: Detector, answers: Mapping[str, Answer], *, parent: str, child: str = ""
) -> tuple[Finding, ...]:
    """Return what a detector finds in the answers to its questions, which are by name.

    ``child`` is the child that it looks at; empty for a detector that looks at all of them. Raises
    ReadFailed where the answers do not relate: what is meant is not told, so nothing is clean.
    """
    about = {"parent": parent, "child": child} if child else {"parent": parent}
    found = join_answers(detector.finds, answers, about)
    names = {*found.columns, *about, CELL}
    known = (*detector.key, *_names(detector.says), *_names(detector.do.text))
    for name in dict.fromkeys(known):
        if name not in names:
            columns = ", ".join(found.columns)
            raise ReadFailed(f"{detector.id} names {name}, and what it finds has the columns {columns}")
    return tuple(_findings(detector, found, about))


def _names(text: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(text) if name]


def join_answers(finds: str, answers: Mapping[str, Answer], about: Mapping[str, str]) -> Answer:
    """Return what a query of SQLite finds in answers, each a table of its name; without one the only answer.

    ``about`` are its parameters, the names of cells. Raises ReadFailed where SQLite refuses it.
    """
    if not finds:
        (found,) = answers.values()
    else:
        import sqlite3

        with closing(sqlite3.connect(":memory:")) as database:
            try:
                found = _joined(database, finds, answers, about)
            except sqlite3.Error as error:
                raise ReadFailed(f"finds: SQLite says: {error}") from error
    if len(found.rows) > MOST_ROWS:
        raise ReadFailed(f"there are {len(found.rows)} findings, and at most {MOST_ROWS} are taken")
    return found


def _joined(
    database: sqlite3.Connection, finds: str, answers: Mapping[str, Answer], about: Mapping[str, str]
) -> Answer:
    for name, answer in answers.items():
        # Without types, so that every value stays as it came.
        columns = ", ".join(map(_quoted, answer.columns))
        database.execute(f"CREATE TABLE {_quoted(name)} ({columns})")
        places = ", ".join("?" * len(answer.columns))
        rows = (tuple(map(_stored, row)) for row in answer.rows)
        database.executemany(f"INSERT INTO {_quoted(name)} VALUES ({places})", rows)
    cursor = database.execute(f"SELECT * FROM (\n{finds}\n)", dict(about))
    return Answer(columns=tuple(column[0] for column in cursor.description), rows=tuple(cursor))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _stored(value: Value) -> int | float | str | bytes | None:
    """Return a value as SQLite takes it: sums are integers, and what is too large for one is text."""
    if isinstance(value, Decimal):
        whole = value == value.to_integral_value()
        return _stored(int(value)) if whole else float(value)
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        return str(value)
    return value


def _findings(detector: Detector, found: Answer, about: Mapping[str, str]) -> Iterator[Finding]:
    default = about.get("child", about["parent"])
    for row in found.rows:
        values = dict(zip(found.columns, row, strict=True))
        cell = str(values.get(CELL) or default)
        told = {**values, CELL: cell, **about}
        yield Finding(
            code=detector.id,
            cell=cell,
            message=detector.says.format_map({name: shown(value) for name, value in told.items()}),
            key=tuple(told[name] for name in detector.key),
            do=_remedy(detector.do, told, cell=cell, about=about),
        )


def _remedy(advice: Advice, told: Mapping[str, Value], *, cell: str, about: Mapping[str, str]) -> Remedy:
    quote = {Way.WORDS: shown, Way.SHELL: _word, Way.SQL: literal}[advice.way]
    text = advice.text.format_map({name: quote(value) for name, value in told.items()})
    where = {Role.PARENT: about["parent"], Role.CHILD: about.get("child", ""), None: cell}[advice.cell]
    return Remedy(text=text, way=advice.way, cell=where if advice.way is Way.SQL else "")


def _word(value: Value) -> str:
    return shlex.quote(shown(value))


def literal(value: Value) -> str:
    """Return a value as a literal of MariaDB's SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, (int, float, Decimal)):
        return str(value)
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    return "'" + "".join(_ESCAPES.get(letter, letter) for letter in value) + "'"


_ESCAPES = {"'": "''", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\0": "\\0", "\x1a": "\\Z"}

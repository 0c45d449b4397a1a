"""The statements of single differences, for readers: what a repair would run, and what takes it back.

They are those of the SQL output, a change at a time. A value that is secret, or too long for the reader,
is replaced by something that no server takes for a value, so that such a statement cannot be run by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from cellsync.model import Change, Difference, Key, Plan, Report, Secrets, TableDiff, Value
from cellsync.report import facts, words
from cellsync.report.sql.spelling import Untold, literal
from cellsync.report.sql.statements import Statements

MOST = 1_000
"""So many differences of a report come with their statements; the SQL output has them all."""
LONG = 400
"""The longest literal of a statement on a page, in characters."""
NOT_SHOWN = "<not shown>"

Place = tuple[str, str, Key]
"""Child, rule and key of a difference."""


class Way(NamedTuple):
    """A statement for one direction, without its semicolon."""

    statement: str
    """"" where there is none."""
    note: str
    """Why there is none, or why it cannot be run as it stands; "" for one that can."""

    @property
    def lines(self) -> Sequence[str]:
        """Return the statement as lines, the last one with its semicolon."""
        return f"{self.statement};".split("\n")


class Told(NamedTuple):
    """One change of a difference as SQL."""

    written: str
    """The cell whose database it is for."""
    forward: Way
    backward: Way
    together: bool
    """Whether the change is made together with others, or not at all."""


def chosen(report: Report) -> Mapping[Place, Difference]:
    """Return the differences that come with their statements: the first of each table that a repair mends."""
    tables = {
        (cell.cell, table.rule): table for cell in facts.results(report) for table in facts.compared(cell)
    }
    shares = facts.dealt({place: table.does(*facts.WRITES) for place, table in tables.items()}, MOST)
    return {
        (cell, rule, difference.key): difference
        for (cell, rule), table in tables.items()
        for difference in islice(_mended(table), shares[cell, rule])
    }


def _mended(table: TableDiff) -> Iterator[Difference]:
    return (each for each in facts.ordered(table) if each.action in facts.WRITES and not each.accepted)


def told(report: Report, *, longest: int | None) -> Mapping[Place, Sequence[Told]]:
    """Return the statements of those differences; none for one that no plan has a change for.

    A value whose literal has more than ``longest`` characters is replaced; None for whatever length.
    """
    found: dict[Place, list[Told]] = {place: [] for place in chosen(report)}
    for plan in (plan for cell in facts.results(report) for plan in cell.plans) if found else ():
        reader = _Reader(report.secrets, longest)
        statements = Statements(plan, reader)
        for change in plan.changes:
            at = found.get((plan.child, change.rule, change.key))
            if at is not None:
                at.append(_told(plan, change, statements, reader))
    return found


def _told(plan: Plan, change: Change, statements: Statements, reader: _Reader) -> Told:
    if plan.database.version.startswith("SQLite"):
        forward = backward = Way("", f"there is none: {plan.written} is no MariaDB")
    else:
        forward, backward = (
            _way(spell, change, reader) for spell in (statements.forward, statements.backward)
        )
    return Told(plan.written, forward, backward, bool(change.together))


def _way(spell: Callable[[Change], str], change: Change, reader: _Reader) -> Way:
    reader.hidden.clear()
    reader.cut.clear()
    try:
        statement = spell(change)
    except Untold as untold:
        return Way("", f"there is none: {untold}")
    return Way(statement, reader.note())


class _Reader:
    """Says what stands in the place of values that are not for the reader, and remembers their columns."""

    def __init__(self, secrets: Secrets, longest: int | None) -> None:
        self._secrets = secrets
        self._longest = longest
        self.hidden: dict[str, None] = {}
        self.cut: dict[str, None] = {}

    def __call__(self, table: str, column: str, value: Value) -> str:
        shown = self._secrets.safe(column, value, table=table)
        if shown is not value and shown != value:
            self.hidden[column] = None
            return NOT_SHOWN
        if self._longest is None or not isinstance(value, (str, bytes)):
            return ""
        if len(literal(value)) <= self._longest:
            return ""
        self.cut[column] = None
        return f"<{words.counted(len(value), 'byte' if isinstance(value, bytes) else 'character')}>"

    def note(self) -> str:
        """Return why the last statement cannot be run as it stands; "" where it can."""
        reasons = [
            f"{words.listed([*columns])} {'is' if len(columns) == 1 else 'are'} {why}"
            for columns, why in ((self.hidden, "not shown"), (self.cut, "too long for this page"))
            if columns
        ]
        return f"it cannot be run as it stands: {'; '.join(reasons)}" if reasons else ""

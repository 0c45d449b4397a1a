"""Find the planned rows that the written table does not take, whatever other rows it has.

After the recheck and before the clashes, for the planned rows alone, and only of tables that differ between
the sides. Such a row is a finding, is set aside, and nothing refers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from cellsync import db, journal, plan
from cellsync.db import clashing
from cellsync.model import (
    Action,
    Change,
    Column,
    Difference,
    Finding,
    Identity,
    Index,
    Key,
    Missing,
    Projected,
    Projection,
    Run,
    Secrets,
    Table,
    Value,
    keep_differences,
    shown,
)
from cellsync.plan import Compared, clashes
from cellsync.plan import fitting as rules
from cellsync.spool import find_bulky

_ESCAPED = 16
"""No more bytes than a character takes in a statement, in a journal's record of it: \\\\u001a."""

CHANGES_AT_ONCE = 4_000
"""So many planned rows are in memory, and in a query, at once."""


class _Asked(NamedTuple):
    """A CHECK to be asked about, and the columns that decide it."""

    check: clashing.Check
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What is known of one edge when its planned rows are held against the written tables."""

    databases: Mapping[str, db.Database]
    target: plan.Target
    desired: Mapping[str, Table]
    """The tables of the desired side, by name."""
    failed: Sequence[str]
    secrets: Secrets
    run: Run

    def set_unfit_aside(self, compared: Sequence[Compared]) -> list[Compared]:
        """Return the compared rules without the rows that do not fit, which are findings then."""
        return [leave_out(each, self._find_misfits(each)) for each in compared]

    def _find_misfits(self, each: Compared) -> dict[Key, Finding]:
        if not each.written.identity or not each.table.does(*plan.WRITING):
            return {}
        found = self._find_too_long(each)
        if not each.table.does(Action.INSERT, Action.UPDATE):
            return found
        pairing = each.pairing
        there = self.desired.get(pairing.desired.table)
        narrow = rules.find_narrow_columns(pairing, each.written, there, self.target)
        for change in self._changes(each) if narrow else ():
            if why := rules.describe_misfit(change, narrow, pairing, self.secrets):
                found[change.key] = self._find_unwritable(each, change.key, why)
        database = self.databases[self.target.written]
        if database.makes_schemas and (checks := self._find_checks(database, each, narrow)):
            with database.snapshot():
                changes = (change for change in self._changes(each) if change.key not in found)
                while part := list(islice(changes, CHANGES_AT_ONCE)):
                    for change, why in self._find_broken(database, each, checks, part):
                        found.setdefault(change.key, self._find_unwritable(each, change.key, why))
        recomputed = [*rules.find_recomputed_columns(pairing, each.written, there)]
        if database.makes_schemas and recomputed:
            with database.snapshot():
                changes = (change for change in self._changes(each) if change.key not in found)
                while part := list(islice(changes, CHANGES_AT_ONCE)):
                    for column in recomputed:
                        for change, why in self._find_recomputed(database, each, column, part):
                            found.setdefault(change.key, self._find_unwritable(each, change.key, why))
        return found

    def _find_too_long(self, each: Compared) -> dict[Key, Finding]:
        """Find the changes that take more than a statement, or whose records in the journal do."""
        database = self.databases[self.target.written]
        short = database.packet() // _ESCAPED
        columns = rules.find_long_columns(each.written, short)
        if not columns:
            return {}
        packed = each.table.differences.packed if isinstance(each.table.differences, Missing) else None
        if packed is not None and all(len(row.text) <= short for row in packed):
            return {}
        is_long = _find_long(each, columns, short // 2)
        bulky = find_bulky(each.table.differences, short // 2)
        long = keep_differences(one for one in bulky if one.action in plan.WRITING and is_long(one))
        if not long:
            return {}
        few = replace(each, table=replace(each.table, differences=long))
        recorder = journal.Journal(
            database, self.run, cell=self.target.written, database=self.target.database.schema
        )
        found: dict[Key, Finding] = {}
        for change in plan.changes(few, plan.WRITING, self.target, self.failed):
            if isinstance(change, Change):
                why = database.describe_excess(change) or recorder.refuses(change)
                if why:
                    found[change.key] = self._find_unwritable(each, change.key, why)
        return found

    def _find_checks(self, database: db.Database, each: Compared, narrow: Collection[str]) -> list[_Asked]:
        """Return the CHECKs that the desired side does not hold its own rows to."""
        table = each.written
        asked = []
        for check in database.read_checks(table.name):
            named = clashing.find_named(table, check.clause)
            index = Index(name=check.name, columns=tuple(named), unique=False)
            if columns := table.base_columns(index) if named else ():
                asked.append(_Asked(check, columns))
        if not asked:
            return []
        desired = self.databases[each.pairing.desired_cell]
        if not desired.makes_schemas:
            return asked
        with desired.busy():
            there = {check.clause.lower() for check in desired.read_checks(each.pairing.desired.table)}
        made = {*narrow, *each.pairing.rule.on_insert}
        return [
            one for one in asked if one.check.clause.lower() not in there or not made.isdisjoint(one.columns)
        ]

    def _find_broken(
        self, database: db.Database, each: Compared, checks: Sequence[_Asked], part: Sequence[Change]
    ) -> Iterator[tuple[Change, str]]:
        """Yield planned rows that a CHECK does not take, as the server judges them, and why."""
        table, cell = each.written, each.pairing.desired_cell
        columns = {name for one in checks for name in one.columns}
        updates = (change for change in part if change.action is Action.UPDATE)
        held = read_held(database, each, updates, columns)
        for one in checks:
            rows = []
            for change in part:
                now = held.get(change.identity)
                values = clashes.image_row(change, one.columns, table, ids={}, held=now, nulls=True)
                if values is not None:
                    rows.append((change, values))
            for place in database.find_broken(table.name, one.check, one.columns, [row for _, row in rows]):
                change, values = rows[place]
                pairs = zip(one.columns, values, strict=True)
                safe = ((name, shown(self.secrets.safe(name, v, table=table.name))) for name, v in pairs)
                named = ", ".join(f"{name} {rules.shorten(text)}" for name, text in safe)
                yield (
                    change,
                    f"{named} breaks the CHECK {one.check.name} of its table ({one.check.clause}), which "
                    f"{cell} does not keep: change the row, or that constraint",
                )

    def _find_recomputed(
        self, database: db.Database, each: Compared, column: Column, part: Sequence[Change]
    ) -> Iterator[tuple[Change, str]]:
        """Yield planned rows of which the written server computes another key, and why."""
        table, name = each.written, column.name
        bases = table.base_columns(Index(name=name, columns=(name,), unique=False))
        at = [key.lower() for key in each.pairing.rule.key].index(name.lower())
        rows = []
        held = read_held(database, each, (c for c in part if c.action is Action.UPDATE), bases)
        for change in part:
            now = held.get(change.identity)
            values = clashes.image_row(change, bases, table, ids={}, held=now, nulls=True)
            if values is not None:
                rows.append((change, values))
        planned = [values for _, values in rows]
        for place, computed in database.compute_values(table.name, name, bases, planned):
            change, _ = rows[place]
            if computed != change.key[at]:
                texts = (
                    shown(self.secrets.safe(name, v, table=table.name)) for v in (computed, change.key[at])
                )
                here, there = map(rules.shorten, texts)
                yield (
                    change,
                    f"its server computes {name} as {here} and not as {there}, from {', '.join(bases)}: make "
                    f"these columns like those of {each.pairing.desired_cell}",
                )

    def _changes(self, each: Compared) -> Iterator[Change]:
        steps = plan.changes(each, {Action.INSERT, Action.UPDATE}, self.target, self.failed)
        return (step for step in steps if isinstance(step, Change))

    def _find_unwritable(self, each: Compared, key: Key, why: str) -> Finding:
        rule = each.pairing.rule
        message = f"{rule.table} {rule.named(key)} is not written to {self.target.written}: {why}"
        return Finding(code="unwritable-value", cell=self.target.written, message=message, key=key)


def _find_long(each: Compared, columns: Collection[str], most: int) -> Callable[[Difference], bool]:
    """Return what says whether the rows of a difference have more than ``most`` in these columns."""
    desired, existing = each.pairing.desired, each.pairing.existing
    parts = [[*desired.key, *desired.columns, *desired.carried], [*existing.key, *existing.columns]]
    places = [[at for at, part in enumerate(side) if part.column.lower() in columns] for side in parts]

    def is_long(difference: Difference) -> bool:
        size = 0
        for row, mine in zip((difference.desired, difference.existing), places, strict=True):
            if row is not None and mine:
                values = (*row.key, *row.values, *row.carried)
                size += sum([len(value) for at in mine if isinstance(value := values[at], (str, bytes))])
        return size > most

    return is_long


def leave_out(each: Compared, found: Mapping[Key, Finding]) -> Compared:
    """Return a compared rule without the rows of some keys, and with findings about them."""
    left = plan.leave_out(each, found)
    if not found:
        return left
    return replace(left, table=replace(left.table, findings=(*left.table.findings, *found.values())))


def read_held(
    database: db.Database, each: Compared, updates: Iterable[Change], columns: Collection[str]
) -> dict[Identity, Mapping[str, Value]]:
    """Return what updated rows have now in columns that their changes do not say."""
    table = each.written
    asking: dict[Identity, None] = {}
    for change in updates:
        known = {name.lower() for name in (*(change.after or {}), *(change.before or {}))}
        if not known.issuperset(map(str.lower, columns)):
            asking[change.identity] = None
    if not asking:
        return {}
    names = sorted(columns)
    projection = Projection(
        rule=each.pairing.rule.id,
        table=table.name,
        key=tuple(_project(table.column(name)) for name in table.identity),
        columns=tuple(_project(table.column(name)) for name in names),
        identity=table.identity,
        identity_families=each.pairing.existing.identity_families,
        parent="",
        child="",
    )
    rows = database.rows(projection, keys=list(asking))
    return {row.identity: dict(zip(names, row.values, strict=True)) for row in rows}  # type: ignore[arg-type]


def _project(column: Column | None) -> Projected:
    assert column is not None
    return Projected(column=column.name, family=column.family)

"""Look at the desired side again while the other side is written, and stop rules that it no longer backs.

A plan is made from readings. Until it is written seconds may pass, or days where it waited in a file, and a
long writing takes hours. What is looked at, and how often, is bounded by its cost (see ``_Due``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from cellsync import db, plan
from cellsync.errors import DesiredChanged, ReadFailed, Unreachable, WriteFailed
from cellsync.model import (
    Action,
    Change,
    Deed,
    Identity,
    Join,
    Key,
    Load,
    Packed,
    Projection,
    Refusal,
    Row,
    Table,
    deed_of,
)
from cellsync.run.request import Desired, Request

SAMPLE = 100
"""So many of the rows of a transaction are looked for by their primary keys."""

SHARE = 100
"""A check is repeated when a hundred times as long has passed as it took: it costs 1 %."""

SOONEST, LATEST = 0.1, 1.0
"""Seconds between two checks of the schema or of a sample: they take milliseconds."""

PATIENCE = 10.0
"""Seconds for which all rules together wait for a desired side that is gone: enough for a restart."""

R = TypeVar("R")


@dataclass
class _Due:
    """When a check is to be made again."""

    latest: float | None = LATEST
    """None where a check may take long: then its share of the time alone counts, but for SOONEST."""
    at: float = float("-inf")

    def is_now(self) -> bool:
        """Say whether it is time."""
        return time.monotonic() >= self.at

    def measure(self, check: Callable[[], R]) -> R:
        """Make the check, and set when it is made again."""
        begun = time.monotonic()
        result = check()
        ended = time.monotonic()
        pause = max(SOONEST, (ended - begun) * SHARE)
        self.at = ended + (pause if self.latest is None else min(pause, self.latest))
        return result


class DesiredSide:
    """The desired side of one edge, through a connection of its own. Not for several threads at once."""

    def __init__(self, desired: Desired, deeds: Collection[Deed], request: Request, stack: ExitStack) -> None:
        """Connect. ``deeds`` are those of the plan; the stack closes the connection.

        Raises Unreachable or ReadFailed where the desired side cannot be looked at: nothing is written then.
        """
        self.name = desired.cell.name
        self._desired = desired
        self._request = request
        self._stack = stack
        self._rules = tuple(dict.fromkeys(deed.rule for deed in deeds))
        self._deleting = {deed.rule for deed in deeds if _removes(deed, desired.projections.get(deed.rule))}
        self._read_tables = {
            rule: frozenset(_tables_of(desired.projections[rule]))
            for rule in self._rules
            if rule in desired.projections
        }
        self._begun: set[str] = set()
        """The rules that have begun to delete: their desired side was counted right before."""
        self._changed: Mapping[str, str] = {}
        self._other = ""
        self._lost_at: float | None = None
        self._schema_due = _Due()
        self._counts_due = {rule: _Due(latest=None) for rule in self._deleting}
        self._samples_due = {rule: _Due() for rule in self._rules}
        self._database = self._connect()

    # -- Before the first write ------------------------------------------------------------

    def refusals(self) -> Iterator[Refusal]:
        """Yield the rules that must not begin to write, judged on what the desired side is now."""
        for rule in self._read_tables:
            try:
                self._check_schema(rule)
                if rule in self._deleting:
                    self._check_count(rule)
                    self._counts_due[rule].at = time.monotonic() + SOONEST  # again before it deletes
            except DesiredChanged as error:
                yield Refusal(code=error.code, rule=error.rule, message=str(error))

    # -- For apply, while it writes --------------------------------------------------------

    def confirm(self, changes: Sequence[Change]) -> None:
        """Look at the desired side of these changes, where it is time for that; see ``apply.Desired``."""
        for rule in dict.fromkeys(change.rule for change in changes):
            if rule not in self._read_tables:
                continue
            self._check_schema(rule)
            projection = self._desired.projections[rule]
            waits = rule in self._deleting - self._begun
            begins = waits and any(_removes(deed_of(change), projection) for change in changes)
            if begins or (rule in self._deleting and self._counts_due[rule].is_now()):
                self._check_count(rule)
            if begins:
                self._begun.add(rule)
            if self._samples_due[rule].is_now():
                kept = [change for change in changes if change.rule == rule]
                if rule in self._deleting:
                    kept = [change for change in kept if not _removes(deed_of(change), projection)]
                self._check_sample(rule, [change.origin for change in _spread(kept) if change.origin])

    def confirm_load(self, load: Load, packed: Sequence[Packed]) -> None:
        """Look at the desired side of packed rows, where it is time; see ``apply.Desired``."""
        rule = load.sample.rule
        self._check_schema(rule)
        if self._samples_due[rule].is_now():
            self._check_sample(rule, [(each.number,) for each in _spread(packed)])

    def present(self, rule: str, keys: Sequence[Key]) -> Collection[Key]:
        """Return which of the keys the desired side has now, for the written side; see ``apply.Desired``."""
        projection = self._desired.projections[rule]
        rows = self._ask(rule, lambda: [*self._database.rows(projection, keys=keys)])
        return {row.key for row in rows if not row.limbo and self._is_mine(rule, row)}

    def _is_mine(self, rule: str, row: Row) -> bool:
        """Say whether a row may belong to this edge; of one whose owner is not clear, nobody is judged."""
        owners = self._desired.owners.get(rule)
        if owners is None:
            return True
        claimed = owners.of(row.route)
        return claimed is None or len(claimed) > 1 or self._desired.child in claimed

    # -- The checks ------------------------------------------------------------------------

    def _check_schema(self, rule: str) -> None:
        if self._schema_due.is_now():
            self._schema_due.measure(self._read_schema)
        if self._other:
            self._stop(_refusal("desired-changed", rule, self._other))
        causes = [self._changed[name] for name in sorted(self._read_tables[rule]) if name in self._changed]
        if causes:
            message = f"{'; '.join(causes)}: run again when it is as it should be"
            self._stop(_refusal("desired-changed", rule, message))

    def _read_schema(self) -> None:
        names = {name for mine in self._read_tables.values() for name in mine}
        now = self._again(lambda: self._database.columns_now(names))
        known = self._desired.tables
        changed = {name: _describe_change(known[name], now.get(name)) for name in names if name in known}
        self._changed = {name: f"{name} in {self.name} {how}" for name, how in changed.items() if how}

    def _check_count(self, rule: str) -> None:
        projection, before = self._desired.projections[rule], self._desired.rows.get(rule, 0)
        due = self._counts_due[rule]
        now = due.measure(lambda: self._ask(rule, lambda: self._database.count_rows(projection)))
        since = "the plan was made"
        if plan.has_fallen(before, now):
            message = plan.describe_fall(projection.table, self.name, before, now, since)
            self._stop(_refusal("desired-fell", rule, message))
        if not now:
            message = f"{projection.table} is empty in {self.name}, and the rule would delete"
            self._stop(_refusal("empty-desired", rule, message))

    def _check_sample(self, rule: str, identities: Sequence[Identity]) -> None:
        if not identities:
            return
        projection = self._desired.projections[rule]

        def count(some: Sequence[Identity] | None) -> int:
            return self._ask(rule, lambda: self._database.count_rows(projection, some))

        due = self._samples_due[rule]
        left = due.measure(lambda: count(identities))
        # The last one of a few rows may go; whether they were all there are, only the table says.
        few = len(identities) <= plan.FREE_TO_GO
        if plan.has_fallen(len(identities), left) and not (few and count(None)):
            message = (
                f"of {len(identities)} rows of {projection.table} that were to be written, {self.name} has "
                f"{left} left: look whether it was emptied or is being restored, and run again"
            )
            self._stop(_refusal("desired-fell", rule, message))

    def _stop(self, refusal: Refusal) -> None:
        """Raise the refusal, unless it is waived."""
        if not {refusal.code, f"{refusal.code}:{refusal.rule}"} & set(self._request.waived):
            raise DesiredChanged(refusal.message, rule=refusal.rule, code=refusal.code)

    # -- The connection --------------------------------------------------------------------

    def _ask(self, rule: str, read: Callable[[], R]) -> R:
        """Read; what fails because the schema is another one now stops the rule."""
        try:
            return self._again(read)
        except ReadFailed:
            self._schema_due.measure(self._read_schema)
            self._check_schema(rule)
            raise

    def _again(self, read: Callable[[], R]) -> R:
        """Read, through a new connection where this one is lost."""
        try:
            return read()
        except ReadFailed:
            if not self._database.lost:
                raise
        try:
            self._database = self._connect()
        except Unreachable as error:
            self._lost_at = time.monotonic() if self._lost_at is None else self._lost_at
            if time.monotonic() - self._lost_at < PATIENCE:
                raise  # the batch is tried again
            raise WriteFailed(f"{self.name} cannot be asked any more: {error}") from None
        self._lost_at = None
        if self._other:
            raise ReadFailed(self._other)
        return read()

    def _connect(self) -> db.Database:
        """Connect, and see whether it is the database that was compared."""
        database = self._stack.enter_context(db.connect(self._desired.cell, self._request.timeouts))
        now, was = database.identity(), self._desired.database
        if now != was:
            self._other = (
                f"{self.name} is schema {now.schema} ({now.version}) now, and schema {was.schema} of another "
                f"server ({was.version}) was compared: run again"
            )
        return database


def open_upstream(
    desired: Desired, deeds: Collection[Deed], request: Request, stack: ExitStack
) -> DesiredSide:
    """Connect to the desired side of an edge; tries once more where the connection breaks at once."""
    try:
        return DesiredSide(desired, deeds, request, stack)
    except (ReadFailed, Unreachable):
        return DesiredSide(desired, deeds, request, stack)


def _refusal(code: str, rule: str, message: str) -> Refusal:
    return Refusal(code=code, rule=rule, message=f"{message} (--waive {code}:{rule})")


def _removes(deed: Deed, projection: Projection | None) -> bool:
    soft_delete = projection.soft_delete if projection is not None else None
    return deed.action is Action.DELETE or (
        deed.action is Action.UPDATE and soft_delete is not None and soft_delete.column in deed.columns
    )


def _tables_of(projection: Projection) -> Iterator[str]:
    """Yield the tables that a projection reads."""
    yield projection.table
    waiting: list[Join] = [*projection.joins.values()]
    while waiting:
        join = waiting.pop()
        yield join.table
        waiting += [part.join for part in join.key if part.join is not None]


def _describe_change(was: Table, now: Table | None) -> str:
    """Say how a table is no longer the one that was compared; "" where it is."""
    if now is None:
        return "is gone"
    columns = {column.name: column for column in now.columns}
    other = [column.name for column in was.columns if columns.get(column.name) != column]
    if other:
        return f"has another definition of {', '.join(other)}"
    return "was altered, emptied by TRUNCATE or made anew" if now.created != was.created else ""


def _spread(items: Sequence[R]) -> Sequence[R]:
    """Return a few items, spread over all."""
    return items[:: max(1, -(-len(items) // SAMPLE))]

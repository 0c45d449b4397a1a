"""Find the planned rows that the written table does not take, whatever other rows it has.

After the recheck and before the clashes, for the planned rows alone, and only of tables that differ between
the sides. Such a row is a finding, is set aside, and nothing refers to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cellsync import plan
from cellsync.model import Action, Change, Finding, Key, Kind, Secrets, Table, sort_of
from cellsync.plan import Compared
from cellsync.plan import fitting as rules
from cellsync.spool import kept


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What is known of one edge when its planned rows are held against the written tables."""

    target: plan.Target
    desired: Mapping[str, Table]
    """The tables of the desired side, by name."""
    failed: Sequence[str]
    secrets: Secrets

    def set_unfit_aside(self, compared: Sequence[Compared]) -> list[Compared]:
        """Return the compared rules without the rows that do not fit, which are findings then."""
        return [leave_out(each, self._find_misfits(each)) for each in compared]

    def _find_misfits(self, each: Compared) -> dict[Key, Finding]:
        if not each.written.identity or not each.table.does(Action.INSERT, Action.UPDATE):
            return {}
        pairing = each.pairing
        there = self.desired.get(pairing.desired.table)
        narrow = rules.find_narrow_columns(pairing, each.written, there, self.target)
        found: dict[Key, Finding] = {}
        for change in self._changes(each) if narrow else ():
            if why := rules.describe_misfit(change, narrow, pairing, self.secrets):
                found[change.key] = self._find_unwritable(each, change.key, why)
        return found

    def _changes(self, each: Compared) -> Iterator[Change]:
        steps = plan.changes(each, {Action.INSERT, Action.UPDATE}, self.target, self.failed)
        return (step for step in steps if isinstance(step, Change))

    def _find_unwritable(self, each: Compared, key: Key, why: str) -> Finding:
        rule = each.pairing.rule
        message = f"{rule.table} {rule.named(key)} is not written to {self.target.written}: {why}"
        return Finding(code="unwritable-value", cell=self.target.written, message=message, key=key)


def leave_out(each: Compared, found: Mapping[Key, Finding]) -> Compared:
    """Return a compared rule without the rows of some keys, and with findings about them."""
    if not found:
        return each
    left = (difference for difference in each.table.differences if difference.key not in found)
    table = replace(
        each.table,
        differences=kept(left, tally=sort_of),
        findings=(*each.table.findings, *found.values()),
    )
    lost = each.clashes.lost.union(_find_lost(each, found))
    return replace(each, table=table, clashes=replace(each.clashes, lost=lost))


def _find_lost(each: Compared, found: Mapping[Key, Finding]) -> Iterator[Key]:
    """Yield the keys that no row will have: of rows that are not inserted, or do not get them."""
    for difference in each.table.differences:
        if difference.key in found and (
            difference.kind is Kind.MISSING
            or any(column.column in each.pairing.rule.key for column in difference.columns)
        ):
            yield difference.key

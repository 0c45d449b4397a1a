"""Run hostile cases: repair, repair again, undo, and hold each step against the oracle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import oracle
import pytest
from edges import Stand, as_if_large, ruleset
from hostile import Case
from judging import check_compared, check_repaired, compare_snapshots
from oracle_writes import explain_writes
from replaying import Replayed, replay, way_back

from cellsync import run
from cellsync.model import CellFailure, CellResult, Dangling, Key, Report, TableDiff
from cellsync.report import sql
from cellsync.run import telling

_runs = count(1)


@dataclass(frozen=True)
class Checked:
    """What came of one case."""

    lines: tuple[str, ...]
    """Where cellsync and the oracle disagree."""
    converged: bool
    """True when both sides are in step after the repair, but for what the rules leave as it is."""


def check_case(case: Case, urls: Mapping[str, str]) -> Checked:
    """Run one case in two schemas."""
    for side, url in enumerate(urls.values()):
        fill_schema(url, case, side)
    with pytest.MonkeyPatch.context() as patch:
        if case.by_digests:
            as_if_large(patch)
        trial = _Trial(case, urls)
        try:
            lines = tuple(dict.fromkeys(trial.check()))
        except Exception as error:  # noqa: BLE001  whatever it is, it is a disagreement
            return Checked((f"crash: {type(error).__name__}: {error}",), False)
        return Checked(lines, trial.converged)


def fill_schema(url: str, case: Case, side: int) -> None:
    """Drop all tables of a schema, make those of the case, and forget what earlier cases pushed."""
    with oracle.open_plainly(url) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION foreign_key_checks = 0")
        cursor.execute(
            "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"
        )
        for name, kind in cursor.fetchall():
            cursor.execute(f"DROP {'VIEW' if kind == 'VIEW' else 'TABLE'} {oracle.quote_name(name)}")
        if side:
            cursor.execute("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'cellsync'")
            for (name,) in cursor.fetchall():
                cursor.execute(f"DELETE FROM cellsync.{oracle.quote_name(name)}")
        for statement in case.setup(side):
            cursor.execute(statement)


class _Trial:
    """One case in its schemas."""

    def __init__(self, case: Case, urls: Mapping[str, str]) -> None:
        text = case.rules()
        self.case = case
        self.urls = urls
        self.rules = oracle.read_rules(text)
        self.stand = Stand(urls, ruleset(text), judged=False)
        self.run_id = f"h{next(_runs)}"
        self.converged = False
        # What a trigger writes is nobody's: it was waived.
        self.besides = ("audit",)

    def take_edge(self) -> oracle.Edge:
        """Read both sides."""
        parent, child = self.urls.values()
        return oracle.Edge(
            self.rules,
            oracle.take_snapshot(parent, self.rules, of_parent=True),
            oracle.take_snapshot(child, self.rules, of_parent=False),
        )

    def check(self) -> Iterator[str]:
        """Yield all disagreements, in the order in which they come up."""
        before = self.take_edge()
        judged = oracle.judge_rules(before)
        request, prepared = self.stand.prepare(self.run_id, self.case.waived)
        announced = _only_cell(prepared.report)
        yield from (f"compare {line}" for line in check_compared(announced, judged))
        report = run.write(request, prepared)
        cell = _only_cell(report)
        after = self.take_edge()
        judged_after = oracle.judge_rules(after)
        self.converged = not any(_list_open(each) for each in judged_after.values())
        written = explain_writes(before, after, judged, of_parent=False)
        written.wrong = [each for each in written.wrong if not each.startswith(self.besides)]
        code = int(report.exit_code)
        repaired = check_repaired(announced, cell, judged_after, written, exit_code=code)
        yield from (f"repair {line}" for line in repaired)
        if changed := compare_snapshots(before.parent, after.parent):
            yield f"repair parent-written: {changed}"
        yield from self.check_again(announced, after, judged_after)
        if isinstance(cell, CellResult) and cell.counts.applied:
            yield from self.check_undo(before)
            if self.case.by_client:
                yield from self.check_client(before)

    def check_again(
        self,
        announced: CellResult | CellFailure,
        after: oracle.Edge,
        judged: Mapping[str, oracle.Judged],
    ) -> Iterator[str]:
        """Yield what another comparison and another repair say or write."""
        found = _only_cell(self.stand.diff())
        yield from (f"diff-after {line}" for line in check_compared(found, judged))
        again = _only_cell(self.stand.repair(f"{self.run_id}-again", self.case.waived))
        if isinstance(again, CellResult) and again.counts.planned:
            if _says_once_more(announced, again):
                self.stand.undo(f"{self.run_id}-again", f"{self.run_id}-again-undo")
            else:
                yield f"second-repair: {again.counts}"
        if changed := compare_snapshots(after.child, self.take_edge().child, but=self.besides):
            yield f"second-repair wrote: {changed}"

    def check_undo(self, before: oracle.Edge) -> Iterator[str]:
        """Yield what an undo says is wrong, and which tables are not as they were."""
        undone = _only_cell(self.stand.undo(self.run_id, f"{self.run_id}-undo"))
        problems: Sequence[str] = [undone.error] if isinstance(undone, CellFailure) else list(undone.problems)
        yield from (f"undo problem: {problem}" for problem in problems[:3])
        if isinstance(undone, CellResult):
            yield from (f"undo refused: {refusal.code} {refusal.message}" for refusal in undone.refusals)
        if changed := compare_snapshots(before.child, self.take_edge().child, but=self.besides):
            yield f"undo differs: {changed}"

    def check_client(self, before: oracle.Edge) -> Iterator[str]:
        """Yield what goes wrong when the mariadb client makes the same changes, there and back."""
        child = [*self.urls.values()][1]
        if compare_snapshots(before.child, self.take_edge().child, but=self.besides):
            return
        request, prepared = self.stand.prepare(f"{self.run_id}-sql", self.case.waived)
        planned = sum(len(edge.plan.changes) for edge in prepared.edges)
        text = "".join(sql.render(telling.with_whole_rows(request, prepared)))
        if not planned:
            return
        wanted = Replayed(code=0, planned=planned, made=planned)
        done = replay(child, text)
        if done != wanted:
            yield f"client: {done} {done.said[:300]}"
        left = oracle.judge_rules(self.take_edge())
        lines = check_repaired(
            _only_cell(prepared.report), _only_cell(prepared.report), left, None, exit_code=1
        )
        yield from (f"client {line}" for line in lines if line.startswith("unannounced"))
        undone = replay(child, way_back(text))
        if undone != Replayed(code=0, planned=planned, made=planned):
            yield f"client-undo: {undone} {undone.said[:300]}"
        if changed := compare_snapshots(before.child, self.take_edge().child, but=self.besides):
            yield f"client-undo differs: {changed}"


def _says_once_more(announced: CellResult | CellFailure, again: CellResult) -> bool:
    """Say whether a finding said that the next repair writes again, or of all its rows that they were open.

    A row whose key refers to nothing is a finding; what is done about it is open until its key is told.
    """
    tables = announced.tables if isinstance(announced, CellResult) else ()
    findings = [each for table in tables if isinstance(table, TableDiff) for each in table.findings]
    dangling = [each.key for each in findings if each.code == "dangling-reference" and each.key is not None]
    keys = [change.key for plan in again.plans for change in plan.changes]
    return any("repair once more" in each.message for each in findings) or all(
        any(_may_be(was, key) for was in dangling) for key in keys
    )


def _may_be(was: Key, now: Key) -> bool:
    """Say whether a key that referred to nothing may be this one by now."""
    pairs = zip(was, now, strict=False)
    return len(was) == len(now) and all(isinstance(one, Dangling) or one == other for one, other in pairs)


def _list_open(judged: oracle.Judged) -> list[str]:
    """Return the kinds of differences that a repair should have ended."""
    acting = {"missing": "insert", "changed": "update", "extra": "delete"}
    return [kind for kind, _ in judged.differences if judged.rule.action(kind) == acting[kind]]


def _only_cell(report: Report) -> CellResult | CellFailure:
    (cell,) = report.cells
    return cell


def classify_case(lines: Sequence[str]) -> str:
    """Return the class of a case's disagreements: its most telling line, without names and values."""
    if not lines:
        return ""
    telling = ("crash", "compare", "repair wrong", "repair problem", "repair clean", "repair")
    line = min(
        lines, key=lambda each: next((at for at, word in enumerate(telling) if each.startswith(word)), 9)
    )
    plain = re.sub(r"'[^']*'|`[^`]*`", "_", line)
    plain = re.sub(
        r"\bt\d|[mn]\b (?=k)", "t", re.sub(r" (k|gk|k2|r|a|b|id)=.*?(?=: (failed|conflict)|$)", " KEY", plain)
    )
    return re.sub(r"\d{4}-\S+|\d{1,3}:\d\d\S*|b?_(, _)*", "_", re.sub(r"\(.*\)", "(_)", plain))[:150]

"""The verdict: the one line that says how things stand, for people who read no further."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cellsync.model import Action, CellResult, Direction, Report, Status
from cellsync.report import facts, words
from cellsync.report.facts import Stage, Tally
from cellsync.report.words import counted


def verdict(report: Report) -> str:
    """Return how things stand after the run, in one sentence."""
    clauses = {Stage.COMPARED: _compared, Stage.PLANNED: _rehearsed, Stage.WRITTEN: _written}
    return "; ".join(clauses[facts.stage(report)](report))


def question(report: Report) -> str:
    """Return what is about to be written, in one sentence."""
    return "; ".join(_planned(report)) or "there is nothing to write"


def drift(tally: Tally) -> str:
    """Return "11 rows missing, 1 changed, 3 extra", the kinds that there are; "" when none."""
    counts = {"missing": tally.missing, "changed": tally.changed, "extra": tally.extra}
    parts = [f"{number} {kind}" for kind, number in counts.items() if number]
    if not parts:
        return ""
    number, kind = parts[0].split()
    return ", ".join([f"{counted(int(number), 'row')} {kind}", *parts[1:]])


def _compared(report: Report) -> Iterator[str]:
    if not report.cells:
        yield "no cell was compared"
        return
    tally = facts.tally(facts.tables(facts.results(report)))
    if tally.total:
        yield f"{_cells(report, _out(report), 'out of step with')}: {drift(tally)}"
    yield from _obstacles(report)
    if not tally.total:
        yield from _in_step(report)
    yield from _accepted(report)


def _in_step(report: Report) -> Iterator[str]:
    """Say which cells are in step: those with no difference, finding or doubt."""
    whole = [cell for cell in facts.results(report) if cell.status is Status.IN_STEP]
    if len(whole) == len(report.cells) > 1:
        every = "both cells" if len(whole) == 2 else f"all {len(whole)} cells"
        yield f"{every} are in step with {report.run.topology}"
    elif whole:
        yield _cells(report, whole, "in step with")
    elif facts.results(report) and not facts.found(report):
        yield "no differences in what could be compared"


def _out(report: Report) -> list[CellResult]:
    return [cell for cell in facts.results(report) if facts.tally(facts.compared(cell)).total]


def _cells(report: Report, cells: list[CellResult], state: str) -> str:
    subject = f"{len(cells)} of {len(report.cells)} cells" if len(report.cells) > 1 else cells[0].cell
    return f"{subject} {'is' if len(cells) == 1 else 'are'} {state} {report.run.topology}"


def _planned(report: Report) -> Iterator[str]:
    yield from _nothing_to_do(report)
    counts, undo = facts.totals(report), report.run.verb == "undo"
    if counts.planned:
        would = f"{facts.doing(report)} would {'take back' if undo else 'write'}"
        yield f"{would} {counted(counts.planned, 'row')} in {_where(report, 'planned')}"
    yield from _left(report)


def _rehearsed(report: Report) -> Iterator[str]:
    yield from _planned(report)
    yield "nothing was written"


def _written(report: Report) -> Iterator[str]:
    yield from _nothing_to_do(report)
    counts = facts.totals(report)
    if counts.applied:
        did = {"undo": "took back"}.get(report.run.verb, "repaired" if facts.compares(report) else "wrote")
        yield f"{did} {counted(counts.applied, 'row')} in {_where(report, 'applied')}"
    else:
        yield "nothing was written"
    yield from _unmade(report)
    yield from _left(report)


def _nothing_to_do(report: Report) -> Iterator[str]:
    tally = facts.tally(facts.tables(facts.results(report)))
    if facts.compares(report) and not (tally.total or facts.totals(report).planned):
        yield from _in_step(report)


def _where(report: Report, count: str) -> str:
    cells = [cell for cell in facts.results(report) if getattr(cell.counts, count)]
    name = cells[0].cell if len(cells) == 1 else counted(len(cells), "cell")
    writing = [table for table in facts.tables(cells) if facts.acting([table], *facts.WRITES)]
    up = [table for table in writing if table.direction is Direction.UP]
    if not up:
        return name
    return report.run.topology if len(up) == len(writing) else f"{name} and {report.run.topology}"


def _unmade(report: Report) -> Iterator[str]:
    """Say what became of planned changes that were not made."""
    counts = facts.totals(report)
    if counts.conflicts:
        one = counts.conflicts == 1
        moved = "1 row has moved on and was" if one else f"{counts.conflicts} rows have moved on and were"
        yield f"{moved} left alone"
    if counts.failed:
        yield f"{counted(counts.failed, 'change')} failed"
    open_changes = counts.planned - counts.applied - counts.conflicts - counts.failed
    if open_changes > 0:
        yield f"{counted(open_changes, 'planned change')} not made"


def _left(report: Report) -> Iterator[str]:
    """Say what a repair leaves behind."""
    only = facts.acting(facts.tables(facts.results(report)), Action.REPORT)
    if only:
        yield f"{counted(only, 'difference is', 'differences are')} reported only"
    yield from _obstacles(report)
    yield from _accepted(report)


def _obstacles(report: Report) -> Iterator[str]:
    """Say what stands in the way: cells and rules that were not compared, refusals, findings."""
    cells = facts.results(report)
    if failed := facts.failures(report):
        every = f"{len(failed)} of {len(report.cells)} cells" if len(report.cells) > 1 else failed[0].cell
        few = (
            f" ({list_names([cell.cell for cell in failed])})"
            if len(report.cells) > 1 and len(failed) <= FEW
            else ""
        )
        yield f"{every} could not be compared{few}"
    if broken := [cell for cell in cells if facts.broken(cell)]:
        rules = counted(sum(len(facts.broken(cell)) for cell in broken), "rule")
        yield f"{rules} could not be compared in {list_names([cell.cell for cell in broken])}"
    if locked := [cell for cell in cells if cell.locked]:
        yield f"another run holds the lock of {list_names([cell.cell for cell in locked])}"
    if unknown := sum(map(facts.unknown, cells)):
        yield f"some rows of {counted(unknown, 'rule')} could not be judged"
    if refused := sum(len(facts.refusals(cell)) for cell in cells):
        yield counted(refused, "refusal")
    if skipped := sum(len(facts.skipped(cell)) for cell in cells):
        yield f"{counted(skipped, 'change was', 'changes were')} skipped"
    if findings := sum(map(len, facts.found(report).values())):
        yield counted(findings, "finding")


def _accepted(report: Report) -> Iterator[str]:
    """Say how much people have decided to live with."""
    differences = facts.accepted(facts.tables(facts.results(report)))
    findings = sum(map(len, facts.found(report, accepted=True).values()))
    parts = [
        counted(differences, "difference") if differences else "",
        counted(findings, "finding") if findings else "",
    ]
    if subject := words.listed([part for part in parts if part]):
        yield f"{subject} {'is' if differences + findings == 1 else 'are'} accepted"


FEW = 3
"""So many cells are named; more are counted."""


def list_names(cells: Sequence[str]) -> str:
    """Return the names of a few cells, or how many they are."""
    return words.listed([*cells]) if len(cells) <= FEW else counted(len(cells), "cell")

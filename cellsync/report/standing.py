"""How each child stands towards its parent, and each feature in it, and what to do first about that.

Pure. A child that could not be compared, and a feature whose rows could not, is never "in step".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import chain
from typing import NamedTuple

from cellsync.model import (
    CellFailure,
    CellResult,
    CheckedCell,
    Dossier,
    HostStatus,
    Report,
    Service,
    Status,
    TableDiff,
    TableFailure,
    Vitals,
)
from cellsync.report import facts, verdict, words
from cellsync.report.verdict import drift


class State(str, Enum):
    """How an edge stands, from good to bad: the worst one that holds is its state."""

    IN_STEP = "in_step"
    REPAIRED = "repaired"
    FINDINGS = "findings"
    DRIFT = "drift"
    REFUSED = "refused"
    INCOMPLETE = "incomplete"
    ISOLATED = "isolated"
    SERVICES_DOWN = "services_down"
    BROKER_DOWN = "broker_down"
    UNREACHABLE = "unreachable"


class Edge(NamedTuple):
    """One child and its parent: every state that holds, the worst first, with what it says."""

    cell: str
    said: Sequence[tuple[State, str]]

    @property
    def state(self) -> State:
        """The worst of the states."""
        return self.said[0][0]


class Works(str, Enum):
    """How one feature stands in one cell."""

    IN_STEP = "in_step"
    DRIFT = "drift"
    FINDINGS = "findings"
    UNKNOWN = "unknown"
    """Some of its rows could not be compared, or judged."""
    NONE = "not_for_this_version"


Standing = Mapping[str, tuple[Works, str]]
"""Feature -> how it stands, and that in words."""


def edges(of: Dossier) -> Sequence[Edge]:
    """Return how every child in scope stands towards the parent, in configured order."""
    checked = {cell.cell: cell for cell in of.checked}
    vitals = {cell.cell: cell for cell in of.vitals}
    return [_edge(cell, checked.get(cell.cell), vitals.get(cell.cell)) for cell in of.report.cells]


def _edge(cell: CellResult | CellFailure, checked: CheckedCell | None, vitals: Vitals | None) -> Edge:
    said = dict(_rows(cell))
    if cell.isolated:
        said[State.ISOLATED] = f"isolated since {cell.isolated} UTC"
    if vitals is not None and vitals.down:
        said[State.SERVICES_DOWN] = f"services down: {', '.join(vitals.down)}"
    if checked is not None and checked.silent:
        lost = f"; {said[State.SERVICES_DOWN]}" if State.SERVICES_DOWN in said else ""
        said[State.SERVICES_DOWN] = f"nova-cells takes no messages{lost}"
    if checked is not None and checked.broker_down:
        said[State.BROKER_DOWN] = f"broker down: {words.ANSWER[checked.broker[0].status]}"
    ranked = sorted(said.items(), key=lambda each: [*State].index(each[0]), reverse=True)
    return Edge(cell.cell, ranked)


def _rows(cell: CellResult | CellFailure) -> Iterator[tuple[State, str]]:
    """Yield what the comparison of its rows says of a child; something in any case."""
    if isinstance(cell, CellFailure):
        gone = cell.status is Status.UNREACHABLE
        yield (State.UNREACHABLE, "unreachable") if gone else (State.INCOMPLETE, "could not be compared")
        return
    said = list(_compared(cell))
    whole = (State.REPAIRED if cell.status is Status.REPAIRED else State.IN_STEP, words.STATUS[cell.status])
    yield from said or [whole]


def _compared(cell: CellResult) -> Iterator[tuple[State, str]]:
    found = drift(facts.tally(facts.compared(cell)))
    if found and cell.status is not Status.REPAIRED:
        yield State.DRIFT, f"drift: {found}"
    if cell.status is Status.REFUSED or facts.refusals(cell):
        yield State.REFUSED, words.counted(len(facts.refusals(cell)), "refusal")
    if broken := len(facts.broken(cell)):
        yield State.INCOMPLETE, f"{words.counted(broken, 'rule')} could not be compared"
    elif facts.unknown(cell) or cell.status is Status.INCOMPLETE:
        yield State.INCOMPLETE, "not all of it is known"
    if findings := _findings(cell):
        yield State.FINDINGS, words.counted(findings, "finding")


def _findings(cell: CellResult) -> int:
    every = (finding for table in facts.compared(cell) for finding in table.findings)
    return len(facts.unique(each for each in every if not each.accepted))


def parent(of: Dossier) -> tuple[bool, str]:
    """Return whether the parent is sound, and what answers there, "" where nobody has asked."""
    checked = next((cell for cell in of.checked if cell.cell == of.report.run.topology), None)
    vitals = next((cell for cell in of.vitals if cell.cell == of.report.run.topology), None)
    if checked is None:
        return True, ""
    said = [f"database {_answer(checked.database.status)}"]
    if checked.broker:
        lost = [probe.status for probe in checked.broker if probe.status is not HostStatus.OK]
        answer = _answer(lost[0] if lost else HostStatus.OK)
        said.append(f"broker {'down: ' if checked.broker_down else ''}{answer}")
    said += ["nova-cells takes no messages"] if checked.silent else []
    down = vitals.down if vitals else {}
    said += [f"services down: {', '.join(down)}"] if down else []
    return checked.sound and not down, ", ".join(said)


def _answer(status: HostStatus) -> str:
    return "answers" if status is HostStatus.OK else words.ANSWER[status]


def ended(of: Dossier) -> str:
    """Return what the exit code says, in words: what does not answer may be all that is incomplete."""
    silent = any(not cell.sound for cell in of.checked) or of.unread
    incomplete = any(state in _UNKNOWN for edge in edges(of) for state, _ in edge.said)
    if silent and not incomplete:
        return "something does not answer"
    return words.EXIT[of.report.exit_code]


_UNKNOWN = (State.INCOMPLETE, State.UNREACHABLE)


def outage(of: Dossier) -> str:
    """Return what does not work in which cells; "" where all that was asked works."""
    failed = {cell.cell: cell for cell in facts.failures(of.report) if cell.status is Status.UNREACHABLE}
    vitals = {cell.cell: cell for cell in of.vitals}
    asked = {cell.cell: cell for cell in of.checked}
    down: dict[str, list[str]] = {}
    for name in facts.unique([*asked, *failed]):
        checked = asked.get(name)
        named = f"{name} (isolated)" if checked and checked.isolated else name
        for said in _outages(name in failed, checked, vitals.get(name)):
            down.setdefault(said, []).append(named)
    return "; ".join(f"{said} in {verdict.list_names(cells)}" for said, cells in down.items())


def _outages(failed: bool, checked: CheckedCell | None, vitals: Vitals | None) -> Iterator[str]:
    if failed or (checked and checked.database.status is not HostStatus.OK):
        yield "the database does not answer"
    if checked is not None and checked.broker_down:
        yield "the broker takes no messages"
    elif checked is not None and checked.silent:
        yield "nova-cells takes no messages"
    if vitals is not None and vitals.down:
        yield f"{words.listed([*vitals.down])} {'is' if len(vitals.down) == 1 else 'are'} not alive"


class Life(str, Enum):
    """How the services of one name stand in one cell."""

    DOWN = "down"
    """None is alive, and requests are lost without one."""
    LOST = "lost"
    """They would be heard through a broker that is down."""
    PART = "part"
    ALIVE = "alive"


def services(vitals: Vitals) -> Iterator[tuple[Life, str]]:
    """Yield how a cell's services stand, by name: what is down, then what is not alive, then the rest."""
    said: dict[str, tuple[Life, str]] = {}
    for name in facts.unique(service.name for service in vitals.services):
        mine = [service for service in vitals.services if service.name == name]
        dead = [service for service in mine if not service.alive]
        lost = f": without it {mine[0].lost}" if name in vitals.down else ""
        if all(service.lost_with_broker for service in mine):
            said[name] = (
                Life.LOST,
                f"{name} unknown: it would be heard through the broker, which is down; {_dead(dead)}",
            )
            continue
        if dead:
            said[name] = (Life.DOWN if lost else Life.PART, f"{name} {_dead(dead)}{lost}")
        if len(dead) < len(mine):
            rest = f", alive on {_hosts(len(mine) - len(dead), mine)}"
            said[name] = (Life.PART, said[name][1] + rest) if dead else (Life.ALIVE, name + rest[1:])
    yield from sorted(said.values(), key=lambda each: [*Life].index(each[0]))


def _dead(services: Sequence[Service]) -> str:
    hosts = [f"{each.host} ({words.ago(each.age)})" for each in services if each.host]
    more = f" and {len(hosts) - HOSTS} more" if len(hosts) > HOSTS else ""
    return f"not alive on {', '.join(hosts[:HOSTS])}{more}" if hosts else "never seen"


def _hosts(number: int, services: Sequence[Service]) -> str:
    first = next(each.host for each in services if each.alive)
    return first if number == 1 else f"{number} hosts"


HOSTS = 10
"""So many hosts are named on which a service is not alive."""


def features(of: Dossier) -> Sequence[tuple[str, Standing]]:
    """Return for every child how each feature stands in it."""
    return [
        (cell.cell, {name: _feature(cell, name, of.report) for name in of.features})
        for cell in of.report.cells
    ]


def _feature(cell: CellResult | CellFailure, name: str, report: Report) -> tuple[Works, str]:
    if isinstance(cell, CellFailure):
        return Works.UNKNOWN, "unknown"
    serving = [table for table in cell.tables if name in report.rule_features.get(table.rule, ())]
    tables = [table for table in serving if not isinstance(table, TableFailure)]
    found = drift(facts.tally(tables))
    if len(tables) < len(serving) or any(table.unknown for table in tables):
        return Works.UNKNOWN, f"unknown; {found} at least" if found else "unknown"
    if found and _mended(cell, tables):
        return Works.IN_STEP, f"{found}; repaired"
    if found:
        return Works.DRIFT, found
    every = facts.unique(each for table in tables for each in table.findings if not each.accepted)
    if every:
        return Works.FINDINGS, words.counted(len(every), "finding")
    return (Works.IN_STEP, "in step") if tables else (Works.NONE, "not for this version")


def _mended(cell: CellResult, tables: Sequence[TableDiff]) -> bool:
    """Say whether a repair has written all that counts in some tables."""
    drifting = {table.rule: table for table in tables if facts.tally([table]).total}
    left = {each.rule for each in chain(facts.skipped(cell), cell.unmade)}
    return not left & drifting.keys() and all(
        table.status is Status.REPAIRED and table.does(*facts.WRITES) == facts.tally([table]).total
        for table in drifting.values()
    )


def first(of: Dossier) -> Iterator[tuple[str, str]]:
    """Yield commands, "" where there is none, and why or what else to do; the most urgent first."""
    report = of.report
    for checked in of.checked[1:]:
        if checked.broker_down and not checked.isolated:
            why = "no host of its broker takes messages, and the parent hangs with it"
            yield f"cellsync cells isolate {checked.cell}", why
        elif checked.silent and not checked.isolated:
            why = "its nova-cells takes no messages, and the parent hangs with it; then start that"
            yield f"cellsync cells isolate {checked.cell}", why
    for vitals in of.vitals:
        if down := list(vitals.down):
            lost = f"without it {vitals.down[down[0]]}" if len(down) == 1 else "what is lost stands below"
            yield "", f"start {words.listed(down)} in {vitals.cell}: none is alive; {lost}"
    for failure in facts.failures(report):
        look = "cells check" if failure.status is Status.UNREACHABLE else "trace"
        why = f"it could not be compared, so nothing is known of it: {failure.error}"
        yield f"cellsync {look} {failure.cell}", why
    if facts.stage(report) is facts.Stage.WRITTEN:
        for cell in facts.results(report):
            yield from (("", notice) for notice in facts.notices(cell) if cell.counts.applied)
        if facts.totals(report).applied:
            yield f"cellsync undo {report.run.id}", "takes this run back, should it have been wrong"
    out = [cell.cell for cell in facts.results(report) if facts.count_writable(facts.compared(cell))]
    if out and facts.stage(report) is not facts.Stage.WRITTEN:
        names = " ".join(out) if len(out) < len(report.cells) else ""
        yield f"cellsync repair {names}".strip() + " --dry-run", "shows what a repair would write"
        yield f"cellsync repair {names}".strip(), "writes it, after it has asked"
    if facts.found(report):
        yield "", "look at the findings below: no repair mends them by itself"

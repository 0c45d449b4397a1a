"""`report`: compare, check and look back, and put it all into one dossier."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from cellsync import __version__
from cellsync.errors import ExitCode
from cellsync.model import Dossier, HostStatus, Limit, Limits, Pack, Rule
from cellsync.model.secrets import USUAL
from cellsync.report.sql import excerpt
from cellsync.run.checking import Check, check
from cellsync.run.compare import compare
from cellsync.run.past import course, history
from cellsync.run.request import Request
from cellsync.run.seeing import sighting
from cellsync.run.telling import with_whole_rows
from cellsync.run.vitals import ask, mark_lost_with_broker

RUNS = 20
"""So many of the last runs are in a report."""


def report(request: Request, *, timeout: float, since: datetime | None = None) -> Dossier:
    """Compare every child in scope, check what answers, and read the journals. Reads only.

    With ``since`` also the drift log, for what drifted from then on.
    """
    prepared = compare(replace(request, run=replace(request.run, verb="diff")))
    compared = with_whole_rows(request, prepared, excerpt.chosen(prepared.report))
    checked = check(request, timeout=timeout)
    up = {cell.cell for cell in checked.cells if cell.database.status is HostStatus.OK}
    cells = [cell for cell in (request.topology.parent, *request.children) if cell.name in up]
    request.progress("asking for services")
    without_broker = {cell.cell for cell in checked.cells if cell.broker_down}
    vitals = tuple(
        mark_lost_with_broker(each) if each.cell in without_broker else each
        for each in ask(request, cells, timeout=timeout)
    )
    request.progress("reading journals")
    triage = None
    if since is None:
        past = history(request)
    else:
        found = course(request, since=since, also=[sighting(compared)])
        past, triage = found.history, found.triage
    unread = bool(past.failures) or (triage is not None and bool(triage.unread))
    unsound = unread or any(not cell.sound for cell in checked.cells)
    code = max(compared.exit_code, ExitCode.INCOMPLETE if unsound else ExitCode.IN_STEP)
    rules = request.ruleset.rules
    return Dossier(
        report=replace(compared, run=replace(compared.run, verb="report"), exit_code=code),
        checked=checked.cells,
        vitals=vitals,
        runs=past.runs[:RUNS],
        unread={failure.cell: failure.error for failure in past.failures},
        unseen=past.unseen,
        triage=triage,
        features=tuple(dict.fromkeys(name for rule in rules for name in rule.features)),
        settings=_settings(request, checked),
        accepts=request.topology.accepted,
    )


def _settings(request: Request, checked: Check) -> dict[str, str]:
    """Return what a comparison depends on, beside the rows: for whoever reads it elsewhere."""
    ruleset, secrets = request.ruleset, request.topology.secrets
    said = {
        "cellsync": __version__,
        "Python": platform.python_version(),
        "rules": ", ".join(map(_pack, ruleset.packs)),
        "digest of the rules": ruleset.digest[:16],
        "rules left out": ", ".join(sorted(ruleset.left_out)),
        "settle": "; ".join([f"{request.settle.total_seconds():g} s", *_own_settles(ruleset.rules)]),
        **{f"limits of {rules}": _limits(limits) for rules, limits in _grouped(ruleset.rules).items()},
        "columns not shown": ", ".join((*USUAL, *secrets.hide)),
        "columns shown all the same": ", ".join(secrets.show),
        **{f"database of {cell.cell}": cell.database.server for cell in checked.cells},
    }
    return {name: value for name, value in said.items() if value}


def _pack(pack: Pack) -> str:
    detectors = f", {len(pack.detectors)} detectors" if pack.detectors else ""
    changes = f", changes {', '.join(pack.changes)}" if pack.changes else ""
    return f"{pack.name} ({len(pack.rules)} rules{detectors}{changes})"


def _own_settles(rules: tuple[Rule, ...]) -> Iterator[str]:
    own = (rule for rule in rules if rule.settle is not None)
    return (f"{rule.id} {rule.settle.total_seconds():g} s" for rule in own if rule.settle is not None)


def _grouped(rules: tuple[Rule, ...]) -> Mapping[str, Limits]:
    """Return the limits by the rules that share them: "all rules", "all other rules", or their ids."""
    groups: dict[Limits, list[str]] = {}
    for rule in rules:
        groups.setdefault(rule.limits, []).append(rule.id)
    if len(groups) == 1:
        return {"all rules": next(iter(groups))}
    return {_of(ids, len(rules)): limits for limits, ids in groups.items()}


def _of(ids: list[str], rules: int) -> str:
    return "all other rules" if len(ids) > rules / 2 else ", ".join(ids)


def _limits(limits: Limits) -> str:
    def said(limit: Limit | None) -> str:
        return "unlimited" if limit is None else str(limit)

    return (
        f"inserts {said(limits.inserts)}, updates {said(limits.updates)}, deletes {said(limits.deletes)}; "
        f"{limits.free} of each are always allowed"
    )

"""`report`: compare, check and look back, and put it all into one dossier."""

from __future__ import annotations

import platform
from dataclasses import replace
from datetime import datetime

from cellsync import __version__
from cellsync.errors import ExitCode
from cellsync.model import Dossier
from cellsync.run.checking import check
from cellsync.run.compare import compare
from cellsync.run.past import course, history
from cellsync.run.request import Request
from cellsync.run.seeing import sighting

RUNS = 20
"""So many of the last runs are in a report."""


def report(request: Request, *, timeout: float, since: datetime | None = None) -> Dossier:
    """Compare every child in scope, check what answers, and read the journals. Reads only.

    With ``since`` also the drift log, for what drifted from then on.
    """
    compared = compare(replace(request, run=replace(request.run, verb="diff"))).report
    checked = check(request, timeout=timeout)
    request.progress("reading journals")
    triage = None
    if since is None:
        past = history(request)
    else:
        found = course(request, since=since, also=[sighting(compared)])
        past, triage = found.history, found.triage
    rules = request.ruleset
    servers = {
        f"database of {cell.cell}": cell.database.server for cell in checked.cells if cell.database.server
    }
    unread = bool(past.failures) or (triage is not None and bool(triage.unread))
    unsound = unread or any(not cell.sound for cell in checked.cells)
    code = max(compared.exit_code, ExitCode.INCOMPLETE if unsound else ExitCode.IN_STEP)
    return Dossier(
        report=replace(compared, run=replace(compared.run, verb="report"), exit_code=code),
        checked=checked.cells,
        runs=past.runs[:RUNS],
        unread={failure.cell: failure.error for failure in past.failures},
        triage=triage,
        features=tuple(dict.fromkeys(name for rule in rules.rules for name in rule.features)),
        settings={
            "cellsync": __version__,
            "Python": platform.python_version(),
            "rules": ", ".join(f"{pack.name} ({len(pack.rules)} rules)" for pack in rules.packs),
            "digest of the rules": rules.digest[:16],
            "settle": f"{request.settle.total_seconds():g} s",
            **servers,
        },
    )

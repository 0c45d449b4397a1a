"""`report`: compare, check and look back, and put it all into one dossier."""

from __future__ import annotations

import platform
from dataclasses import replace

from cellsync import __version__
from cellsync.errors import ExitCode
from cellsync.model import Dossier
from cellsync.run.checking import check
from cellsync.run.compare import compare
from cellsync.run.past import history
from cellsync.run.request import Request

RUNS = 20
"""So many of the last runs are in a report."""


def report(request: Request, *, timeout: float) -> Dossier:
    """Compare every child in scope, check what answers, and read the journals. Reads only."""
    compared = compare(replace(request, run=replace(request.run, verb="diff"))).report
    checked = check(request, timeout=timeout)
    request.progress("reading journals")
    past = history(request)
    rules = request.ruleset
    servers = {
        f"database of {cell.cell}": cell.database.server for cell in checked.cells if cell.database.server
    }
    unsound = bool(past.failures) or any(not cell.sound for cell in checked.cells)
    code = max(compared.exit_code, ExitCode.INCOMPLETE if unsound else ExitCode.IN_STEP)
    return Dossier(
        report=replace(compared, run=replace(compared.run, verb="report"), exit_code=code),
        checked=checked.cells,
        runs=past.runs[:RUNS],
        unread={failure.cell: failure.error for failure in past.failures},
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

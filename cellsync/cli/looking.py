"""The verbs that look: at past runs, at features, and at schemas."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cellsync.cli import completing, logs
from cellsync.cli.options import Common, cellsync, check_file, command, output_options, scope_options
from cellsync.cli.preparing import (
    check_place,
    need_consent,
    progress,
    put,
    put_report,
    request_for,
    style_of,
    write_metrics,
    write_metrics_of,
)
from cellsync.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from cellsync.model import CellFailure
    from cellsync.run import Course, Request

TRIAGE = timedelta(days=30)
AGAIN = 3
"""So many repairs of one row in that time are a fight with another writer."""


@command(cellsync)
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--init", is_flag=True, help="About the journal's own tables; with --print-sql.")
@click.option("--print-sql", is_flag=True, help="Print what an administrator runs to make the journal.")
@click.option("--prune", is_flag=True, help="Forget old runs; with --keep. They can no longer be undone.")
@click.option("--keep", metavar="AGE", help='How old the runs may be that are kept: "90d", "12w", "36h".')
@click.option("--repeated", is_flag=True, help="List rows that several repairs wrote. [in the last 30 days]")
@click.option(
    "--since", metavar="WHEN", help='What drifted, too: "7d", "12h", "2w", or a date and time in UTC.'
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_options("text", "json", "sql")
def history(
    common: Common,
    *,
    run_id: str | None,
    init: bool,
    print_sql: bool,
    prune: bool,
    keep: str | None,
    repeated: bool,
    since: str | None,
    yes: bool,
    format_: str,
    output: str | None,
) -> ExitCode:
    """List the runs that wrote, newest first, or show one of them with its changes.

    With --since, also what the drift log knows: what drifted, when it was first seen and repaired,
    and which rows come back again and again.
    """
    from cellsync import run
    from cellsync.report import json, past
    from cellsync.run import telling

    if init != print_sql:
        raise UsageError("--init and --print-sql go together")
    if prune != (keep is not None):
        raise UsageError("--prune and --keep go together: --prune --keep 90d")
    if init:
        return _print_setup(common, output)
    if keep is not None:
        return _prune(common, _age(keep, "--keep"), yes=yes)
    if since is not None and run_id is not None:
        raise UsageError("--since is about all runs of a time: leave the RUN out")
    if format_ == "sql" and (run_id is None or repeated):
        raise UsageError("--format sql shows what one run has made: name the run")
    now = datetime.now(timezone.utc)
    begin = None if since is None else moment(since, now)
    request = request_for(common, "history", without_rules=True)
    if begin is not None and not repeated:
        return _since(common, request, begin, format_, output)
    if repeated:
        again = run.repeated(request, since=now - begin if begin else TRIAGE, times=AGAIN)
        _say_unknown(common, again.failures, again.unseen)
        put(
            json.repeated(again.rows, unseen=again.unseen)
            if format_ == "json"
            else past.repeated(again.rows, style_of(common), unseen=again.unseen),
            output,
        )
        return ExitCode.INCOMPLETE if again.failures else ExitCode.IN_STEP
    found = run.history(request, run_id)
    _say_unknown(common, found.failures, found.unseen)
    style = style_of(common)
    if format_ == "sql" and found.runs:
        put_report(telling.of_run(request, found.runs[0]), style, format_, output)
        return found.exit_code
    shown = [
        json.history(found.runs, unseen=found.unseen)
        if format_ == "json"
        else past.history(found.runs, style, unseen=found.unseen)
    ]
    if run_id is not None and format_ == "text":
        style = replace(style, secrets=request.topology.secrets)
        shown.append(past.changes(run.changes(request, run_id), style))
    put(chain.from_iterable(shown), output)
    return found.exit_code


def _since(common: Common, request: Request, since: datetime, format_: str, output: str | None) -> ExitCode:
    from cellsync import run
    from cellsync.report import json, past

    found = run.course(request, since=since)
    say_unread(common, found, request)
    runs, unseen, triage = found.history.runs, found.history.unseen, found.triage
    put(
        json.course(runs, triage, unseen=unseen)
        if format_ == "json"
        else past.course(runs, triage, style_of(common), unseen=unseen),
        output,
    )
    return found.exit_code


def say_unread(common: Common, found: Course, request: Request) -> None:
    """Say on stderr what of the past could not be read."""
    triage = found.triage
    _say_unknown(common, found.history.failures, found.history.unseen)
    if triage.unread:
        logs.remark(common, triage.unread)
    if triage.torn:
        lines = f"{triage.torn} line{'s' if triage.torn > 1 else ''} of the drift log"
        said = f"{lines} could not be understood, and {'are' if triage.torn > 1 else 'is'} left out"
        logs.remark(common, said, level=logging.WARNING)
    if request.drift_log is None:
        said = (
            "there is no drift log, so only runs that wrote are known: "
            "name a drift_log in cellsync.yaml, or --drift-log FILE"
        )
        logs.remark(common, said, level=logging.WARNING)


def _print_setup(common: Common, output: str | None) -> ExitCode:
    """Print what an administrator runs to make the journal, for the logins that the cells know.

    Without a configuration it is for the login of the documentation, and a comment says so.
    """
    from cellsync import journal, run

    if common.config is None and not Path("cellsync.yaml").exists():
        note = (
            f"-- There is no cellsync.yaml: put the login of cellsync in the place of {journal.ANY_HOST}.\n"
        )
        put([note, journal.sql()], output)
        return ExitCode.IN_STEP
    logins, failures = run.find_logins(request_for(common, "history", without_rules=True))
    _say_unknown(common, failures, ())
    notes = [f"-- {login} is the login of {', '.join(cells)}.\n" for login, cells in logins.items()]
    for failure in failures:
        notes.append(
            f"-- {failure.cell} could not be asked for its login: add a GRANT where it has another.\n"
        )
    put([*(notes if failures or len(logins) > 1 else ()), journal.sql(*logins)], output)
    return ExitCode.INCOMPLETE if failures else ExitCode.IN_STEP


def _say_unknown(common: Common, failures: Iterable[CellFailure], unseen: Sequence[str]) -> None:
    """Say on stderr which journals could not be read, and which may be there unseen."""
    from cellsync.report import words

    for failure in failures:
        logs.remark(common, f"{failure.status.value}: {failure.error}", cell=failure.cell)
    if unseen:
        logs.remark(common, words.unseen(unseen), level=logging.WARNING)


def _prune(common: Common, keep: timedelta, *, yes: bool) -> ExitCode:
    from cellsync import run
    from cellsync.model import CellFailure

    need_consent(yes)
    request = request_for(common, "history", without_rules=True)
    question = f"Forget the runs that are older than {keep.days} days and {keep.seconds // 3600} hours?"
    if not yes and not click.confirm(question, err=True):
        return ExitCode.IN_STEP
    code = ExitCode.IN_STEP
    results = run.prune(request, keep=keep)
    for name, result in results.items():
        if isinstance(result, CellFailure):
            code = ExitCode.INCOMPLETE
        elif result is not None and not common.silent:
            click.echo(f"{name}: {result} runs forgotten")
    failures = (each for each in results.values() if isinstance(each, CellFailure))
    _say_unknown(common, failures, [name for name, result in results.items() if result is None])
    return code


def moment(text: str, now: datetime) -> datetime:
    """Return the time that --since means: so long ago, or a date (its beginning) or time in UTC."""
    if re.fullmatch(r"\d{1,5}[hdw]", text):
        return now - _age(text, "--since")
    try:
        given = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        since = given.astimezone(timezone.utc) if given.tzinfo else given.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since {text}: write a number and h, d or w (7d), or a date (2026-11-23, 2026-11-23T10:00)"
        ) from None
    if since > now:
        raise UsageError(f"--since {text} is in the future")
    return since


def _age(text: str, option: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if found is None:
        raise UsageError(f"{option} {text}: write a number and h, d or w: 90d")
    unit = {"h": "hours", "d": "days", "w": "weeks"}[found.group(2)]
    return timedelta(**{unit: int(found.group(1))})


@command(cellsync)
@click.argument("feature", metavar="FEATURE", shell_complete=completing.features)
@click.argument("cells", nargs=-1, metavar="[CELL]...", shell_complete=completing.cells)
@output_options("text", "json")
def explain(
    common: Common, *, feature: str, cells: tuple[str, ...], format_: str, output: str | None
) -> ExitCode:
    """Say what a feature needs, what of it is there, and the first thing that is missing in a cell."""
    from cellsync.model import HopStatus
    from cellsync.report import explained, metrics
    from cellsync.run import explaining

    check_place(output)
    request = request_for(common, "explain", cells=cells)
    with progress(common, request) as shown:
        found = explaining.explain(shown, feature)
    statuses = {each.status for cell in found.cells for each in cell.found}
    code = ExitCode.DIFFERENCES if HopStatus.BROKEN in statuses else ExitCode.IN_STEP
    code = ExitCode.INCOMPLETE if HopStatus.UNKNOWN in statuses else code
    write_metrics_of(common, request, partial(metrics.of_explanation, found), code)
    if common.silent and code is ExitCode.IN_STEP:
        return code
    json = format_ == "json"
    put(explained.json(found, code) if json else explained.text(found, code, style_of(common)), output)
    return code


@command(cellsync)
@scope_options
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each broker may take.",
)
@click.option("--since", metavar="WHEN", help="With the course of drift since then: 7d, 12h, 2026-11-23.")
@click.option(
    "-o",
    "--output",
    callback=check_file,
    metavar="FILE",
    shell_complete=completing.files,
    help="Write to it.",
)
@click.option(
    "--format", "format_", type=click.Choice(["html", "text", "json"]), default="html", show_default=True
)
def report(
    common: Common,
    *,
    cells: tuple[str, ...],
    chosen: tuple[str, ...],
    features: tuple[str, ...],
    timeout: float,
    since: str | None,
    format_: str,
    output: str | None,
) -> ExitCode:
    """Put everything into one page for a colleague: drift, findings, brokers, the last runs."""
    from cellsync.report import dossiers, html, metrics
    from cellsync.run import reporting, seeing

    check_place(output)
    begin = None if since is None else moment(since, datetime.now(timezone.utc))
    request = request_for(common, "report", cells=cells, chosen=chosen, features=features)
    with progress(common, request) as shown:
        dossier = reporting.report(shown, timeout=timeout, since=begin)
    code = dossier.report.exit_code
    if common.metrics is not None:
        write_metrics(common.metrics, partial(metrics.of_report, dossier.report))
    if common.log is not None and (unwritten := seeing.record(common.log, dossier.report)):
        logs.remark(common, unwritten, level=logging.WARNING)
    style = replace(style_of(common), terminal=False) if output else style_of(common)
    if format_ == "html":
        put(html.dossier(dossier), output)
    elif format_ == "json":
        put(dossiers.json(dossier), output)
    else:
        put(dossiers.text(dossier, style), output)
    return code


@command(cellsync)
@scope_options
@output_options("text", "json")
def schema(
    common: Common,
    *,
    cells: tuple[str, ...],
    chosen: tuple[str, ...],
    features: tuple[str, ...],
    format_: str,
    output: str | None,
) -> ExitCode:
    """Compare the schemas of the tables that the rules use."""
    from cellsync import run
    from cellsync.report import json, metrics, text

    request = request_for(common, "schema", cells=cells, chosen=chosen, features=features)
    with progress(common, request) as shown:
        report = run.schemas(shown)
    if common.metrics is not None:
        write_metrics(common.metrics, partial(metrics.of_schema, report))
    if common.silent and report.exit_code is ExitCode.IN_STEP:
        return report.exit_code
    put(json.schema(report) if format_ == "json" else text.schema(report, style_of(common)), output)
    return report.exit_code

"""The verbs that look: at past runs, and at schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cellsync.cli.options import Common, cellsync, command, output_options, scope_options
from cellsync.cli.preparing import progress, put, request_for, style_of
from cellsync.errors import ExitCode, UsageError

if TYPE_CHECKING:
    pass


@command(cellsync)
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--init", is_flag=True, help="About the journal's own tables; with --print-sql.")
@click.option("--print-sql", is_flag=True, help="Print what an administrator runs to make the journal.")
@output_options("text", "json")
def history(
    common: Common, *, run_id: str | None, init: bool, print_sql: bool, format_: str, output: str | None
) -> ExitCode:
    """List the runs that wrote, newest first, or show one of them with its changes."""
    from cellsync import journal, run
    from cellsync.report import json, text

    if print_sql or init:
        if not (print_sql and init):
            raise UsageError("--init and --print-sql go together")
        put(journal.sql(), output)
        return ExitCode.IN_STEP
    request = request_for(common, "history", without_rules=True)
    found = run.history(request, run_id)
    for failure in found.failures:
        click.echo(f"{failure.cell}: {failure.status.value}: {failure.error}", err=True)
    style = style_of(common)
    shown = json.history(found.runs) if format_ == "json" else text.history(found.runs, style)
    if run_id is not None and format_ == "text":
        shown += text.changes(run.changes(request, run_id), style)
    put(shown, output)
    return found.exit_code


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
    from cellsync.report import json, text

    request = request_for(common, "schema", cells=cells, chosen=chosen, features=features)
    with progress(common, request) as shown:
        report = run.schemas(shown)
    put(json.schema(report) if format_ == "json" else text.schema(report, style_of(common)), output)
    return report.exit_code

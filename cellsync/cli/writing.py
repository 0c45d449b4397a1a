"""The verbs that compare and write: diff, plan, repair, undo."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cellsync.cli import completing
from cellsync.cli.options import (
    REPORT_FORMATS,
    Common,
    cellsync,
    check_file,
    command,
    output_options,
    scope_options,
)
from cellsync.cli.preparing import (
    carry_out,
    check_place,
    compared,
    finish,
    need_consent,
    put,
    request_for,
    told,
)
from cellsync.errors import ExitCode, UsageError
from cellsync.textfiles import read_whole


@command(cellsync)
@scope_options
@output_options(*REPORT_FORMATS)
def diff(
    common: Common,
    *,
    cells: tuple[str, ...],
    chosen: tuple[str, ...],
    features: tuple[str, ...],
    format_: str,
    output: str | None,
) -> ExitCode:
    """Say what differs between the parent and its children, and what it breaks."""
    check_place(output)
    request = request_for(common, "diff", cells=cells, chosen=chosen, features=features)
    return finish(common, told(common, request, compared(common, request), format_), format_, output)


@command(cellsync)
@scope_options
@click.option("--waive", "waived", multiple=True, metavar="CODE[:RULE]", help="Lift one guard.")
@output_options(*REPORT_FORMATS)
def plan(
    common: Common,
    *,
    cells: tuple[str, ...],
    chosen: tuple[str, ...],
    features: tuple[str, ...],
    waived: tuple[str, ...],
    format_: str,
    output: str | None,
) -> ExitCode:
    """Show what a repair would write; -o keeps it in a file for `repair --plan`."""
    from cellsync.run import planfile

    check_place(output)
    key = _plan_key()
    request = request_for(common, "plan", cells=cells, chosen=chosen, features=features, waived=waived)
    prepared = compared(common, request)
    if output is not None:
        put(planfile.to_text(request, prepared, key=key), output, private=True)
    return finish(common, told(common, request, prepared, format_), format_)


@command(cellsync)
@scope_options
@click.option(
    "--plan",
    "plan_",
    callback=check_file,
    metavar="FILE",
    shell_complete=completing.files,
    help="Carry out exactly this plan.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--waive", "waived", multiple=True, metavar="CODE[:RULE]", help="Lift one guard.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal.")
@output_options(*REPORT_FORMATS)
def repair(
    common: Common,
    *,
    cells: tuple[str, ...],
    chosen: tuple[str, ...],
    features: tuple[str, ...],
    plan_: str | None,
    yes: bool,
    dry_run: bool,
    waived: tuple[str, ...],
    reason: str,
    format_: str,
    output: str | None,
) -> ExitCode:
    """Write what is missing and update what changed, after showing it and asking."""
    from cellsync.run import planfile

    need_consent(yes or dry_run)
    check_place(output)
    planned = (
        None
        if plan_ is None
        else planfile.from_text(_read(plan_), file=plan_, key=_plan_key(), waived=waived)
    )
    request = request_for(
        common,
        "repair",
        cells=cells,
        chosen=chosen,
        features=features,
        waived=waived,
        reason=reason,
        planned=planned,
        dry_run=dry_run,
    )
    prepared = compared(common, request)
    if planned is not None:
        prepared = planfile.adopt(request, prepared, planned)
    return carry_out(common, request, prepared, yes=yes, dry_run=dry_run, format_=format_, output=output)


@command(cellsync)
@click.argument("run_id", metavar="RUN")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be taken back, and write nothing.")
@click.option("--waive", "waived", multiple=True, metavar="CODE[:RULE]", help="Lift one guard.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal.")
@output_options(*REPORT_FORMATS)
def undo(
    common: Common,
    *,
    run_id: str,
    yes: bool,
    dry_run: bool,
    waived: tuple[str, ...],
    reason: str,
    format_: str,
    output: str | None,
) -> ExitCode:
    """Take back what a run wrote, where its rows are still as it left them."""
    from cellsync import run

    need_consent(yes or dry_run)
    check_place(output)
    request = request_for(common, "undo", reason=reason, waived=waived, without_rules=True, dry_run=dry_run)
    prepared = run.prepare_undo(request, run_id)
    return carry_out(common, request, prepared, yes=yes, dry_run=dry_run, format_=format_, output=output)


def _read(path: str) -> str:
    try:
        return read_whole(Path(path), most=None).decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        # Its own text has bytes of the file.
        raise UsageError(f"cannot read {path}: it is not UTF-8 text (byte {error.start})") from None
    except ValueError:
        raise UsageError(f"cannot read {path}: this is no path") from None


PLAN_KEY = "CELLSYNC_PLAN_KEY"


def _plan_key() -> bytes | None:
    """Return the secret that plan files are signed with; None where there is none."""
    key = os.environb.get(PLAN_KEY.encode())
    if key is not None and not key.strip():
        raise UsageError(f"{PLAN_KEY} is empty: unset it, or give it the secret that plans are signed with")
    return key

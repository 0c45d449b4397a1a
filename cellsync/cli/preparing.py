"""From options to a request, and from a report to the output: what all commands share."""

from __future__ import annotations

import glob
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cellsync.cli import logs, streams
from cellsync.cli.options import Common
from cellsync.errors import CellsyncError, ConfigurationError, ExitCode, OutputFailed, Problem, UsageError
from cellsync.masking import mask_urls
from cellsync.symlinks import open_trusted

if TYPE_CHECKING:
    from cellsync.model import Cell, Report, Rule, RuleSet, Topology
    from cellsync.report import Style
    from cellsync.run import Prepared, Request
    from cellsync.run.planfile import PlanFile


LOG = logging.getLogger(__name__)
ABANDONED = timedelta(hours=1)


def topology_of(common: Common) -> Topology:
    """Read the cells, and remember what must not be printed."""
    from cellsync import cells

    topology = cells.load(common.config or "cellsync.yaml", environ=os.environ)
    _remember(common, topology.parent, *topology.children)
    return topology


def _remember(common: Common, *cells: Cell) -> None:
    for cell in cells:
        for endpoint in (cell.database, cell.broker, *cell.databases.values()):
            if endpoint is not None and endpoint.url.reveal():
                common.endpoints.append(endpoint)


def located_of(common: Common) -> Topology:
    """Read the cells, those too that only the parent's database lists."""
    from cellsync import db, run

    topology = run.located(topology_of(common), db.Timeouts())
    _remember(common, *topology.children)
    return topology


def ruleset_of(common: Common, topology: Topology) -> RuleSet:
    """Read the rules: those of -r, or those that the configuration names."""
    from cellsync import rules

    sources = common.rules or list(topology.rules)
    if not sources:
        raise ConfigurationError(
            [
                Problem(
                    common.config or "cellsync.yaml", 0, 0, "no rules: name a pack under `rules:` or with -r"
                )
            ]
        )
    return rules.load(sources)


def _find_rules(common: Common, topology: Topology) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """Return the rules of the files and what these hide, for a command that needs no rules.

    Files that are bad have no rules and hide all columns.
    """
    try:
        if not (common.rules or topology.rules):
            return (), ()
        ruleset = ruleset_of(common, topology)
        return ruleset.rules, ruleset.hides
    except ConfigurationError:
        return (), ("*",)


def request_for(
    common: Common,
    verb: str,
    *,
    cells: Sequence[str] = (),
    chosen: Sequence[str] = (),
    features: Sequence[str] = (),
    reason: str = "",
    waived: Sequence[str] = (),
    without_rules: bool = False,
    planned: PlanFile | None = None,
    dry_run: bool = False,
    again: bool = False,
) -> Request:
    """Return what the command line and the configuration ask for.

    A plan file brings its own scope, where the command line says nothing else. ``again`` is for one that
    follows another: that its metrics cannot be written any more is no reason to do nothing.
    """
    import secrets
    import socket

    from cellsync import model, rules, run

    if not again:
        check_place(common.metrics)
    topology = located_of(common)
    common.log = common.drift_log or topology.drift_log
    if common.changes_only and common.log is None:
        raise UsageError(
            "--changes-only needs a place to remember: name a drift_log in cellsync.yaml, or --drift-log FILE"
        )
    unused: tuple[Rule, ...] = ()
    if without_rules:
        ruleset = model.RuleSet(packs=(), rules=(), digest="")
        unused, hidden = _find_rules(common, topology)
    else:
        ruleset = ruleset_of(common, topology)
        hidden = ruleset.hides
    topology = replace(topology, secrets=replace(topology.secrets, packs=hidden))
    if planned is not None:
        cells = cells or planned.cells
        chosen = chosen or (() if features else [name for name in planned.rule_ids if ruleset.rule(name)])
    if chosen or features:
        ruleset = rules.select(ruleset, rules=chosen, features=features)
    known = [child.name for child in topology.children]
    for name in cells:
        if name not in known:
            raise UsageError(f"there is no child {name!r}: the children are {', '.join(known)}")
    started = datetime.now(timezone.utc)
    return run.Request(
        run=model.Run(
            id=f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            verb=verb,
            started=started,
            topology=topology.parent.name,
            operator=_operator(),
            host=socket.gethostname(),
            command=_command(common.arguments),
            reason=reason,
            dry_run=dry_run,
        ),
        topology=topology,
        ruleset=ruleset,
        unused=unused,
        cells=tuple(cells),
        jobs=common.jobs or 8,
        settle=topology.settle,
        waived=tuple(waived),
        drift_log=common.log,
    )


def _command(arguments: Sequence[str]) -> str:
    """Return the command line as the journal keeps it: without a password."""
    shown = [
        "***" if before == "--password" else re.sub(r"^--password=.*", "--password=***", argument, flags=re.S)
        for before, argument in zip(["", *arguments], arguments, strict=False)
    ]
    return mask_urls(shlex.join(["cellsync", *shown]))


def _operator() -> str:
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        # A user id without an entry in the password file, as in a bare container.
        return str(os.getuid())


def need_consent(given: bool) -> None:
    """Raise UsageError when nobody agreed to the writing and nobody can be asked."""
    if not (given or sys.stdin.isatty()):
        raise UsageError("there is no terminal to ask on: give --yes to write, or --dry-run to look")


@contextmanager
def progress(common: Common, request: Request) -> Iterator[Request]:
    """Show what is going on, on a terminal only, on stderr; else log it."""
    if common.silent or common.log_format == logs.JSON or not sys.stderr.isatty():
        yield replace(request, progress=LOG.info)
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("starting") as status:
        # As a Text: a name may have brackets, which rich takes for colours.
        yield replace(request, progress=lambda text: status.update(Text(text)))


def compared(common: Common, request: Request) -> Prepared:
    """Compare and plan, showing on a terminal what is going on."""
    from cellsync import run

    with progress(common, request) as shown:
        return run.compare(shown)


def style_of(common: Common) -> Style:
    """Return how text is to be shown where stdout goes."""
    from cellsync.report import Style

    terminal = sys.stdout.isatty()
    width = os.get_terminal_size().columns if terminal else 100
    return Style(terminal=terminal, width=width, verbose=common.verbose)


def say(pieces: Iterable[str], *, err: bool = False) -> None:
    """Write to stdout, or to stderr; many small pieces at once."""
    waiting = iter(pieces)
    while text := "".join(islice(waiting, 1000)):
        click.echo(text, nl=False, err=err)


def put(pieces: Iterable[str], output: str | None, *, private: bool = False) -> None:
    """Write to stdout, or to a file that is complete or not there at all.

    What is there already and is no file, a device or a named pipe, is written to as it is.
    """
    if output is None:
        say(pieces)
        return
    import secrets

    check_place(output)
    _sweep(output)
    part = Path(f"{output}.{secrets.token_hex(4)}.part")  # nobody else's: two watches may share a file
    try:
        if _is_special(output):
            with open(open_trusted(output, os.O_WRONLY), "w", encoding="utf-8") as place:
                place.writelines(pieces)
            return
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644),
            "w",
            encoding="utf-8",
        ) as file:
            file.writelines(pieces)
        part.replace(output)
    except OSError as error:
        raise OutputFailed(f"cannot write {output}: {error.strerror}") from None
    except UnicodeEncodeError:
        raise OutputFailed(f"cannot write {output}: a text in it is no UTF-8") from None
    finally:
        part.unlink(missing_ok=True)  # what could not be written to its end


def _is_special(output: str) -> bool:
    """Say whether something is there that another file must not take the place of: /dev/null, for one."""
    return Path(output).exists() and not Path(output).is_file()


def _sweep(output: str) -> None:
    """Take away what killed runs left of a file; what is younger than an hour may be another run's."""
    path = Path(output)
    for part in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        with suppress(OSError):  # it is somebody else's, or another run was faster
            if time.time() - part.stat().st_mtime > ABANDONED.total_seconds():
                part.unlink()


def check_place(output: str | None) -> None:
    """Raise UsageError where ``_put`` could not write, while nothing has been done yet."""
    if output is None:
        return
    path, folder = Path(output), Path(output).parent
    if path.is_dir():
        raise UsageError(f"cannot write {output}: it is a directory")
    if _is_special(output):
        if not os.access(path, os.W_OK):
            raise UsageError(f"cannot write {output}: it is not writable")
        return
    if not folder.is_dir():
        raise UsageError(f"cannot write {output}: there is no directory {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {output}: {folder} is not writable")


def finish(common: Common, report: Report, format_: str, output: str | None = None) -> ExitCode:
    """Write the report, or what of it is to be told, and return its exit code."""
    from cellsync.cli.telling import tell

    unwritten: CellsyncError | None = None
    try:
        tell(common, report, format_, output)
    except (UsageError, OutputFailed) as error:
        unwritten = error
    if common.metrics is not None:
        from cellsync.report import metrics

        try:
            write_metrics(common.metrics, partial(metrics.of_report, report))
        except (UsageError, OutputFailed) as error:
            unwritten = unwritten or error
    if unwritten is not None:
        # The run is over, and its code must not be lost: nothing was wrong with the command line.
        raise OutputFailed(f"{unwritten}{_standing(report)}", least=report.exit_code) from unwritten
    return report.exit_code


def _standing(report: Report) -> str:
    """Return what became of a run whose report cannot be written."""
    from cellsync.model import CellResult

    applied = sum(cell.counts.applied for cell in report.cells if isinstance(cell, CellResult))
    run = report.run.id
    return f"; {applied} changes were made and are in the journal: cellsync history {run}" if applied else ""


def told(common: Common, request: Request, prepared: Prepared, format_: str) -> Report:
    """Return the report of what was prepared, with whole rows where the output shows the way back."""
    if format_ not in ("sql", "html"):
        return prepared.report
    from cellsync.report.sql import excerpt
    from cellsync.run import telling

    chosen = excerpt.chosen(prepared.report) if format_ == "html" else None
    with progress(common, request) as shown:
        return telling.with_whole_rows(shown, prepared, chosen)


CELL = "{cell}"
"""In the name of a file of statements: the cell whose database they are for."""


def put_report(report: Report, style: Style, format_: str, output: str | None) -> None:
    """Write a report; statements go to a file for nobody else, or to one for each database."""
    from cellsync.report import FORMATS

    if format_ == "sql" and output is not None and CELL in output:
        from cellsync.report import sql

        for cell, pieces in sql.by_database(report, style).items():
            put(pieces, output.replace(CELL, cell), private=True)
    else:
        put(FORMATS[format_](report, style), output, private=format_ == "sql")


def write_metrics(file: str, made: Callable[[str], str]) -> None:
    """Replace a file of metrics by a new one, which is made of the text of the old one.

    Whoever reads it finds the old or the new one, never a part. An old one that cannot be read or
    understood is not kept: it has nothing but the time of a success.
    """
    try:
        # Reading a named pipe would wait for somebody who writes to it.
        before = "" if _is_special(file) else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        before = ""
    try:
        text = made(before)
    except ValueError:
        text = made("")
    put([text], file)


def write_metrics_of(common: Common, request: Request, made: Callable[..., str], code: ExitCode) -> None:
    """Write the metrics of what has no report, where they are asked for."""
    if common.metrics is None:
        return
    run = partial(made, started=request.run.started, finished=request.clock(), exit_code=code)
    write_metrics(common.metrics, lambda before: run(before=before))


def carry_out(
    common: Common,
    request: Request,
    prepared: Prepared,
    *,
    yes: bool,
    dry_run: bool,
    format_: str,
    output: str | None,
) -> ExitCode:
    """Show what would be written and ask, then write it, and report."""
    from cellsync import run

    due = any(edge.plan.changes for edge in prepared.edges)
    if dry_run or not due:
        return finish(common, told(common, request, prepared, format_), format_, output)
    if not yes:
        from cellsync.report import text

        say(text.plan(prepared.report, style_of(common)), err=True)
        if streams.has_failed(sys.stderr):
            raise OutputFailed("cannot show the plan on stderr, to ask about it: nothing was written")
        if not click.confirm("Write this?", err=True):
            logs.plain(common, "nothing was written")
            return prepared.report.exit_code
    if format_ == "html":
        prepared = replace(prepared, report=told(common, request, prepared, format_))
    with progress(common, request) as shown:
        report = run.write(shown, prepared)
        if format_ == "sql":
            from cellsync.run import telling

            report = telling.as_made(shown, report)
    return finish(common, report, format_, output)

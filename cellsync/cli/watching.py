"""`cellsync watch`: a loop that says something when something has changed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from cellsync.cli import logs, streams
from cellsync.cli.options import Common, cellsync, command
from cellsync.cli.preparing import request_for, write_metrics
from cellsync.errors import ExitCode, OutputFailed, ReadFailed, Unreachable, UsageError

if TYPE_CHECKING:
    from cellsync.run import Request
    from cellsync.run.watching import Round, Stop

LEVELS = {ExitCode.IN_STEP: logging.INFO, ExitCode.DIFFERENCES: logging.WARNING}
"""How grave a round is, by its exit code; every other is an error."""


@command(cellsync)
@click.option(
    "--interval",
    type=click.FloatRange(1, 86400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two rounds, a tenth more or less.",
)
@click.option("--repair", is_flag=True, help="Write what is missing, as `repair --yes` does.")
@click.option(
    "--waive", "waived", multiple=True, metavar="CODE[:RULE]", help="Lift one guard, in every round."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Serve /metrics and /healthz on this port of 127.0.0.1; 0 takes a free one.",
)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def watch(
    common: Common,
    *,
    interval: float,
    repair: bool,
    waived: tuple[str, ...],
    metrics_port: int | None,
    format_: str,
) -> ExitCode:
    """Compare again and again, and say so when the verdict changes; SIGTERM ends it cleanly.

    What a guard stops or holds back is said once, until it stops or holds back something else.

    In the middle of a repair it ends after the batch that is being written.
    """
    from cellsync.cli.serving import Board, serving
    from cellsync.run.watching import Stop, rounds

    stop = Stop()
    given = click.get_current_context().get_parameter_source("format_")
    if given is ParameterSource.DEFAULT and common.log_format == logs.JSON:
        format_ = "json"

    def make(*, again: bool = True) -> Request:
        common.endpoints.clear()
        request = request_for(common, "repair" if repair else "diff", waived=waived, again=again)
        return replace(request, stopping=stop.asked)

    with contextlib.suppress(Unreachable, ReadFailed):  # the parent lists the cells: a round tells
        make(again=False)  # what is wrong with the files now ends it now
    _end_on_signals(stop)
    board, last, text = Board(interval), "", ""
    unwritten: list[str] = []
    held: set[_Guard] = set()
    with ExitStack() as stack:
        if metrics_port is not None:
            port = stack.enter_context(serving(board, metrics_port))
            logs.plain(common, f"metrics: http://127.0.0.1:{port}/metrics")
        for each in rounds(make, interval=interval, repair=repair, stop=stop):
            text = _metrics(each, text)
            board.show(text, each.said, sound=each.exit_code in (ExitCode.IN_STEP, ExitCode.DIFFERENCES))
            unwritten = _say_once(common, _keep(common, each), unwritten)
            line = f"exit code {int(each.exit_code)}: {each.said}"
            if line != last:
                _say(common, each, line, format_)
            last = line
            held = _say_held(common, each, held) if repair else held
            if streams.has_failed(sys.stdout):  # nobody would hear of the next change
                break
    return ExitCode.IN_STEP


def _keep(common: Common, each: Round) -> list[str]:
    """Write the metrics, and tell the drift log what a round saw; return why that could not be."""
    from cellsync.run import seeing

    failed = []
    if common.metrics is not None:
        try:
            write_metrics(common.metrics, partial(_metrics, each))
        except (UsageError, OutputFailed) as error:  # a full disk is no reason to end
            failed.append(str(error))
    if common.log is not None and each.report is not None:
        failed.append(seeing.record(common.log, each.report))
    return [said for said in failed if said]


def _say_once(common: Common, failed: list[str], before: list[str]) -> list[str]:
    """Say what failed, where it is news."""
    for said in failed:
        if said not in before:
            logs.remark(common, said, level=logging.WARNING)
    return failed


_Guard = tuple[str, str, str, tuple[str, ...]]
"""Cell, rule, code, and what waits."""


def _say_held(common: Common, each: Round, before: set[_Guard]) -> set[_Guard]:
    """Say what guards stop or hold back, where they did not in the round before; return what they do."""
    from cellsync.report import facts

    if each.report is None:
        return before
    found: set[_Guard] = set()
    for cell in facts.results(each.report):
        for refusal in facts.refusals(cell):
            guard = (cell.cell, refusal.rule, refusal.code, refusal.holds)
            if guard not in before | found:
                said = " ".join(filter(None, (refusal.rule, refusal.code)))
                logs.remark(common, f"{said}: {refusal.message}", level=logging.WARNING, cell=cell.cell)
            found.add(guard)
    return found


def _metrics(each: Round, before: str) -> str:
    """Return the metrics of a round; one that came to no report leaves those before it, which grow old."""
    from cellsync.report import metrics

    return before if each.report is None else metrics.of_report(each.report, before)


def _say(common: Common, each: Round, line: str, format_: str) -> None:
    """Print one line; ``--quiet`` leaves out what is in step."""
    from cellsync.report import json
    from cellsync.report.words import instant

    if common.quiet and each.exit_code is ExitCode.IN_STEP:
        return
    moment = instant(each.finished)
    if format_ == "json":
        run = each.report.run.id if each.report is not None else None
        level = LEVELS.get(each.exit_code, logging.ERROR)
        content = {"time": moment, "level": logs.named(level), "message": each.said, "run": run}
        more = {"exit_code": int(each.exit_code), "verdict": each.said}
        click.echo(json.line({**content, **more}), nl=False)
    else:
        click.echo(f"{moment} {line}")
    sys.stdout.flush()


def _end_on_signals(stop: Stop) -> None:
    def handle(number: int, frame: object) -> None:
        stop.ask()
        if not stop.writing:
            # Nothing is half done: what is being read may take long, and threads cannot be stopped.
            sys.stdout.flush()
            os._exit(int(ExitCode.IN_STEP))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)

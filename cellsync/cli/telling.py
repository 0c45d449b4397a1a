"""What of a report is printed: all of it, nothing, or what has changed; and the line in the drift log."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from cellsync.cli import logs
from cellsync.cli.options import Common
from cellsync.cli.preparing import put, put_report, style_of
from cellsync.errors import DriftLogUnavailable, ExitCode

if TYPE_CHECKING:
    from cellsync.model import Report
    from cellsync.run import Request
    from cellsync.run.checking import Check
    from cellsync.run.seeing import News


def tell(common: Common, report: Report, format_: str, output: str | None) -> None:
    """Print what is to be told of a report, and tell the drift log what the run saw.

    What could not be remembered is never silent: then all is printed, and why.
    """
    from cellsync.report import facts

    if common.log is None or not facts.compares(report):
        _print(common, report, format_, output)
        return
    from cellsync.run import seeing

    now, news, unread = seeing.told(report), None, ""
    if common.changes_only:
        try:
            news = seeing.news(report, now, seeing.last_told(common.log, now.stream))
        except DriftLogUnavailable as error:
            unread = str(error)
    whole = news is None
    if news is None:
        _print(common, report, format_, output, loud=bool(unread))
    else:
        _print_news(common, report, news, format_, output)
    unwritten = seeing.record(common.log, report, now if common.changes_only else None)
    if common.changes_only and unwritten and not whole:
        _print(common, report, format_, output, loud=True)
    for said in dict.fromkeys(filter(None, (unread, unwritten))):
        logs.remark(common, said, level=logging.WARNING)


def _print(common: Common, report: Report, format_: str, output: str | None, *, loud: bool = False) -> None:
    """Print the report, unless it is quiet and there is nothing to do."""
    from cellsync.model import CellResult

    # A repair that went well may still ask for a restart.
    due = report.notes or any(isinstance(cell, CellResult) and cell.notices for cell in report.cells)
    if common.silent and report.exit_code is ExitCode.IN_STEP and not due and not loud:
        return
    style = style_of(common)
    if output is not None:
        style = replace(style, terminal=False)
    put_report(report, style, format_, output)


def _print_news(common: Common, report: Report, news: News, format_: str, output: str | None) -> None:
    """Print the cells that changed; for machines the whole report, where any did."""
    from cellsync.report import FORMATS

    if not (news.changed or news.well):
        return
    style = replace(style_of(common), terminal=False)
    if format_ != "text":
        put_report(report, style, format_, output)
        return
    put(_news(report, news, FORMATS["text"](_cut(report, news), style)), output)


def _news(report: Report, news: News, block: Iterable[str]) -> Iterable[str]:
    from cellsync.report.verdict import verdict

    if news.well and not news.trouble:
        yield f"all is well again in {', '.join(news.well)}: {verdict(report)}\n"
    elif news.well:
        yield f"all is well again in {', '.join(news.well)}\n"
    if news.changed:
        yield from block


def _cut(report: Report, news: News) -> Report:
    """Return the report of the cells that changed alone."""
    from cellsync.run.seeing import CONFIGURATION

    chosen = tuple(cell for cell in report.cells if cell.cell in news.changed)
    notes = report.notes if CONFIGURATION in news.changed else ()
    return replace(report, cells=chosen, notes=notes) if chosen else report


# -- cells check ---------------------------------------------------------------------------------


def tell_check(common: Common, request: Request, found: Check, format_: str, output: str | None) -> None:
    """Print what is to be told of a check of the cells; with --changes-only, remember what was told."""
    from cellsync.run import seeing

    if common.log is None or not common.changes_only:
        _print_check(common, found, format_, output)
        return
    run, code = request.run, found.exit_code
    now = seeing.told_of_check(run, found.cells, found.error)
    try:
        before = seeing.last_told(common.log, now.stream)
    except DriftLogUnavailable as error:
        _print_check(common, found, format_, output, loud=True)
        logs.remark(common, str(error), level=logging.WARNING)
        return
    news = seeing.news_of_check(run, found.cells, code, now, before)
    _print_check_news(common, found, news, format_, output)
    if now.cells == (before.cells if before else {}):
        return
    # What is told at every check is in the log once: a check every minute would fill it.
    if unwritten := seeing.record_check(common.log, run, request.clock(), code, now):
        _print_check(common, found, format_, output, loud=True)
        logs.remark(common, unwritten, level=logging.WARNING)


def _print_check(
    common: Common, found: Check, format_: str, output: str | None, *, loud: bool = False
) -> None:
    """Print the check, unless it is quiet and nothing is wrong or was done."""
    from cellsync.report import register

    said = any(cell.said for cell in found.cells)
    if common.silent and found.exit_code is ExitCode.IN_STEP and not said and not loud:
        return
    shown = register.checked_json if format_ == "json" else partial(register.checked, style=style_of(common))
    put(shown(found.cells, found.error, found.exit_code), output)


def _print_check_news(common: Common, found: Check, news: News, format_: str, output: str | None) -> None:
    from cellsync.report import register
    from cellsync.run.seeing import CONFIGURATION

    if not (news.changed or news.well):
        return
    if format_ == "json":
        put(register.checked_json(found.cells, found.error, found.exit_code), output)
        return
    chosen = [cell for cell in found.cells if cell.cell in news.changed]
    error = found.error if CONFIGURATION in news.changed else ""
    block = register.checked(chosen, error, found.exit_code, style_of(common)) if chosen or error else ()
    put(chain(register.answers_again(found.cells, news.well, everybody=not news.trouble), block), output)

"""What is said on stderr: lines for people, or with ``--log-format json`` one JSON object a line.

What a person is asked, and the plan that the question is about, is text in both.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from cellsync.masking import escape_controls, mask_urls

if TYPE_CHECKING:
    from cellsync.cli.options import Common

JSON = "json"
FORMATS = ("text", JSON)
OPTION = "--log-format"
MOST_VERBOSE = 3
"""So many ``-v`` show all that is logged."""


def remark(common: Common, text: str, *, level: int = logging.ERROR, cell: str = "", trace: str = "") -> None:
    """Say something on stderr: about a cell, or else of cellsync itself; ``trace`` is a traceback."""
    text = mask_urls(text)
    if common.log_format == JSON:
        click.echo(_line(datetime.now(timezone.utc), level, text, cell=cell, trace=trace), nl=False, err=True)
    else:
        if trace:
            click.echo(escape_controls(trace, keep="\n"), err=True)
        # A message may have SQL of several lines (that of the journal's tables).
        click.echo(escape_controls(f"{cell or 'cellsync'}: {text}", keep="\n"), err=True)


def plain(common: Common, text: str, *, level: int = logging.INFO) -> None:
    """Say something that says itself what it is about."""
    if common.log_format == JSON:
        remark(common, text, level=level)
    else:
        click.echo(escape_controls(mask_urls(text)), err=True)


def asked_for(arguments: Sequence[str]) -> str | None:
    """Return the format that a command line names, for what is said before it is understood."""
    pairs = pairwise(arguments)
    asks = f"{OPTION}={JSON}" in arguments or (OPTION, JSON) in pairs
    return JSON if asks else None


def set_up(common: Common) -> None:
    """Let what the modules log be seen, as much of it as ``-v`` asks for."""
    level = {0: logging.WARNING, 1: logging.WARNING, 2: logging.INFO}.get(common.verbose, logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(common) if common.log_format == JSON else _Scrubbed(common))
    logging.basicConfig(handlers=[handler])
    # What a library warns of would be lines of text among the JSON.
    logging.captureWarnings(common.log_format == JSON)
    # Only cellsync's own: SQLAlchemy and PyMySQL would log the values of parameters.
    logging.getLogger("cellsync").setLevel(level)
    if common.verbose < MOST_VERBOSE:
        # It logs errors that it raises, with tracebacks; what becomes of these is told by us.
        logging.getLogger("oslo_db").setLevel(logging.CRITICAL)


class _Scrubbed(logging.Formatter):
    """Format log lines, and the tracebacks that belong to them, without any password."""

    def __init__(self, common: Common) -> None:
        super().__init__("%(levelname).1s %(name)s: %(message)s")
        self._common = common

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(self._common.scrub(super().format(record)), keep="\n")


class _Json(logging.Formatter):
    """The same as JSON: without any password, and whatever the text holds one object on one line."""

    def __init__(self, common: Common) -> None:
        super().__init__()
        self._common = common

    def format(self, record: logging.LogRecord) -> str:
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return _line(
            datetime.fromtimestamp(record.created, timezone.utc),
            record.levelno,
            self._common.scrub(record.getMessage()),
            logger=record.name,
            cell=getattr(record, "cell", ""),
            trace=self._common.scrub(trace),
        ).rstrip("\n")


def named(level: int) -> str:
    """Return the name of a level as it stands in JSON."""
    return logging.getLevelName(level).lower()


def _line(time: datetime, level: int, message: str, **more: str) -> str:
    from cellsync.report import json

    moment = time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    content: dict[str, Any] = {"time": moment, "level": named(level), "message": message}
    return json.line({**content, **{name: text for name, text in more.items() if text}})

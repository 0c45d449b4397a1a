"""Reports: every output is one function from a ``Report`` to pieces of text, and ``FORMATS`` names them.

Nothing here prints or reads a clock: the functions return what ``cli`` writes. An output is added
with one function of a ``Report`` and a ``Style``, and one line in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module

from cellsync.model import Report
from cellsync.report.page import Style

Render = Callable[[Report, Style], Iterator[str]]


def _of(module: str) -> Render:
    """Return the ``render`` of an output, which is imported when it is asked for: a run has one output."""

    def render(report: Report, style: Style) -> Iterator[str]:
        made: Iterator[str] = import_module(f"cellsync.report.{module}").render(report, style)
        return made

    return render


FORMATS: Mapping[str, Render] = {name: _of(name) for name in ("text", "json", "jsonl", "html", "sql")}
"""Name of ``--format``, and of its module -> the function that renders a report of any verb."""

__all__ = ["FORMATS", "Render", "Style"]

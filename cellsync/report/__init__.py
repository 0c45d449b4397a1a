"""Reports: every output is one function from a ``Report`` to pieces of text, and ``FORMATS`` names them.

Nothing here prints or reads a clock: the functions return what ``cli`` writes. An output is added
with one function of a ``Report`` and a ``Style``, and one line in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cellsync.model import Report
from cellsync.report import html, json, jsonl, past, sql, text
from cellsync.report.page import Style

Render = Callable[[Report, Style], Iterator[str]]

FORMATS: Mapping[str, Render] = {
    "text": text.render,
    "json": json.render,
    "jsonl": jsonl.render,
    "html": html.render,
    "sql": sql.render,
}
"""Name of ``--format`` -> the function that renders a report of any verb."""

__all__ = ["FORMATS", "Render", "Style", "html", "json", "jsonl", "past", "sql", "text"]

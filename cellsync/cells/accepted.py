"""The accept list: the differences and findings that people have decided to live with, and until when."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import date
from typing import Any

from cellsync import yamlfile
from cellsync.cells.shape import DATE, KEY
from cellsync.masking import mask_urls
from cellsync.model import Accepted

Reject = Callable[[yamlfile.Path, str], None]

EVERYTHING = "*"
"""As a cell, every one; as a key, every row of the rule."""


def read(given: Any, *, cells: Collection[str], reject: Reject) -> tuple[Accepted, ...]:
    """Return the entries of an accept list; what is wrong with their values is rejected.

    Entries whose shape is wrong, which is known already, are left out. ``cells`` are the names of
    the parent and the children; empty where those are wrong themselves. Whether there is such a
    rule is not asked here: rule files change without the cell file, and a cron job must not stop
    for that; `run` says which entries have no rule.
    """
    listed = enumerate(given if isinstance(given, list) else [])
    entries = (_entry(entry, ("accept", index), cells, reject) for index, entry in listed)
    return tuple(entry for entry in entries if entry is not None)


def _entry(given: Any, path: yamlfile.Path, cells: Collection[str], reject: Reject) -> Accepted | None:
    if not isinstance(given, dict):
        return None
    cell, rule, why = (given.get(name) for name in ("cell", "rule", "why"))
    if isinstance(cell, str) and cell and cells and cell not in (EVERYTHING, *cells):
        reject((*path, "cell"), f'there is no such cell: name {", ".join(cells)}, or "*" for all of them')
    if isinstance(why, str) and why.isspace():
        reject((*path, "why"), "why is empty")
    key = _key(given.get("key"), (*path, "key"), reject)
    until = _until(given.get("until"), (*path, "until"), reject)
    if key is None or not (isinstance(cell, str) and isinstance(rule, str) and isinstance(why, str)):
        return None
    return Accepted(cell=cell, rule=rule, key=key, why=mask_urls(why.strip()), until=until)


def _key(given: Any, path: yamlfile.Path, reject: Reject) -> Mapping[str, str | None] | None:
    if given == EVERYTHING:
        return {}
    if isinstance(given, str):
        reject(path, f"key must be {KEY}")
    if not isinstance(given, dict):
        return None
    for column, value in given.items():
        # YAML has made 1.1 of 1.10, and false of a bare no: what was meant is lost.
        if isinstance(value, (bool, float, dict, list)):
            message = "the value of a key column must be text, a whole number or null: put it in quotes"
            reject((*path, column), message)
    return {column: None if value is None else str(value) for column, value in given.items()}


def _until(given: Any, path: yamlfile.Path, reject: Reject) -> date | None:
    if not isinstance(given, str):
        return None
    # fromisoformat alone takes 20261231 and 2026-W53-4 too, from Python 3.11 on.
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
        try:
            return date.fromisoformat(given)
        except ValueError:
            reject(path, f"until must be {DATE}; the calendar has no such day")
    else:
        reject(path, f"until must be {DATE}")
    return None

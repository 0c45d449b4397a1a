"""What a cell file names, read without what it refers to: for whoever completes a word on a command line.

Passwords are not in the environment then, and a file may be half written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellsync import yamlfile
from cellsync.cells.files import contents
from cellsync.errors import ConfigurationError, UsageError


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The names of the children and of the rules, as far as they can be read."""

    children: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """Packs by name, files as paths from the working directory."""


def outline(path: str | os.PathLike[str]) -> Outline:
    """Read the names in a cell file; nothing where it is no cell file, or not there."""
    file = Path(path)
    try:
        data = yamlfile.load(contents(file), file=str(file)).data
    except (ConfigurationError, UsageError):
        return Outline()
    if not isinstance(data, dict):
        return Outline()
    children = [cell.get("name") for cell in _listed(data.get("children")) if isinstance(cell, dict)]
    return Outline(
        children=tuple(_plain(children)),
        rules=tuple(_source(rule, file.parent) for rule in _plain(_listed(data.get("rules")))),
    )


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _plain(given: Iterable[Any]) -> Iterator[str]:
    """Yield the texts that stand for themselves."""
    return (text for text in given if isinstance(text, str) and text and "${" not in text)


def _source(rule: str, base: Path) -> str:
    is_file = "/" in rule or rule.endswith((".yaml", ".yml"))
    return str(base / Path(rule).expanduser()) if is_file else rule

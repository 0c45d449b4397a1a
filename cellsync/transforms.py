"""Named functions that turn the desired spelling of a value into the existing one.

Each has two faces that must agree on every text: a Python function, and an SQL expression so
that whole tables can be compared inside the server. A transform is added with one function:

    @transform(sql="LOWER({value})")
    def lower(value: str, *, parent: str, child: str) -> str:
        return value.lower()

In the SQL, ``{value}`` is the column and ``{parent}`` and ``{child}`` are the cells' names as
quoted literals. NULL never reaches a transform: it stays NULL on both faces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


class Function(Protocol):
    """The Python face: text in, text out."""

    def __call__(self, value: str, *, parent: str, child: str) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Transform:
    """One transform and its two faces."""

    name: str
    summary: str
    """One line for ``cellsync rules show``."""
    function: Function
    sql: str
    """An SQL expression of MariaDB with the fields {value}, {parent} and {child}."""


_REGISTRY: dict[str, Transform] = {}
REGISTRY: Mapping[str, Transform] = _REGISTRY
"""Every transform that a rule may name."""


def transform(*, sql: str) -> Callable[[Function], Function]:
    """Register the decorated function as a transform under its own name."""

    def register(function: Function) -> Function:
        name = function.__name__  # type: ignore[attr-defined]
        summary = (function.__doc__ or "").strip().splitlines()[0]
        _REGISTRY[name] = Transform(name=name, summary=summary, function=function, sql=sql)
        return function

    return register


@transform(sql="SUBSTRING_INDEX({value}, '@', -1)")
def item_of_cell_path(value: str, *, parent: str, child: str) -> str:
    """Strip Nova's cell path: "api!c1@host" becomes "host".

    Splits at the last "@", as ``split_cell_and_item`` in nova/cells/utils.py does: a path may
    hold an "@", an item may not. Text without an "@" is already plain.
    """
    return value.rpartition("@")[2]


@transform(sql="CONCAT({parent}, '!', {child}, '@', {value})")
def item_with_cell_path(value: str, *, parent: str, child: str) -> str:
    """Add Nova's cell path: "host" becomes "api!c1@host".

    The other direction of ``item_of_cell_path``, as ``cell_with_item`` in nova/cells/utils.py.
    """
    return f"{parent}!{child}@{value}"

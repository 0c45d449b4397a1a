"""Canonical column values, keys, and text that must not be shown."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Union

Value = Union[None, int, float, Decimal, str, bytes]
"""One canonical column value.

Integers (BIT, YEAR and BOOLEAN too) are int, DECIMAL is Decimal, FLOAT and DOUBLE are the exact
double, binary strings are bytes, and everything else is text: dates and times as the server
prints them in UTC without a fraction of zeros ("2026-11-23 15:00:59"), so that zero dates and
times over 24 hours survive.
"""

KeyPart = Union[Value, "Dangling", tuple["KeyPart", ...]]
"""A value of a row: a canonical value, or, for a reference, the key of the row it refers to."""

Key = tuple[KeyPart, ...]
"""The key of a row: one part for each of the rule's key columns, in the rule's order."""

Identity = tuple[Value, ...]
"""The primary key of a row in its own database; means nothing in any other."""


@dataclass(frozen=True)
class Dangling:
    """A reference that leads to no live row: ``raw`` is the surrogate id that it holds."""

    raw: Value
    deleted: bool
    """True when the row is there, but soft-deleted; False when there is no such row."""


class Secret:
    """Text that prints as stars: passwords, and URLs that hold one."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; for drivers only, never for a message."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def shown(part: KeyPart) -> str:
    """Return a value as people read it in a sentence."""
    if isinstance(part, Dangling):
        return f"id {shown(part.raw)} ({'deleted' if part.deleted else 'missing'})"
    if isinstance(part, tuple):
        return "/".join(shown(each) for each in part)
    if part is None:
        return "NULL"
    if isinstance(part, bytes):
        return f"0x{part.hex()}"
    return str(part)


def rank(part: KeyPart) -> tuple[Any, ...]:
    """Return what orders values of any types: NULL, numbers, text, bytes, keys, dangling ones.

    For people and for repetition; it is no order that a server would give.
    """
    if part is None or part != part:  # noqa: PLR0124  nan has no place among numbers
        return (0,)
    if isinstance(part, tuple):
        return (4, tuple(map(rank, part)))
    if isinstance(part, Dangling):
        return (5, rank(part.raw))
    return (2 if isinstance(part, str) else 3 if isinstance(part, bytes) else 1, part)


def refers(parts: tuple[KeyPart, ...]) -> bool:
    """Say whether one of the parts is that of a reference, whether it leads to a row or not."""
    return not _REFERRING.isdisjoint(map(type, parts))


_REFERRING = frozenset({tuple, Dangling})


def dangles(parts: tuple[KeyPart, ...]) -> bool:
    """Say whether one of the parts, or a part of one, leads to no live row."""
    return refers(parts) and any(
        isinstance(p, Dangling) or (isinstance(p, tuple) and dangles(p)) for p in parts
    )


def folded(key: Key) -> tuple[object, ...]:
    """Fold a key roughly as a case-insensitive, accent-insensitive collation does."""

    def fold(part: KeyPart) -> object:
        if isinstance(part, tuple):
            return tuple(fold(each) for each in part)
        if not isinstance(part, str):
            return part
        if part.isascii():
            return part.casefold().rstrip(" ")
        plain = "".join(c for c in unicodedata.normalize("NFKD", part) if not unicodedata.combining(c))
        return plain.casefold().rstrip(" ")

    return tuple(fold(part) for part in key)

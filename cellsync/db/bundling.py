"""Write the key and the checksum of a row as one short text inside MariaDB, and read it back.

Fields are joined by commas, texts by semicolons; neither is in a field. Numbers are as the server
prints them, all else is hexadecimal, and NULL is "-". A reference is "0" for NULL, or "1" before
the key of the row that it leads to; "2" or "3" before the id that it holds where that leads
nowhere, or to a deleted row. Ids of live rows are left out: they mean nothing on the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from cellsync.db.encoding import Scalar
from cellsync.model import Dangling, Family, KeyPart, Value

BETWEEN = ";"
END = "."
"""Ends a text, so that one that was cut shows."""

_NUMBERS: dict[Family, Callable[[str], Value]] = {
    Family.INTEGER: int,
    Family.DECIMAL: Decimal,
    Family.FLOAT: float,
}

Parse = Callable[[Iterator[str]], KeyPart]
"""Reads one part of a key from the fields of a text."""


def field(scalar: Scalar) -> str:
    """Return an expression for one value as a field."""
    if scalar.column.family in _NUMBERS:
        return f"IFNULL({scalar.alike()}, '-')"
    return f"IFNULL(HEX({scalar.alike()}), '-')"


def parsed(family: Family, canonical: Callable[[Value, Family], Value]) -> Parse:
    """Return what reads the field of a value."""

    def parse(fields: Iterator[str]) -> Value:
        text = next(fields)
        if text == "-":
            return None
        if family in _NUMBERS:
            return _NUMBERS[family](text)
        raw = bytes.fromhex(text)
        return raw if family is Family.BINARY else canonical(raw.decode("utf-8"), family)

    return parse


def reference(raw: Scalar, found: str, live: str) -> str:
    """Return an expression for how a reference stands, before the fields of its key."""
    broken = f"CONCAT(IF({found}, '3', '2'), {field(raw)})"
    return f"IF({raw.expression} IS NULL, '0', IF({found} AND {live}, '1', {broken}))"


def referenced(raw: Family, parts: Sequence[Parse], canonical: Callable[[Value, Family], Value]) -> Parse:
    """Return what reads the fields of a reference."""
    own = parsed(raw, canonical)

    def parse(fields: Iterator[str]) -> KeyPart:
        how = next(fields)
        key = tuple(part(fields) for part in parts)
        if how[0] in "23":
            held = own(iter([how[1:]]))
            assert not isinstance(held, (tuple, Dangling))
            return Dangling(raw=held, deleted=how[0] == "3")
        return key if how == "1" else None

    return parse


def checksum(text: str) -> int:
    """Return the checksum of the row of a text."""
    return int(text[text.rindex(",") + 1 : -len(END)])


def text(fields: Sequence[str], odd: str, checksum: str) -> str:
    """Return an expression for the text of a row."""
    last = f"CONCAT({checksum}, '{END}')"
    return f"CONCAT_WS(',', {', '.join([*fields, f'IF({odd}, 1, 0)', last])})"

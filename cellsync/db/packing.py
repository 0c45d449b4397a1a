"""Have a server spell whole rows: as literals that another server takes, or as the journal's JSON.

So a row crosses from server to server as one value. It is taken apart only where somebody looks at it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

from cellsync.db.encoding import Scalar
from cellsync.model import Family, Value

_FIELD = re.compile(r"'([^'\\]*(?:\\.[^'\\]*)*)'|x'([0-9A-F]*)'|([^,]+)", re.DOTALL)
"""Text in quotes, bytes in hexadecimal, or what stands there bare: a number, or NULL."""
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"0": "\0", "Z": "\x1a"}
_PLAIN_TEXT = ("char", "text")

Unpack = Callable[[bytes], tuple[Value, ...]]
"""Reads the values of a row, or the first of them."""


def literals(scalars: Sequence[Scalar]) -> str:
    """Return an expression for the values of a row as they stand in VALUES; it is binary, in UTF-8.

    Its parts are in different charsets: binary ones are joined without being converted.
    """
    return f"CONCAT_WS(CAST(',' AS BINARY), {', '.join(map(_literal, scalars))})"


def _literal(scalar: Scalar) -> str:
    expression, family = scalar.expression, scalar.column.family
    if family in (Family.INTEGER, Family.DECIMAL):
        return f"IFNULL({expression}, 'NULL')"
    if family is Family.BINARY:
        return f"IFNULL(CONCAT('x\\'', HEX({expression}), '\\''), 'NULL')"
    return f"QUOTE({scalar.unicode()})"  # which is NULL without quotes for NULL


def unpacked(families: Sequence[Family], canonical: Callable[[Value, Family], Value]) -> Unpack:
    """Return what reads the first values of a text that ``literals`` made, as many as there are families."""
    whole = len(families) > _FEW
    readers = [(family, _NUMBERS.get(family, str)) for family in families]

    def spelled(quoted: str, raw: str, family: Family) -> Value:
        if family is Family.BINARY:
            return bytes.fromhex(raw)
        return canonical(_ESCAPE.sub(_unescaped, quoted), family)

    def unpack(text: bytes) -> tuple[Value, ...]:
        row = text.decode("utf-8")
        fields = _FIELD.findall(row) if whole else (f.groups("") for f in _FIELD.finditer(row))
        plain = Family.TEXT if "\\" not in row else None  # most text, which stands there as it is
        return tuple(
            [
                (None if bare == "NULL" else number(bare))
                if bare
                else quoted
                if family is plain
                else spelled(quoted, raw, family)
                for (family, number), (quoted, raw, bare) in zip(readers, fields, strict=False)
            ]
        )

    return unpack


_FEW = 3
"""So many values at the beginning of a text are not worth reading all of it."""

_NUMBERS: dict[Family, Callable[[str], Value]] = {Family.INTEGER: int, Family.DECIMAL: Decimal}


def _unescaped(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[1], found[1])


def as_json(scalars: Sequence[Scalar]) -> str:
    """Return an expression for a row as JSON, as the journal has it (``codec``), in four-byte text."""
    fields = [f"CONCAT({_binary(json.dumps(s.column.name) + ': ')}, {_json(s)})" for s in scalars]
    return (
        f"CONVERT(CONCAT({_binary('{')}, CONCAT_WS({_binary(', ')}, {', '.join(fields)}), {_binary('}')}) "
        "USING utf8mb4)"
    )


def _json(scalar: Scalar) -> str:
    family = scalar.column.family
    if family is Family.INTEGER:
        return f"IFNULL({scalar.alike()}, 'null')"
    if family is Family.DECIMAL:
        return f"IFNULL(CONCAT('{{\"decimal\": \"', {scalar.expression}, '\"}}'), 'null')"
    if family is Family.BINARY:
        return f"IFNULL(CONCAT('{{\"bytes\": \"', LOWER(HEX({scalar.expression})), '\"}}'), 'null')"
    if family is Family.TEMPORAL:
        return f"IFNULL(CONCAT('\"', {scalar.alike()}, '\"'), 'null')"
    text = scalar.unicode()
    kind = scalar.column.type.partition("(")[0].partition(" ")[0]
    # Of an ENUM, which is a number as well, JSON_QUOTE makes nothing.
    return f"IFNULL(JSON_QUOTE({text if kind.endswith(_PLAIN_TEXT) else f'CAST({text} AS CHAR)'}), 'null')"


def _binary(text: str) -> str:
    return f"CAST(x'{text.encode().hex()}' AS BINARY)"

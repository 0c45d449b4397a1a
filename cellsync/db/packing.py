"""Have a server spell whole rows: as literals that another server takes, or as the journal's JSON.

So a row crosses from server to server as one value. It is taken apart only where somebody looks at it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import islice

from cellsync.db.encoding import Scalar
from cellsync.model import Family, Value

_FIELD = re.compile(rb"'((?:[^'\\]|\\.)*)'|x'([0-9A-F]*)'|([^,]+)", re.DOTALL)
"""Text in quotes, bytes in hexadecimal, or what stands there bare: a number, or NULL."""
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED = {b"0": b"\0", b"Z": b"\x1a"}
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

    def read(quoted: bytes, bare: bytes, raw: bytes, family: Family) -> Value:
        if bare:
            return None if bare == b"NULL" else _NUMBERS[family](bare.decode("ascii"))
        if family is Family.BINARY:
            return bytes.fromhex(raw.decode("ascii"))
        if b"\\" in quoted:
            quoted = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), quoted)
        return canonical(quoted.decode("utf-8"), family)

    def unpack(text: bytes) -> tuple[Value, ...]:
        fields = islice(_FIELD.finditer(text), len(families))
        return tuple(
            read(field[1] or b"", field[3] or b"", field[2] or b"", family)
            for field, family in zip(fields, families, strict=True)
        )

    return unpack


_NUMBERS: dict[Family, Callable[[str], Value]] = {Family.INTEGER: int, Family.DECIMAL: Decimal}


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

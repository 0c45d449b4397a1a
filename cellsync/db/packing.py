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
_ESCAPED_BY_NUMBER = "\\u00"
_PLAIN_TEXT = ("char", "text")

Unpack = Callable[[str], tuple[Value, ...]]
"""Reads the values of a row."""


def literals(scalars: Sequence[Scalar]) -> str:
    """Return an expression for the values of a row as they stand in VALUES; it is binary, in UTF-8.

    Its parts are in different charsets: binary ones are joined without being converted. It is NULL where
    it, or a part of it, is longer than the server makes a value.
    """
    comma, end = _binary(","), _binary("")  # the end makes it binary where there is one value
    return f"CONCAT({f', {comma}, '.join(map(_literal, scalars))}, {end})"


def _literal(scalar: Scalar) -> str:
    expression, family = scalar.expression, scalar.column.family
    if family in (Family.INTEGER, Family.DECIMAL):
        return f"IFNULL({expression}, 'NULL')"
    if family is Family.BINARY:
        return f"IF({expression} IS NULL, 'NULL', CONCAT('x\\'', HEX({expression}), '\\''))"
    return f"QUOTE({scalar.unicode()})"  # of NULL that is 'NULL', without quotes inside


def unpacked(families: Sequence[Family], canonical: Callable[[Value, Family], Value]) -> Unpack:
    """Return what reads a text that ``literals`` made."""
    readers = [(family, _NUMBERS.get(family, str)) for family in families]

    def spelled(quoted: str, raw: str, family: Family) -> Value:
        if family is Family.BINARY:
            return bytes.fromhex(raw)
        return canonical(_ESCAPE.sub(_unescaped, quoted), family)

    def unpack(row: str) -> tuple[Value, ...]:
        plain = Family.TEXT if "\\" not in row else None  # most text, which stands there as it is
        return tuple(
            [
                (None if bare == "NULL" else number(bare))
                if bare
                else quoted
                if family is plain
                else spelled(quoted, raw, family)
                for (family, number), (quoted, raw, bare) in zip(readers, _FIELD.findall(row), strict=True)
            ]
        )

    return unpack


_NUMBERS: dict[Family, Callable[[str], Value]] = {Family.INTEGER: int, Family.DECIMAL: Decimal}


def _unescaped(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[1], found[1])


def as_json(scalars: Sequence[Scalar]) -> str:
    """Return an expression for a row as JSON, as the journal has it (``codec``), in four-byte text.

    It is NULL where it, or a part of it, is longer than the server makes a value.
    """
    return _document("{", [f"{_binary(json.dumps(s.column.name) + ': ')}, {_json(s)}" for s in scalars], "}")


def as_json_list(scalars: Sequence[Scalar]) -> str:
    """Return an expression for values as a JSON list, as the journal has a key, to the letter.

    NULL as above, and where it is not to the letter: what Python writes \\u001a is \\u001A here.
    """
    text = _document("[", [_json(scalar) for scalar in scalars], "]")
    return f"IF(LOCATE({_binary(_ESCAPED_BY_NUMBER)}, {text}), NULL, {text})"


def _document(begin: str, parts: Sequence[str], end: str) -> str:
    together = f", {_binary(', ')}, ".join(parts)
    return f"CONVERT(CONCAT({_binary(begin)}, {together}, {_binary(end)}) USING utf8mb4)"


def _json(scalar: Scalar) -> str:
    family, expression = scalar.column.family, scalar.expression
    if family is Family.INTEGER:
        return f"IFNULL({scalar.alike()}, 'null')"
    if family is Family.DECIMAL:
        made = f"CONCAT('{{\"decimal\": \"', {expression}, '\"}}')"
    elif family is Family.BINARY:
        made = f"CONCAT('{{\"bytes\": \"', LOWER(HEX({expression})), '\"}}')"
    elif family is Family.TEMPORAL:
        # Not longer than the server makes a value, so that NULL means only one thing.
        return f"IFNULL(CONCAT('\"', {scalar.alike()}, '\"'), 'null')"
    else:
        text = scalar.unicode()
        kind = scalar.column.type.partition("(")[0].partition(" ")[0]
        # Of an ENUM, which is a number as well, JSON_QUOTE makes nothing.
        made = f"JSON_QUOTE({text if kind.endswith(_PLAIN_TEXT) else f'CAST({text} AS CHAR)'})"
    return f"IF({expression} IS NULL, 'null', {made})"


def _binary(text: str) -> str:
    return f"CAST(x'{text.encode().hex()}' AS BINARY)"

"""How values, names and comparisons are spelled, such that no value can be anything but a value.

A literal never holds a backslash, a control character or anything that does not print: such text
is written by its bytes. So it means the same with and without NO_BACKSLASH_ESCAPES, and takes one line.
"""

from __future__ import annotations

from decimal import Decimal

from cellsync.model import Column, Family, ServerTime, Value

_SPATIAL = ("geometry", "point", "linestring", "polygon", "geometrycollection")


class Untold(Exception):
    """A change has no statement; the text says why."""


def name(identifier: str) -> str:
    """Return a name in backticks. Raises Untold where it would not stay on its line."""
    if not identifier.isprintable():
        raise Untold(f"{identifier!r} can be written on no line")
    return f"`{identifier.replace('`', '``')}`"


def literal(value: Value | ServerTime) -> str:
    """Return a value as MariaDB reads it, on one line."""
    if isinstance(value, ServerTime):
        return "UTC_TIMESTAMP()"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes):
        return f"x'{value.hex().upper()}'"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, float):
        # With an exponent it is a DOUBLE, without one a DECIMAL.
        return repr(value) if "e" in repr(value) else f"{value!r}e0"
    return "NULL" if value is None else str(int(value))


def _text(text: str) -> str:
    if text.isprintable() and "\\" not in text:
        return "'" + text.replace("'", "''") + "'"
    return f"_utf8mb4 x'{text.encode('utf-8', 'surrogatepass').hex().upper()}'"


def same(expression: str, value: Value, column: Column | None) -> str:
    """Return a condition that an expression is a value to the byte, whatever its collation.

    ``column`` is the column that the expression reads, None where it is not known.
    """
    if value is None:
        return f"{expression} IS NULL"
    kind = _kind(column)
    if isinstance(value, str):
        return f"{_as_text(expression, column)} COLLATE utf8mb4_nopad_bin = {literal(_whole(value, column))}"
    if isinstance(value, bytes) and kind.endswith(_SPATIAL):
        return f"HEX({expression}) = '{value.hex().upper()}'"
    if kind in ("bit", "year"):
        # A YEAR compares with 0 as with 2000.
        return f"CAST({expression} AS UNSIGNED) = {literal(value)}"
    return alike(expression, value, column)


def alike(expression: str, value: Value, column: Column | None) -> str:
    """Return a condition that an expression is a value under its collation; an index can serve it."""
    if value is None:
        return f"{expression} IS NULL"
    if isinstance(value, float) or (column is not None and column.family is Family.FLOAT):
        # A FLOAT is no value of any literal: only as a double it is exact.
        return f"CAST({expression} AS DOUBLE) = {literal(value)}"
    return f"{expression} = {literal(value)}"


def _as_text(expression: str, column: Column | None) -> str:
    cast = column is not None and (
        column.family is Family.TEMPORAL or _kind(column) in ("uuid", "inet4", "inet6")
    )
    return f"CAST({expression} AS CHAR)" if cast else f"CONVERT({expression} USING utf8mb4)"


def _whole(text: str, column: Column | None) -> str:
    """Return a time with as many digits of a second as its column has: values are kept without zeros."""
    digits = column.type.partition("(")[2].rstrip(")") if column and column.family is Family.TEMPORAL else ""
    if not digits.isdecimal() or digits == "0":
        return text
    seconds, _, fraction = text.partition(".")
    return f"{seconds}.{fraction.ljust(int(digits), '0')}"


def _kind(column: Column | None) -> str:
    return column.type.partition("(")[0].partition(" ")[0] if column else ""

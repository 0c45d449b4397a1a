"""Have a server send a record as one value, and take it apart again.

A driver reads each value of a record by itself, in Python: a record of 25 columns takes PyMySQL 25
microseconds. As one value it takes two, and three for what is done here, column by column.

The values stand as in the encoding of a row: 0xFF between them, and 0xFE for NULL, neither of which
is in UTF-8. Numbers are as the server prints them, bytes hexadecimal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from cellsync.db import encoding
from cellsync.db.encoding import Scalar
from cellsync.model import Family, Value

_BETWEEN, _NULL = b"\xff", b"\xfe"

Read = Callable[[Sequence[bytes]], Sequence[Value]]
"""Reads the values of one column."""


class Field(NamedTuple):
    """One value of a record: the expression that makes it, and what reads it again."""

    expression: str
    read: Read


def number(expression: str) -> Field:
    """Return the field of an expression that gives an integer, or NULL."""
    return _field(expression, Family.INTEGER)


def text(expression: str) -> Field:
    """Return the field of an expression that gives text without a charset of its own, or NULL."""
    return _field(expression, Family.TEXT)


def field(scalar: Scalar) -> Field | None:
    """Return the field of a value; None where it is not exact as text: of a FLOAT, of a shape.

    Nor where text is bytes to a driver: of an ENUM or a SET with the charset binary.
    """
    family, kind = scalar.column.family, scalar.column.type.partition("(")[0]
    if family is Family.BINARY and kind.endswith(_BYTES):
        return _field(scalar.expression, family, f"HEX({scalar.expression})")
    if family is Family.TEXT:
        bytes_ = scalar.column.charset == "binary"
        return None if bytes_ else _field(scalar.expression, family, scalar.unicode())
    return _field(scalar.expression, family) if family in _EXACT else None


def record(fields: Sequence[Field]) -> str:
    """Return an expression for all fields of a record.

    It is NULL where it, or one of them, is longer than the server makes a value (``max_allowed_packet``).
    """
    return f"CONCAT({f', {encoding.BETWEEN}, '.join(field.expression for field in fields)})"


def columns(fields: Sequence[Field], values: Sequence[bytes]) -> list[Sequence[Value]]:
    """Return what the records of values that ``record`` made hold, field by field.

    Raises UnicodeDecodeError.
    """
    if not values:
        return [()] * len(fields)
    raw = zip(*[value.split(_BETWEEN) for value in values], strict=True)
    return [field.read(column) for field, column in zip(fields, raw, strict=True)]


def _field(expression: str, family: Family, made: str | None = None) -> Field:
    """Return the field of a value; ``made`` is what stands for it, which is NULL where it is too long."""
    if made is None or made == expression:
        return Field(f"IFNULL({expression}, {encoding.NULL})", _READERS[family])
    return Field(f"IF({expression} IS NULL, {encoding.NULL}, {made})", _READERS[family])


def _reader(read: Callable[[bytes], Value]) -> Read:
    def column(values: Sequence[bytes]) -> Sequence[Value]:
        if _NULL not in values:
            return [*map(read, values)]
        return [None if value == _NULL else read(value) for value in values]

    return column


def _decimal(value: bytes) -> Decimal:
    return Decimal(value.decode("ascii"))


def _bytes(value: bytes) -> bytes:
    return bytes.fromhex(value.decode("ascii"))


_BYTES = ("binary", "blob")
_EXACT = (Family.INTEGER, Family.DECIMAL, Family.TEMPORAL)
"""What the server prints of them is what they are."""
_READERS: dict[Family, Read] = {
    Family.INTEGER: _reader(int),
    Family.DECIMAL: _reader(_decimal),
    Family.TEXT: _reader(bytes.decode),
    Family.TEMPORAL: _reader(bytes.decode),
    Family.BINARY: _reader(_bytes),
}

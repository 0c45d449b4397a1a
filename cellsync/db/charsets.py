"""Text that is compared with columns whose charset does not have every character.

A server refuses the comparison (error 1267), and with it the whole statement, because of one key that no row
can have.
"""

from __future__ import annotations

from cellsync.model import Column, Value

_WHOLE = (None, "utf8mb4", "utf16", "utf16le", "utf32", "binary")
"""Charsets that have every character, and what is no text."""

_BASIC_PLANE = ("utf8mb3", "ucs2")


def is_limited(column: Column) -> bool:
    """Say whether there is text that a column cannot hold because of its charset."""
    return column.charset not in _WHOLE


def limit_to_charset(parameter: str, value: Value, column: Column) -> str:
    """Return what to compare a column with: the parameter, or NULL where no row can have its value."""
    if not isinstance(value, str) or value.isascii():
        return parameter
    if column.charset in _BASIC_PLANE and max(value) <= "\uffff":
        return parameter
    converted = f"CONVERT({parameter} USING {column.charset})"
    return (
        f"IF(BINARY CONVERT({converted} USING utf8mb4) = BINARY {parameter}, "
        f"{converted} COLLATE {column.collation}, NULL)"
    )

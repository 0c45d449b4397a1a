"""Encode a projected row as one string, and hash it, inside MariaDB.

The encoding is injective, whatever the columns hold: the values in order, 0xFF between them, and
0xFE for NULL. Neither byte occurs in UTF-8, and the server takes no text into a column of that
charset that is not well-formed. Text of other charsets is converted, which well-forms it and makes
it one on both sides; bytes come as hexadecimal, what may be very long as its SHA-1.

The two bytes are cast to binary, which makes all of it binary: otherwise one text in the
connection's charset would have the server convert all others, at twice the cost. Lengths before the
values, which hold for bytes of any kind, took the server a third longer for a row of 24 columns.

The hash of a row is 64 bits of the SHA-1 of its encoding. That is not linear: with a plain CRC, one
change made to two rows would cancel itself. Sets of rows have the exclusive or of their hashes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cellsync.model import Bucketing, Column, Family, Fold

_UNICODE = {None, "utf8", "utf8mb3", "utf8mb4"}
"""Not ASCII: its columns take any byte."""
_LONG = ("text", "blob", "json", "geometry", "point", "linestring", "polygon", "geometrycollection")
_FRACTION = re.compile(r"\((\d+,)?[1-9]\d*\)")
"""In a type: digits after the point, of a number or of a second."""
_VARIABLE = "@cellsync_hash"
BETWEEN = "CAST(x'FF' AS BINARY)"
NULL = "CAST(x'FE' AS BINARY)"


@dataclass(frozen=True)
class Scalar:
    """One value of a row: its expression, already canonical and transformed, and where it comes from."""

    expression: str
    column: Column
    raw: str | None = None
    """The same value, quicker and fit for a server alone; None where there is no such expression."""

    def encoded(self) -> str:
        """Return the expression with which the value enters the encoding."""
        kind = self.column.type.partition("(")[0].partition(" ")[0]
        if kind.endswith(_LONG):
            return f"SHA1({self.alike()})"
        if self.column.family is Family.BINARY:
            return f"HEX({self.alike()})"
        if self.raw is not None and self.alike() == self.expression:
            return self.raw
        return self.alike()

    def alike(self) -> str:
        """Return the expression such that equal values have equal bytes, whatever the types they have.

        1.10 and 1.1000 are one DECIMAL, 12:00:00 and 12:00:00.000000 one time, 00005 is 5.
        """
        if self.column.charset not in _UNICODE:
            return self.unicode()
        if "zerofill" in self.column.type:
            return f"({self.expression} + 0)"
        if self.column.family in (Family.DECIMAL, Family.TEMPORAL) and _FRACTION.search(self.column.type):
            short = f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {self.expression}))"
            return f"IF(LOCATE('.', {self.expression}), {short}, {self.expression})"
        return self.expression

    def unicode(self) -> str:
        """Return the expression such that text is in UTF-8."""
        if self.column.charset in _UNICODE:
            return self.expression
        return f"CONVERT({self.expression} USING utf8mb4)"


def encoded(scalars: Sequence[Scalar], flags: Sequence[str]) -> str:
    """Return an expression for the encoding of a row; ``flags`` are small numbers, never NULL."""
    fields = [f"IFNULL({scalar.encoded()}, {NULL})" for scalar in scalars]
    return f"CONCAT_WS({', '.join([BETWEEN, *fields, *flags])})"


def hashed(encoding: str, fold: Fold) -> str:
    """Return an expression for the 64 bits of one row, for SQLAlchemy's ``text``.

    Where a row is larger than a server's ``max_allowed_packet``, its encoding is NULL there: it gets
    a random hash, so that it is always looked at.
    """
    sha = f"SHA1(IFNULL({encoding}, RAND()))"
    if fold is Fold.CRC:
        return f"((CRC32({_VARIABLE} \\:= {sha}) << 32) | CRC32C({_VARIABLE}))"
    return f"CAST(CONV(LEFT({sha}, 16), 16, 10) AS UNSIGNED)"


def bucket(key: Sequence[Scalar], flags: Sequence[str], raw: str, bucketing: Bucketing) -> str:
    """Return an expression for the number of a row's bucket; ``raw`` is the key's only column."""
    if bucketing.width is not None:
        return f"({raw} DIV {bucketing.width})"
    return f"(CRC32({encoded(key, flags)}) % {bucketing.count})"


def part(key: Sequence[Scalar], flags: Sequence[str], parts: int) -> str:
    """Return an expression for the part of its bucket that a row is in, of so many."""
    return f"(CRC32(REVERSE({encoded(key, flags)})) % {parts})" if parts > 1 else "0"


def within(raw: str, dealt: str, bucketing: Bucketing, buckets: Sequence[int]) -> str:
    """Return a condition that holds for the rows of some buckets, as ranges of an index if it can."""
    if bucketing.width is None:
        return f"{dealt} IN ({', '.join(map(str, buckets))})"
    spans: list[list[int]] = []
    for low, high in (_span(number, bucketing.width) for number in sorted(buckets)):
        if spans and spans[-1][1] + 1 >= low:
            spans[-1][1] = high
        else:
            spans.append([low, high])
    return "(" + " OR ".join(f"{raw} BETWEEN {low} AND {high}" for low, high in spans) + ")"


def _span(number: int, width: int) -> tuple[int, int]:
    """Return the first and the last key of a bucket; DIV cuts towards zero, so bucket 0 is wider."""
    low = number * width - (width - 1 if number <= 0 else 0)
    high = number * width + (width - 1 if number >= 0 else 0)
    return low, high

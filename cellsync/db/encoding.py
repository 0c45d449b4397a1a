"""Encode a projected row as one string, and hash it, inside MariaDB.

The encoding is injective, whatever bytes the columns hold. First come fields that hold no comma,
with commas between them: the lengths of the texts ('' for NULL), then numbers, times and the hashes
of what may be very long ('' for NULL). Then comes 0x1F, and then the texts, end to end.

What stands between the fields is cast to binary, which makes all of it binary: otherwise one text
in the connection's charset would have the server convert all others, at twice the cost. Only text
in another charset than Unicode's or ASCII is converted, as both sides need not store it alike.

The hash of a row is 64 bits of the SHA-1 of its encoding. That is not linear: with a plain CRC, one
change made to two rows would cancel itself. Sets of rows have the exclusive or of their hashes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cellsync.model import Bucketing, Column, Family, Fold

_UNICODE = {None, "utf8", "utf8mb3", "utf8mb4", "ascii", "binary"}
_PLAIN = {Family.INTEGER, Family.DECIMAL, Family.FLOAT, Family.TEMPORAL}
_LONG = ("text", "blob", "json", "geometry", "point", "linestring", "polygon", "geometrycollection")
_FRACTION = re.compile(r"\((\d+,)?[1-9]\d*\)")
"""In a type: digits after the point, of a number or of a second."""
_VARIABLE = "@cellsync_hash"


@dataclass(frozen=True)
class Scalar:
    """One value of a row: its expression, already canonical and transformed, and where it comes from."""

    expression: str
    column: Column

    def encoded(self) -> str:
        """Return the expression with which the value enters the encoding."""
        kind = self.column.type.partition("(")[0].partition(" ")[0]
        return f"SHA1({self.alike()})" if kind.endswith(_LONG) else self.alike()

    def alike(self) -> str:
        """Return the expression such that equal values have equal bytes, whatever the types they have.

        1.10 and 1.1000 are one DECIMAL, 12:00:00 and 12:00:00.000000 one time, 00005 is 5.
        """
        if self.column.charset not in _UNICODE:
            return f"CONVERT({self.expression} USING utf8mb4)"
        if "zerofill" in self.column.type:
            return f"({self.expression} + 0)"
        if self.column.family in (Family.DECIMAL, Family.TEMPORAL) and _FRACTION.search(self.column.type):
            short = f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {self.expression}))"
            return f"IF(LOCATE('.', {self.expression}), {short}, {self.expression})"
        return self.expression

    @property
    def plain(self) -> bool:
        """Say whether the encoded value holds no comma and is never '' unless it is NULL."""
        return self.column.family in _PLAIN or self.encoded().startswith("SHA1(")


def encoded(scalars: Sequence[Scalar], flags: Sequence[str]) -> str:
    """Return an expression for the encoding of a row; ``flags`` are small numbers, never NULL."""
    texts = [scalar.encoded() for scalar in scalars if not scalar.plain]
    fields = [f"IFNULL(LENGTH({text}), x'')" for text in texts]
    fields += [f"IFNULL({scalar.encoded()}, x'')" for scalar in scalars if scalar.plain]
    fields += flags
    tail = "".join(f", IFNULL({text}, x'')" for text in texts)
    return f"CONCAT(CONCAT_WS(CAST(x'2C' AS BINARY), {', '.join(fields)}), CAST(x'1F' AS BINARY){tail})"


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

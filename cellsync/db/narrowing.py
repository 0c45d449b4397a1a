"""SQL around somebody's SELECT: its columns, digests of its rows, and the rows of some buckets.

For answers of which only a part matters: what is the same in two databases need not travel. Rows are
hashed as text and numbers; MariaDB alone has the functions for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

BUCKETS = 65_536
"""Of four hexadecimal digits: with a million rows, a differing row brings 15 others with it."""

_DIGITS = 4


def no_rows(sql: str) -> str:
    """Return a query for the columns of a SELECT, without any row."""
    return f"SELECT * FROM (\n{sql}\n) AS asked WHERE 1 = 0"


def digests(sql: str, columns: Sequence[str]) -> str:
    """Return a query for ``bucket``, ``number`` and ``checksum`` of the rows of a SELECT.

    The checksum is the XOR of half of each row's MD5: equal rows cancel each other out, so those of a
    SELECT that gives a row twice are told apart by their number alone.
    """
    half = "CAST(CONV(RIGHT(hashed, 16), 16, 10) AS UNSIGNED)"
    return (
        f"SELECT {_BUCKET} AS bucket, COUNT(*) AS number, BIT_XOR({half}) AS checksum "
        f"FROM (SELECT {_hash(columns)} AS hashed FROM (\n{sql}\n) AS asked) AS hashes GROUP BY 1"
    )


def rows(sql: str, columns: Sequence[str], buckets: Iterable[int]) -> str:
    """Return a query for the rows of a SELECT that are in some buckets."""
    named = ", ".join(map(_quoted, columns))
    chosen = ", ".join(map(str, sorted(buckets)))
    hashed = f"SELECT asked.*, {_hash(columns)} AS hashed FROM (\n{sql}\n) AS asked"
    return f"SELECT {named} FROM ({hashed}) AS hashes WHERE {_BUCKET} IN ({chosen})"


_BUCKET = f"CAST(CONV(LEFT(hashed, {_DIGITS}), 16, 10) AS UNSIGNED)"


def _hash(columns: Sequence[str]) -> str:
    # Hexadecimal text has no comma, and no dash that stands for NULL: different rows are different texts.
    encoded = [f"COALESCE(HEX(CONVERT({_quoted(column)} USING utf8mb4)), '-')" for column in columns]
    return f"MD5(CONCAT_WS(',', {', '.join(encoded)}))"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"

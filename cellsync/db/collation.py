"""SQL that says which texts a collation takes for equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cellsync.db.dialects import escaped
from cellsync.model import Column, Family, Key, KeyPart, Projected

_EXACT = ("_nopad_bin", "binary")
"""How the collations end under which two texts are equal only if they are the same."""

_HASH = 40
"""Characters of SHA1."""


def key_columns(
    table: str, key: Sequence[Projected], known: Mapping[str, Mapping[str, Column]]
) -> Iterator[Column]:
    """Yield the column of each scalar of a key, those of the keys that references lead to included.

    ``known`` holds the columns of each table by name.
    """
    for part in key:
        if part.join is None:
            yield known[table][part.column]
        else:
            yield from key_columns(part.join.table, part.join.key, known)


def flatten_key(key: Key, projected: Sequence[Projected]) -> Iterator[KeyPart]:
    """Yield the scalars of a key, in the order of ``key_columns``.

    A NULL reference has as many NULLs as the key that it could lead to has scalars; so has a dangling one.
    """
    for part, each in zip(key, projected, strict=True):
        if each.join is None:
            yield part
        else:
            inner = part if isinstance(part, tuple) else (part,) * len(each.join.key)
            yield from flatten_key(inner, each.join.key)


def is_loose(column: Column) -> bool:
    """Say whether two texts that are not the same may be equal in a column.

    ``utf8mb4_bin`` is such a collation: it takes no notice of trailing spaces.
    """
    named = column.family is Family.TEXT and column.collation is not None and column.charset is not None
    return named and not str(column.collation).endswith(_EXACT)


def classes(column: Column, parameters: Sequence[str]) -> str:
    """Return a query for the weights of texts, each given as a parameter: how many, and all as one text.

    Texts have the same weight if they are equal in the column. A text that the charset of the column
    cannot hold is not in the answer, which ``read_weights`` reads.
    """
    charset, collation = escaped(str(column.charset)), escaped(str(column.collation))
    texts = " UNION ALL ".join(
        f"SELECT {at}{' AS at' if not at else ''}, CONVERT(:{name} USING utf8mb4){' AS v' if not at else ''}"
        for at, name in enumerate(parameters)
    )
    padded = "_nopad" not in str(column.collation)
    text = "RTRIM(v)" if padded else "v"
    held = f"CONVERT({text} USING {charset})"
    same = f"CAST(CONVERT({held} USING utf8mb4) AS BINARY) = CAST({text} AS BINARY)"
    weight = f"WEIGHT_STRING({held} COLLATE {collation})"
    if padded:
        # Other characters may weigh what a space does (U+00A0 under unicode_ci).
        space = f"WEIGHT_STRING(CONVERT(' ' USING {charset}) COLLATE {collation})"
        weight = f"TRIM(TRAILING {space} FROM {weight})"
    # One value for all: a row for each takes the client five times as long.
    answer = f"GROUP_CONCAT(at, ' ', SHA1({weight}))"
    return f"SELECT COUNT(*), {answer} FROM ({texts}) AS given WHERE {same}"


def read_weights(count: int, answer: str | None) -> dict[int, str] | None:
    """Return the weight of each text by its place; None where the server has cut its answer."""
    entries = [each.partition(" ") for each in answer.split(",")] if answer else []
    if len(entries) != count or any(len(weight) != _HASH for _, _, weight in entries):
        return None
    return {int(at): weight for at, _, weight in entries}

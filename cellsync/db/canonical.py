"""The canonical form of values, as a driver gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cellsync.model import Family, Value


def canonical(value: Value, family: Family) -> Value:
    """Return the canonical form of a value as the driver gives it.

    Only fractions of a second need a hand: DATETIME and DATETIME(6) print the same instant as
    "12:00:00" and "12:00:00.000000".
    """
    if family is Family.TEMPORAL and isinstance(value, str) and "." in value:
        return value.rstrip("0").rstrip(".")
    return value


def canonical_columns(
    columns: Sequence[Sequence[Value]], families: Iterable[Family]
) -> list[Sequence[Value]]:
    """Return the values of columns in canonical form."""
    return [
        [canonical(value, family) for value in column] if family is Family.TEMPORAL else column
        for column, family in zip(columns, families, strict=True)
    ]

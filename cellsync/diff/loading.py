"""A table of which one side has no row at all: its rows need not be compared, only counted and read.

They are missing, all of them, and stay packed as the server spells them until somebody looks at one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cellsync.model import (
    Difference,
    Family,
    Fold,
    Kind,
    Missing,
    Packed,
    Pairing,
    Projection,
    Row,
    Status,
    Table,
    TableDiff,
)

_SHAPES = ("geometry", "point", "linestring", "polygon", "collection", "vector")


def loadable(pairing: Pairing, desired: Table, existing: Table) -> bool:
    """Say whether all missing rows of a rule may be taken together, unseen, where all rows are missing.

    Nothing about one of them may need a look: who owns it, to what it refers, whether it was deleted
    before or has a key twice. And the servers must be able to spell it: a FLOAT is not exact as text, a
    DECIMAL in a key is not to the letter what Python makes of it, and a primary key must be one number.
    """
    rule = pairing.rule
    seen = rule.route or rule.overrides or rule.comes_with or rule.references or not rule.revives
    alike = not pairing.schema and all(_plain(p) for p in (pairing.desired, pairing.existing))
    return not seen and alike and all(_spelled(table) for table in (desired, existing))


def _plain(projection: Projection) -> bool:
    parts = (*projection.key, *projection.columns, *projection.carried)
    return (
        projection.unique
        and not projection.nullable
        and projection.identity_families == (Family.INTEGER,)
        and not any(part.join for part in parts)
        and not any(part.family is Family.DECIMAL for part in projection.key)
    )


def _spelled(table: Table) -> bool:
    (number,) = (table.column(name) for name in table.identity)
    return not (number and number.type.startswith("bit")) and not any(
        column.family is Family.FLOAT or column.type.partition("(")[0].endswith(_SHAPES)
        for column in table.columns
    )


def missing(
    head: TableDiff,
    packed: Sequence[Packed],
    *,
    fold: Fold,
    unpack: Callable[[Packed], Row],
) -> TableDiff:
    """Return the result of a rule whose rows are all missing; ``head`` is it without its differences."""

    def difference(row: Packed) -> Difference:
        desired = unpack(row)
        return Difference.found(Kind.MISSING, desired.key, desired)

    differences = Missing(packed, difference, fold=fold)
    return replace(head, differences=differences, desired_rows=len(packed), status=Status.DIFFERS)

"""A row that cellsync pushed stays the same row when its key changes.

The journal remembers which desired row each pushed row was made from. When the desired row is
renamed, its old key is extra and its new key is missing; here the two become one changed row.
Rows that refer to a renamed row have not changed at all: they refer to it by its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cellsync.diff.rows import changed
from cellsync.model import (
    Action,
    ColumnDifference,
    Difference,
    Identity,
    Key,
    KeyPart,
    Kind,
    Pairing,
    Projected,
    Row,
    Status,
    TableDiff,
)
from cellsync.spool import Collector

Renames = Mapping[str, Mapping[Key, Key]]
"""Rule -> existing key -> desired key, of the rows that are about to be renamed."""


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A comparison in which renamed rows are one row each, and their old and new keys."""

    table: TableDiff
    renames: Mapping[Key, Key]


def follow(
    pairing: Pairing, table: TableDiff, *, pushed: Mapping[Identity, Identity], renames: Renames
) -> Followed:
    """Join what is missing with what is extra, where both are one row.

    ``pushed`` maps the primary keys of the existing rows that cellsync pushed to those of the
    desired rows that they were made from. ``renames`` are those of the rules referenced here.
    """
    if not pushed and not any(renames.values()):
        return Followed(table=table, renames={})
    missing = _renamed_to(pairing, table, pushed, renames)
    sought = frozenset(missing)
    origins = {d.desired.identity: d for d in missing.values() if d.desired and d.desired.identity}
    own: dict[Key, Key] = {}
    followed: Collector[Difference] = Collector()
    for original in table.differences:
        if original.action is Action.REPLACE:  # it is known which row becomes which
            followed.append(original)
            continue
        difference = _substituted(pairing, original, renames)
        held = difference.existing
        if difference.kind is Kind.EXTRA and held is not None and not difference.aside:
            same = missing.pop(held.key, None) or origins.get(pushed.get(held.identity, ()))
            if same is not None and same.desired is not None:
                missing.pop(same.key, None)
                followed.extend(_joined(pairing, same.desired, held))
                if same.key != original.key:
                    own[original.key] = same.key
                continue
            difference = replace(difference, origin=pushed.get(held.identity, ()))
        if difference.kind is not Kind.MISSING or difference.key not in sought:
            followed.extend(_still(pairing, difference))
    followed.extend(missing.values())
    rule, known = pairing.rule, renames.get(pairing.rule.id, {})
    if rule.id in rule.references.values() and own.keys() > known.keys():
        # Rows of the same table refer to those by their old keys, and may be named by them.
        return follow(pairing, table, pushed=pushed, renames={**renames, rule.id: own})
    differences = followed.kept()
    differ = Status.DIFFERS if differences or table.findings else Status.IN_STEP
    return Followed(table=replace(table, differences=differences, status=differ), renames=own)


def _renamed_to(
    pairing: Pairing, table: TableDiff, pushed: Mapping[Identity, Identity], renames: Renames
) -> dict[Key, Difference]:
    """Return the missing rows, by key, that an extra one may have become."""
    origins = set(pushed.values())
    keys = {
        held.key
        for difference in table.differences
        if difference.kind is Kind.EXTRA
        and difference.action is not Action.REPLACE
        and not difference.aside
        and (held := _substituted(pairing, difference, renames).existing) is not None
        and held.key != difference.key
    }
    return {
        d.key: d
        for d in table.differences
        if d.kind is Kind.MISSING
        and d.action is not Action.REPLACE
        and d.desired
        and (d.key in keys or d.desired.identity in origins)
    }


def _substituted(pairing: Pairing, difference: Difference, renames: Renames) -> Difference:
    """Return a difference whose existing row refers to renamed rows by their new keys."""
    held = difference.existing
    if held is None or not renames:
        return difference
    projection = pairing.existing
    key = tuple(_renamed(p, part, renames) for p, part in zip(projection.key, held.key, strict=True))
    values = tuple(
        _renamed(p, part, renames) for p, part in zip(projection.columns, held.values, strict=True)
    )
    return replace(difference, key=key, existing=held._replace(key=key, values=values))


def _renamed(projected: Projected, part: KeyPart, renames: Renames) -> KeyPart:
    if projected.join is None or not isinstance(part, tuple):
        return part
    return renames.get(projected.join.rule, {}).get(part, part)


def _still(pairing: Pairing, difference: Difference) -> list[Difference]:
    """Return a difference as it is after the substitution: what only a new name changed is none."""
    if difference.kind is Kind.EXTRA or difference.desired is None or difference.existing is None:
        return [difference]
    columns = tuple(changed(pairing, difference.desired, difference.existing))
    return [replace(difference, columns=columns)] if columns else []


def _joined(pairing: Pairing, desired: Row, held: Row) -> list[Difference]:
    names = pairing.rule.key
    renamed = [
        ColumnDifference(column=name, desired=wanted, existing=was)
        for name, wanted, was in zip(names, desired.key, held.key, strict=True)
        if wanted != was
    ]
    columns = (*renamed, *changed(pairing, desired, held))
    if not columns:
        return []
    return [Difference(kind=Kind.CHANGED, key=desired.key, desired=desired, existing=held, columns=columns)]

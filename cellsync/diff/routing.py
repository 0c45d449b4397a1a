"""Which child each row of the parent belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cellsync.model import (
    Finding,
    Key,
    Row,
    Rule,
    Value,
)


@dataclass(frozen=True, kw_only=True)
class Routed:
    """The rows of the parent, dealt to the children."""

    rows: Mapping[str, Sequence[Row]]
    """Child -> its rows, for every child of the topology."""
    findings: tuple[Finding, ...] = ()
    aside: frozenset[Key] = frozenset()
    """Keys that no child may be judged by: ambiguous or unknown rows."""
    unknown: tuple[str, ...] = ()
    """Why the owners of some rows could not be told."""


class Owners:
    """Who owns a value of the routed column.

    ``owns`` says for each child which values it has (for values without a path), or None where
    the child could not be asked: then a value that nobody claims, or that only one claims, might
    be the silent child's, and is unknown. Values are compared binary, as Nova compares host names.
    """

    def __init__(
        self, rule: Rule, *, parent: str, children: Sequence[str], owns: Mapping[str, frozenset[str] | None]
    ) -> None:
        assert rule.route is not None
        self.children = children
        self.silent = [child for child in children if owns.get(child) is None]
        self._owns = owns
        self._paths = {rule.route.path.format(parent=parent, child=child): child for child in children}
        self._asks = rule.route.else_where_exists is not None

    def of(self, value: Value) -> Sequence[str] | None:
        """Return the children that claim a value: one owns it, none or several are wrong; None is unknown."""
        text = value if isinstance(value, str) else ""
        path, separator, _ = text.rpartition("@")
        owner = self._paths.get(path if separator else text)
        if owner is not None:
            return [owner]
        if separator or not self._asks:
            return []
        if self.silent:
            return None
        return [child for child in self.children if text in (self._owns.get(child) or ())]


def route(rows: Iterable[Row], rule: Rule, owners: Owners, *, parent: str) -> Routed:
    """Deal the rows of the parent to the children that they belong to."""
    assert rule.route is not None
    dealt: dict[str, list[Row]] = {child: [] for child in owners.children}
    findings: list[Finding] = []
    aside: set[Key] = set()
    unknown = 0
    for row in rows:
        claimed = owners.of(row.route)
        if claimed is None:
            unknown += 1
            aside.add(row.key)
        elif len(claimed) == 1:
            dealt[claimed[0]].append(row)
        elif claimed:
            findings.append(_ambiguous(rule, row, parent, claimed))
            aside.add(row.key)
        else:
            findings.append(_orphan(rule, row, parent))
    silent = ", ".join(owners.silent)
    reasons = (
        (f"{unknown} rows without a cell path: {silent} could not be asked whose they are",)
        if unknown
        else ()
    )
    return Routed(rows=dealt, findings=tuple(findings), aside=frozenset(aside), unknown=reasons)


def _place(rule: Rule) -> str:
    look_up = rule.route.else_where_exists if rule.route else None
    return f"{look_up.table}.{look_up.column}" if look_up else "its tables"


def _orphan(rule: Rule, row: Row, parent: str) -> Finding:
    assert rule.route is not None
    value = row.route if isinstance(row.route, str) else ""
    path, separator, _ = value.rpartition("@")
    with_path = separator or rule.route.else_where_exists is None
    why = f"no child has the path {path or value!r}" if with_path else f"no child has it in {_place(rule)}"
    message = (
        f"{rule.table}.{rule.route.column} {row.route!r} in {parent} belongs to no child: {why}; "
        f"correct or remove the row ({rule.named(row.key)})"
    )
    return Finding(code="orphan", cell=parent, message=message, key=row.key)


def _ambiguous(rule: Rule, row: Row, parent: str, claimed: Sequence[str]) -> Finding:
    assert rule.route is not None
    message = (
        f"{rule.table}.{rule.route.column} {row.route!r} in {parent} is claimed by {' and '.join(claimed)}: "
        f"give it a path ({rule.route.path.format(parent=parent, child=claimed[0])}@...) or remove the double"
    )
    return Finding(code="ambiguous", cell=parent, message=message, key=row.key)

"""Read a parent and all its children for the oracle; shares no code with cellsync."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pymysql
from oracle import Edge, Rule, Snapshot, open_plainly, quote_name, take_snapshot

CANNOT_CONNECT = 2003
ACCESS_DENIED = 1045
INSECURE = 3159


def take_edges(
    parent: tuple[str, str], children: Mapping[str, str], rules: Sequence[Rule]
) -> dict[str, Edge]:
    """Return child -> both sides as they are now, from names and URLs; a child that is down has none."""
    above = take_snapshot(parent[1], rules, of_parent=True)
    below: dict[str, Snapshot] = {}
    owned: dict[str, dict[str, set[Any]]] = {}
    for name, url in children.items():
        try:
            below[name] = take_snapshot(url, rules, of_parent=False)
        except pymysql.OperationalError as error:
            if error.args[0] != CANNOT_CONNECT:
                raise
            continue
        owned[name] = find_owned(url, rules)
    by_rule = {rule.id: {name: each.get(rule.id, set()) for name, each in owned.items()} for rule in rules}
    return {name: Edge(rules, above, each, (parent[0], name), by_rule) for name, each in below.items()}


def find_owned(url: str, rules: Sequence[Rule]) -> dict[str, set[Any]]:
    """Return rule -> the values without a path that a child says are its own."""
    owned: dict[str, set[Any]] = {}
    with open_plainly(url) as connection, connection.cursor() as cursor:
        for rule in rules:
            look = (rule.text.get("route") or {}).get("else_where_exists")
            if look:
                shown, place = quote_name(look["column"]), quote_name(look["table"])
                cursor.execute(f"SELECT DISTINCT {shown} FROM {place} WHERE {look.get('where', 'TRUE')}")
                owned[rule.id] = {value for (value,) in cursor.fetchall()}
    return owned

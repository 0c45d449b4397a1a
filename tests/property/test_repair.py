"""Random tables with random rows: a repair brings them in step, and an undo brings every byte back."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import servers
from edges import Stand, add, execute, result, rows, ruleset
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from servers import Server, checksums

from cellsync.model import Action, Key, Kind, TableDiff

pytestmark = pytest.mark.slow

TABLES = (
    """
    CREATE TABLE nodes (
        id int PRIMARY KEY AUTO_INCREMENT, name varchar(20), size int, note varchar(20), ratio float,
        at datetime(3), raw varbinary(8), up_id int, scope varchar(9) NOT NULL,
        deleted int, deleted_at datetime, created_at datetime,
        touched timestamp(6) NOT NULL DEFAULT '2000-01-01' ON UPDATE current_timestamp(6),
        FOREIGN KEY (up_id) REFERENCES nodes (id)
    ) COLLATE utf8mb4_nopad_bin
    """,
    """
    CREATE TABLE leaves (
        id int PRIMARY KEY AUTO_INCREMENT, node_id int, label varchar(20), value varchar(20),
        deleted int, deleted_at datetime, created_at datetime,
        FOREIGN KEY (node_id) REFERENCES nodes (id), UNIQUE (node_id, label, deleted)
    ) COLLATE utf8mb4_nopad_bin
    """,
)
HARD = "on_extra: delete"
SOFT = """on_extra: soft_delete
    soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}"""
RULES = """
defaults:
    limits: {updates: 100%, deletes: 100%}
    columns: {exclude: [created_at, touched, deleted, deleted_at]}
    on_insert: {created_at: now, deleted: 0}
    EXTRA
rules:
  - {table: nodes, key: [name], where: "scope = 'in'", references: {up_id: nodes}}
  - {table: leaves, key: [node_id, label], references: {node_id: nodes}}
"""

NAMES = st.sampled_from([None, "", "a", "A", "a ", "é", "主😀", "%s:x", "\\'\"", "NULL"])
ZERO = "0000-00-00 00:00:00"
TEXTS = st.one_of(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
VALUES = st.fixed_dictionaries(
    {
        "size": st.one_of(st.none(), st.integers(-2, 2)),
        "note": TEXTS,
        "ratio": st.sampled_from([None, 0.0, -1.5, 0.1, 1e30]),
        "at": st.sampled_from(
            [None, "2026-01-01 00:00:00", "2026-01-01 00:00:00.125", "0000-00-00 00:00:00"]
        ),
        "raw": st.one_of(st.none(), st.binary(max_size=4)),
    }
)
MADE = ("2026-01-01 00:00:00", "2026-12-01 00:00:00")
DELETED_AT = "2026-06-01 00:00:00"


@dataclass(frozen=True)
class Side:
    """The rows of one database, with their ids."""

    nodes: list[dict[str, Any]]
    leaves: list[dict[str, Any]]


@st.composite
def sides(draw: st.DrawFn) -> Side:
    """Draw a forest of nodes with leaves, some rows out of scope, some tombstones."""
    first = draw(st.integers(1, 50))
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    numbers = draw(st.permutations(range(first, first + len(names))))
    nodes: list[dict[str, Any]] = []
    for number, name in zip(numbers, names, strict=True):
        up = draw(st.sampled_from([None, *(node["id"] for node in nodes)]))
        made = draw(st.sampled_from(MADE))
        more = {"up_id": up, "scope": "in", "deleted": 0, "created_at": made}
        nodes.append({"id": number, "name": name, **draw(VALUES), **more})
    places = st.tuples(st.sampled_from([None, *numbers]), NAMES)
    leaves = [
        {"id": first + at, "node_id": node, "label": label, "value": draw(TEXTS), "deleted": 0}
        for at, (node, label) in enumerate(draw(st.lists(places, unique=True, max_size=5)))
    ]
    for at, name in enumerate(draw(st.lists(NAMES, max_size=2))):
        number = 200 + at
        nodes.append({"id": number, "name": f"out {name}", "size": at, "scope": "out", "deleted": 0})
    for at, name in enumerate(draw(st.lists(NAMES, max_size=3))):
        number = 300 + at
        dead = {"deleted": number, "deleted_at": DELETED_AT, "created_at": MADE[0]}
        nodes.append({"id": number, "name": name, "size": 5, "scope": "in", **dead})
    return Side(nodes, leaves)


@pytest.fixture(scope="module")
def urls(server: Server) -> Iterator[dict[str, str]]:
    """Give two schemas with the same empty tables."""
    with servers.pair(server, "p") as urls:
        for url in urls.values():
            execute(url, *TABLES)
        yield urls


def refill(url: str, side: Side, *, soft: bool) -> None:
    """Put these rows into the tables, and no others."""
    listed = "SELECT TABLE_NAME AS t FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'cellsync'"
    journal = [f"DELETE FROM cellsync.{row['t']}" for row in rows(url, listed) if row["t"] != "format"]
    execute(url, "SET foreign_key_checks = 0", "DELETE FROM leaves", "DELETE FROM nodes", *journal)
    add(url, "nodes", *(row for row in side.nodes if soft or not row["deleted"]))
    add(url, "leaves", *side.leaves)


def left(table: Any, held: Collection[Key]) -> list[tuple[Kind, Action]]:
    """Return what still differs in a table, but for rows that are to stay for now."""
    assert isinstance(table, TableDiff), table
    differences = (d for d in table.differences if d.kind is not Kind.EXTRA or d.key not in held)
    return [(difference.kind, difference.action) for difference in differences]


# A smaller example is not worth minutes of databases: the drawn rows are few as they are.
NO_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]
_runs = count(1)
OUTSIDE = "SELECT * FROM nodes WHERE scope = 'out' ORDER BY id"


@pytest.mark.usefixtures("compared_by")
@pytest.mark.parametrize("soft", [False, True], ids=["delete", "soft delete"])
@settings(max_examples=15, phases=NO_SHRINKING)
@given(desired=sides(), existing=sides())
def test_a_repair_converges_and_an_undo_restores(
    urls: dict[str, str], soft: bool, desired: Side, existing: Side
) -> None:
    """diff -> repair -> diff is empty, a second repair writes nothing, the undo is to the byte.

    With soft deletes, what may be left is extra rows that the parent never deleted, what refers to
    them, and what they refer to.
    """
    for url, side in zip(urls.values(), (desired, existing), strict=True):
        refill(url, side, soft=soft)
    stand = Stand(urls, ruleset(RULES.replace("EXTRA", SOFT if soft else HARD)), announced=True)
    before, outside, parent = checksums(urls["c1"]), rows(urls["c1"], OUTSIDE), checksums(urls["api"])
    waived = ["empty-desired"]
    run_id = f"r{next(_runs)}"
    repaired = result(stand.repair(run_id, waived), "c1")
    assert (repaired.problems, repaired.refusals) == ((), ())
    assert repaired.counts.applied == repaired.counts.planned
    assert rows(urls["c1"], OUTSIDE) == outside
    found = result(stand.diff(), "c1")
    again = result(stand.repair(f"{run_id}-again", waived), "c1")
    assert again.counts.planned == 0
    assert soft or not again.skipped
    assert all("that stay refer to it" in skipped.reason for skipped in again.skipped)
    for table in found.tables:
        assert soft or not table.findings  # type: ignore[union-attr]
        held = {skipped.key for skipped in again.skipped if skipped.rule == table.rule}
        assert set(left(table, held)) <= ({(Kind.EXTRA, Action.REPORT)} if soft else set()), table
    if repaired.counts.applied:
        assert result(stand.undo(run_id, f"{run_id}-undo"), "c1").problems == ()
    assert checksums(urls["c1"]) == before
    assert checksums(urls["api"]) == parent

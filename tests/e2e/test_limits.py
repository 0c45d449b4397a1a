"""Limits hold back what they are about, and what depends on it; the rest is written."""

from __future__ import annotations

import pytest
from edges import MakeDatabase, Stand, add, execute, result, rows, stand_of
from replaying import Replayed, replay, way_back
from servers import checksums

from cellsync.model import Report, Status
from cellsync.report import html, sql, text
from cellsync.run import telling

pytestmark = pytest.mark.slow

RULES = """
defaults: {on_extra: delete, limits: {inserts: unlimited, updates: unlimited, deletes: 2, free: 2}}
rules:
  - {id: t, table: t, key: [name], where: deleted = 0, columns: {exclude: [deleted, created_at, deleted_at]}}
  - {id: u, table: u, key: [t_id, host], references: {t_id: t}, limits: {deletes: unlimited}}
"""
SOFT = """
defaults: {on_extra: soft_delete, removes: all, limits: {updates: unlimited, deletes: 2, free: 2}}
rules:
  - id: t
    table: t
    key: [name]
    soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}
    on_insert: {created_at: now}
    columns: {exclude: [deleted, created_at, deleted_at]}
  - id: u
    table: u
    key: [t_id, host]
    references: {t_id: t}
    on_extra: delete
    limits: {deletes: unlimited}
"""
T = (
    "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, name varchar(20), v int, n int UNIQUE,"
    " deleted int DEFAULT 0, created_at datetime DEFAULT '2026-01-01', deleted_at datetime)"
)
U = "CREATE TABLE u (id int AUTO_INCREMENT PRIMARY KEY, t_id int, host varchar(20))"


def fill(
    stand: Stand,
    parent: dict[str, int],
    child: dict[str, int],
    of_u: tuple[dict[str, str], dict[str, str]] = ({}, {}),
) -> None:
    """Put rows of t on both sides, name -> v, and rows of u, name -> host.

    The parent deleted what it lacks.
    """
    gone = {"deleted": 99, "deleted_at": "2026-02-01 00:00:00"}
    add(stand.urls["api"], "t", *({"name": name, **gone} for name in child if name not in parent))
    for url, some, hosts in zip(stand.urls.values(), (parent, child), of_u, strict=True):
        add(url, "t", *({"name": name, "v": v} for name, v in some.items()))
        for name, host in hosts.items():
            execute(url, f"INSERT INTO u (t_id, host) SELECT id, '{host}' FROM t WHERE name = '{name}'")


def guards(report: Report) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return the refusals of c1."""
    return [(each.code, each.rule, each.holds) for each in result(report, "c1").refusals]


def names(stand: Stand) -> dict[str, int]:
    """Return what the application sees of t in c1."""
    return {row["name"]: row["v"] for row in rows(stand.urls["c1"], "SELECT * FROM t WHERE deleted = 0")}


@pytest.mark.usefixtures("compared_by")
@pytest.mark.parametrize("text_", [RULES, SOFT], ids=["delete", "soft delete"])
def test_deletes_beyond_the_limit_stop_nothing_else(database: MakeDatabase, text_: str) -> None:
    """New rows come, changed ones are updated, in the same rule; the deletes wait until they are waived."""
    stand = stand_of(database, text_, T, U)
    fill(stand, {"a": 1, "new": 1}, {"a": 2, "x": 1, "y": 1, "z": 1})
    before = checksums(stand.urls["c1"])
    done = stand.repair("r1")
    assert (done.exit_code, guards(done)) == (3, [("limit", "t", ("deletes",))])
    assert "3 deletes" in result(done, "c1").refusals[0].message
    assert names(stand) == {"a": 1, "new": 1, "x": 1, "y": 1, "z": 1}
    assert result(done, "c1").counts.applied == 2
    again = stand.repair("r2")
    assert (again.exit_code, result(again, "c1").counts.planned) == (3, 0)
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(stand.urls["c1"]) == before
    waived = stand.repair("r3", ["limit:t"])
    assert (waived.exit_code, names(stand)) == (0, {"a": 1, "new": 1})


@pytest.mark.parametrize("text_", [RULES, SOFT], ids=["delete", "soft delete"])
def test_rows_that_belong_to_one_that_waits_wait_too(database: MakeDatabase, text_: str) -> None:
    """No half deletion; rows that belong to others go, and new ones come."""
    stand = stand_of(database, text_, T, U)
    fill(
        stand,
        {"a": 1, "b": 1},
        {"a": 1, "b": 1, "x": 1, "y": 1, "z": 1},
        ({"a": "h1"}, {"b": "old", "x": "hx", "y": "hy"}),
    )
    done = stand.repair("r1")
    assert (done.exit_code, guards(done)) == (
        3,
        [("limit", "t", ("deletes",)), ("depends", "u", ("deletes",))],
    )
    assert "2 deletes wait" in result(done, "c1").refusals[1].message
    assert {row["host"] for row in rows(stand.urls["c1"], "SELECT host FROM u")} == {"h1", "hx", "hy"}
    assert stand.repair("r2", ["limit:t"]).exit_code == 0
    assert rows(stand.urls["c1"], "SELECT host FROM u") == [{"host": "h1"}]
    assert set(names(stand)) == {"a", "b"}


def test_the_limit_of_rows_that_wait_for_others_is_not_reached(database: MakeDatabase) -> None:
    """Of u only what would really go counts."""
    limited = RULES.replace("limits: {deletes: unlimited}", "limits: {deletes: 1, free: 1}")
    stand = stand_of(database, limited, T, U)
    fill(
        stand,
        {"a": 1},
        {"a": 1, "x": 1, "y": 1, "z": 1},
        ({"a": "h1"}, {"a": "old", "x": "hx", "y": "hy", "z": "hz"}),
    )
    done = stand.repair("r1")
    assert guards(done) == [("limit", "t", ("deletes",)), ("depends", "u", ("deletes",))]
    assert {row["host"] for row in rows(stand.urls["c1"], "SELECT host FROM u")} == {"h1", "hx", "hy", "hz"}


def test_what_would_take_a_value_of_a_row_that_waits_is_a_finding(database: MakeDatabase) -> None:
    """Said before, and the others are written."""
    stand = stand_of(
        database,
        RULES.replace(
            "exclude: [deleted, created_at, deleted_at]", "exclude: [deleted, created_at, deleted_at, v]"
        ),
        T,
        U,
    )
    api, c1 = stand.urls.values()
    add(api, "t", {"name": "new", "n": 1}, {"name": "other", "n": 9})
    add(c1, "t", {"name": "x", "n": 1}, {"name": "y", "n": 2}, {"name": "z", "n": 3})
    found = result(stand.diff(), "c1").tables[0].findings  # type: ignore[union-attr]
    assert [(each.code, each.key) for each in found] == [("unique-clash", ("new",))]
    stand.repair("r1")
    assert {row["name"] for row in rows(c1, "SELECT name FROM t")} == {"other", "x", "y", "z"}
    assert stand.repair("r2", ["limit:t"]).exit_code == 0
    assert {row["name"] for row in rows(c1, "SELECT name FROM t")} == {"new", "other"}


@pytest.mark.parametrize("kind", ["inserts", "updates"])
def test_inserts_or_updates_beyond_the_limit_stop_nothing_else(database: MakeDatabase, kind: str) -> None:
    """Rows that would refer to a new one which waits are left out; all others are written."""
    limits = f"{kind}: 1, {'updates' if kind == 'inserts' else 'inserts'}: unlimited, deletes: unlimited"
    stand = stand_of(
        database,
        RULES.replace(
            "inserts: unlimited, updates: unlimited, deletes: 2, free: 2", f"{limits}, free: 1"
        ).replace("limits: {deletes: unlimited}}", "limits: {inserts: unlimited, deletes: unlimited}}"),
        T,
        U,
    )
    fill(
        stand,
        {"a": 1, "b": 1, "n1": 1, "n2": 1},
        {"a": 2, "b": 2, "gone": 1},
        ({"a": "ha", "n1": "hn"}, {"gone": "hg"}),
    )
    done = stand.repair("r1")
    assert guards(done) == [("limit", "t", (kind,))]
    hosts = {row["host"] for row in rows(stand.urls["c1"], "SELECT host FROM u")}
    if kind == "inserts":
        assert (names(stand), hosts) == ({"a": 1, "b": 1}, {"ha"})
        assert [(each.code, each.key) for each in result(done, "c1").tables[1].findings] == [  # type: ignore[union-attr]
            ("foreign-key-clash", (("n1",), "hn"))
        ]
    else:
        assert (names(stand), hosts) == ({"a": 2, "b": 2, "n1": 1, "n2": 1}, {"ha", "hn"})
    assert stand.repair("r2", ["limit:t"]).exit_code == 0
    assert names(stand) == {"a": 1, "b": 1, "n1": 1, "n2": 1}


def test_every_output_says_what_waits(database: MakeDatabase) -> None:
    """And not that the rule writes nothing."""
    stand = stand_of(database, RULES, T, U)
    fill(stand, {"a": 1, "new": 1}, {"a": 2, "x": 1, "y": 1, "z": 1})
    request, prepared = stand.prepare("r1")
    report = prepared.report
    told = "".join(text.render(report, text.Style(verbose=True)))
    assert "held back (these changes wait, the others do not):" in told
    assert "write nothing" not in told
    assert told.count("(delete refused)") == 3 and "(insert)" in told and "(update)" in told
    page = "".join(html.render(report, text.Style()))
    assert "Held back: these changes wait, the others do not" in page and "write nothing" not in page
    statements = "".join(sql.render(telling.with_whole_rows(request, prepared)))
    c1 = stand.urls["c1"]
    before = checksums(c1)["t"]
    assert replay(c1, statements) == Replayed(code=0, planned=2, made=2)
    assert replay(c1, way_back(statements)) == Replayed(code=0, planned=2, made=2)
    assert checksums(c1)["t"] == before
    table = result(report, "c1").tables[0]
    assert table.status is Status.REFUSED


@pytest.mark.parametrize("action", ["DELETE", "UPDATE"])
def test_a_cascade_holds_back_what_could_cascade(database: MakeDatabase, action: str) -> None:
    """Inserts, and updates of other columns, cannot."""
    stand = stand_of(
        database,
        """
        defaults: {on_extra: delete, limits: {updates: unlimited, deletes: unlimited}}
        rules: [{table: t, key: [name], columns: {include: [id, v]}}]
        """,
        T,
        f"CREATE TABLE w (n int PRIMARY KEY, t int, FOREIGN KEY (t) REFERENCES t (id) ON {action} CASCADE)",
    )
    api, c1 = stand.urls.values()
    add(api, "t", {"id": 1, "name": "a", "v": 1}, {"id": 9, "name": "new", "v": 1})
    add(c1, "t", {"id": 1, "name": "a", "v": 2})
    if action == "DELETE":
        add(c1, "t", {"id": 5, "name": "gone", "v": 1})
    else:
        add(api, "t", {"id": 3, "name": "moved", "v": 1})
        add(c1, "t", {"id": 4, "name": "moved", "v": 1})
    done = stand.repair("r1")
    kind = "deletes" if action == "DELETE" else "updates"
    assert (done.exit_code, guards(done)) == (3, [("cascade", "t", (kind,))])
    left = {row["name"]: (row["id"], row["v"]) for row in rows(c1, "SELECT * FROM t")}
    if action == "DELETE":
        assert left == {"a": (1, 1), "new": (9, 1), "gone": (5, 1)}
    else:
        assert left == {"a": (1, 1), "new": (9, 1), "moved": (4, 1)}
    assert stand.repair("r2", ["cascade:t"]).exit_code == 0

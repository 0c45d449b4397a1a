"""MariaDB and SQLite behave alike as the database that is read and written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from edges import Stand, add, execute, opened, result, rows, ruleset
from servers import DatabaseFactory

from cellsync import db
from cellsync.db.schema import family
from cellsync.errors import ReadFailed, Rejected, WriteFailed
from cellsync.model import Dangling, Join, LookUp, Projected, Projection, ServerTime, SoftDelete

SOFT = SoftDelete(column="deleted", live=0, tombstone="id", at="deleted_at")
NUMBERED = {"mariadb": "integer PRIMARY KEY AUTO_INCREMENT", "sqlite": "integer PRIMARY KEY AUTOINCREMENT"}
TABLES = (
    "CREATE TABLE things (id NUMBERED, name varchar(20), size int, ratio double, raw varbinary(20), "
    "deleted int, deleted_at datetime)",
    "CREATE TABLE parts (id NUMBERED, thing_id int, label varchar(20) NOT NULL UNIQUE)",
)


@pytest.fixture(params=["mariadb", "sqlite"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Give two databases of one kind, with the same empty tables."""
    if request.param == "mariadb":
        make: DatabaseFactory = request.getfixturevalue("database")
        found = [make(collate="utf8mb4_bin"), make(collate="utf8mb4_bin")]
    else:
        found = [f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other")]
    for url in found:
        execute(url, *(table.replace("NUMBERED", NUMBERED[request.param]) for table in TABLES))
    return found


@pytest.fixture
def store(urls: list[str]) -> Iterator[db.Database]:
    """Open one of the databases."""
    with opened(urls[0]) as store:
        yield store


def column(name: str, kind: str = "varchar", join: Join | None = None) -> Projected:
    """Return a projected column."""
    return Projected(column=name, family=family(kind), join=join)


THING = Join(rule="things", table="things", column="id", key=(column("name"),), soft_delete=SOFT)
PARTS = Projection(
    rule="parts", table="parts", key=(column("thing_id", "int", THING), column("label")), columns=(),
    identity=("id",), identity_families=(family("int"),), parent="api", child="c1",
)  # fmt: skip


def things(*, where: str | None = None) -> Projection:
    """Return the projection of the things."""
    return Projection(
        rule="things", table="things", key=(column("name"),),
        columns=(column("size", "int"), column("ratio", "double"), column("raw", "varbinary")),
        identity=("id",), identity_families=(family("int"),), where=where, soft_delete=SOFT,
        parent="api", child="c1",
    )  # fmt: skip


def test_what_a_login_may_read_is_not_hidden(store: db.Database) -> None:
    """Whether there is the table, no such table, or no such schema; and the connection goes on."""
    schema = store.identity().schema if store.makes_schemas else "main"
    assert not store.hides("things", schema=schema)
    assert not store.hides("nothing", schema=schema)
    assert not store.hides("nothing", schema="nowhere `%s` :x")
    assert store.has_table("things", schema=schema)


def test_values_are_canonical(store: db.Database, urls: list[str]) -> None:
    """Numbers, exact doubles, bytes, text with every kind of character, NULL."""
    values = [(5, 0.1, b"\x00\xff"), (None, 1e300, b""), (-(2**31), -1.5, None)]
    names = ["主😀 'x' \\ %s :y", "", None]
    with store.transaction():
        for name, (size, ratio, raw) in zip(names, values, strict=True):
            store.insert("things", {"name": name, "size": size, "ratio": ratio, "raw": raw, "deleted": 0})
    found = {row.key[0]: row.values for row in store.rows(things())}
    assert found == dict(zip(names, values, strict=True))
    assert {type(value) for row in found.values() for value in row} == {int, float, bytes, type(None)}


def test_rows_are_found_by_their_keys_null_safe(store: db.Database, urls: list[str]) -> None:
    """Also many at once, and none at all."""
    add(urls[0], "things", *({"name": name, "deleted": 0} for name in (None, "", "a", "b")))
    assert {row.key for row in store.rows(things(), keys=[(None,), ("a",), ("x",)])} == {(None,), ("a",)}
    assert list(store.rows(things(), keys=[])) == []
    many = [(f"n{number}",) for number in range(1000)]
    assert {row.key for row in store.rows(things(), keys=[*many, ("b",)])} == {("b",)}


def test_live_rows_limbo_and_tombstones_are_apart(store: db.Database, urls: list[str]) -> None:
    """A tombstone says when it was made."""
    add(
        urls[0],
        "things",
        {"id": 1, "name": "live", "deleted": 0},
        {"id": 2, "name": "limbo", "deleted": None},
    )
    add(urls[0], "things", {"id": 3, "name": "dead", "deleted": 3, "deleted_at": "2026-01-02 03:04:05"})
    assert {(row.key[0], row.limbo) for row in store.rows(things())} == {("live", False), ("limbo", True)}
    (dead,) = store.rows(things(), tombstones=True)
    assert (dead.key, dead.identity, dead.since) == (("dead",), (3,), "2026-01-02 03:04:05")


def test_references_are_replaced_by_keys(store: db.Database, urls: list[str]) -> None:
    """And one that leads nowhere says how."""
    add(urls[0], "things", {"id": 1, "name": "a", "deleted": 0}, {"id": 2, "name": "b", "deleted": 2})
    for label, thing in (("live", 1), ("dead", 2), ("gone", 9), ("none", None)):
        add(urls[0], "parts", {"thing_id": thing, "label": label})
    assert {row.key[1]: row.key[0] for row in store.rows(PARTS)} == {
        "live": ("a",),
        "dead": Dangling(raw=2, deleted=True),
        "gone": Dangling(raw=9, deleted=False),
        "none": None,
    }
    asked = [(("a",), "live"), (None, "none"), (("b",), "x")]
    assert {row.key for row in store.rows(PARTS, keys=asked)} == set(asked[:2])
    with store.transaction():
        assert store.resolve(THING, [("a",), ("b",), ("c",)]) == {("a",): (1,)}


def test_a_where_limits_what_is_read(store: db.Database, urls: list[str]) -> None:
    """With and without keys."""
    add(
        urls[0],
        "things",
        *({"name": n, "size": s, "deleted": 0} for n, s in (("a:1", 1), ("a:2", 2), ("b", 1))),
    )
    read = things(where="name LIKE 'a:%' AND size = 1")
    assert {row.key for row in store.rows(read)} == {("a:1",)}
    assert {row.key for row in store.rows(read, keys=[("a:1",), ("a:2",)])} == {("a:1",)}
    assert store.look_up(LookUp(table="things", column="name", where="size = 1")) == {"a:1", "b"}
    with pytest.raises(ReadFailed):
        store.look_up(LookUp(table="nowhere", column="name"))


def test_writing_says_what_it_did(store: db.Database) -> None:
    """The new row's number, and how many rows matched, changed or not."""
    with store.transaction():
        number = store.insert("things", {"name": "a", "size": 1, "deleted": 0})
        assert store.lock("things", ("id",), [(number,), (99,)])[number,]["name"] == "a"
        assert store.update("things", {"id": number}, {"size": 1}) == 1
        assert store.update("things", {"id": 99}, {"size": 1}) == 0
        assert [row.identity for row in store.taken(things(), [("a",), ("b",)])] == [(number,)]
        assert set(store.read_back("things", ("id",), [(number,)])) == {(number,)}
        assert store.delete("things", {"id": number}) == 1
        assert store.delete("things", {"id": number}) == 0
        assert store.lock("things", ("id",), [(number,)]) == {}


def test_a_rejected_row_leaves_its_neighbours_alone(store: db.Database, urls: list[str]) -> None:
    """The transaction goes on and commits them."""
    with store.transaction():
        store.insert("parts", {"label": "a"})
        for label in ("a", None):
            with pytest.raises(Rejected):
                store.insert("parts", {"label": label})
        store.insert("parts", {"label": "b"})
    assert [row["label"] for row in rows(urls[0], "SELECT label FROM parts ORDER BY id")] == ["a", "b"]


def test_a_transaction_that_fails_leaves_nothing(store: db.Database, urls: list[str]) -> None:
    """And the connection is good for the next one."""
    with suppress(WriteFailed), store.transaction():
        store.insert("parts", {"label": "a"})
        raise WriteFailed("the end")
    assert rows(urls[0], "SELECT * FROM parts") == []
    with store.transaction():
        store.insert("parts", {"label": "b"})
    assert len(rows(urls[0], "SELECT * FROM parts")) == 1


def test_a_snapshot_does_not_see_what_is_written_meanwhile(store: db.Database, urls: list[str]) -> None:
    """Everything inside is read as of one instant."""
    add(urls[0], "parts", {"label": "a"})
    impatient = f"{urls[0]}?timeout=0.1" if urls[0].startswith("sqlite") else urls[0]
    with store.snapshot():
        assert len(list(store.rows(PARTS))) == 1
        with suppress(Exception):  # SQLite lets nobody write while it reads
            add(impatient, "parts", {"label": "b"})
        assert len(list(store.rows(PARTS))) == 1


def test_the_server_time_has_one_spelling(store: db.Database, urls: list[str]) -> None:
    """UTC, without a fraction."""
    with store.transaction():
        store.insert("things", {"name": "a", "deleted": 3, "deleted_at": ServerTime.NOW})
    (row,) = store.rows(things(), tombstones=True)
    assert row.since is not None and len(row.since) == len("2026-01-02 03:04:05")
    assert row.since.startswith("20")


def test_a_table_is_described(store: db.Database) -> None:
    """Columns in order, the numbered key, and what is unique."""
    found = store.tables(["things", "parts", "nowhere"])
    assert set(found) == {"things", "parts"}
    assert [c.name for c in found["parts"].columns] == ["id", "thing_id", "label"]
    assert found["parts"].primary_key == ("id",)
    numbered = found["parts"].column("ID")
    assert numbered is not None and numbered.auto_increment
    assert ("label",) in {index.columns for index in found["parts"].indexes if index.unique}


def test_a_repair_and_its_undo(urls: list[str]) -> None:
    """The whole way, from the rules to the journal and back."""
    known = ruleset(
        """
        rules:
          - table: things
            key: [name]
            soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}
          - {table: parts, key: [thing_id, label], references: {thing_id: things}}
        """
    )
    parent, child = urls
    add(parent, "things", {"id": 7, "name": "a", "size": 1, "ratio": 0.1, "raw": b"\x00", "deleted": 0})
    add(parent, "things", {"id": 8, "name": "b", "size": 2, "deleted": 0})
    add(parent, "parts", {"thing_id": 7, "label": "x"}, {"thing_id": 8, "label": "y"})
    add(child, "things", {"id": 1, "name": "b", "size": 9, "deleted": 0})
    add(child, "parts", {"thing_id": 1, "label": "y"})
    stand = Stand({"api": parent, "c1": child}, known)
    whole = "SELECT t.name, t.size, t.ratio, t.raw, p.label FROM parts p JOIN things t ON t.id = p.thing_id"
    before = rows(child, "SELECT * FROM things") + rows(child, "SELECT * FROM parts")
    done = result(stand.repair("r1"), "c1")
    assert (done.problems, done.counts.applied) == ((), 3)
    assert sorted(map(repr, rows(child, whole))) == sorted(map(repr, rows(parent, whole)))
    assert stand.diff().exit_code == 0
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert rows(child, "SELECT * FROM things") + rows(child, "SELECT * FROM parts") == before

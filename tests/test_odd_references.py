"""References that are no integers: where one leads nowhere, what it holds is told as any other value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from edges import Stand, as_if_large, converged, execute, result, rows, ruleset, stand_of, table

from cellsync.model import Dangling, Value
from cellsync.report import json

MakeDatabase = Callable[..., str]

KINDS: dict[str, tuple[str, str, Value]] = {
    "date": ("date", "'2024-01-01'", "2024-01-01"),
    "datetime": ("datetime(6)", "'2024-01-01 10:00:00.5'", "2024-01-01 10:00:00.5"),
    "time": ("time(2)", "'-30:00:00.25'", "-30:00:00.25"),
    "timestamp": ("timestamp", "'2024-01-01 10:00:00'", "2024-01-01 10:00:00"),
    "bit": ("bit(8)", "b'101'", 5),
    "year": ("year", "2024", 2024),
    "float": ("float", "0.1", 0.10000000149011612),
    "decimal": ("decimal(9,3)", "1.5", Decimal("1.500")),
    "binary": ("varbinary(9)", "x'00ff'", b"\x00\xff"),
    "uuid": ("uuid", "'00112233-4455-6677-8899-aabbccddeeff'", "00112233-4455-6677-8899-aabbccddeeff"),
}


@pytest.fixture(autouse=True, params=["rows", "digests"])
def compared_by(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare small tables as large ones are compared, too."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "digests":
            as_if_large(patch)
        yield


@pytest.mark.parametrize(("kind", "literal", "value"), KINDS.values(), ids=KINDS)
def test_what_a_dangling_reference_holds_is_told(
    database: MakeDatabase, kind: str, literal: str, value: Any
) -> None:
    """As part of a key it is text or a number in every output, and the row is found by it."""
    urls = {"api": database(), "c1": database()}
    for url in urls.values():
        execute(
            url,
            f"CREATE TABLE u (id {kind} PRIMARY KEY, k int UNIQUE)",
            f"CREATE TABLE t (n int PRIMARY KEY, r {kind}, w int)",
        )
    execute(urls["c1"], f"INSERT INTO t VALUES (1, {literal}, 1)")
    rules = "rules: [{table: u, key: [k]}, {table: t, key: [r], references: {r: u}, on_extra: delete}]"
    stand = Stand(urls, ruleset(rules))
    (finding,) = table(stand.diff(), "c1", "t").findings
    assert (finding.code, finding.key) == ("dangling-reference", (Dangling(raw=value, deleted=False),))
    assert json.value(finding.key)["dangling"] == json.value(value)
    execute(urls["api"], f"INSERT INTO u VALUES ({literal}, 7)", f"INSERT INTO t VALUES (1, {literal}, 2)")
    stand.repair("r1")
    assert stand.repair("r2").exit_code == 0
    assert converged(stand)


def test_a_row_that_gets_its_key_by_this_plan(database: MakeDatabase) -> None:
    """What its key refers to is inserted: it is the missing row then, and that is said before."""
    rules = "rules: [{table: u, key: [k]}, {table: t, key: [n, r], references: {r: u}}]"
    stand = stand_of(
        database,
        rules,
        "CREATE TABLE u (k varchar(9) PRIMARY KEY)",
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, n int, r varchar(9), w int)",
    )
    execute(stand.urls["api"], "INSERT INTO u VALUES ('a')", "INSERT INTO t VALUES (1, 1, 'a', 1)")
    execute(stand.urls["c1"], "INSERT INTO t VALUES (7, 1, 'a', 2)")
    found = {each.code: each.message for each in table(stand.diff(), "c1", "t").findings}
    assert [*found] == ["dangling-reference", "unique-clash"]
    assert "repair once more" in found["unique-clash"]
    counts = result(stand.repair("r1"), "c1").counts
    assert (counts.applied, counts.conflicts, counts.failed) == (1, 0, 0)
    stand.repair("r2")
    assert converged(stand)


@pytest.mark.parametrize("dangling", [1, 9])
def test_a_row_that_may_get_its_key_by_a_number_of_the_server(database: MakeDatabase, dangling: int) -> None:
    """The server numbers the new row, and may take the number that a row refers to already."""
    rules = "rules: [{table: u, key: [k]}, {table: t, key: [n, r], references: {r: u}}]"
    stand = stand_of(
        database,
        rules,
        "CREATE TABLE u (id int AUTO_INCREMENT PRIMARY KEY, k varchar(9))",
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, n int, r int)",
    )
    api, c1 = stand.urls.values()
    execute(api, "INSERT INTO u VALUES (2, 'a'), (3, 'b')", "INSERT INTO t VALUES (1, 1, 2), (2, 2, 2)")
    execute(c1, "INSERT INTO u VALUES (8, 'b')", f"INSERT INTO t VALUES (7, 1, {dangling})")
    found = {each.code: each.message for each in table(stand.diff(), "c1", "t").findings}
    assert [*found] == ["dangling-reference", *(["unique-clash"] if dangling > 8 else [])]
    if dangling > 8:
        assert "the server may give the number 9, to which it refers, to a new row" in found["unique-clash"]
    counts = result(stand.repair("r1"), "c1").counts
    assert (counts.conflicts, counts.failed) == (0, 0)
    stand.repair("r2")
    assert rows(c1, "SELECT t.n, u.k FROM t JOIN u ON t.r = u.id") == [{"n": 1, "k": "a"}, {"n": 2, "k": "a"}]
    assert converged(stand) is (dangling > 8)

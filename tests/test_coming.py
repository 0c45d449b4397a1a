"""Rows that come with others: a new row is made with all of its own, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from edges import Stand, add, as_if_large, converged, execute, result, rows, ruleset, stand_of, table

from cellsync import db, run
from cellsync.errors import ExitCode
from cellsync.model import Change, Kind, Status, TableDiff, TableFailure

MakeDatabase = Callable[..., str]

SHIPS = """
CREATE TABLE ships (
    id int PRIMARY KEY AUTO_INCREMENT, uuid varchar(36) NOT NULL UNIQUE, state varchar(9), owner varchar(9),
    built datetime, harbour varchar(20), deleted int, deleted_at datetime
)"""
CARGO = """
CREATE TABLE cargo (
    id int PRIMARY KEY AUTO_INCREMENT, ship varchar(36), good varchar(9), tons int, deleted int,
    FOREIGN KEY (ship) REFERENCES ships (uuid)
)"""
LOGS = "CREATE TABLE logs (id int PRIMARY KEY AUTO_INCREMENT, ship_uuid varchar(36), text varchar(40))"
RULES = """
defaults: {soft_delete: {column: deleted, live: 0, tombstone: id}}
rules:
  - id: ships
    table: ships
    direction: up
    key: [uuid]
    columns: {include: [state]}
    carries: {exclude: [harbour]}
    on_insert: {harbour: "{parent}!{child}"}
    soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}
    revives: false
    on_changed: report
  - {id: cargo, table: cargo, direction: up, key: [ship, good], comes_with: {rule: ships, by: {ship: uuid}}}
  - id: logs
    table: logs
    direction: up
    key: [ship_uuid]
    comes_with: {rule: ships, by: {ship_uuid: UUID}}
    soft_delete: false
"""


@pytest.fixture(params=["read whole", "by digests"])
def stand(database: MakeDatabase, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Return a child with three ships, of which the parent has one, without its cargo."""
    if request.param == "by digests":
        as_if_large(monkeypatch)
    made = stand_of(database, RULES, SHIPS, CARGO, LOGS)
    ships = [
        {"uuid": f"u-{n}", "state": "at sea", "owner": f"o{n}", "built": "2001-02-03", "deleted": 0}
        for n in (1, 2, 3)
    ]
    add(made.urls["c1"], "ships", *ships)
    add(made.urls["api"], "ships", {"id": 7, "uuid": "u-1", "state": "sunk", "owner": "x", "deleted": 0})
    for ship in ("u-1", "u-2", "u-3"):
        goods = [{"ship": ship, "good": good, "tons": 5, "deleted": 0} for good in ("tea", "rum")]
        add(made.urls["c1"], "cargo", *goods, {"ship": ship, "good": "silk", "tons": 1, "deleted": 99})
        add(made.urls["c1"], "logs", {"ship_uuid": ship, "text": f"the log of {ship}"})
    return made


def whole(url: str) -> dict[str, tuple[Any, ...]]:
    """Return each live ship with the goods and logs that it has."""
    return {
        ship["uuid"]: (
            ship["owner"],
            ship["harbour"],
            [
                row["good"]
                for row in rows(url, f"SELECT good FROM cargo WHERE ship = '{ship['uuid']}' ORDER BY good")
            ],
            [row["text"] for row in rows(url, f"SELECT text FROM logs WHERE ship_uuid = '{ship['uuid']}'")],
        )
        for ship in rows(url, "SELECT * FROM ships WHERE deleted = 0 ORDER BY uuid")
    }


def test_a_new_row_takes_along_what_comes_with_it(stand: Stand) -> None:
    """With the columns that it carries; what comes with rows that are there is not looked at."""
    before = whole(stand.urls["api"])
    found = stand.diff()
    assert table(found, "c1", "cargo").count(Kind.MISSING) == 4
    assert table(found, "c1", "logs").count(Kind.MISSING) == 2
    repaired = stand.repair("r1")
    assert result(repaired, "c1").counts.applied == 2 + 4 + 2
    assert result(repaired, "c1").problems == ()
    assert whole(stand.urls["api"]) == {
        "u-1": ("x", None, [], []),
        "u-2": ("o2", "api!c1", ["rum", "tea"], ["the log of u-2"]),
        "u-3": ("o3", "api!c1", ["rum", "tea"], ["the log of u-3"]),
    }
    assert {
        str(ship["built"]) for ship in rows(stand.urls["api"], "SELECT built FROM ships WHERE id <> 7")
    } == {"2001-02-03 00:00:00"}
    execute(
        stand.urls["c1"], "UPDATE cargo SET tons = 6", "UPDATE ships SET owner = 'new' WHERE uuid = 'u-2'"
    )
    again = stand.diff()
    assert {
        each.rule: each.differences for each in result(again, "c1").tables if isinstance(each, TableDiff)
    } == {
        "ships": table(again, "c1", "ships").differences,
        "cargo": (),
        "logs": (),
    }
    assert [d.kind for d in table(again, "c1", "ships").differences] == [Kind.CHANGED]
    assert stand.undo("r1", "r2").exit_code == ExitCode.IN_STEP
    assert whole(stand.urls["api"]) == before


def test_all_of_it_or_nothing(stand: Stand) -> None:
    """A row that a trigger refuses takes the others of its ship with it, and no others."""
    refusing = "IF CHAR_LENGTH(NEW.good) > 3 THEN SIGNAL SQLSTATE '45000'; END IF"
    execute(stand.urls["api"], f"CREATE TRIGGER no BEFORE INSERT ON cargo FOR EACH ROW BEGIN {refusing}; END")
    execute(stand.urls["c1"], "UPDATE cargo SET good = 'r' WHERE good = 'rum' AND ship = 'u-2'")
    execute(stand.urls["c1"], "UPDATE cargo SET good = 'coal' WHERE good = 'tea' AND ship = 'u-3'")
    repaired = stand.repair("r1", ["triggers"])
    assert repaired.exit_code == ExitCode.INCOMPLETE
    assert sorted(whole(stand.urls["api"])) == ["u-1", "u-2"]
    assert rows(stand.urls["api"], "SELECT * FROM cargo WHERE ship = 'u-3'") == []
    assert rows(stand.urls["api"], "SELECT * FROM logs WHERE ship_uuid = 'u-3'") == []
    assert result(repaired, "c1").counts.failed == 4


def test_a_row_whose_companion_breaks_a_check_is_not_planned(stand: Stand) -> None:
    """The plan sees that the parent does not take it."""
    execute(stand.urls["api"], "ALTER TABLE cargo ADD CHECK (CHAR_LENGTH(good) < 4)")
    execute(stand.urls["c1"], "UPDATE cargo SET good = 'r' WHERE good = 'rum' AND ship = 'u-2'")
    execute(stand.urls["c1"], "UPDATE cargo SET good = 'coal' WHERE good = 'tea' AND ship = 'u-3'")
    repaired = result(stand.repair("r1"), "c1")
    assert sorted(whole(stand.urls["api"])) == ["u-1", "u-2"]
    assert (repaired.counts.failed, [each.key for each in repaired.skipped]) == (0, [("u-3",)])
    assert "good coal breaks the CHECK" in repaired.skipped[0].reason


def test_a_row_whose_companion_has_a_key_that_does_not_fit_is_not_planned(stand: Stand) -> None:
    """The column of the parent is too short for it, as the plan sees."""
    execute(stand.urls["api"], "ALTER TABLE cargo MODIFY good varchar(3)")
    execute(stand.urls["c1"], "UPDATE cargo SET good = 'coal' WHERE good = 'tea' AND ship = 'u-3'")
    repaired = result(stand.repair("r1"), "c1")
    assert sorted(whole(stand.urls["api"])) == ["u-1", "u-2"]
    assert (repaired.counts.failed, [each.key for each in repaired.skipped]) == (0, [("u-3",)])
    assert "good 'coal' does not fit into the column in api" in repaired.skipped[0].reason


def test_what_is_left_of_another_row_is_in_the_way(stand: Stand) -> None:
    """The row is skipped, and both that and the leftover are said."""
    add(stand.urls["api"], "logs", {"ship_uuid": "u-2", "text": "an old log"})
    repaired = result(stand.repair("r1"), "c1")
    assert sorted(whole(stand.urls["api"])) == ["u-1", "u-3"]
    ((key, reason),) = [(each.key, each.reason) for each in repaired.skipped]
    assert key == ("u-2",)
    assert reason == ("not all that comes with it can be made: logs: api has logs ship_uuid=u-2 already")


def test_two_rows_with_one_key_keep_the_row_back(stand: Stand) -> None:
    """Which of them comes along nobody can say."""
    add(stand.urls["c1"], "logs", {"ship_uuid": "u-2", "text": "another log"})
    repaired = result(stand.repair("r1"), "c1")
    assert sorted(whole(stand.urls["api"])) == ["u-1", "u-3"]
    assert "2 rows of logs in c1 have the key ship_uuid=u-2" in repaired.skipped[0].reason


def test_a_row_that_was_deleted_is_not_brought_back(stand: Stand) -> None:
    """Its deletion is on its way down, or lost; the child's row is the one that is wrong."""
    add(
        stand.urls["api"],
        "ships",
        {"id": 8, "uuid": "u-2", "deleted": 8, "deleted_at": "2020-01-02 03:04:05"},
        {"id": 9, "uuid": "u-3", "deleted": 9},
    )
    found = table(stand.diff(), "c1", "ships")
    reasons = {d.key[0]: (d.action.value, d.reason) for d in found.differences if d.kind is Kind.MISSING}
    assert [action for action, _ in reasons.values()] == ["report", "report"]
    assert "api deleted it at 2020-01-02 03:04:05, so it is not brought back" in reasons["u-2"][1]
    assert "api deleted it at an unknown time" in reasons["u-3"][1]
    repaired = result(stand.repair("r1"), "c1")
    assert repaired.counts.planned == 0
    assert table(stand.diff(), "c1", "cargo").differences == ()


def test_a_row_that_is_deleted_between_two_looks_is_not_brought_back(stand: Stand) -> None:
    """It is changed at the first look, and missing at the second."""

    def sleep(seconds: float) -> None:
        deleted = "deleted = id, deleted_at = '2020-01-02'"
        execute(stand.urls["api"], f"UPDATE ships SET {deleted} WHERE uuid = 'u-1'")

    request = replace(stand.request("repair", "r1"), settle=timedelta(minutes=1), sleep=sleep)
    found = table(run.compare(request).report, "c1", "ships")
    assert [(d.action.value, d.tombstone) for d in found.differences if d.key == ("u-1",)] == [
        ("report", "2020-01-02 00:00:00")
    ]


def test_a_row_that_is_there_but_not_compared_is_not_made_again(stand: Stand) -> None:
    """One without a harbour yet, one of another harbour, and one that is neither live nor deleted."""
    narrowed = """\
    where: {existing: "harbour <> ''"}
    route: {column: harbour, path: "{parent}!{child}"}
    key: [uuid]
    columns: {include: [state]}
"""
    plain = """\
    key: [uuid]
    columns: {include: [state]}
"""
    urls = {**stand.urls, "c2": stand.urls["c1"]}
    narrow = Stand(urls, ruleset(RULES.replace(plain, narrowed)), scope=("c1",))
    execute(stand.urls["api"], "DELETE FROM ships")
    add(
        stand.urls["api"],
        "ships",
        {"uuid": "u-1", "state": "new", "harbour": None, "deleted": 0},
        {"uuid": "u-2", "state": "at sea", "harbour": "api!c2", "deleted": 0},
        {"uuid": "u-3", "state": "at sea", "harbour": "api!c1", "deleted": None},
    )
    found = table(narrow.diff(), "c1", "ships")
    assert sorted((d.key, d.action.value, d.reason) for d in found.differences) == [
        (
            (ship,),
            "report",
            "is in c1, but missing in api; api has a row of that key, which this rule leaves out, so it is "
            "not inserted",
        )
        for ship in ("u-1", "u-2", "u-3")
    ]
    repaired = result(narrow.repair("r1"), "c1")
    assert (repaired.counts.planned, repaired.problems) == (0, ())


def test_a_row_that_two_children_have_is_made_by_neither(stand: Stand, database: MakeDatabase) -> None:
    """Which of them the parent is to have nobody can say; what only one of them has is made."""
    other = database()
    execute(other, SHIPS, CARGO, LOGS)
    add(other, "ships", {"uuid": "u-2", "state": "moored", "deleted": 0})
    # The oracle judges each child alone.
    both = Stand({**stand.urls, "c2": other}, stand.rules, judged=False)
    repaired = both.repair("r1")
    assert whole_ships(stand) == ["u-1", "u-3"]
    for child in ("c1", "c2"):
        (kept_back,) = [d for d in table(repaired, child, "ships").differences if d.key == ("u-2",)]
        assert (kept_back.action.value, kept_back.reason) == (
            "report",
            f"is in {child}, but missing in api; c1 and c2 have it, so it is not inserted from any of them",
        )
    assert result(repaired, "c1").problems == result(repaired, "c2").problems == ()
    assert not any(d.key[0] == "u-2" for d in table(repaired, "c1", "cargo").differences)


@pytest.mark.parametrize("cell", ["api", "c1"])
def test_nothing_is_made_while_a_part_of_it_cannot_be_compared(stand: Stand, cell: str) -> None:
    """A table that is not there keeps whole ships back, and makes the run incomplete."""
    execute(stand.urls[cell], "DROP TABLE logs")
    repaired = stand.repair("r1")
    assert repaired.exit_code == ExitCode.INCOMPLETE
    assert sorted(whole_ships(stand)) == ["u-1"]
    assert {each.reason for each in result(repaired, "c1").skipped} == {
        "not all that comes with it can be made: logs: it could not be compared"
    }


def whole_ships(stand: Stand) -> list[str]:
    """Return the uuids of the parent's live ships."""
    return [row["uuid"] for row in rows(stand.urls["api"], "SELECT uuid FROM ships WHERE deleted = 0")]


def test_a_refusal_of_a_part_keeps_the_whole_back(stand: Stand) -> None:
    """A trigger on the table of what comes along."""
    execute(stand.urls["api"], "CREATE TRIGGER t BEFORE INSERT ON logs FOR EACH ROW SET @seen = 1")
    repaired = stand.repair("r1")
    assert repaired.exit_code == ExitCode.REFUSED
    assert whole_ships(stand) == ["u-1"]
    assert {each.reason for each in result(repaired, "c1").skipped} == {
        "not all that comes with it can be made: logs: it was refused"
    }
    assert result(stand.repair("r2", waived=["triggers"]), "c1").counts.applied == 4 + 4


def test_rows_that_come_up_meanwhile_are_a_conflict(stand: Stand) -> None:
    """Somebody else made the ship: nothing of ours is added to it."""
    request, prepared = stand.prepare("r1")
    add(stand.urls["api"], "ships", {"uuid": "u-2", "state": "new", "owner": "them", "deleted": 0})
    written = run.write(request, prepared)
    assert written.exit_code == ExitCode.INCOMPLETE
    assert whole(stand.urls["api"])["u-2"] == ("them", None, [], [])
    assert whole(stand.urls["api"])["u-3"][2] == ["rum", "tea"]
    add(
        stand.urls["api"],
        "cargo",
        *({"ship": "u-2", "good": good, "tons": 5, "deleted": 0} for good in ("tea",)),
    )
    assert converged_but_for_reports(stand)


def converged_but_for_reports(stand: Stand) -> bool:
    """Say whether a repair has nothing left to write."""
    return result(stand.repair("again"), "c1").counts.planned == 0


def test_rows_in_step_cost_nothing_more(stand: Stand) -> None:
    """The tables of what comes along are not read at all."""
    execute(
        stand.urls["c1"], "DELETE FROM cargo", "DELETE FROM logs", "DELETE FROM ships WHERE uuid <> 'u-1'"
    )
    execute(stand.urls["c1"], "UPDATE ships SET state = 'sunk'")
    asked: list[str] = []
    known = db.Database.rows

    def reading(self: db.Database, projection: Any, **options: Any) -> Iterator[Any]:
        asked.append(projection.table)
        return known(self, projection, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db.Database, "rows", reading)
        found = stand.diff()
    assert result(found, "c1").status is Status.IN_STEP
    assert converged(stand)
    assert not {"cargo", "logs"} & set(asked)


def test_a_rule_whose_leader_fails_fails_too(stand: Stand) -> None:
    """It has no counts, so it cannot be mistaken for one in step."""
    execute(stand.urls["api"], "ALTER TABLE ships DROP COLUMN state")
    tables = {each.rule: each for each in result(stand.diff(), "c1").tables}
    assert all(isinstance(each, TableFailure) for each in tables.values())
    assert isinstance(tables["cargo"], TableFailure)
    assert tables["cargo"].error == "comes with ships, which could not be compared"


def test_one_transaction_holds_what_belongs_together(stand: Stand) -> None:
    """All changes of a ship share a name, and follow each other."""
    _, prepared = stand.prepare("r1")
    changes: list[Change] = [change for edge in prepared.edges for change in edge.plan.changes]
    names = [change.together for change in changes]
    assert len(set(names)) == 2
    assert names == sorted(names, key=names.index)
    assert [change.rule for change in changes] == ["ships", "cargo", "cargo", "logs"] * 2


def test_two_rows_that_come_along_and_are_one_above_are_a_finding(stand: Stand) -> None:
    """To the child 'tea' and 'Tea' are two goods, to the parent one: the ship waits for another name."""
    for name, collation in (("c1", "utf8mb4_bin"), ("api", "utf8mb4_general_ci")):
        modify = f"MODIFY good varchar(9) COLLATE {collation}, ADD UNIQUE (ship, good, deleted)"
        execute(stand.urls[name], f"ALTER TABLE cargo {modify}")
    execute(stand.urls["c1"], "UPDATE cargo SET good = 'Tea' WHERE good = 'rum' AND ship = 'u-2'")
    repaired = stand.repair("r1")
    assert [each.code for each in table(repaired, "c1", "cargo").findings] == ["collation-twin"]
    assert result(repaired, "c1").problems == ()
    assert sorted(whole(stand.urls["api"])) == ["u-1", "u-3"]


def test_two_rows_that_come_along_stay_two_where_no_unique_index_makes_them_one(stand: Stand) -> None:
    """As Nova's metadata `role` and `Role` of one instance: only the collation takes them for one."""
    for url in stand.urls.values():
        execute(url, "ALTER TABLE cargo MODIFY good varchar(9) COLLATE utf8mb4_general_ci")
    execute(stand.urls["c1"], "UPDATE cargo SET good = 'Tea' WHERE good = 'rum' AND ship = 'u-2'")
    repaired = stand.repair("r1")
    assert table(repaired, "c1", "cargo").findings == ()
    assert result(repaired, "c1").problems == ()
    assert sorted(whole(stand.urls["api"])) == ["u-1", "u-2", "u-3"]
    goods = whole(stand.urls["api"])["u-2"][2]
    assert sorted(goods) == ["Tea", "tea"]
    assert result(stand.repair("r2"), "c1").counts.planned == 0

"""Accepted differences, from the cell file to the exit code, on real databases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import nova
from deployment import Deployment

LOCAL = [
    {"cell": "c2", "rule": "aggregates", "key": {"name": "local-only"}},
    {"cell": "c2", "rule": "aggregate-metadata", "key": {"aggregate_id": "local-only"}},
    {"cell": "*", "rule": "aggregate-hosts", "key": {"aggregate_id": "local-only", "host": "compute-2-5"}},
]
"""All that only c2 has, which a repair reports and leaves alone."""


def _accept(deployment: Deployment, *entries: Mapping[str, Any], **common: Any) -> None:
    """Write the cell file anew with these entries in its accept list."""
    deployment.configure()
    listed = json.dumps([{"why": "the lab of c2", **entry, **common} for entry in entries])
    with deployment.config.open("a", encoding="utf-8") as file:
        file.write(f"accept: {listed}\n")


def _day(days: int) -> str:
    return str((datetime.now(timezone.utc) + timedelta(days=days)).date())


def test_what_is_left_and_accepted_ends_with_0(cells: Deployment) -> None:
    """A repair writes the rest, says what was accepted, and the next diff is quiet."""
    until = _day(2)
    _accept(cells, *LOCAL, until=until)
    before = cells.checksums()
    found = cells.json("diff")
    assert found.code == 1
    assert cells.checksums() == before

    repaired = cells.repair()
    assert repaired.code == 0, repaired.said
    assert [cell["changes"]["applied"] for cell in repaired.report["cells"]] == [28, 24]
    done = cells.json("diff")
    assert (done.code, done.report["exit_code"], done.report["notes"]) == (0, 0, [])
    assert [cell["status"] for cell in done.report["cells"]] == ["in_step", "in_step"]
    table = done.table("c2", "aggregates")
    assert (table["status"], table["extra"], table["accepted"], table["ignored"]) == ("in_step", 0, 1, 0)
    [difference] = table["differences"]
    assert (difference["key"], difference["action"]) == ({"name": "local-only"}, "ignore")
    assert difference["accepted"] == f"the lab of c2 (until {until})"
    assert done.table("c2", "aggregate-metadata")["accepted"] == 1

    text = cells.process("diff")
    assert text.code == 0
    assert text.out.startswith("both cells are in step with parent; 3 differences are accepted\n")
    assert f"extra name=local-only, accepted: the lab of c2 (until {until})" in text.out
    lines = [json.loads(line) for line in cells.run("diff", "--format", "jsonl").out.splitlines()]
    assert [line["accepted"] for line in lines] == [f"the lab of c2 (until {until})"] * 3
    assert cells.run("diff", "--quiet").out == ""
    again = cells.repair()
    assert (again.code, [cell["changes"]["planned"] for cell in again.report["cells"]]) == (0, [0, 0])


def test_what_is_accepted_is_not_repaired_and_counts_again_after_its_date(cells: Deployment) -> None:
    """Through its last day the value of c2 stays; a day later it is a difference like any other."""
    ratio: dict[str, Any] = {
        "cell": "c2",
        "rule": "aggregate-metadata",
        "key": {"aggregate_id": "west", "key": "cpu_allocation_ratio"},
    }
    scope = ("c2", "--rule", "aggregate-metadata")
    _accept(cells, *LOCAL, ratio, until=_day(1))
    repaired = cells.repair(*scope)
    assert repaired.code == 0, repaired.said
    where = "WHERE `key` = 'cpu_allocation_ratio'"
    assert cells.sql("c2", f"SELECT value FROM aggregate_metadata {where}") == [("2.0",)]

    yesterday = _day(-1)
    _accept(cells, *LOCAL, {**ratio, "until": yesterday})
    found = cells.json("diff", *scope)
    assert found.code == 1
    [counted] = [d for d in found.table("c2", "aggregate-metadata")["differences"] if not d["accepted"]]
    assert counted["action"] == "update"
    assert counted["reason"].endswith(f"accepted until {yesterday}, which has passed (the lab of c2)")
    assert cells.repair(*scope).code == 0
    assert cells.sql("c2", f"SELECT value FROM aggregate_metadata {where}") == [("4.0",)]


def test_a_row_accepted_as_missing_takes_what_refers_to_it_along(cells: Deployment) -> None:
    """Nothing is tried that must fail: the rows below are reported until they are accepted too."""
    east = {"cell": "c1", "rule": "aggregates", "key": {"name": "east"}}
    _accept(cells, *LOCAL, east)
    repaired = cells.repair()
    assert repaired.code == 1, repaired.said
    assert repaired.cell("c1")["changes"] == {"planned": 23, "applied": 23, "conflicts": 0, "failed": 0}
    assert cells.sql("c1", "SELECT COUNT(*) FROM aggregates WHERE name = 'east'") == [(0,)]
    held = [d for d in repaired.table("c1", "aggregate-hosts")["differences"] if d["action"] == "report"]
    assert {d["key"]["aggregate_id"] for d in held} == {"east"}
    assert all("accept this too" in d["reason"] for d in held)

    below = [
        {"cell": "c1", "rule": rule, "key": {"aggregate_id": "east"}}
        for rule in ("aggregate-metadata", "aggregate-hosts")
    ]
    _accept(cells, *LOCAL, east, *below)
    assert cells.json("diff").code == 0


def test_a_finding_is_accepted(cells: Deployment) -> None:
    """The parent's orphan host, once for all children; what it says is still shown."""
    host = nova.insert("aggregate_hosts", {"id": 900, "aggregate_id": 1, "host": "nowhere-1"})
    cells.sql("parent", host)
    scope = ("--rule", "aggregate-hosts")
    _accept(cells, *LOCAL)
    cells.repair(*scope)
    assert cells.json("diff", *scope).code == 1
    orphan = {"cell": "parent", "rule": "aggregate-hosts", "key": {"host": "nowhere-1"}}
    _accept(cells, *LOCAL, orphan)
    done = cells.json("diff", *scope)
    assert done.code == 0, done.said
    for child in nova.CHILDREN:
        [finding] = done.table(child, "aggregate-hosts")["findings"]
        assert (finding["cell"], finding["accepted"]) == ("parent", "the lab of c2")
    text = cells.run("diff", *scope).out
    assert text.count("orphan aggregate_id=east host=nowhere-1") == 1
    assert "2 differences and 1 finding are accepted" in text.splitlines()[0]


def test_a_slip_in_the_list_is_told_and_accepts_nothing(cells: Deployment) -> None:
    """An unknown rule or column does not stop the run; an unknown cell is an error of the file."""
    slips = [
        {"cell": "c2", "rule": "agregates", "key": {"name": "local-only"}},
        {"cell": "c2", "rule": "aggregates", "key": {"nmae": "local-only"}},
    ]
    _accept(cells, *slips)
    found = cells.json("diff", "c2", "--rule", "aggregates")
    assert found.code == 1
    assert found.table("c2", "aggregates")["accepted"] == 0
    assert [note.split(",")[0] for note in found.report["notes"]] == [
        "accept names the rule agregates",
        "accept names the column nmae",
    ]
    assert "agregates" in cells.run("diff").out
    _accept(cells, {"cell": "c9", "rule": "aggregates", "key": "*"})
    wrong = cells.run("diff")
    assert (wrong.code, wrong.out) == (2, "")
    assert 'name parent, c1, c2, or "*"' in wrong.err

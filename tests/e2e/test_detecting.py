"""Detectors, from a rule file to every output, on real databases."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta

import nova
import pytest
from deployment import Deployment
from edges import Stand, execute, ruleset
from servers import sql

from cellsync import run
from cellsync.model import CellResult, TableDiff

UNKNOWN = """
    - id: unknown-host
      why: What runs nowhere takes no instance.
      features: [zones]
      asks:
        listed: {of: child, sql: SELECT host FROM aggregate_hosts WHERE deleted = 0}
        running: {of: child, sql: "SELECT host FROM services WHERE `binary` = 'nova-compute' AND deleted = 0"}
      finds: SELECT DISTINCT host FROM listed WHERE host NOT IN (SELECT host FROM running)
      key: [host]
      says: "host {host} of an aggregate in {child} runs nowhere"
      do: {run: "nova aggregate-remove-host {host}"}
"""
TWICE = """
    - id: host-in-two-cells
      features: [hosts]
      asks:
        running:
          of: children
          sql: SELECT host FROM services WHERE `binary` = 'nova-compute' AND deleted = 0
      finds: >-
        SELECT host, MAX(cell) AS cell, GROUP_CONCAT(cell, ' and ') AS cells FROM running
        GROUP BY host HAVING COUNT(DISTINCT cell) > 1
      key: [host]
      says: "host {host} is in {cells}"
      do: {sql: "UPDATE services SET deleted = id WHERE host = {host}"}
"""
ABOVE = """
    - id: twin-aggregates
      asks:
        twins:
          of: parent
          sql: >-
            SELECT name, COUNT(*) AS number FROM aggregates WHERE deleted = 0
            GROUP BY name HAVING COUNT(*) > 1
      key: [name]
      says: "{number} aggregates of {parent} are called {name}"
      do: rename one of the {number}
"""


def _pack(*detectors: str) -> str:
    return "pack: own\ndetectors:\n" + "".join(detectors)


@pytest.fixture
def looked_at(cells: Deployment) -> Deployment:
    """Return the ordinary deployment with three detectors and no rules."""
    return cells.rule_file(_pack(UNKNOWN, TWICE, ABOVE))


def _break(cells: Deployment) -> None:
    """Plant one fault for each detector."""
    cells.sql("c2", nova.insert("aggregate_hosts", {"aggregate_id": 1, "host": "gone; rm -rf /"}))
    cells.sql(
        "c2", nova.insert("services", {"host": "compute-1-1", "binary": "nova-compute", "report_count": 1})
    )
    cells.sql("parent", nova.insert("aggregates", {"name": "east"}))


def test_a_sound_deployment_has_no_findings(looked_at: Deployment) -> None:
    """It is in step, and the report says that somebody looked."""
    done = looked_at.run("diff")
    assert done.code == 0, done.said
    assert "c1: in step: 3 detectors" in done.out
    verbose = looked_at.run("diff", "-v")
    assert "nothing found by: unknown-host, host-in-two-cells, twin-aggregates" in verbose.out


def test_what_is_found_is_said_with_what_to_do(looked_at: Deployment) -> None:
    """In the text each finding once, where it is wrong, with a command that can be copied."""
    _break(looked_at)
    done = looked_at.run("diff")
    assert done.code == 1
    assert (
        """
  in parent:
    twin-aggregates name=east: 2 aggregates of parent are called east
      do: rename one of the 2
  in c2:
    unknown-host host='gone; rm -rf /': host gone; rm -rf / of an aggregate in c2 runs nowhere
      run: nova aggregate-remove-host 'gone; rm -rf /'
    host-in-two-cells host=compute-1-1: host compute-1-1 is in c1 and c2
      SQL in c2: UPDATE services SET deleted = id WHERE host = 'compute-1-1'
"""
        in done.out
    ), done.out


def test_json_has_the_command_to_the_letter(looked_at: Deployment) -> None:
    """With the way in which it is carried out, and where; a detector has no rows and no direction."""
    _break(looked_at)
    done = looked_at.json("diff")
    table = done.table("c2", "unknown-host")
    assert (table["detector"], table["table"], table["direction"], table["rows"]) == (True, None, None, None)
    assert (table["status"], table["missing"]) == ("differs", 0)
    assert table["findings"] == [
        {
            "code": "unknown-host",
            "message": "host gone; rm -rf / of an aggregate in c2 runs nowhere",
            "key": {"host": "gone; rm -rf /"},
            "cell": "c2",
            "accepted": None,
            "do": "nova aggregate-remove-host 'gone; rm -rf /'",
            "do_as": "shell",
            "do_in": None,
        }
    ]
    (twice,) = done.table("c2", "host-in-two-cells")["findings"]
    assert (twice["do_as"], twice["do_in"]) == ("sql", "c2")
    assert done.table("c1", "host-in-two-cells")["findings"] == [], "it is c2 whose rows are wrong"
    lines = [json.loads(line) for line in looked_at.run("diff", "--format", "jsonl").out.splitlines()]
    assert [line["do_as"] for line in lines if line["rule"] == "twin-aggregates"] == ["words", "words"]


def test_the_page_and_the_metrics_have_them_too(looked_at: Deployment) -> None:
    """The page has the command; a detector has a number of findings and no number of rows."""
    _break(looked_at)
    page, metrics = looked_at.folder / "report.html", looked_at.folder / "cellsync.prom"
    done = looked_at.run("report", "-o", str(page), "--metrics-file", str(metrics))
    assert done.code in (1, 4), "brokers are not named here"
    assert "run: nova aggregate-remove-host &#39;gone; rm -rf /&#39;" in page.read_text(encoding="utf-8")
    looked_at.run("diff", "--metrics-file", str(metrics))
    text = metrics.read_text(encoding="utf-8")
    assert 'cellsync_findings{cell="c2",code="unknown-host",rule="unknown-host"} 1.0' in text
    assert 'cellsync_rule_compared{cell="c1",rule="unknown-host"} 1.0' in text
    assert "cellsync_rows" not in text and "cellsync_differences" not in text


def test_findings_are_accepted_by_their_keys(looked_at: Deployment) -> None:
    """Then they do not count; an entry that names no key of the detector is noted."""
    _break(looked_at)
    entries = [
        {"cell": "*", "rule": "unknown-host", "key": {"host": "gone; rm -rf /"}, "why": "on its way"},
        {"cell": "c2", "rule": "host-in-two-cells", "key": "*", "why": "moving"},
        {"cell": "parent", "rule": "twin-aggregates", "key": {"nam": "east"}, "why": "never"},
    ]
    with looked_at.config.open("a", encoding="utf-8") as file:
        file.write(f"accept: {json.dumps(entries)}\n")
    done = looked_at.run("diff")
    assert done.code == 1
    assert "accepted: on its way" in done.out and "accepted: moving" in done.out
    assert "accept names the column nam, but the key of twin-aggregates is name" in done.out
    assert looked_at.run("diff", "--rule", "unknown-host", "--rule", "host-in-two-cells").code == 0


def test_a_detector_is_selected_by_its_id_and_its_features(looked_at: Deployment) -> None:
    """As a rule is; what was not selected is not asked."""
    by_id = looked_at.json("diff", "--rule", "twin-aggregates")
    assert [table["rule"] for table in by_id.cell("c1")["tables"]] == ["twin-aggregates"]
    by_feature = looked_at.json("diff", "--feature", "zones", "c1")
    assert [table["rule"] for table in by_feature.cell("c1")["tables"]] == ["unknown-host"]
    wrong = looked_at.run("diff", "--rule", "twin-aggregate")
    assert wrong.code == 2 and "did you mean 'twin-aggregates'" in wrong.err


def test_a_repair_writes_what_rules_say_and_reports_what_detectors_find(cells: Deployment) -> None:
    """What a detector finds stops no rule and is left over: exit 1."""
    cells.rule_file("pack: own\nrules:\n  - {table: key_pairs, key: [user_id, name]}\ndetectors:\n" + ABOVE)
    _break(cells)
    done = cells.repair()
    assert done.code == 1, done.said
    assert done.cell("c1")["changes"] == {"planned": 1, "applied": 1, "conflicts": 0, "failed": 0}
    assert [code for _, code, _ in done.findings()] == ["twin-aggregates"] * 2
    assert cells.run("diff").code == 1


def test_a_table_that_is_not_there_is_no_clean_result(looked_at: Deployment) -> None:
    """Only the detectors that ask for it are incomplete; the others look."""
    _break(looked_at)
    looked_at.sql("c1", "DROP TABLE aggregate_hosts")
    done = looked_at.json("diff")
    assert done.code == 4
    table = done.table("c1", "unknown-host")
    assert (table["status"], table["missing"], table["findings"]) == ("incomplete", None, [])
    assert "listed: c1: Table" in table["error"] and "doesn't exist" in table["error"]
    assert done.table("c2", "unknown-host")["findings"]
    assert "unknown-host: could not be compared: listed: c1: Table" in looked_at.run("diff").out


def test_a_child_that_does_not_answer_makes_those_incomplete_that_ask_all(looked_at: Deployment) -> None:
    """The host might run there: nothing is said, and what looks at one child goes on."""
    _break(looked_at)
    looked_at.configure(urls={**looked_at.urls, "c1": looked_at.urls["c1"].replace("_c1", "_none")})
    done = looked_at.json("diff", "c2")
    assert done.code == 4
    assert done.table("c2", "host-in-two-cells")["error"].startswith("running: c1 could not be asked: ")
    assert done.table("c2", "unknown-host")["findings"] and done.table("c2", "twin-aggregates")["findings"]


def test_an_answer_that_is_too_long_is_an_error_with_its_number(cells: Deployment) -> None:
    """It is never cut."""
    cells.rule_file(
        _pack(
            UNKNOWN.replace(
                "sql: SELECT host FROM aggregate_hosts", "most: 1, sql: SELECT host FROM services"
            )
        )
    )
    done = cells.json("diff", "c1")
    assert done.code == 4
    error = done.table("c1", "unknown-host")["error"]
    assert error == "listed: c1: the answer has 6 rows, and at most 1 are taken"


def test_a_gate_leaves_a_detector_out(cells: Deployment) -> None:
    """The version is the parent's; one that cannot be told is no clean result."""
    cells.rule_file(
        _pack(ABOVE + '      when: "version > 302"\n', UNKNOWN + '      when: "version == 302"\n')
    )
    done = cells.json("diff", "c1")
    assert [table["rule"] for table in done.cell("c1")["tables"]] == ["unknown-host"]
    cells.sql("parent", "UPDATE migrate_version SET version = NULL")
    done = cells.json("diff", "c1")
    assert done.code == 4
    assert "cannot be told" in done.table("c1", "twin-aggregates")["error"]


ELSEWHERE = """
    - id: elsewhere
      asks: {other: {of: parent, database: placement, sql: SELECT name FROM providers}}
      key: [name]
      says: "provider {name} of {parent}"
      do: "openstack resource provider delete {name}"
"""


def test_another_database_of_a_cell_is_asked(cells: Deployment, database: Callable[..., str]) -> None:
    """By the name that cellsync.yaml gives it; where it has none, that is said."""
    cells.rule_file(_pack(ELSEWHERE))
    done = cells.json("diff", "c1")
    assert done.code == 4
    error = done.table("c1", "elsewhere")["error"]
    assert error == "other: cellsync.yaml names no database placement of parent"
    url = database()
    execute(url, "CREATE TABLE providers (name VARCHAR(9))", "INSERT INTO providers VALUES ('node1')")
    text = cells.config.read_text(encoding="utf-8")
    named = text.replace('"name": "parent"', f'"name": "parent", "databases": {{"placement": "{url}"}}')
    cells.config.write_text(named, encoding="utf-8")
    done = cells.json("diff", "c1")
    assert done.code == 1, done.said
    assert done.findings() == [("c1", "elsewhere", "provider node1 of parent")]


def test_an_optional_detector_is_left_out_where_its_database_has_no_name(cells: Deployment) -> None:
    """And a note says what was not looked for."""
    cells.rule_file(_pack(ELSEWHERE + "      optional: true\n", ABOVE))
    done = cells.json("diff")
    assert done.code == 0, done.said
    note = "elsewhere is not looked for: cellsync.yaml names no database placement of parent"
    assert done.report["notes"] == [note]
    assert [table["rule"] for table in done.cell("c1")["tables"]] == ["twin-aggregates"]


def test_what_has_settled_by_the_second_look_is_not_found(cells: Deployment) -> None:
    """Several databases are not read at one instant; a fault that lasts is found."""
    _break(cells)
    stand = Stand(cells.urls, ruleset(_pack(TWICE, UNKNOWN)))
    for mend, expected in ((False, 1), (True, 0)):

        def sleep(seconds: float, mend: bool = mend) -> None:
            assert seconds > 0
            if mend:
                sql(cells.urls["c2"], "DELETE FROM services WHERE host = 'compute-1-1'")
                sql(cells.urls["c2"], "DELETE FROM aggregate_hosts WHERE host LIKE 'gone%'")

        request = run.Request(
            **{**vars(stand.request("diff", "d")), "settle": timedelta(minutes=1), "sleep": sleep}
        )
        report = run.compare(request).report
        found = {
            table.rule: len(table.findings)
            for cell in report.cells
            if isinstance(cell, CellResult) and cell.cell == "c2"
            for table in cell.tables
            if isinstance(table, TableDiff)
        }
        assert found == {"host-in-two-cells": expected, "unknown-host": expected}


def test_the_parent_is_asked_once_for_all_children(cells: Deployment) -> None:
    """What does not depend on the child is one question, whatever the number of children."""
    cells.rule_file(_pack(ABOVE, ABOVE.replace("twin-aggregates", "again"), UNKNOWN))
    said = cells.process("diff", "-vvv").err
    assert len(re.findall(r"parent: SELECT name, COUNT\(\*\) AS number", said)) == 1
    assert len(re.findall(r"c[12]: SELECT host FROM services", said)) == 2


def test_explain_says_what_detectors_find_of_a_feature(looked_at: Deployment) -> None:
    """As the last steps, with the command of the first finding."""
    assert "nothing is found" in looked_at.run("explain", "zones", "c2").out
    _break(looked_at)
    done = looked_at.run("explain", "zones", "c2")
    assert "What runs nowhere takes no instance" in done.out
    assert "host gone; rm -rf / of an aggregate in c2 runs nowhere" in done.out
    assert "nova aggregate-remove-host 'gone; rm -rf /'" in done.out


DOUBLE = """
rules:
  - id: instances
    table: instances
    direction: up
    key: [uuid]
    columns: {include: [vm_state]}
    soft_delete: {column: deleted, live: 0, tombstone: id}
    route: {column: cell_name, path: "{parent}!{child}"}
    on_missing: report
    on_changed: report
    on_extra: report
detectors:
    - id: instance-in-two-cells
      asks:
        strange: {of: child, differs: instances, most: 2}
        places:
          of: children
          given: {uuids: strange.uuid}
          sql: SELECT uuid, host FROM instances WHERE deleted = 0 AND uuid IN :uuids
      finds: >-
        SELECT p.uuid, GROUP_CONCAT(p.cell || ' on ' || p.host, ' and ') AS places FROM places p
        JOIN strange s ON s.uuid = p.uuid AND s.kind = 'missing' GROUP BY p.uuid HAVING COUNT(*) > 1
      key: [uuid]
      says: "instance {uuid} is in {places}"
      do: find out which one is right
"""


def test_what_a_rule_finds_is_looked_at_more_closely(cells: Deployment) -> None:
    """An answer may be the differences of a rule, and another question about these rows alone."""
    cells.rule_file("pack: own" + DOUBLE)
    assert cells.run("diff").code == 0
    uuid = "b511a45a-0000-4000-8000-0000000000c1"
    twin = {"uuid": uuid, "host": "compute-2-1", "vm_state": "active"}
    cells.sql("c2", nova.insert("instances", twin))
    done = cells.json("diff", "c2", "--rule", "instance-in-two-cells")
    assert [table["rule"] for table in done.cell("c2")["tables"]] == ["instances", "instance-in-two-cells"]
    message = f"instance {uuid} is in c1 on compute-1-2 and c2 on compute-2-1"
    assert done.findings() == [("c2", "instance-in-two-cells", message)]
    for number in range(2):
        cells.sql("c2", nova.insert("instances", {"uuid": f"more-{number}", "vm_state": "active"}))
    done = cells.json("diff", "c2")
    error = "strange: instances has 3 differences, and at most 2 are taken"
    assert (done.code, done.table("c2", "instance-in-two-cells")["error"]) == (4, error)
    cells.sql("c2", "ALTER TABLE instances DROP COLUMN vm_state")
    error = cells.json("diff", "c2").table("c2", "instance-in-two-cells")["error"]
    assert error.startswith("strange: instances could not be compared: ")

"""explain: what a feature needs, what is there, and the first thing that is missing in a cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from deployment import Deployment, Done
from nova_main import UNTIL_ICEHOUSE
from rabbitmq import free_port
from registered import configured

from cellsync import rules

ZONES = "availability-zones"
DETECTORS = sum(ZONES in each.features for each in rules.load(["nova-cells-v1"]).detectors)
"""So many detectors look for what spoils zones, after all that the pack says of them."""


def steps(done: Done, cell: str) -> list[str]:
    """Return the status of every step in a cell."""
    found = next(each for each in done.report["cells"] if each["cell"] == cell)
    return [step["status"] for step in found["steps"]]


def first(done: Done, cell: str) -> dict[str, Any]:
    """Return the first step that is missing in a cell."""
    found = next(each for each in done.report["cells"] if each["cell"] == cell)
    return dict(found["steps"][found["first_missing"] - 1])


def test_a_zone_is_explained_step_by_step(cells: Deployment) -> None:
    """The aggregate is the first thing missing; the commands that are given mend one step after the other."""
    done = cells.json("explain", ZONES, "c1")
    assert done.code == done.report["exit_code"] == 1
    assert steps(done, "c1") == [
        "ok",
        "ok",
        "warn",
        "broken",
        "broken",
        "broken",
        "ok",
        "broken",  # az-east
        "warn",  # az-empty
        "warn",  # az-west
        "ok",
        *["ok"] * DETECTORS,
    ]
    assert "az-east" in done.report["cells"][0]["steps"][0]["evidence"]
    assert "compute-1-1" in done.report["cells"][0]["steps"][1]["evidence"]
    assert first(done, "c1")["evidence"].startswith("aggregate east is missing in c1")
    command = first(done, "c1")["do"]
    assert command == f"cellsync repair c1 --feature {ZONES}"
    assert cells.run(*command.split()[1:], "--yes").code in (0, 1)
    sound = cells.json("explain", ZONES, "c1")
    assert (sound.code, sound.report["cells"][0]["first_missing"]) == (0, None)
    text = cells.run("explain", ZONES, "c1").out
    assert "c1: nothing is missing, 3 warnings" in text
    assert text.endswith("exit code 0: nothing that it needs is missing, and there are warnings\n")
    assert "restart nova-scheduler in c1" in text
    assert cells.run("--quiet", "explain", ZONES, "c1").out == ""


BREAKAGES: dict[str, tuple[str, str, str, str]] = {
    "no zone in the parent": (
        "parent",
        "DELETE FROM aggregate_metadata WHERE `key` = 'availability_zone'",
        "an aggregate in parent has the metadata availability_zone",
        "nothing is there",
    ),
    "a host spelled otherwise": (
        "c1",
        "UPDATE services SET host = 'COMPUTE-1-1' WHERE host = 'compute-1-1'",
        "every host of a zone is a nova-compute of c1, spelled the same to the byte",
        "compute-1-1",
    ),
    "a host that runs no nova-compute": (
        "c1",
        "DELETE FROM services WHERE host = 'compute-1-2'",
        "every host of a zone is a nova-compute of c1",
        "compute-1-2",
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_no_row_comparison_sees_is_explained(cells: Deployment, breakage: str) -> None:
    """After a repair: the rows are equal, and the zone does not work all the same."""
    assert cells.repair("--feature", ZONES).code in (0, 1)
    where, statement, needs, evidence = BREAKAGES[breakage]
    cells.sql(where, statement)
    missing = first(cells.json("explain", ZONES), "c1")
    assert missing["needs"].startswith(needs)
    assert (evidence in missing["evidence"], bool(missing["do"])) == (True, True)


def test_hosts_of_another_cell_do_not_count(cells: Deployment) -> None:
    """Its own plain hosts and those with its path do; others, and a path that begins alike, do not."""
    cells.sql(
        "parent",
        "UPDATE aggregate_hosts SET host = CONCAT('parent!c10@', host) WHERE host LIKE 'compute-1-_'",
    )
    done = cells.json("explain", ZONES, "c1")
    step = done.report["cells"][0]["steps"][1]
    assert (step["status"], step["evidence"]) == ("warn", "nothing is there")


def test_admission_in_the_parent_is_seen(cells: Deployment) -> None:
    """A stock nova-api asks its own table services."""
    cells.sql(
        "parent",
        "INSERT INTO services (host, `binary`, topic, report_count, disabled, deleted) "
        "VALUES ('compute-1-1', 'nova-compute', 'compute', 0, 0, 0)",
    )
    let, refused = cells.json("explain", ZONES, "c1").report["cells"][0]["steps"][2:4]
    assert (let["status"], "lets the zone az-east through" in let["needs"]) == ("ok", True)
    assert (refused["status"], "the zones az-empty, az-west" in refused["needs"]) == ("warn", True)


# Zone az-west has three hosts in c2, and none in c1.
HOSTS_OF_A_ZONE: dict[str, tuple[str, str, str, str]] = {
    "one is up": ("c2", "DO 0", "ok", "up: compute-2-1, compute-2-2, compute-2-3"),
    "one is down and one disabled": (
        "c2",
        "UPDATE services SET disabled = host = 'compute-2-1', "
        "updated_at = IF(host = 'compute-2-2', '2020-01-01', updated_at) WHERE host LIKE 'compute-2-_'",
        "ok",
        "up: compute-2-3; down: compute-2-2; disabled: compute-2-1",
    ),
    "all are disabled": (
        "c2",
        "UPDATE services SET disabled = 1 WHERE `binary` = 'nova-compute'",
        "warn",
        "no host of it takes instances in c2 (disabled: compute-2-1, compute-2-2, compute-2-3)",
    ),
    "all are down": (
        "c2",
        "UPDATE services SET updated_at = '2020-01-01' WHERE `binary` = 'nova-compute'",
        "broken",
        "no host of it takes instances in c2 (down: compute-2-1, compute-2-2, compute-2-3)",
    ),
    "it was taken out of the cell": (
        "c2",
        "UPDATE aggregate_hosts SET deleted = id WHERE host LIKE 'compute-2-_'",
        "broken",
        "parent has hosts of c2 in it, but in c2 no nova-compute is in it",
    ),
    "all are of another cell": (
        "c1",
        "DO 0",
        "warn",
        "c1 has no host of it: Nova chooses a cell without looking at zones, and a boot into it that is sent",
    ),
}


@pytest.mark.parametrize("case", HOSTS_OF_A_ZONE)
def test_each_zone_is_judged_by_its_hosts_in_the_cell(cells: Deployment, case: str) -> None:
    """By those that take instances: enabled, up, and spelled to the byte."""
    assert cells.repair("--feature", ZONES).code in (0, 1)
    for cell in ("c1", "c2"):
        cells.sql(cell, "UPDATE services SET updated_at = UTC_TIMESTAMP() WHERE `binary` = 'nova-compute'")
    cell, statement, status, evidence = HOSTS_OF_A_ZONE[case]
    cells.sql(cell, statement)
    found = next(each for each in cells.json("explain", ZONES).report["cells"] if each["cell"] == cell)
    [step] = [each for each in found["steps"] if each["needs"].startswith("zone az-west")]
    assert (step["status"], step["evidence"][: len(evidence)]) == (status, evidence)
    assert ("--hint target_cell='parent!CELL'" in step["do"]) is (status != "ok")


def test_a_host_that_is_in_a_zone_by_its_path_alone_is_found(cells: Deployment) -> None:
    """Its servers show as zone nova; the statement puts the plain name beside it, and nothing is left."""
    assert cells.repair("--feature", ZONES).code in (0, 1)
    cells.sql(
        "parent", "UPDATE aggregate_hosts SET host = 'parent!c1@compute-1-2' WHERE host = 'compute-1-2'"
    )
    [finding] = cells.json("diff", "c1", "--feature", ZONES).table("c1", "host-by-path-only")["findings"]
    assert (finding["cell"], finding["key"]) == (
        "parent",
        {"aggregate": "east", "host": "parent!c1@compute-1-2"},
    )
    assert "shows its servers in the default zone, nova" in finding["message"]
    cells.sql("parent", finding["do"])
    again = cells.json("diff", "c1", "--feature", ZONES)
    assert again.table("c1", "host-by-path-only")["findings"] == []
    assert [
        each for each in again.table("c1", "aggregate-hosts")["differences"] if each["kind"] != "extra"
    ] == []


def test_a_feature_without_steps_is_explained_by_its_rules(cells: Deployment) -> None:
    """What a rule only reports is not said to be repaired."""
    done = cells.json("explain", "key-pairs", "c1")
    assert "Kilo" in first(done, "c1")["needs"]
    assert first(done, "c1")["do"] == "cellsync repair c1 --rule key-pairs"
    cells.sql("parent", "DELETE FROM instances LIMIT 1")
    missing = [cell for cell in cells.json("explain", "instances").report["cells"] if cell["first_missing"]]
    assert [cell["steps"][0]["do"] for cell in missing] == [
        f"cellsync diff {cell['cell']} --feature instances" for cell in missing
    ]
    assert missing


def test_a_step_by_a_rule_of_another_feature_is_looked_at(cells: Deployment) -> None:
    """A resize needs extra specs, which are of the feature flavors: they are compared all the same."""
    assert cells.repair("c1").code == 0
    cells.sql("c1", "DELETE FROM instance_type_extra_specs")
    done = cells.json("explain", "resize", "c1")
    assert done.code == 1
    assert first(done, "c1")["needs"] == "its extra specs are in c1"
    assert first(done, "c1")["do"] == "cellsync repair c1 --feature flavors"


def test_a_rule_that_no_step_names_is_a_step(cells: Deployment) -> None:
    """Until Juno a deleted flavor that is in use is needed; later it is not asked for."""
    assert cells.repair("c1").code == 0
    cells.sql("parent", "UPDATE instance_types SET deleted = id WHERE id = 2")
    cells.sql("c1", "DELETE FROM instance_types WHERE id = 2")
    assert "flavors-in-use" not in str(cells.json("explain", "flavors", "c1").report)
    for cell in cells.urls:
        cells.sql(cell, "UPDATE migrate_version SET version = 233")
        cells.sql(cell, UNTIL_ICEHOUSE)
    done = cells.json("explain", "flavors", "c1")
    assert first(done, "c1")["do"] == "cellsync repair c1 --feature flavors"


def test_every_feature_of_the_pack_is_explained(cells: Deployment) -> None:
    """And one that is not there is a mistake."""
    for feature in ("availability-zones", "host-aggregates", "flavors", "resize", "key-pairs", "instances"):
        done = cells.json("explain", feature)
        assert done.code in (0, 1), feature
        assert [cell["cell"] for cell in done.report["cells"]] == ["c1", "c2"]
        assert all(cell["steps"] for cell in done.report["cells"])
    unknown = cells.run("explain", "zones")
    assert (unknown.code, "availability-zones" in unknown.said) == (2, True)


def test_what_cannot_be_looked_at_is_unknown(cells: Deployment) -> None:
    """A child that does not answer, and one without a table: exit code 4, the other child's steps as ever."""
    cells.sql("c2", "DROP TABLE services")
    dead = f"mysql+pymysql://u:p@127.0.0.1:{free_port()}/n"
    configured(cells, c1={"database": dead})
    done = cells.json("explain", ZONES)
    assert done.code == 4
    assert steps(done, "c1") == ["ok", "unknown", "warn", *["unknown"] * 5, "ok", *["unknown"] * DETECTORS]
    assert "unknown" in steps(done, "c2")
    assert "could not be looked at" in cells.run("explain", ZONES, "c1").out
    gone = configured(cells, parent={"database": dead}).json("explain", ZONES, "c2")
    assert (gone.code, set(steps(gone, "c2"))) == (4, {"unknown"})


def test_a_step_whose_gate_cannot_be_told_is_unknown(cells: Deployment) -> None:
    """Not left out: it may be what is missing."""
    own = cells.rule_file(OWN.replace("migrate", ""))
    for cell in cells.urls:
        cells.sql(cell, "DROP TABLE migrate_version")
        cells.sql(cell, "CREATE TABLE ware (id int AUTO_INCREMENT PRIMARY KEY, name varchar(9))")
    done = own.json("explain", "selling", "c1")
    assert (steps(done, "c1")[-1], done.code) == ("unknown", 4)
    assert "cannot be told" in done.report["cells"][0]["steps"][-1]["evidence"]


OWN = """
pack: own
features: {selling: Nobody can sell.}
explains:
  selling:
    - says: "{parent} has wares"
      in: parent
      query: "SELECT name FROM ware WHERE name LIKE '%a%' ORDER BY 1"
    - {says: "they are in {child}", rules: [wares], do: "ask {parent}"}
    - {says: nothing is stolen, must: none, query: "SELECT name FROM ware WHERE name LIKE :child"}
    - {says: look at the door, do: lock it}
    - {says: an old till, when: "version < 2", query: "SELECT 1"}
rules:
  - {id: wares, table: ware, key: [name], features: [selling], says: [{missing: "{child} lacks {name}"}]}
"""


def test_a_pack_explains_its_own_features(cells: Deployment, database: Callable[..., str]) -> None:
    """Without Python: queries with the cells' names, rules, notes, gates."""
    for cell in cells.urls:
        cells.sql(cell, "CREATE TABLE ware (id int AUTO_INCREMENT PRIMARY KEY, name varchar(9))")
    for number in range(7):
        cells.sql("parent", "INSERT INTO ware (name) VALUES (:name)", name=f"a{number}")
    cells.sql("c1", "INSERT INTO ware (name) VALUES ('c1')")
    own = cells.rule_file(OWN)
    done = own.json("explain", "selling", "c1")
    found = done.report["cells"][0]["steps"]
    assert [(step["needs"], step["status"], step["evidence"]) for step in found] == [
        ("parent has wares", "ok", "a0, a1, a2, a3, a4 and 2 more"),
        ("they are in c1", "broken", "c1 lacks a0, and 6 more in wares"),
        ("nothing is stolen", "broken", "c1"),
        ("look at the door", "ok", ""),
    ]
    assert [step["do"] for step in found] == ["", "ask parent", "", "lock it"]
    assert database

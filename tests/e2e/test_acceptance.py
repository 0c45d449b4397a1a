"""The main job, from end to end: what differs is said, repaired, verified and taken back."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from typing import Any

import nova
import pytest
from deployment import AGGREGATE_RULES, Deploy, Deployment, Done
from nova import UUIDS, Variant
from servers import AnyServer, PrivateServer

pytestmark = pytest.mark.slow

MISSING = {
    "c1": {"aggregates": (6, 0, 0), "aggregate-metadata": (8, 0, 0), "aggregate-hosts": (6, 0, 0)},
    "c2": {"aggregates": (5, 0, 1), "aggregate-metadata": (7, 1, 1), "aggregate-hosts": (3, 0, 1)},
}
LEFT = {
    "c1": {"aggregates": (0, 0, 0), "aggregate-metadata": (0, 0, 0), "aggregate-hosts": (0, 0, 0)},
    "c2": {"aggregates": (0, 0, 1), "aggregate-metadata": (0, 0, 1), "aggregate-hosts": (0, 0, 1)},
}
AGGREGATES = [f"--rule={rule}" for rule in AGGREGATE_RULES]

HOSTS = {
    "c1": [
        ("east", "compute-1-1"),
        ("east", "compute-1-2"),
        ("east", "compute-1-3"),
        ("gold", "compute-1-2"),
        ("plain", "compute-1-4"),
        ("ssd", "compute-1-1"),
    ],
    "c2": [
        ("local-only", "compute-2-5"),
        ("ssd", "compute-2-1"),
        ("west", "compute-2-1"),
        ("west", "compute-2-2"),
        ("west", "compute-2-3"),
    ],
}
"""What a right repair leaves: child -> (aggregate, host), all live."""

METADATA = [
    ("east", "availability_zone", "az-east"),
    ("empty-az", "availability_zone", "az-empty"),
    ("gold", "tier", "gold-2"),
    ("plain", "pinned", "yes"),
    ("ssd", "note", nova.NOTE),
    ("ssd", "ssd", "true"),
    ("west", "availability_zone", "az-west"),
    ("west", "cpu_allocation_ratio", "4.0"),
]
OWN = [("local-only", "rack", "r7")]


def _under(deployment: Deployment, cell: str, table: str, *columns: str) -> list[tuple[Any, ...]]:
    """Return the rows of a table that refers to aggregates, with the aggregate's name first."""
    chosen = ", ".join(f"t.`{column}`" for column in columns)
    rows = deployment.sql(
        cell,
        f"SELECT a.name, {chosen} FROM {table} t JOIN aggregates a ON a.id = t.aggregate_id "
        "WHERE t.deleted = 0 AND a.deleted = 0",
    )
    return sorted(rows)


def _assert_repaired(deployment: Deployment, *, note: str = nova.NOTE) -> None:
    """The children hold exactly what the parent says and what was their own, spelled their way."""
    metadata = [(name, key, note if key == "note" else value) for name, key, value in METADATA]
    for child, own in (("c1", []), ("c2", OWN)):
        assert _under(deployment, child, "aggregate_hosts", "host") == HOSTS[child]
        assert _under(deployment, child, "aggregate_metadata", "key", "value") == sorted([*metadata, *own])
        for table in {*nova.TABLES} - {"migrate_version"}:
            assert deployment.sql(child, f"SELECT id FROM {table} WHERE NOT deleted <=> 0") == []
        # What was written has a time of making, in UTC, and no other.
        made = deployment.sql(
            child,
            "SELECT COUNT(*), MAX(ABS(TIMESTAMPDIFF(MINUTE, created_at, UTC_TIMESTAMP())) > 30), "
            "COUNT(updated_at), COUNT(deleted_at) FROM aggregate_hosts WHERE created_at > '2016-12-31'",
        )
        assert made == [(6 if child == "c1" else 3, 0, 0, 0)]
        flavors = "SELECT id, name, flavorid, CAST(rxtx_factor AS DOUBLE), is_public FROM instance_types"
        assert sorted(deployment.sql(child, flavors)) == sorted(deployment.sql("parent", flavors))
        specs = "SELECT instance_type_id, `key`, value FROM instance_type_extra_specs"
        assert sorted(deployment.sql(child, specs)) == sorted(deployment.sql("parent", specs))
        projects = "SELECT instance_type_id, project_id FROM instance_type_projects"
        assert sorted(deployment.sql(child, projects)) == [(7, "p1"), (7, "p2")]
        pairs = "SELECT user_id, name, fingerprint, public_key, type FROM key_pairs"
        assert deployment.sql(child, pairs) == [("u1", "key0", "aa:00", "ssh-rsa AAAA0 u1@x", "ssh")]


def _assert_only_reported(found: Done) -> None:
    actions = {
        difference["action"]
        for cell in found.report["cells"]
        for table in cell["tables"]
        for difference in table["differences"]
    }
    assert actions <= {"report"}
    assert found.findings() == []


def _assert_whole_round(deployment: Deployment, *, note: str = nova.NOTE) -> None:
    """Diff, repair, repair again, undo: each does what it must on these databases."""
    before = deployment.checksums()
    found = deployment.json("diff")
    assert found.code == 1, found.said
    assert found.counts(*AGGREGATE_RULES) == MISSING
    assert deployment.checksums() == before

    repaired = deployment.repair()
    assert repaired.code == 1, repaired.said  # local-only is reported
    assert [cell["status"] for cell in repaired.report["cells"]] == ["repaired", "repaired"]
    _assert_repaired(deployment, note=note)
    left = deployment.json("diff")
    assert left.counts(*AGGREGATE_RULES) == LEFT
    _assert_only_reported(left)

    after, journals = deployment.checksums(), deployment.journals()
    again = deployment.repair()
    assert [cell["changes"]["planned"] for cell in again.report["cells"]] == [0, 0]
    assert (deployment.checksums(), deployment.journals()) == (after, journals)

    undone = deployment.json("undo", repaired.report["run"], "--yes")
    assert undone.code == 0, undone.said
    assert deployment.checksums() == before


# -- The whole job -----------------------------------------------------------------------------


def test_diff_says_exactly_what_differs(deploy: Deploy) -> None:
    """The numbers follow from the data; tombstones count for nothing; nothing is written."""
    cells = deploy(variant=Variant(drifted_instances=True))
    before = cells.checksums()
    done = cells.json("diff", *AGGREGATES)
    assert done.code == done.report["exit_code"] == 1
    assert done.err == ""
    assert done.counts() == MISSING
    assert {(d["key"]["name"], d["action"]) for d in done.table("c2", "aggregates")["differences"]} == {
        *((name, "insert") for name in ("east", "ssd", "plain", "empty-az", "gold")),
        ("local-only", "report"),
    }
    changed = [d for d in done.table("c2", "aggregate-metadata")["differences"] if d["kind"] == "changed"]
    assert [(d["key"], d["columns"], d["action"]) for d in changed] == [
        (
            {"aggregate_id": "west", "key": "cpu_allocation_ratio"},
            {"value": {"desired": "4.0", "existing": "2.0"}},
            "update",
        )
    ]
    assert done.table("c1", "aggregate-hosts")["rows"] == {"desired": 6, "existing": 0}
    assert '"old"' not in done.out and "az-old" not in done.out and "gold-1" not in done.out
    assert cells.checksums() == before
    assert cells.journals() == {"parent": {}, "c1": {}, "c2": {}}


def test_diff_names_the_three_drifted_instances(deploy: Deploy) -> None:
    """Each is named with what is wrong with it, and is reported, never written."""
    cells = deploy(variant=Variant(drifted_instances=True))
    done = cells.json("diff", "--feature", "instances")
    assert done.code == 1
    found = {
        d["key"]["uuid"]: (cell["cell"], d["kind"], d["action"], d["reason"])
        for cell in done.report["cells"]
        for table in cell["tables"]
        for d in table["differences"]
    }
    lost, stale, zombie = UUIDS.values()
    assert {uuid: each[:3] for uuid, each in found.items()} == {
        lost: ("c1", "missing", "report"),
        stale: ("c2", "changed", "report"),
        zombie: ("c2", "extra", "report"),
    }
    assert "parent does not know it" in found[lost][3]
    assert "as building, but in c2 it is active" in found[stale][3]
    assert "which c2 does not have" in found[zombie][3]


def test_diff_in_text_names_rows_and_what_they_break(deploy: Deploy) -> None:
    """Whoever reads it finds every row by its name, and the feature that it breaks."""
    cells = deploy(variant=Variant(drifted_instances=True))
    done = cells.process("diff")
    assert done.code == 1
    assert done.err == ""
    for expected in (
        "2 of 2 cells are out of step with parent",
        "breaks availability-zones",
        "availability zone az-east is missing in c1: boot requests for it fail there",
        "cpu_allocation_ratio = 2.0 instead of 4.0 in c2",
        "aggregate local-only is only in c2",
        "host compute-1-4 is not in aggregate plain in c1",
        "flavor priv.large (prv-l) is missing in c2",
        "project p1 may not use flavor",
        "key pair key0 of user u1 is missing in c1",
        *UUIDS.values(),
        "固态",
        "exit code 1",
    ):
        assert expected in done.out


def test_repair_makes_the_cells_right_and_undo_takes_it_back(deploy: Deploy) -> None:
    """Only what is reported is left; ids, times and text are right; undo restores every byte."""
    cells = deploy(variant=Variant(drifted_instances=True))
    before = cells.checksums()
    repaired = cells.process("repair", "--yes", "--format", "json", "--reason", "first light")
    assert repaired.code == 1, repaired.said
    assert {cell["cell"]: cell["changes"] for cell in repaired.report["cells"]} == {
        "c1": {"planned": 28, "applied": 28, "conflicts": 0, "failed": 0},
        "c2": {"planned": 24, "applied": 24, "conflicts": 0, "failed": 0},
    }
    _assert_repaired(cells)
    # The parent's rows are nobody's to change, and the older west is the same row as ever.
    assert cells.checksums()["parent"] == before["parent"]
    assert cells.sql("c2", "SELECT id FROM aggregates WHERE name IN ('local-only', 'west') ORDER BY id") == [
        (1,),
        (3,),
    ]
    assert cells.sql("c2", "SELECT COUNT(*) FROM aggregate_hosts WHERE aggregate_id = 3") == [(3,)]
    assert cells.sql("c2", "SELECT COUNT(*) FROM aggregate_metadata WHERE aggregate_id = 3") == [(2,)]
    for child in nova.CHILDREN:
        assert repaired.cell(child)["notices"] == [f"restart nova-scheduler in {child}: it caches aggregates"]

    left = cells.json("diff")
    assert left.code == 1
    assert left.counts(*AGGREGATE_RULES) == LEFT
    assert left.counts("instances") == {"c1": {"instances": (1, 0, 0)}, "c2": {"instances": (0, 1, 1)}}
    _assert_only_reported(left)

    after, journals = cells.checksums(), cells.journals()
    again = cells.run("repair", "--yes")
    assert again.code == 1
    assert (cells.checksums(), cells.journals()) == (after, journals)

    run = repaired.report["run"]
    undone = cells.process("undo", run, "--yes")
    assert undone.code == 0, undone.said
    assert cells.checksums() == before
    for child in nova.CHILDREN:
        assert f"restart nova-scheduler in {child}: it caches aggregates" in undone.out

    redone = cells.json("undo", cells.last_run(), "--yes")
    assert redone.code == 0, redone.said
    assert cells.checksums() == after

    history = cells.json("history").report["runs"]
    assert [(each["verb"], each["status"], each["applied"]) for each in history] == [
        ("undo", "done", 52),
        ("undo", "done", 52),
        ("repair", "done", 52),
    ]
    assert history[-1]["run"] == run
    assert history[-1]["reason"] == "first light"
    assert history[-1]["cells"] == ["c1", "c2"]


def test_a_repair_tells_what_it_did_and_what_to_do_now(cells: Deployment) -> None:
    """The text output ends with the notice for these databases and the way back."""
    done = cells.run("repair", "--yes")
    assert done.code == 1
    assert "restart nova-scheduler in c1: it caches aggregates" in done.out
    assert f"cellsync undo {cells.last_run()} takes this run back" in done.out


def test_a_dry_run_and_a_plan_write_nothing(cells: Deployment) -> None:
    """Both show what a repair would write; no database, not even a journal, is touched."""
    before = cells.checksums()
    for arguments in (("repair", "--dry-run"), ("plan",), ("repair", "--dry-run", "--yes")):
        done = cells.json(*arguments)
        assert done.code == 1
        assert [cell["changes"]["planned"] for cell in done.report["cells"]] == [28, 24]
        assert [cell["changes"]["applied"] for cell in done.report["cells"]] == [0, 0]
    assert cells.checksums() == before
    assert cells.journals() == {"parent": {}, "c1": {}, "c2": {}}


def test_a_repair_of_one_cell_and_rule_leaves_the_rest_alone(cells: Deployment) -> None:
    """The scope is what is written: c2 and the hosts are as they were."""
    before = cells.checksums()
    done = cells.repair("c1", "--rule", "aggregate-metadata")
    assert done.code == 0, done.said
    assert done.counts() == {"c1": {"aggregates": (6, 0, 0), "aggregate-metadata": (8, 0, 0)}}
    after = cells.checksums()
    assert (after["c2"], after["parent"]) == (before["c2"], before["parent"])
    changed = {table for table in after["c1"] if after["c1"][table] != before["c1"][table]}
    assert changed == {"aggregates", "aggregate_metadata"}


def test_an_undo_leaves_rows_alone_that_others_changed_since(cells: Deployment) -> None:
    """What moved is a conflict, named, exit 4; all other rows are taken back."""
    run = cells.repair("c1").report["run"]
    cells.sql("c1", "UPDATE aggregate_metadata SET value = 'az-mine' WHERE value = 'az-east'")
    done = cells.json("undo", run, "--yes")
    assert done.code == 4
    problems = "\n".join(done.cell("c1")["problems"])
    assert "az-mine" in problems
    assert cells.sql("c1", "SELECT value FROM aggregate_metadata") == [("az-mine",)]
    assert cells.sql("c1", "SELECT name FROM aggregates") == [("east",)]  # the other row refers to it
    assert cells.sql("c1", "SELECT COUNT(*) FROM aggregate_hosts") == [(0,)]


def test_an_undo_is_not_done_twice(cells: Deployment) -> None:
    """The second undo of a run is refused and says which run to undo instead."""
    run = cells.repair().report["run"]
    assert cells.run("undo", run, "--yes").code == 0
    before = cells.checksums()
    done = cells.run("undo", run, "--yes")
    assert done.code == 2
    assert cells.last_run() in done.err
    assert cells.checksums() == before


# -- Variants that make no difference ----------------------------------------------------------

VARIANTS = {
    "plain": Variant(),
    "other-ids": Variant(shift={"parent": 1000, "c2": 40}),
    "utf8mb4-children": Variant(charset={"c1": "utf8mb4", "c2": "utf8mb4"}),
    "utf8mb4-everywhere": Variant(
        charset=dict.fromkeys(nova.CELLS, "utf8mb4"), note="🚀 四 \\ ' \" 𝒳 and 👩‍👩‍👧"
    ),
    "columns-turned": Variant(turned=frozenset({"c1"})),
    "parent-columns-turned": Variant(turned=frozenset({"parent", "c2"})),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_variants_make_no_difference(name: str, deploy: Deploy) -> None:
    """Other ids, another charset, other column orders: the same differences, the same repair."""
    _assert_whole_round(deploy(variant=VARIANTS[name]), note=VARIANTS[name].note)


def test_three_servers_in_other_time_zones_make_no_difference(
    deploy: Deploy, servers: Mapping[str, AnyServer], server_with: Callable[..., PrivateServer]
) -> None:
    """Children on servers of their own, one of which lives at +08:00 with latin1 defaults."""
    far = server_with("--default-time-zone=+08:00", "--character-set-server=latin1", "--sql-mode=ANSI")
    _assert_whole_round(deploy(servers={**servers, "c2": far}))


def test_three_servers_with_everything_different_make_no_difference(
    deploy: Deploy, servers: Mapping[str, AnyServer]
) -> None:
    """All variants at once, and one schema name for three databases, as in real life."""
    everything = Variant(
        charset={"c1": "utf8mb4"}, turned=frozenset({"c1", "parent"}), shift={"parent": 500, "c2": 7}
    )
    _assert_whole_round(deploy(servers=servers, variant=everything))


# -- Plan files --------------------------------------------------------------------------------


def _plan(cells: Deployment, *arguments: str) -> str:
    path = str(cells.folder / "plan.json")
    assert cells.run("plan", "-o", path, *arguments).code == 1
    return path


def test_a_plan_file_is_private_and_is_carried_out_to_the_letter(cells: Deployment) -> None:
    """It is readable by its owner alone; what differs since it was made is not written."""
    path = _plan(cells, "--rule", "aggregates")
    assert stat.S_IMODE((cells.folder / "plan.json").stat().st_mode) == 0o600
    json.loads((cells.folder / "plan.json").read_text())
    cells.sql("parent", nova.insert("aggregates", {"id": 50, "name": "later"}))
    done = cells.repair("--rule", "aggregates", "--plan", path)
    assert [cell["changes"]["applied"] for cell in done.report["cells"]] == [6, 5]
    assert cells.sql("c1", "SELECT COUNT(*) FROM aggregates WHERE name = 'later'") == [(0,)]
    assert done.code == 1  # "later" is still missing


def test_a_plan_file_brings_its_own_scope(cells: Deployment) -> None:
    """Whoever carries it out need not say again which cells and rules it was made for."""
    path = _plan(cells, "c2", "--rule", "aggregates")
    done = cells.repair("--plan", path)
    assert done.counts() == {"c2": {"aggregates": (5, 0, 1)}}
    assert done.cell("c2")["changes"]["applied"] == 5
    assert cells.sql("c1", "SELECT * FROM aggregates") == []


def test_a_rule_that_can_no_longer_be_compared_is_not_carried_out(cells: Deployment) -> None:
    """Its changes are skipped with the reason, the rest of the plan is done: exit 4."""
    path = _plan(cells, "c1")
    cells.sql("parent", "DROP TABLE key_pairs")
    done = cells.repair("--plan", path)
    assert done.code == 4, done.said
    assert done.cell("c1")["changes"] == {"planned": 27, "applied": 27, "conflicts": 0, "failed": 0}
    assert [each["rule"] for each in done.cell("c1")["skipped"]] == ["key-pairs"]


def test_a_plan_of_other_rules_is_refused(cells: Deployment) -> None:
    """Rules that changed since may mean something else by the same rows: exit 3, nothing written."""
    path = _plan(cells)
    before = cells.checksums()
    pack = cells.run("rules", "show", "nova-cells-v1").out
    other = cells.rule_file(pack.replace("key: [name]", "key: [name]\n    limits: {updates: 1}"))
    done = other.repair("--plan", path)
    assert done.code == 3, done.said
    assert {refusal["code"] for refusal in done.cell("c1")["refusals"]} == {"other-rules"}
    assert done.cell("c1")["status"] == "refused"
    assert (cells.checksums(), cells.journal("c1")) == (before, {})
    waived = other.repair("--plan", path, "--waive", "other-rules")
    assert [cell["changes"]["applied"] for cell in waived.report["cells"]] == [28, 24]


def test_a_plan_for_another_database_is_refused(cells: Deployment, deploy: Deploy) -> None:
    """The same cell names, other databases: exit 3, and neither the old nor the new are written."""
    path = _plan(cells)
    others = deploy()  # writes its own cell file over the first one
    before = (cells.checksums(), others.checksums())
    done = others.repair("--plan", path)
    assert done.code == 3, done.said
    assert {refusal["code"] for refusal in done.cell("c2")["refusals"]} == {"wrong-database"}
    assert (cells.checksums(), others.checksums()) == before


def test_a_plan_for_a_cell_that_is_not_there_is_refused(cells: Deployment) -> None:
    """A plan is carried out whole or said not to be: a cell that it names must be there."""
    path = _plan(cells)
    fewer = cells.configure(urls={name: cells.urls[name] for name in ("parent", "c1")})
    done = fewer.repair("--plan", path)
    assert done.code == 2, done.said
    assert "c2" in done.err
    assert fewer.journal("c1") == {}


def test_a_row_that_moved_since_the_plan_is_a_conflict(cells: Deployment) -> None:
    """It is left alone and named, exit 4; everything else of the plan is done."""
    path = _plan(cells)
    cells.sql("c2", "UPDATE aggregate_metadata SET value = '3.0' WHERE value = '2.0'")
    cells.sql("c1", nova.insert("aggregates", {"id": 77, "name": "east"}))
    done = cells.repair("--plan", path)
    assert done.code == 4, done.said
    assert done.cell("c2")["changes"] == {"planned": 24, "applied": 23, "conflicts": 1, "failed": 0}
    assert "was 2.0 and is 3.0" in "\n".join(done.cell("c2")["problems"])
    assert done.cell("c1")["changes"] == {"planned": 28, "applied": 27, "conflicts": 1, "failed": 0}
    assert cells.sql("c2", "SELECT value FROM aggregate_metadata WHERE `key` LIKE 'cpu%'") == [("3.0",)]
    assert cells.sql("c1", "SELECT COUNT(*) FROM aggregates WHERE name = 'east'") == [(1,)]
    assert cells.sql("c1", "SELECT COUNT(*) FROM aggregate_hosts WHERE aggregate_id = 77") == [(3,)]


def test_a_file_that_is_no_plan_is_refused(cells: Deployment) -> None:
    """Exit 2, and the message says what writes a plan."""
    for text in ("", "{}", "[]", "hello", '{"kind": "cellsync-plan"}'):
        (cells.folder / "plan.json").write_text(text)
        done = cells.run("repair", "--yes", "--plan", str(cells.folder / "plan.json"))
        assert (done.code, done.out) == (2, "")
        assert "plan -o" in done.err
    done = cells.run("repair", "--yes", "--plan", "/nowhere/plan.json")
    assert done.code == 2
    assert "/nowhere/plan.json" in done.err
    assert cells.journal("c1") == {}

"""Every known drift of Nova cells v1, planted on MariaDB: what says so, in which words, and what mends it.

``drifts`` has them all, each once; below are those that have more than one form. Where the remedy is SQL,
it is run as it stands, and the finding is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import nova
import pytest
from deployment import Deployment, Done
from drifts import DRIFTS, Drift
from servers import Server, database, load

from cellsync import rules

Found = tuple[str, str, str]
"""The cell whose rows are wrong, what is wrong, and what to do."""

C1 = "b511a45a-0000-4000-8000-0000000000c1"
C2 = "b511a45a-0000-4000-8000-0000000000c2"


def ago(**time: float) -> str:
    """Return a time that long ago, as a column holds it."""
    return f"{datetime.now(timezone.utc) - timedelta(**time):%Y-%m-%d %H:%M:%S}"


def found(cells: Deployment, detector: str, *scope: str) -> list[Found]:
    """Return what a detector finds, each finding once; it must not be incomplete."""
    done = cells.json("diff", *scope, "--rule", detector)
    assert done.code in (0, 1), done.said
    tables = [table for cell in done.report["cells"] for table in cell["tables"] if table["rule"] == detector]
    findings = [(each["cell"], each["message"], each["do"]) for table in tables for each in table["findings"]]
    assert (done.code == 1) or not findings
    text = cells.run("diff", *scope, "--rule", detector).out
    assert all(message in text and do in text for _, message, do in findings)
    return list(dict.fromkeys(findings))


def mend(cells: Deployment, detector: str, *, rounds: int = 1) -> None:
    """Run the SQL of all findings where it is to be run, and hold that nothing is found any more.

    With ``rounds``, what is found then is mended too, so many times: the copies of what was wrong above.
    """
    for _ in range(rounds):
        _mend(cells, detector)
    assert found(cells, detector) == []


def _mend(cells: Deployment, detector: str) -> None:
    done = cells.json("diff", "--rule", detector)
    remedies = {
        (each["do_in"], each["do"])
        for cell in done.report["cells"]
        for table in cell["tables"]
        for each in table["findings"]
        if each["do_as"] == "sql"
    }
    assert remedies
    for cell, statements in remedies:
        load(cells.urls[cell], statements)


def plant(cells: Deployment, rows: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]) -> None:
    """Insert rows: cell -> (table, row)."""
    for cell, inserts in rows.items():
        for table, row in inserts:
            cells.sql(cell, nova.insert(table, row).replace(":", "\\:"))


@pytest.fixture
def mended(cells: Deployment) -> Deployment:
    """Return the ordinary deployment, repaired."""
    assert cells.repair().code == 1, "local-only is reported"
    return cells


def test_a_sound_deployment_has_no_findings(mended: Deployment) -> None:
    """No detector invents anything, and all of them could look."""
    done = mended.json("diff")
    tables = [table for cell in done.report["cells"] for table in cell["tables"]]
    detectors = [table for table in tables if table["detector"]]
    assert len(detectors) == 2 * 15
    assert {table["status"] for table in detectors} == {"in_step"}
    assert done.findings() == []


# -- All of them at once -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is said of a deployment with all drifts, and when all that is SQL has been run."""

    before: Done
    text: str
    after: Done


@pytest.fixture(scope="module")
def told(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Plant all drifts in a deployment that was repaired, and mend them."""
    with ExitStack() as leaving:
        urls = {
            cell: leaving.enter_context(database(server, name=f"drifts_{cell}", charset="utf8mb3"))
            for cell in nova.CELLS
        }
        for cell, url in urls.items():
            nova.fill(url, cell=cell)
        cells = Deployment(urls=urls, folder=tmp_path_factory.mktemp("drifts")).configure()
        assert cells.repair().code == 1, "local-only is reported"
        assert cells.json("diff").findings() == []
        for cell, url in urls.items():
            load(url, ";\n".join(each for drift in DRIFTS for each in drift.plant.get(cell, ())))
        before = cells.json("diff")
        text = cells.run("diff").out
        for each in _findings(before):
            if each["do_as"] == "sql":
                load(urls[each["do_in"]], each["do"])
            elif each["do_as"] == "words":  # what people are told to run ends them
                load(urls[each["cell"]], each["do"].rpartition(": ")[2])
        yield Told(before=before, text=text, after=cells.json("diff"))


def _findings(done: Done) -> list[dict[str, Any]]:
    """Return all findings, each once: what is wrong in the parent is in every child's table."""
    tables = [table for cell in done.report["cells"] for table in cell["tables"]]
    listed = [{"rule": table["rule"], **each} for table in tables for each in table["findings"]]
    return [each for place, each in enumerate(listed) if each not in listed[:place]]


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: f"{drift.rule} {drift.says[:60]}")
def test_a_drift_is_told_in_these_words(told: Told, drift: Drift) -> None:
    """Once, by one rule or detector, with what to do to the letter; in the text too."""
    if drift.difference:
        differences = told.before.table(drift.cell, drift.rule)["differences"]
        assert (drift.code, drift.says) in [(each["kind"], each["reason"]) for each in differences]
        assert drift.says in told.text
        return
    (finding,) = [
        each
        for each in _findings(told.before)
        if (each["rule"], each["code"], each["cell"]) == (drift.rule, drift.code, drift.cell)
        and each["message"] == drift.says
    ]
    assert drift.says in told.text
    if drift.way:
        way, _, where = drift.way.partition(" ")
        assert (finding["do"], finding["do_as"], finding["do_in"]) == (drift.do, way, where or None)
        assert drift.do in told.text


def test_nothing_else_is_told(told: Told) -> None:
    """What one drift gives, no other rule or detector tells again.

    But a clash: its rule names every row that it does not write, whatever a detector says of it.
    """
    expected = [(drift.rule, drift.code, drift.cell) for drift in DRIFTS if not drift.difference]
    assert sorted((each["rule"], each["code"], each["cell"]) for each in _findings(told.before)) == sorted(
        expected
    )
    assert told.before.code == 1


def test_statements_mend_what_they_are_given_for(told: Told) -> None:
    """Left are the commands, which need a running Nova, and what rules find: people decide there."""
    left = {each["code"] for each in _findings(told.after)}
    mended = {drift.code for drift in DRIFTS if drift.way.startswith(("sql", "words"))}
    mended.add("unique-clash")  # with the deleted flavor that has the id
    assert left == {drift.code for drift in DRIFTS if not drift.difference} - mended
    assert {drift.code for drift in DRIFTS if drift.way == "shell"} <= left


def test_every_detector_has_a_drift() -> None:
    """And no drift is left of one that is gone, or of a rule that is."""
    ruleset = rules.load(["nova-cells-v1"])
    planted = {drift.rule for drift in DRIFTS}
    assert {each.id for each in ruleset.detectors} <= planted <= {each.id for each in ruleset.named}
    assert {drift.code for drift in DRIFTS if drift.way} == {each.id for each in ruleset.detectors}


# -- Hosts, zones and services ------------------------------------------------------------------


def test_a_host_in_two_zones(mended: Deployment) -> None:
    """In the parent, in either spelling; then the copies in the child, which a repair only reports."""
    plant(
        mended,
        {
            "parent": [
                ("aggregate_hosts", {"id": 91, "aggregate_id": 1, "host": "compute-1-4"}),
                ("aggregate_metadata", {"aggregate_id": 4, "key": "availability_zone", "value": "az-plain"}),
                ("aggregate_hosts", {"id": 92, "aggregate_id": 4, "host": "parent!c1@compute-1-1"}),
            ]
        },
    )
    mended.repair()
    sql = (
        "UPDATE aggregate_hosts SET deleted = id, deleted_at = UTC_TIMESTAMP() WHERE id = {} AND deleted = 0"
    )
    says = "host {} is in the availability zones {} in parent, last by aggregate {}"
    assert found(mended, "host-in-two-zones") == [
        ("parent", says.format("compute-1-1", "az-east and az-plain", "plain"), sql.format(92)),
        ("parent", says.format("compute-1-4", "az-east and az-plain", "east"), sql.format(91)),
    ]
    mend(mended, "host-in-two-zones", rounds=2)


def test_a_host_that_differs_by_case(mended: Deployment) -> None:
    """The parent's spelling was pushed: both are wrong, and both are told."""
    plant(
        mended,
        {"parent": [("aggregate_hosts", {"id": 91, "aggregate_id": 5, "host": "parent!c1@Compute-1-5"})]},
    )
    mended.repair()
    ((number,),) = mended.sql("c1", "SELECT id FROM aggregate_hosts WHERE BINARY host = 'Compute-1-5'")
    says = "host {} of aggregate empty-az in {} runs as compute-1-5: the scheduler does not find it"
    sql = "UPDATE aggregate_hosts SET host = '{}' WHERE id = {} AND deleted = 0"
    assert found(mended, "host-differs-by-case") == [
        ("c1", says.format("Compute-1-5", "c1"), sql.format("compute-1-5", number)),
        ("parent", says.format("parent!c1@Compute-1-5", "parent"), sql.format("parent!c1@compute-1-5", 91)),
    ]
    mend(mended, "host-differs-by-case")
    assert mended.json("diff", "c1", "--rule", "aggregate-hosts").code == 0


def test_a_prefixed_host_beside_its_plain_name(mended: Deployment) -> None:
    """Where the plain name is there already, the row goes."""
    aggregate = "SELECT id FROM aggregates WHERE name = 'east' AND deleted = 0"
    ((number,),) = mended.sql("c1", aggregate)
    row = {"id": 91, "aggregate_id": number, "host": "parent!c1@compute-1-1"}
    plant(mended, {"c1": [("aggregate_hosts", row)]})
    assert len(found(mended, "prefixed-host")) == 1
    mend(mended, "prefixed-host")
    assert mended.sql("c1", "SELECT deleted FROM aggregate_hosts WHERE id = 91") == [(91,)]
    live = f"SELECT COUNT(*) FROM aggregate_hosts WHERE aggregate_id = {number} AND deleted = 0"
    assert mended.sql("c1", live) == [(3,)]


def test_a_fake_service_of_a_host_that_is_gone(mended: Deployment) -> None:
    """Rows of hosts that run are as they must be, plain or with the path of their cell."""
    services = (
        "compute-1-1",
        "parent!c2@compute-2-1",
        "parent!c1@compute-2-1",
        "compute-9-9",
        "parent!c1!c3@deep",
    )
    rows = [
        ("services", {"id": 90 + number, "host": host, "binary": "nova-compute", "report_count": 0})
        for number, host in enumerate(services)
    ]
    plant(mended, {"parent": rows})
    says = (
        "parent has a nova-compute on {}, which runs in no child: "
        "it lets requests for its zone through, and they fail"
    )
    sql = "UPDATE services SET deleted = id, deleted_at = UTC_TIMESTAMP() WHERE id = {} AND deleted = 0"
    assert found(mended, "fake-service") == [
        ("parent", says.format("compute-9-9"), sql.format(93)),
        ("parent", says.format("parent!c1@compute-2-1"), sql.format(92)),
    ]
    mend(mended, "fake-service")


def test_a_child_that_is_away_leaves_the_others_in_step(mended: Deployment) -> None:
    """Where there is nothing to ask it about, it had nothing to tell; else nobody says that all is well."""
    mended.sql("c1", "UPDATE migrate_version SET version = 319")
    assert mended.json("diff", "--rule", "fake-service").cell("c2")["status"] == "in_step"
    plant(mended, {"parent": [("services", {"host": "h", "binary": "nova-compute", "report_count": 0})]})
    (table,) = mended.json("diff", "--rule", "fake-service").cell("c2")["tables"]
    assert table["error"].startswith("running: c1 could not be asked: migrate_version is 302 in parent")


# -- Instances ----------------------------------------------------------------------------------


def test_an_instance_without_a_cell(cells: Deployment) -> None:
    """Where a child has it, its cell can be given back; the rule does not call it an orphan."""
    cells.sql("parent", f"UPDATE instances SET cell_name = NULL WHERE uuid = '{C1}'")
    message = (
        f"instance {C1} is in c1 on compute-1-2, but parent has no cell for it: "
        "its owner can do nothing with it"
    )
    do = (
        f"UPDATE instances SET cell_name = 'parent!c1' WHERE uuid = '{C1}' AND deleted = 0 "
        "AND COALESCE(cell_name, '') = ''"
    )
    assert found(cells, "instance-without-cell") == [("parent", message, do)]
    assert found(cells, "instance-in-no-cell") == []
    assert cells.json("diff", "--rule", "instances").findings() == []
    mend(cells, "instance-without-cell")
    assert cells.json("diff", "--rule", "instances").code == 0


def test_an_instance_that_no_cell_has(cells: Deployment) -> None:
    """After ten minutes; a build of just now is left alone."""
    uuids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)]
    old, now = ago(minutes=11), ago(minutes=9)
    plant(
        cells,
        {
            "parent": [
                ("instances", {"uuid": uuids[0], "created_at": old}),
                ("instances", {"uuid": uuids[1], "created_at": old, "cell_name": ""}),
                ("instances", {"uuid": uuids[2], "created_at": now}),
            ]
        },
    )
    says = "instance {} of {} has no cell in parent, and no child has it: it was never built"
    assert found(cells, "instance-in-no-cell") == [
        ("parent", says.format(uuid, old), f"nova delete {uuid}") for uuid in uuids[:2]
    ]
    assert found(cells, "instance-without-cell") == []


def test_a_task_that_never_ends(cells: Deployment) -> None:
    """After an hour; a task of just now is under way."""
    since = ago(hours=2)
    cells.sql(
        "c1", f"UPDATE instances SET task_state = 'deleting', updated_at = '{since}'".replace(":", "\\:")
    )
    cells.sql(
        "c2", f"UPDATE instances SET task_state = 'deleting', updated_at = '{ago()}'".replace(":", "\\:")
    )
    message = f"instance {C1} on compute-1-2 in c1 is active and has been deleting since {since}"
    assert found(cells, "stuck-task") == [("c1", message, f"nova reset-state --active {C1}")]


def _volume(number: int, uuid: str = C1, volume: str = "vol-1", **columns: Any) -> tuple[str, dict[str, Any]]:
    device = {
        "device_name": "/dev/vdb",
        "source_type": "volume",
        "destination_type": "volume",
        "boot_index": None,
    }
    return "block_device_mapping", {
        "id": number,
        "instance_uuid": uuid,
        "volume_id": volume,
        **device,
        **columns,
    }


def test_a_volume_that_only_the_parent_still_has(cells: Deployment) -> None:
    """Of another cell's instance nothing is said, nor of one that the child lacks: that is the rule's."""
    plant(cells, {"parent": [_volume(5), _volume(6, C2), _volume(7, "gone")], "c2": [_volume(9, C2)]})
    message = f"volume vol-1 of instance {C1} in parent is not in c1: it is no longer attached there"
    ((cell, said, do),) = found(cells, "volume-left-above")
    assert (cell, said) == ("parent", message)
    assert "WHERE id = 5 AND" in do
    mend(cells, "volume-left-above")


def test_reservations_that_never_expire(cells: Deployment) -> None:
    """What they hold is given back, as the scheduler of a deployment without cells does."""
    old = ago(hours=3)
    plant(
        cells,
        {
            "parent": [
                (
                    "quota_usages",
                    {"id": 1, "project_id": "p1", "resource": "cores", "in_use": 8, "reserved": 5},
                ),
                *(
                    ("reservations", {"uuid": f"r{number}", "usage_id": 1, "project_id": "p1", **row})
                    for number, row in enumerate(
                        (
                            {"delta": 2, "expire": old},
                            {"delta": -1, "expire": old},
                            {"delta": 3, "expire": ago(hours=-3)},
                        )
                    )
                ),
            ]
        },
    )
    ((cell, message, _),) = found(cells, "stale-reservations")
    assert cell == "parent"
    assert message == (
        f"project p1 has 2 reservations in parent that have expired since {old}: they count against its quota"
    )
    mend(cells, "stale-reservations")
    assert cells.sql("parent", "SELECT reserved FROM quota_usages") == [(3,)]
    assert cells.sql("parent", "SELECT delta FROM reservations WHERE deleted = 0") == [(3,)]

"""What the detectors of the pack nova-api find, in which words, and that their SQL mends it."""

from __future__ import annotations

import nova_api
import pytest
import sqlalchemy as sa
from drifts import API_DRIFTS
from edges import MakeDatabase, Stand, add, execute, result, table
from servers import load

from cellsync import rules

Found = tuple[str, str, str]
"""The cell whose rows are wrong, what is wrong, and what to do."""


@pytest.fixture
def regions(database: MakeDatabase) -> Stand:
    """Give a parent and a child that are in step: two zones, and hosts h1 and h2 of the child."""
    urls = {name: database() for name in ("api", "c1")}
    for url in urls.values():
        nova_api.make(url)
        add(url, "aggregates", *({"id": n, "name": f"a{n}", "uuid": f"u{n}"} for n in (1, 2, 3)))
        for number, zone in ((1, "az-1"), (2, "az-2")):
            row = {"aggregate_id": number, "key": "availability_zone", "value": zone}
            add(url, "aggregate_metadata", row)
        add(url, "aggregate_hosts", *({"id": n, "aggregate_id": n, "host": f"h{n}"} for n in (1, 2)))
    add(urls["c1"], "cell_mappings", {"id": 1, "uuid": "u-cell"})
    add(urls["c1"], "host_mappings", *({"cell_id": 1, "host": f"h{n}"} for n in (1, 2)))
    return Stand(urls, rules.load(["nova-api"]))


def found(regions: Stand, detector: str) -> list[Found]:
    """Return what a detector finds; it must not be incomplete."""
    findings = table(regions.diff(), "c1", detector).findings
    assert all(each.do is not None for each in findings)
    return [(each.cell, each.message, each.do.text if each.do else "") for each in findings]


def mend(regions: Stand, detector: str) -> None:
    """Run the SQL of what is found, and hold that nothing is found any more."""
    remedies = found(regions, detector)
    assert remedies
    for cell, _, statements in remedies:
        load(sa.make_url(regions.urls[cell]), statements)
    assert found(regions, detector) == []


def test_two_regions_in_step_have_no_findings(regions: Stand) -> None:
    """No detector invents anything, and all of them could look."""
    report = regions.diff()
    assert report.exit_code == 0
    assert len(result(report, "c1").tables) == len(rules.load(["nova-api"]).rules) + 4


def test_every_drift_is_told_once_and_in_these_words(regions: Stand) -> None:
    """All together; an aggregate without a zone is no zone. What is SQL is run, and the finding is gone."""
    for drift in API_DRIFTS:
        for cell, statements in drift.plant.items():
            execute(regions.urls[cell], *statements)
    tables = result(regions.diff(), "c1").tables
    said = [
        (each.rule, finding.code, finding.cell, finding.message, finding.do)
        for each in tables
        for finding in each.findings
    ]
    expected = [(drift.rule, drift.code, drift.cell, drift.says, drift.remedy) for drift in API_DRIFTS]
    assert sorted(said, key=str) == sorted(expected, key=str)
    for drift in API_DRIFTS:
        if drift.way.startswith("sql"):
            mend(regions, drift.rule)


def test_every_detector_has_a_drift() -> None:
    """And no drift is left of one that is gone, or of a rule that is."""
    ruleset = rules.load(["nova-api"])
    planted = {drift.rule for drift in API_DRIFTS}
    assert {each.id for each in ruleset.detectors} <= planted <= {each.id for each in ruleset.named}


def test_a_host_in_two_zones_of_the_parent_is_said_once(regions: Stand) -> None:
    """Plain or with its path, not again of the child that has copied both, and only if it is a child's."""
    for url in regions.urls.values():
        add(url, "aggregate_hosts", {"aggregate_id": 2, "host": "h1"})
    add(regions.urls["api"], "aggregate_hosts", {"aggregate_id": 1, "host": "api!c1@h2"})
    add(regions.urls["api"], "aggregate_hosts", *({"aggregate_id": n, "host": "api!c9@h7"} for n in (1, 2)))
    assert found(regions, "host-in-two-zones") == [
        (
            "api",
            "host h1 is in the availability zones az-1 and az-2 in api, last by aggregate a2",
            "openstack aggregate remove host a2 h1",
        ),
        (
            "api",
            "host api!c1@h2 is in the availability zones az-1 and az-2 in api, last by aggregate a1",
            "openstack aggregate remove host a1 'api!c1@h2'",
        ),
    ]


@pytest.mark.parametrize("number", [1, 2], ids=["beside the plain name", "instead of the plain name"])
def test_a_host_with_its_path_in_the_child(regions: Stand, number: int) -> None:
    """It becomes plain, or goes where the plain name is there already."""
    execute(
        regions.urls["c1"],
        f"INSERT INTO aggregate_hosts (id, aggregate_id, host) VALUES (9, {number}, 'api!c1@h1')",
    )
    ((cell, message, _),) = found(regions, "prefixed-host")
    assert (cell, message) == (
        "c1",
        f"host api!c1@h1 of aggregate a{number} in c1 has the path of a cell: the scheduler knows it as h1",
    )
    mend(regions, "prefixed-host")


def test_two_aggregates_of_one_uuid(regions: Stand) -> None:
    """As after a rename in the parent of what cellsync has not pushed: a repair inserts the new name."""
    execute(regions.urls["api"], "UPDATE aggregates SET name = 'renamed' WHERE id = 3")
    assert regions.repair("r1").exit_code == 1
    assert found(regions, "aggregate-uuid-twice") == [
        (
            "c1",
            "aggregates a3 and renamed of c1 have one uuid, u3: placement takes them for one",
            "take the hosts out of a3 in c1 and delete it there, then run nova-manage placement "
            "sync_aggregates",
        )
    ]


def test_a_rename_of_what_was_pushed_is_a_rename(regions: Stand) -> None:
    """cellsync remembers its rows: no second aggregate of the uuid comes about."""
    add(regions.urls["api"], "aggregates", {"id": 4, "name": "a4", "uuid": "u4"})
    regions.repair("r1")
    execute(regions.urls["api"], "UPDATE aggregates SET name = 'renamed' WHERE id = 4")
    assert regions.repair("r2").exit_code == 0
    assert found(regions, "aggregate-uuid-twice") == []
    assert regions.diff().exit_code == 0

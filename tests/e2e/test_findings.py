"""What no push mends is named, with what to do; every other row goes on; exit 1."""

from __future__ import annotations

import nova
import pytest
from deployment import Deployment

pytestmark = pytest.mark.usefixtures("compared_by")


def _finding(cells: Deployment, rule: str, code: str) -> list[tuple[str, str]]:
    """Repair, hold that all but the odd rows were written, and return (cell, message) of a code."""
    done = cells.repair()
    assert done.code == 1, done.said
    for cell in done.report["cells"]:
        assert cell["changes"]["conflicts"] == cell["changes"]["failed"] == 0
        assert cell["changes"]["applied"] == cell["changes"]["planned"] >= 20
    found = [(cell, message) for cell, each, message in done.findings(rule) if each == code]
    text = cells.run("diff")
    assert text.code == 1
    assert found and all(message[:40] in text.out for _, message in found)
    again = cells.repair()
    assert again.code == 1
    assert [cell["changes"]["planned"] for cell in again.report["cells"]] == [0, 0]
    return found


def test_a_host_that_no_child_has_is_an_orphan(cells: Deployment) -> None:
    """Plain or with the path of a cell that is not there; neither is written anywhere."""
    cells.sql("parent", nova.insert("aggregate_hosts", {"aggregate_id": 1, "host": "compute-9-9"}))
    cells.sql("parent", nova.insert("aggregate_hosts", {"aggregate_id": 1, "host": "parent!c9@compute-9-1"}))
    found = _finding(cells, "aggregate-hosts", "orphan")
    for host in ("compute-9-9", "parent!c9@compute-9-1"):
        assert any(host in message and "no child" in message for _, message in found)
    for child in nova.CHILDREN:
        assert cells.sql(child, "SELECT * FROM aggregate_hosts WHERE host LIKE '%9'") == []


def test_a_host_that_two_children_have_is_ambiguous(cells: Deployment) -> None:
    """Both are named; the host goes to neither."""
    twin = {"host": "compute-1-4", "binary": "nova-compute", "topic": "compute", "report_count": 1}
    cells.sql("c2", nova.insert("services", twin))
    found = _finding(cells, "aggregate-hosts", "ambiguous")
    assert all("c1 and c2" in message and "compute-1-4" in message for _, message in found)
    for child in nova.CHILDREN:
        assert cells.sql(child, "SELECT * FROM aggregate_hosts WHERE host = 'compute-1-4'") == []


def test_a_row_with_deleted_null_is_found_on_either_side(cells: Deployment) -> None:
    """Nova does not see it and unique keys do not hold for it: named where it is, and left alone."""
    cells.sql("parent", nova.insert("aggregates", {"id": 60, "name": "limbo-above", "deleted": None}))
    cells.sql("c2", nova.insert("aggregates", {"id": 61, "name": "east", "deleted": None}))
    found = _finding(cells, "aggregates", "deleted-is-null")
    assert any("id 60 in parent" in message for _, message in found)
    assert any(cell == "c2" and "id 61 in c2" in message for cell, message in found)
    assert cells.sql("c1", "SELECT * FROM aggregates WHERE name = 'limbo-above'") == []
    # The row in limbo is not the aggregate: a live one was made beside it.
    assert cells.sql("c2", "SELECT COUNT(*) FROM aggregates WHERE name = 'east' AND deleted = 0") == [(1,)]
    assert cells.sql("c2", "SELECT deleted FROM aggregates WHERE id = 61") == [(None,)]


def test_two_spellings_of_one_key_are_never_both_inserted(cells: Deployment) -> None:
    """'East' and 'east' are one key to the collation: a finding; what refers to it waits too."""
    cells.sql("c2", nova.insert("aggregates", {"id": 62, "name": "East"}))
    found = _finding(cells, "aggregates", "collation-twin")
    assert [cell for cell, _ in found] == ["c2"]
    assert "East" in found[0][1] and "east" in found[0][1]
    assert cells.sql("c2", "SELECT id FROM aggregates WHERE name = 'east'") == [(62,)]
    assert cells.sql("c2", "SELECT * FROM aggregate_metadata WHERE aggregate_id = 62") == []
    skipped = cells.json("repair", "--dry-run").cell("c2")["skipped"]
    assert {(each["rule"], each["key"]["aggregate_id"]) for each in skipped} == {
        ("aggregate-metadata", "east")
    }


def test_a_preserved_id_that_is_taken_is_not_overwritten(cells: Deployment) -> None:
    """A flavor's id means the flavor in every cell: taken by another flavor, it is a finding."""
    cells.sql("c1", nova.insert("instance_types", nova.flavor(6, "own.small", "own-s")))
    cells.sql("c2", nova.insert("instance_types", nova.flavor(66, "priv.large", "prv-l", is_public=0)))
    found = _finding(cells, "flavors", "preserved-id")
    in_cell = dict(found)
    assert "c1s" in in_cell["c1"] and "own-s" in in_cell["c1"]
    assert "prv-l" in in_cell["c2"] and "66" in in_cell["c2"]
    assert cells.sql("c1", "SELECT name FROM instance_types WHERE id = 6") == [("own.small",)]
    assert cells.sql("c1", "SELECT id FROM instance_types WHERE flavorid = 'c1s'") == []
    assert cells.sql("c1", "SELECT * FROM instance_type_extra_specs WHERE instance_type_id = 6") == []
    assert cells.sql("c2", "SELECT id FROM instance_types WHERE flavorid = 'prv-l'") == [(66,)]


def test_a_reference_that_leads_nowhere_is_found(cells: Deployment) -> None:
    """Metadata of a deleted aggregate is named with the id it holds, and is not dropped by a join."""
    row = {"aggregate_id": 6, "key": "left", "value": "over"}
    cells.sql("parent", nova.insert("aggregate_metadata", row))
    found = _finding(cells, "aggregate-metadata", "dangling-reference")
    assert all("id 6 (deleted)" in message for _, message in found)
    for child in nova.CHILDREN:
        assert cells.sql(child, "SELECT * FROM aggregate_metadata WHERE `key` = 'left'") == []

"""Nova's own code lists and shows in the API cell an instance that cellsync pushed there, and not before."""

from __future__ import annotations

from asking import Cells, Topology

LOST = "0a51c0de-0000-4000-8000-000000000001"
KNOWN = "0b51c0de-0000-4000-8000-000000000002"


def test_an_instance_is_listed_and_shown_above_after_a_repair(
    mitaka_cells: Cells, topology: Topology
) -> None:
    """Whole: its owner, flavor, addresses, volumes, metadata; an undo takes all of it away again."""
    parent, c1 = mitaka_cells["parent"], mitaka_cells["c1"]
    for uuid, cells in ((KNOWN, (parent, c1)), (LOST, (c1,))):
        for cell in cells:
            given = {
                "address": "10.0.0.7",
                "volume": f"v-{uuid[:2]}",
                "metadata": {"role": "db", "Role": "DB"},
            }
            cell.ask("create_instance", uuid=uuid, **given)
    cells = topology({name: cell.main for name, cell in mitaka_cells.items()}, "nova-cells-v1", "./mine.yaml")
    cells.sql("parent", "UPDATE instances SET cell_name = 'parent!c1'")
    (cells.folder / "mine.yaml").write_text(
        "pack: mine\nchanges: {instances: {on_missing: insert}}\n", encoding="utf-8"
    )
    before = cells.checksums()

    assert c1.ask("list_instances") == [LOST, KNOWN]
    assert parent.ask("list_instances") == [KNOWN]
    assert parent.refusal("show_instance", uuid=LOST) == "InstanceNotFound"

    done = cells.process("repair", "--yes", "--rule", "instances")
    assert done.code == 0, done.said
    assert parent.ask("list_instances") == [LOST, KNOWN]
    assert parent.ask("list_instances_of_flavor", flavor=2) == [LOST, KNOWN]
    shown = parent.ask("show_instance", uuid=LOST)
    assert shown == {**c1.ask("show_instance", uuid=LOST), "cell_name": "parent!c1"}
    assert (shown["status"], shown["addresses"], shown["volumes"]) == ("ACTIVE", ["10.0.0.7"], ["v-0a"])
    assert shown["metadata"] == {"role": "db", "Role": "DB"}
    assert (shown["flavor"], shown["extra_specs"]) == ("m1.small", {"hw:cpu_policy": "dedicated"})
    assert cells.sql("parent", "SELECT COUNT(*) FROM block_device_mapping WHERE connection_info IS NULL") == [
        (1,)
    ]

    undone = cells.process("undo", cells.last_run(), "--yes")
    assert undone.code == 0, undone.said
    assert parent.ask("list_instances") == [KNOWN]
    assert parent.refusal("show_instance", uuid=LOST) == "InstanceNotFound"
    assert cells.checksums() == before


def test_what_nova_does_with_a_pushed_instance_stays_done(mitaka_cells: Cells, topology: Topology) -> None:
    """It deletes it in the API cell; the next repair says so, and does not bring it back."""
    parent, c1 = mitaka_cells["parent"], mitaka_cells["c1"]
    c1.ask("create_instance", uuid=LOST, address="10.0.0.7", volume="v-1", metadata={})
    cells = topology({name: cell.main for name, cell in mitaka_cells.items()}, "nova-cells-v1", "./mine.yaml")
    (cells.folder / "mine.yaml").write_text(
        "pack: mine\nchanges: {instances: {on_missing: insert}}\n", encoding="utf-8"
    )
    assert cells.process("repair", "--yes", "--rule", "instances").code == 0
    parent.ask("delete_instance", uuid=LOST)
    assert parent.ask("list_instances") == []
    again = cells.process("repair", "--yes", "--rule", "instances")
    assert again.code == 1, again.said
    assert "parent deleted it at 20" in again.out
    assert "so it is not brought back" in again.out
    assert parent.ask("list_instances") == []

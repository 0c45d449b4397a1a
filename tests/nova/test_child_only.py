"""Aggregates that only a child has, as at NeCTAR: Nova finds them there whatever cellsync has done."""

from __future__ import annotations

from asking import Cells, Topology


def test_a_zone_of_the_childs_own_is_there_before_and_after(mitaka_cells: Cells, topology: Topology) -> None:
    """Beside the parent's zone, which comes and goes; and by host and metadata, as schedulers look."""
    parent, c1 = mitaka_cells["parent"], mitaka_cells["c1"]
    for host in ("h1", "h2"):
        c1.ask("create_service", host=host)
    own = {"name": "own", "metadata": {"availability_zone": "az-own", "ssd": "true"}, "hosts": ["h2"]}
    c1.ask("mitaka.create_aggregate", **own)
    parent.ask(
        "mitaka.create_aggregate",
        name="east",
        metadata={"availability_zone": "az-east"},
        hosts=["parent!c1@h1"],
    )
    cells = topology({name: cell.main for name, cell in mitaka_cells.items()}, "nova-cells-v1")

    def has_its_own() -> bool:
        zones = c1.ask("zones")
        found = c1.ask("aggregates_by_metadata", key="ssd", value="true")
        return (
            zones["az-own"] == ["h2"]
            and found == ["own"]
            and c1.ask("aggregates_by_host", host="h2") == [own]
        )

    assert has_its_own()
    done = cells.process("repair", "--yes")
    assert done.code == 1, done.said  # what is only below is reported
    assert c1.ask("zones") == {"az-east": ["h1"], "az-own": ["h2"]}
    assert has_its_own()
    undone = cells.process("undo", cells.last_run(), "--yes")
    assert undone.code == 0, undone.said
    assert c1.ask("zones") == {"az-own": ["h2"], "nova": ["h1"]}
    assert has_its_own()

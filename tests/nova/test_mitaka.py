"""Nova's own code sees in a child what cellsync pushed there, and not before: the databases of cells v1."""

from __future__ import annotations

from asking import Cells, Topology


def test_a_zone_is_there_after_a_repair_and_gone_after_an_undo(
    mitaka_cells: Cells, topology: Topology
) -> None:
    """Which is what cellsync is for."""
    parent, c1 = mitaka_cells["parent"], mitaka_cells["c1"]
    for host in ("h1", "h2"):
        c1.ask("create_service", host=host)
    parent.ask(
        "mitaka.create_aggregate",
        name="east",
        metadata={"availability_zone": "az-east"},
        hosts=["parent!c1@h1"],
    )
    cells = topology({name: cell.main for name, cell in mitaka_cells.items()}, "nova-cells-v1")
    before = cells.checksums()
    assert c1.ask("zones") == {"nova": ["h1", "h2"]}
    done = cells.process("repair", "--yes")
    assert done.code == 0, done.said
    assert c1.ask("zones") == {"az-east": ["h1"], "nova": ["h2"]}
    undone = cells.process("undo", cells.last_run(), "--yes")
    assert undone.code == 0, undone.said
    assert c1.ask("zones") == {"nova": ["h1", "h2"]}
    assert cells.checksums() == before

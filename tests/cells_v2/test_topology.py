"""The topology of a real cells v2 deployment is read from cell_mappings."""

from __future__ import annotations

from pathlib import Path

from lab import Lab

OWN = """
pack: own
rules:
  - {id: key-pairs, table: key_pairs, key: [user_id, name]}
"""


def test_the_cells_are_those_of_nova_api(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    cloud = lab.cellsync(tmp_path, rules=["./own.yaml"])
    done = cloud.json("diff")
    assert [cell["cell"] for cell in done.report["cells"]] == ["cell0", "c1", "c2", "c3"], done.said
    assert done.code == 0

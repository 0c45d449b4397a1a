"""What is installed: all that stands in the tree, and the packs, from the tree and from its archive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def setup(folder: Path, *commands: str) -> None:
    """Run setup.py in a folder; it asks no network."""
    subprocess.run([sys.executable, "setup.py", "-q", *commands], cwd=folder, check=True, capture_output=True)


def files(folder: Path) -> Sequence[str]:
    """Return the files below a folder, without what Python makes of them."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if "__pycache__" not in path.parts)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Unpack what the source distribution holds."""
    setup(ROOT, "egg_info", "--egg-base", str(tmp_path), "sdist", "--dist-dir", str(tmp_path / "dist"))
    [packed] = (tmp_path / "dist").iterdir()
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", packed, "-C", tmp_path / "unpacked"], check=True)
    [folder] = (tmp_path / "unpacked").iterdir()
    return folder


@pytest.mark.parametrize("source", ["tree", "archive"])
def test_all_of_the_package_is_installed(source: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Every file of it, templates and styles too, and every pack of rules/."""
    folder = ROOT if source == "tree" else request.getfixturevalue("archive")
    setup(folder, "build", "--build-base", str(tmp_path / "base"), "--build-lib", str(tmp_path / "lib"))
    packs = [f"packs/{path.name}" for path in (ROOT / "rules").glob("*.yaml")]
    wanted = sorted([*files(ROOT / "cellsync"), *packs])
    assert files(tmp_path / "lib" / "cellsync") == wanted
    for name in ("page.html", "page.css", "page.js", "course.html"):
        assert f"report/{name}" in wanted
    assert "packs/nova-cells-v1.yaml" in wanted and "py.typed" in wanted

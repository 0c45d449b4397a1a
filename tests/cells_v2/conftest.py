"""Fixtures: a cells v2 deployment that Nova made (``lab``), and cellsync on it (``cloud``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lab as labs
import pytest
from deployment import Deployment
from servers import Server


@pytest.fixture(scope="session")
def _lab(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[labs.Lab]:
    with labs.made(server, tmp_path_factory.mktemp("cells_v2")) as made:
        yield made


@pytest.fixture
def lab(_lab: labs.Lab) -> Iterator[labs.Lab]:
    """Give the deployment with nothing wrong in it; what a test does to it is undone."""
    yield _lab
    _lab.restore()


@pytest.fixture
def cloud(lab: labs.Lab, tmp_path: Path) -> Deployment:
    """Give the cell file of the deployment, with the pack nova-cells-v2."""
    return lab.cellsync(tmp_path)

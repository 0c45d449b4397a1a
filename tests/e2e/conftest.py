"""Fixtures: deployments that are out of step as real ones are (``nova``).

``deploy``  makes one: ``deploy()``, ``deploy(servers={...}, variant=...)``
``cells``   the ordinary one: three schemas on one server
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import nova
import pytest
from deployment import Deploy, Deployment
from servers import AnyServer

_numbers = itertools.count(1)


@pytest.fixture
def deploy(database: Callable[..., str], tmp_path: Path) -> Deploy:
    """Make three databases and their cell file, on one server unless ``servers`` are given."""

    def deploy(
        *, servers: Mapping[str, AnyServer] | None = None, variant: nova.Variant = nova.LIBERTY
    ) -> Deployment:
        number = next(_numbers)
        urls = {}
        for cell in nova.CELLS:
            where = servers[cell] if servers else None
            urls[cell] = database(where, name=f"e2e{number}_{cell}", charset="utf8mb3")
            nova.fill(urls[cell], cell=cell, variant=variant)
        return Deployment(urls=urls, folder=tmp_path).configure()

    return deploy


@pytest.fixture
def cells(deploy: Deploy) -> Deployment:
    """Three schemas on one server; nothing differs that a repair does not write, but local-only."""
    return deploy()

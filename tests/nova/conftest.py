"""Fixtures: a parent and a child whose databases have the schemas that nova-manage makes.

``nova_cells``    both databases of each, as Nova has them today: {"parent": ..., "c1": ...}
``mitaka_cells``  the same with main databases as Mitaka had them, which `mitaka` explains

``trial``         one of both with the pack that is for it; a test that takes it runs with each

``topology``      writes a cellsync.yaml for some of them and a pack, and gives what runs cellsync

Each test finds the databases empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asking
import mitaka
import pytest
import servers
from asking import Cells, Judge, NovaCell, Schemas, Topology, Trial
from deployment import Deployment
from servers import Server, sql

CELLS = ("parent", "c1")
PACKS = {"nova-cells-v1": "mitaka_cells", "nova-api": "nova_cells"}
"""A pack -> the fixture of the cells that it is for."""


@pytest.fixture(scope="session")
def judge() -> Iterator[Judge]:
    """Start Nova once."""
    with asking.judge() as process:
        yield process


@pytest.fixture(scope="session")
def schemas(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Schemas:
    """Have nova-manage make its schemas once."""
    return asking.made_by_nova(server, tmp_path_factory.mktemp("nova-manage"))


@contextmanager
def _cells(
    server: Server, judge: Judge, folder: Path, era: str, fill: Callable[[str, str], None]
) -> Iterator[Cells]:
    with ExitStack() as leaving:

        def database(name: str) -> str:
            return leaving.enter_context(servers.database(server, name=f"{era}_{name}", charset="utf8mb3"))

        cells = {}
        for name in CELLS:
            api, main = database(f"{name}_api"), database(f"{name}_main")
            fill(api, main)
            conf = asking.write_conf(folder, name, api=api, main=main)
            cells[name] = NovaCell(name=name, api=api, main=main, conf=conf, judge=judge)
        yield cells


@pytest.fixture(scope="session")
def _nova_cells(
    server: Server, judge: Judge, schemas: Schemas, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cells]:
    def fill(api: str, main: str) -> None:
        for url, tables, version in ((api, schemas.api, "api"), (main, schemas.main, "main")):
            asking.make(url, tables)
            sql(url, "INSERT INTO alembic_version VALUES (:version)", version=schemas.versions[version])

    with _cells(server, judge, tmp_path_factory.mktemp("nova"), "nova", fill) as cells:
        yield cells


@pytest.fixture(scope="session")
def _mitaka_cells(
    server: Server, judge: Judge, schemas: Schemas, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cells]:
    def fill(api: str, main: str) -> None:
        asking.make(main, mitaka.tables(schemas.main))
        asking.make(api, mitaka.views(main))

    with _cells(server, judge, tmp_path_factory.mktemp("mitaka"), "mitaka", fill) as cells:
        yield cells


@pytest.fixture
def nova_cells(_nova_cells: Cells) -> Iterator[Cells]:
    """Give empty databases of today's Nova."""
    yield _nova_cells
    _clear(_nova_cells)


@pytest.fixture
def mitaka_cells(_mitaka_cells: Cells) -> Iterator[Cells]:
    """Give empty databases of Mitaka's, which today's Nova reads through views."""
    yield _mitaka_cells
    _clear(_mitaka_cells)


@pytest.fixture(params=PACKS)
def trial(request: pytest.FixtureRequest) -> Trial:
    """Give empty databases and the pack that is for them, one pack after the other."""
    return Trial(pack=request.param, cells=request.getfixturevalue(PACKS[request.param]))


def _clear(cells: Cells) -> None:
    for cell in cells.values():
        asking.clear(cell.api)
        asking.clear(cell.main)
        sql(cell.main, "DROP DATABASE IF EXISTS cellsync")


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """Write a cellsync.yaml for these databases and a pack; give what runs commands on it."""

    def topology(urls: Mapping[str, str], *rules: str) -> Deployment:
        return Deployment(urls=urls, folder=tmp_path, rules=rules).configure()

    return topology

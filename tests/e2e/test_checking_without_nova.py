"""A fleet without Nova's tables: a dead child is the only one of which something bad is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from deployment import Deployment
from edges import add, execute
from servers import PrivateServer, Server, sql

CHILDREN = tuple(f"shop-{number}" for number in range(1, 9))
DEAD = "shop-3"
CREATE = "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9))"


@pytest.fixture
def fleet(
    database: Callable[..., str],
    servers: Mapping[str, Server],
    throwaway_server: PrivateServer,
    tmp_path: Path,
) -> Deployment:
    """A parent and eight children on several servers; that of one of them can be stopped."""
    sql(throwaway_server.url(), "CREATE DATABASE shop")
    private = throwaway_server.url("shop").render_as_string(hide_password=False)
    urls = {"head": database(servers["parent"])}
    for number, name in enumerate(CHILDREN):
        shared = servers[("parent", "c1", "c2")[number % 3]]
        urls[name] = private if name == DEAD else database(shared)
    for url in urls.values():
        execute(url, CREATE)
        add(url, "t", {"name": "a"})
    return Deployment(urls=urls, folder=tmp_path).rule_file("rules: [{table: t, key: [name]}]")


def test_a_check_names_the_one_dead_child_and_nothing_of_nova(
    fleet: Deployment, throwaway_server: PrivateServer
) -> None:
    """Neither a broker nor a table of cells is missed where no database has one."""
    well = fleet.run("cells", "check", "--timeout", "5")
    assert (well.code, well.out.splitlines()[0]) == (0, "every database answers")
    throwaway_server.stop()
    done = fleet.run("cells", "check", "--timeout", "5")
    assert (done.code, done.out.splitlines()[0]) == (4, f"{DEAD}: not everything answers"), done.out
    assert not re.search(r"nova|broker|table cells|cells list", done.out + done.err, re.IGNORECASE), done.out
    report = fleet.json("cells", "check", "--timeout", "5").report
    assert [cell["cell"] for cell in report["cells"] if cell["database"]["status"] != "ok"] == [DEAD]
    assert not any(cell["broker"] or cell["broker_unknown"] for cell in report["cells"])


def test_a_check_of_a_fleet_whose_parent_is_dead_names_the_parent(fleet: Deployment) -> None:
    """What the children say is enough to know that there is no Nova."""
    urls = {**fleet.urls, "head": re.sub(r":\d+/", ":1/", fleet.urls["head"])}
    done = fleet.configure(urls=urls).run("cells", "check", "--timeout", "5")
    assert (done.code, done.out.splitlines()[0]) == (4, "head: not everything answers"), done.out
    assert "broker" not in done.out


def test_the_headline_of_a_report_names_the_one_dead_child(
    fleet: Deployment, throwaway_server: PrivateServer
) -> None:
    """Text, page and JSON; what a reader does first is about that child alone."""
    throwaway_server.stop()
    done = fleet.run("report", "--timeout", "5", "--format", "text")
    assert done.code == 4
    headline = f"1 of 8 cells could not be compared ({DEAD}); 7 of 8 cells are in step with head"
    outage = f"the database does not answer in {DEAD}"
    assert done.out.splitlines()[:2] == [f"outage: {outage}", headline]
    assert not re.search(r"nova|broker|cells list", done.out, re.IGNORECASE), done.out
    page = fleet.folder / "page.html"
    assert fleet.run("report", "-o", str(page), "--timeout", "5").code == 4
    text = page.read_text(encoding="utf-8")
    assert f"{outage}<" in text
    first = fleet.json("report", "--timeout", "5").report["do_first"]
    assert [each["command"] for each in first] == [f"cellsync cells check {DEAD}"]

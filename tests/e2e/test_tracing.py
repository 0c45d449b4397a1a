"""trace: for every way in which the path to a child can break, the first broken hop and what to do."""

from __future__ import annotations

import contextlib
import http.server
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import amqp
import pytest
from deployment import Deployment, Done
from listening import nova_cells
from rabbitmq import PASSWORD, RabbitMQ, free_port
from registered import alive, as_row, configured, registered

HOPS = [
    *("parent-database", "parent-services", "child-row", "child-broker", "child-services"),
    *("parent-row", "child-database", "schema", "rows"),
]
NOWHERE = "mysql+pymysql://u:p@127.0.0.1:1/nova"


@dataclass(frozen=True)
class Path:
    """A sound path from the parent to c2, and what it is made of."""

    cells: Deployment
    rabbit: RabbitMQ
    other: RabbitMQ

    def trace(self, *options: str) -> Done:
        """Trace it."""
        return self.cells.run("trace", "c2", "--timeout", "1", "--format", "json", *options)

    def row(self, cell: str, url: str) -> None:
        """Change where the live rows of a cell lead."""
        self.cells.sql(cell, "UPDATE cells SET transport_url = :broker WHERE deleted = 0", broker=as_row(url))

    def configure(self, **changed: dict[str, Any]) -> None:
        """Write the cell file with the parent's broker, and these changes."""
        parent = {"broker": self.rabbit.url("parent"), **changed.pop("parent", {})}
        configured(self.cells, parent=parent, **changed)


@pytest.fixture
def path(cells: Deployment, rabbit: RabbitMQ, other_rabbit: RabbitMQ) -> Iterator[Path]:
    """Give two cells in step, registered, with living services and nova-cells at their brokers."""
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": other_rabbit.url("c2")}
    made = Path(registered(cells, urls), rabbit, other_rabbit)
    cells.sql("c2", "DELETE FROM aggregate_hosts WHERE aggregate_id = 1")
    cells.sql("c2", "DELETE FROM aggregate_metadata WHERE aggregate_id = 1")
    cells.sql("c2", "DELETE FROM aggregates WHERE id = 1")
    assert cells.repair("c2").code in (0, 1)
    made.configure()
    with nova_cells(rabbit, "parent"), nova_cells(rabbit, "c1"), nova_cells(other_rabbit, "c2"):
        yield made


def hops(done: Done) -> dict[str, str]:
    """Return hop -> status."""
    return {hop["hop"]: hop["status"] for hop in done.report["hops"]}


def test_a_sound_path_is_sound_in_every_hop(path: Path) -> None:
    """Exit code 0; each hop with its evidence."""
    done = path.trace()
    assert (done.report["child"], done.report["first_broken"]) == ("c2", None), done.out
    assert hops(done) == dict.fromkeys(HOPS, "ok")
    assert (done.code, done.report["exit_code"]) == (0, 0)
    assert all(hop["evidence"] for hop in done.report["hops"])
    assert path.cells.run("--quiet", "trace", "c2").said == ""
    assert "parent to c2: every hop is sound" in path.cells.run("trace", "c2").out


def _parent_down(path: Path) -> None:
    configured(path.cells, parent={"database": NOWHERE, "broker": path.rabbit.url("parent")})


def _child_down(path: Path) -> None:
    path.configure(c2={"database": NOWHERE})


def _wrong_side(path: Path) -> None:
    path.row("parent", path.rabbit.url("parent"))


def _wrong_side_below(path: Path) -> None:
    path.row("c2", path.other.url("c2"))


def _auth(path: Path) -> None:
    path.row("parent", path.other.url("c2", password="hunter2"))


def _stale(cell: str, service: str) -> Callable[[Path], None]:
    return lambda path: alive(path.cells, cell, service, ago=3600)


def _sql(cell: str, statement: str) -> Callable[[Path], None]:
    return lambda path: path.cells.sql(cell, statement) and None


BREAKAGES: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {
    "the parent's database is down": (_parent_down, "parent-database", "cannot connect", "start MariaDB"),
    "nova-cells of the parent is stale": (
        _stale("parent", "nova-cells"),
        "parent-services",
        "nova-cells on controller last seen 60 min ago",
        "without it no request reaches a cell",
    ),
    "nova-cells never ran in the parent": (
        _sql("parent", "DELETE FROM services WHERE `binary` = 'nova-cells'"),
        "parent-services",
        "no nova-cells has ever been seen in services",
        "start it",
    ),
    "the parent has no row for the child": (
        _sql("parent", "DELETE FROM cells WHERE name = 'c2'"),
        "child-row",
        "parent has no row for c2",
        "cellsync cells create c2 --side parent",
    ),
    "the child is isolated": (
        _sql("parent", "UPDATE cells SET deleted = id, deleted_at = UTC_TIMESTAMP() WHERE name = 'c2'"),
        "child-row",
        "c2 is isolated",
        "cellsync cells restore c2",
    ),
    "the row leads back to the parent": (
        _wrong_side,
        "child-row",
        "leads to the broker of parent itself",
        "cellsync cells delete c2 --side parent",
    ),
    "the row's name differs by case": (
        _sql("parent", "UPDATE cells SET name = 'C2' WHERE name = 'c2'"),
        "child-row",
        "a row for C2, which is not c2",
        "mend the name",
    ),
    "the broker is dead": (
        lambda path: path.other.kill(),
        "child-broker",
        "refused: nothing listens there",
        "cellsync cells isolate c2 now",
    ),
    "the broker is stopped": (
        lambda path: path.other.signal(signal.SIGSTOP),
        "child-broker",
        "timeout: no answer within",
        "isolate c2",
    ),
    "the broker is blocked": (
        lambda path: path.other.block(),
        "child-broker",
        "blocked: it lets us in and takes no messages",
        "isolate c2",
    ),
    "the broker refuses the login": (_auth, "child-broker", "auth: ACCESS_REFUSED", "mend the broker"),
    "the virtual host is not there": (
        lambda path: path.row("parent", path.other.url("nowhere")),
        "child-broker",
        "vhost",
        "mend the broker",
    ),
    "nova-cells of the child is stale": (
        _stale("c2", "nova-cells"),
        "child-services",
        "nova-cells on controller last seen",
        "no request from the parent",
    ),
    "the scheduler is stale": (
        _stale("c2", "nova-scheduler"),
        "child-services",
        "nova-scheduler on controller last seen",
        "no instance can be built",
    ),
    "all hosts are stale": (
        _stale("c2", "nova-compute"),
        "child-services",
        "nova-compute on compute-2-1 last seen 60 min ago (more than 60 s) and 4 more",
        "no host runs instances",
    ),
    "the child has no row for the parent": (
        _sql("c2", "DELETE FROM cells"),
        "parent-row",
        "c2 has no row for parent",
        "cellsync cells create c2 --side child",
    ),
    "the child's row leads back to the child": (
        _wrong_side_below,
        "parent-row",
        "leads to the broker of c2 itself",
        "cellsync cells delete c2 --side child",
    ),
    "the child's database is down": (_child_down, "child-database", "cannot connect to c2", "start MariaDB"),
    "the schema is of another version": (
        _sql("c2", "UPDATE migrate_version SET version = 280"),
        "schema",
        "migrate_version is 302 in parent and 280 in c2",
        "nova-manage db sync",
    ),
    "a table is missing": (
        _sql("c2", "DROP TABLE key_pairs"),
        "schema",
        "key-pairs: ",
        "cellsync schema c2",
    ),
    "rows are out of step": (
        _sql("c2", "DELETE FROM aggregate_metadata"),
        "rows",
        "in aggregate-metadata",
        "cellsync repair c2",
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_the_first_broken_hop_is_named(path: Path, breakage: str) -> None:
    """With its evidence, and what to do; nothing before it is broken, and no password is shown."""
    break_, hop, evidence, advice = BREAKAGES[breakage]
    break_(path)
    done = path.trace()
    found = next(each for each in done.report["hops"] if each["hop"] == hop)
    assert (done.report["first_broken"], found["status"]) == (hop, "broken"), done.out
    assert evidence in found["evidence"]
    assert advice in found["advice"]
    assert done.code == (1 if hop == "rows" else 4)
    assert [each["hop"] for each in done.report["hops"]] == HOPS
    text = path.cells.run("trace", "c2", "--timeout", "1").out
    assert text.startswith(f"parent to c2: broken at {hop}: ")
    assert "hunter2" not in done.said + text


def test_what_is_heard_through_a_dead_broker_is_not_called_dead(path: Path) -> None:
    """nova-compute's heartbeats are lost with the broker; a scheduler that is silent is down all the same."""
    alive(path.cells, "c2", "nova-compute", ago=3600)
    path.other.kill()
    [hop] = [each for each in path.trace().report["hops"] if each["hop"] == "child-services"]
    assert (hop["status"], "nova-compute on compute-2-1 last seen" in hop["evidence"]) == ("warn", True)
    assert hop["advice"] == "mend the broker first: this would be heard through it, and may be alive"
    alive(path.cells, "c2", "nova-scheduler", ago=3600)
    [hop] = [each for each in path.trace().report["hops"] if each["hop"] == "child-services"]
    assert (hop["status"], "nova-scheduler" in hop["evidence"]) == ("broken", True)


def test_nobody_takes_messages_in_the_child(
    cells: Deployment, rabbit: RabbitMQ, other_rabbit: RabbitMQ
) -> None:
    """The broker works, its queues are there or not, and nova-cells is not."""
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": other_rabbit.url("c2")}
    path = Path(registered(cells, urls), rabbit, other_rabbit)
    path.configure()
    with nova_cells(rabbit, "parent"):
        done = path.trace()
    assert done.report["first_broken"] == "child-broker"
    assert "nobody takes messages from cells.intercell.targeted" in done.out
    assert "restart nova-cells of c2" in done.out
    with nova_cells(other_rabbit, "c2"):
        done = path.trace()
    assert done.report["first_broken"] == "parent-services"
    assert "nobody takes messages from cells on the broker of parent" in done.out


def test_messages_that_wait_are_counted(path: Path) -> None:
    """The number that says since when something is wrong."""
    with contextlib.closing(
        amqp.Connection(path.other.address, "nova", PASSWORD, virtual_host="c1")
    ) as connection:
        connection.connect()
        channel = connection.channel()
        channel.queue_declare("cells.intercell.targeted", auto_delete=False)
        for _ in range(3):
            channel.basic_publish(amqp.Message("m"), routing_key="cells.intercell.targeted")
        path.row("parent", path.other.url("c1"))
        done = path.trace()
        channel.queue_delete("cells.intercell.targeted")
    assert "(3 messages wait)" in done.out


def test_hops_that_cannot_be_checked_say_why(path: Path) -> None:
    """Without the child's database its services and its row are unknown, not broken and not sound."""
    _child_down(path)
    found = {hop["hop"]: hop for hop in path.trace().report["hops"]}
    for hop in ("child-services", "parent-row", "schema", "rows"):
        assert found[hop]["status"] == "unknown"
        assert found[hop]["evidence"].startswith("cannot be checked: ")
    text = path.cells.run("trace", "c2", "--timeout", "1").out
    assert text.startswith("parent to c2: broken at child-database")


def test_services_that_may_be_absent_are_a_warning(path: Path) -> None:
    """So is one of several hosts that is down, and a row that only the child has."""
    path.cells.sql("parent", "DELETE FROM services WHERE `binary` = 'nova-consoleauth'")
    path.cells.sql("c2", "UPDATE services SET updated_at = '2020-01-01' WHERE host = 'compute-2-3'")
    path.cells.sql("c2", "INSERT INTO aggregates (name, deleted) VALUES ('own', 0)")
    done = path.trace()
    assert hops(done) == {
        **dict.fromkeys(HOPS, "ok"), "parent-services": "warn", "child-services": "warn", "rows": "warn",
    }  # fmt: skip
    assert (done.code, done.report["first_broken"]) == (0, None)
    assert "nobody can open the console" in done.out
    assert "alive: 4 of 5" in done.out


def test_a_file_of_cells_leaves_the_rows_unknown(path: Path) -> None:
    """Where nova-cells reads a file, the table says nothing."""
    conf = path.cells.folder / "nova.conf"
    conf.write_text("[cells]\nname = parent\ncells_config = /etc/nova/cells.json\n")
    path.configure(parent={"nova_conf": "nova.conf"})
    done = path.trace()
    assert hops(done)["child-row"] == "unknown"
    assert done.code == 4


# -- Other services ------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(code: int) -> Iterator[str]:
    """Answer every request with this code, and give the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v3"
        server.shutdown()


@pytest.mark.parametrize(
    ("code", "status"), [(200, "ok"), (300, "ok"), (401, "ok"), (500, "broken"), (503, "broken")]
)
def test_services_that_answer_http_are_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int, status: str
) -> None:
    """300 and 401 are how they say that they live; a proxy of the environment is not asked."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with answering(code) as url:
        path.configure(parent={"endpoints": {"keystone": url}})
        done = path.trace()
    assert hops(done)["parent-services"] == status
    assert f"keystone at {url}: it answers {code}" in done.out or status == "ok"


def test_a_service_that_does_not_answer_http_is_broken(path: Path) -> None:
    """Its name and address."""
    url = f"http://127.0.0.1:{free_port()}/"
    path.configure(parent={"endpoints": {"glance": url}})
    done = path.trace()
    assert done.report["first_broken"] == "parent-services"
    assert f"glance at {url}: it does not answer" in done.out


def test_cinder_and_neutron_are_looked_at_where_they_are_known(
    path: Path, database: Callable[..., str]
) -> None:
    """Their databases stand in cellsync.yaml; without them nobody asks."""
    from servers import sql

    cinder, neutron = database(), database()
    sql(
        cinder,
        "CREATE TABLE services (host text, `binary` text, updated_at datetime, created_at datetime, "
        "deleted int)",
    )
    sql(neutron, "CREATE TABLE agents (host text, `binary` text, heartbeat_timestamp datetime)")
    sql(cinder, "INSERT INTO services VALUES ('ctl', 'cinder-scheduler', UTC_TIMESTAMP(), NULL, 0)")
    sql(
        cinder,
        "INSERT INTO services VALUES ('ctl', 'cinder-volume', UTC_TIMESTAMP() - INTERVAL 1 DAY, NULL, 0)",
    )
    sql(neutron, "INSERT INTO agents VALUES ('h', 'neutron-openvswitch-agent', UTC_TIMESTAMP())")
    path.configure(c2={"databases": {"cinder": cinder, "neutron": neutron}})
    done = path.trace()
    assert hops(done)["child-services"] == "warn"
    assert "cinder-volume on ctl last seen 24 h ago" in done.out
    sql(cinder, "UPDATE services SET updated_at = UTC_TIMESTAMP()")
    sound = path.trace()
    assert hops(sound)["child-services"] == "ok"
    assert "neutron-* on h" in sound.out


def test_heartbeats_that_cannot_be_read_are_unknown(path: Path) -> None:
    """A table that is not there is no service that died, and no sound one."""
    path.configure(c2={"databases": {"cinder": path.cells.urls["c1"], "neutron": path.cells.urls["c1"]}})
    found = {hop["hop"]: hop for hop in path.trace().report["hops"]}
    assert (found["child-services"]["status"], path.trace().code) == ("unknown", 4)
    assert "has no table agents" in found["child-services"]["evidence"]


def test_a_child_that_is_not_there_is_a_mistake(path: Path) -> None:
    """Exit code 2, and who is there."""
    done = path.cells.run("trace", "c9")
    assert (done.code, "the children are c1, c2" in done.said) == (2, True)

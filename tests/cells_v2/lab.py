"""A cells v2 deployment that Nova and placement made: nova_api, cell0, three cells, placement.

The schemas are made by ``nova-manage`` and ``placement-manage``, the cells are mapped by ``nova-manage``
(manage_nova.py), the rows are written by Nova's objects (write_nova.py) and through placement's API
(serve_placement.py), all from .venv-nova, which `scripts/setup nova` makes. Once for a session.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from deployment import Deployment
from servers import AnyServer, load, sql

from cellsync.demo.server import executable

HERE = Path(__file__).parent
VENV = HERE.parents[1] / ".venv-nova" / "bin"

CELLS = ("cell0", "c1", "c2", "c3")
DATABASES = ("api", "placement", *CELLS)
TIMEOUT = 120


def uuid(name: str) -> str:
    """Return the uuid of something that has a name here."""
    return str(uuid5(NAMESPACE_DNS, name))


def instance(cell: str | None, host: str | None = None, **more: Any) -> dict[str, Any]:
    """Return what there is of an instance; ``node`` is called as its host, unless given."""
    plain = {"state": "active", "deleted": False, "migration": None, "from": None, "node": host}
    return {"cell": cell, "host": host, **plain, **more}


HOSTS: dict[str, dict[str, dict[str, str]]] = {
    "c1": {host: {host: uuid(host)} for host in ("h1a", "h1b")},
    "c2": {host: {host: uuid(host)} for host in ("h2a", "h2b")},
    # As Ironic has it: one nova-compute, several nodes.
    "c3": {"h3a": {node: uuid(node) for node in ("metal-1", "metal-2")}},
}
NODES = {node: found for hosts in HOSTS.values() for nodes in hosts.values() for node, found in nodes.items()}

INSTANCES: dict[str, dict[str, Any]] = {
    "web": instance("c1", "h1a"),
    "db": instance("c1", "h1b"),
    "was": instance("c1", "h1a", deleted=True),
    "resized": instance("c2", "h2b", migration=uuid("migration"), **{"from": "h2a"}),
    "shelved": instance("c2", None, state="shelved_offloaded"),
    "metal": instance("c3", "h3a", node="metal-1"),
    "unlucky": instance("cell0", None, state="error"),
    "building": instance(None, None, state="building"),
}

DEPLOYMENT = {
    "hosts": HOSTS,
    "instances": {uuid(name): given for name, given in INSTANCES.items()},
    "aggregates": {
        "west": {"uuid": uuid("west"), "hosts": ["h1a", "h2a"]},
        "east": {"uuid": uuid("east"), "hosts": ["h1b"]},
    },
    "groups": {uuid("pair"): [uuid("web"), uuid("building")]},
}

PROVIDER_OF = {"web": "h1a", "db": "h1b", "resized": "h2b", "metal": "metal-1"}
"""Instance -> the compute node that it has allocations of."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Placement's API, as an administrator."""

    port: int

    def call(self, method: str, path: str, body: object = None, *, version: str = "1.39") -> Any:
        """Send one request and return what it gives back; raises HTTPError."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "X-Auth-Token": "admin",
                "Content-Type": "application/json",
                "OpenStack-API-Version": f"placement {version}",
            },
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def add_provider(self, name: str, provider: str, *, parent: str | None = None, **inventory: int) -> None:
        """Create a resource provider with its inventory."""
        body = {
            "name": name,
            "uuid": provider,
            **({} if parent is None else {"parent_provider_uuid": parent}),
        }
        self.call("POST", "/resource_providers", body)
        stock = {kind: {"total": total} for kind, total in inventory.items()}
        body = {"resource_provider_generation": 0, "inventories": stock}
        self.call("PUT", f"/resource_providers/{provider}/inventories", body)

    def set_aggregates(self, provider: str, aggregates: Sequence[str]) -> None:
        """Replace the aggregates of a provider."""
        path = f"/resource_providers/{provider}"
        generation = self.call("GET", path)["generation"]
        body = {"resource_provider_generation": generation, "aggregates": [*aggregates]}
        self.call("PUT", f"{path}/aggregates", body)

    def allocate(self, consumer: str, provider: str, kind: str = "INSTANCE", **resources: int) -> None:
        """Give a consumer what it uses of a provider."""
        self.call(
            "PUT",
            f"/allocations/{consumer}",
            {
                "allocations": {provider: {"resources": resources}},
                "consumer_generation": None,
                "consumer_type": kind,
                "project_id": "project",
                "user_id": "user",
            },
        )


@dataclass(frozen=True)
class Manager:
    """``nova-manage`` and ``placement-manage``, as manage_nova.py runs them."""

    process: subprocess.Popen[str]

    def run(self, *words: str, codes: Sequence[int] = (0,)) -> str:
        """Run a command and return what it said; one that ends otherwise than expected is a failure."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "Nova gave no answer: its traceback is above"
        done = json.loads(line)
        assert done["code"] in codes, f"{shlex.join(words)}: {done['code']}\n{done['out']}\n{done['err']}"
        return str(done["out"])

    def nova(self, *arguments: str, codes: Sequence[int] = (0,)) -> str:
        """Run ``nova-manage`` on the deployment."""
        return self.run("nova-manage", "--config-file", "nova.conf", *arguments, codes=codes)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The deployment, and the programs that work on it."""

    urls: Mapping[str, str]
    """Of ``DATABASES``, with the password."""
    folder: Path
    manager: Manager
    placement: Placement
    before: Mapping[str, str]
    """Database -> all of its rows, as SQL."""

    def sql(self, where: str, statement: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a database."""
        return sql(self.urls[where], statement, **parameters)

    def manage(self, *arguments: str, codes: Sequence[int] = (0,)) -> str:
        """Run ``nova-manage`` and return what it said."""
        return self.manager.nova(*arguments, codes=codes)

    def cell(self, name: str) -> str:
        """Return the uuid of a cell."""
        [(found,)] = self.sql("api", "SELECT uuid FROM cell_mappings WHERE name = :name", name=name)
        return str(found)

    def restore(self) -> None:
        """Bring back every row of every database."""
        for name, text in self.before.items():
            load(self.urls[name], text)

    def cellsync(
        self, folder: Path, *, rules: Sequence[str] = ("nova-cells-v2",), more: str = ""
    ) -> Deployment:
        """Return the deployment as cellsync sees it: only nova_api and placement are named."""
        databases = json.dumps({"placement": self.urls["placement"]})
        lines = [
            f'parent: {{name: api, database: "{self.urls["api"]}", databases: {databases}}}',
            f'children: {{from: cell_mappings, nova_conf: "{self.folder / "nova.conf"}"}}',
            f"rules: {json.dumps([*rules])}",
            "settle: 0",
            more,
        ]
        made = Deployment(urls=self.urls, folder=folder, rules=rules)
        made.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return made


def program(name: str) -> str:
    """Return the path of a program of .venv-nova."""
    assert VENV.is_dir(), f"{VENV} is not there: scripts/setup makes it"
    return str(VENV / name)


@contextmanager
def made(server: AnyServer, folder: Path) -> Iterator[Lab]:
    """Make the deployment; stop what was started and drop its databases at the end."""
    schemas = {name: f"v2_{name}" for name in DATABASES}
    urls = {
        name: server.url(schema).render_as_string(hide_password=False) for name, schema in schemas.items()
    }
    try:
        for schema in schemas.values():
            sql(server.url(), f"CREATE DATABASE {schema} CHARACTER SET utf8mb3")
        with _manager(folder) as manager, _placement(folder, manager, urls["placement"]) as placement:
            _make(folder, manager, urls, placement)
            before = {name: _rows(url) for name, url in urls.items()}
            yield Lab(urls=urls, folder=folder, manager=manager, placement=placement, before=before)
    finally:
        for schema in (*schemas.values(), "cellsync"):
            sql(server.url(), f"DROP DATABASE IF EXISTS {schema}")


@contextmanager
def _manager(folder: Path) -> Iterator[Manager]:
    command = (program("python"), "-W", "ignore", str(HERE / "manage_nova.py"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, text=True, **pipes) as process:
        yield Manager(process)


@contextmanager
def _placement(folder: Path, manager: Manager, url: str) -> Iterator[Placement]:
    conf = folder / "placement.conf"
    escaped = url.replace("$", "$$")
    conf.write_text(f"[api]\nauth_strategy = noauth2\n[placement_database]\nconnection = {escaped}\n")
    manager.run("placement-manage", "--config-file", str(conf), "db", "sync")
    command = [program("python"), str(HERE / "serve_placement.py"), str(conf)]
    log = folder / "placement.log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline()
        assert port, log.read_text()
        yield Placement(port=int(port))
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _make(folder: Path, manager: Manager, urls: Mapping[str, str], placement: Placement) -> None:
    (folder / "nova.conf").write_text(
        "[DEFAULT]\ntransport_url = rabbit://nova:secret@127.0.0.1:5672/\n"
        f"[api_database]\nconnection = {urls['api'].replace('$', '$$')}\n"
        f"[database]\nconnection = {urls['c1'].replace('$', '$$')}\n"
        "[placement]\nauth_type = admin_token\ntoken = admin\n"
        f"endpoint = http://127.0.0.1:{placement.port}\n"
        f"endpoint_override = http://127.0.0.1:{placement.port}\n"
    )
    manager.nova("api_db", "sync")
    manager.nova("db", "sync", "--local_cell")
    schema = dump(urls["c1"])
    for cell in ("cell0", "c2", "c3"):
        load(urls[cell], schema)
    template = "{scheme}://{username}:{password}@{hostname}:{port}/v2_cell0?{query}"
    manager.nova("cell_v2", "map_cell0", "--database_connection", template)
    for cell in CELLS[1:]:
        broker = f"rabbit://nova:secret@127.0.0.1:5672/{cell}"
        given = ("--name", cell, "--transport-url", broker, "--database_connection", urls[cell])
        manager.nova("cell_v2", "create_cell", *given)
    command = (program("python"), str(HERE / "write_nova.py"), "nova.conf")
    subprocess.run(command, cwd=folder, input=json.dumps(DEPLOYMENT), text=True, timeout=TIMEOUT, check=True)
    manager.nova("cell_v2", "discover_hosts")
    _fill_placement(placement)
    for name in DATABASES:
        age(urls[name])


def _fill_placement(placement: Placement) -> None:
    for name, provider in NODES.items():
        placement.add_provider(name, provider, VCPU=8, MEMORY_MB=4096, DISK_GB=100)
    for aggregate in DEPLOYMENT["aggregates"].values():  # type: ignore[attr-defined]
        for host in aggregate["hosts"]:
            placement.set_aggregates(uuid(host), [aggregate["uuid"]])
    for name, node in PROVIDER_OF.items():
        placement.allocate(uuid(name), NODES[node], VCPU=1, MEMORY_MB=64)
    # While a resize is not confirmed, the migration holds what the instance had.
    placement.allocate(uuid("migration"), uuid("h2a"), "MIGRATION", VCPU=1, MEMORY_MB=64)
    # What is not Nova's: another kind of resource, in an aggregate that Nova does not know.
    placement.add_provider("segment", uuid("segment"), IPV4_ADDRESS=10)
    placement.set_aggregates(uuid("segment"), [uuid("routed network")])
    placement.allocate(uuid("port"), uuid("segment"), "PORT", IPV4_ADDRESS=1)


def age(url: str) -> None:
    """Make every row a day old: what is younger than some minutes may still be under way."""
    back = "CONCAT('`', column_name, '` = `', column_name, '` - INTERVAL 1 DAY')"
    find = (
        f"SELECT table_name, GROUP_CONCAT({back}) FROM information_schema.columns "
        "WHERE table_schema = DATABASE() "
        "AND column_name IN ('created_at', 'updated_at', 'deleted_at') GROUP BY 1"
    )
    for table, changes in sql(url, find):
        sql(url, f"UPDATE `{table}` SET {changes}")


def dump(url: str, *options: str) -> str:
    """Return a database as SQL."""
    import sqlalchemy as sa

    made = sa.make_url(url)
    done = subprocess.run(
        [
            executable("mariadb-dump", "mysqldump"),
            "--no-defaults",
            f"--host={made.host}",
            f"--port={made.port}",
            f"--user={made.username}",
            "--skip-comments",
            *options,
            str(made.database),
        ],
        env={**os.environ, "MYSQL_PWD": str(made.password)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _rows(url: str) -> str:
    """Return SQL that replaces all rows of a database by those that it has now."""
    find = (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() "
        "AND table_type = 'BASE TABLE'"
    )
    emptied = [f"DELETE FROM `{table}`;" for (table,) in sql(url, find)]
    rows = dump(url, "--no-create-info", "--skip-triggers", "--skip-add-locks", "--skip-disable-keys")
    return "\n".join(["SET FOREIGN_KEY_CHECKS = 0;", *emptied, rows])

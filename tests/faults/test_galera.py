"""Two runs through two nodes of one Galera cluster, and clients and nodes that are killed.

Locks, of rows and by name, are local to a node; only the certification of a COMMIT is not. After every test
rows and journal are read through all three nodes, and must be one story.

``scripts/soak galera`` runs this with more pairs and kills: CELLSYNC_PAIRS, CELLSYNC_CLIENTS and
CELLSYNC_NODES say how many, CELLSYNC_SEED from where.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from agreement import Contents, contents, disagreements, query, quiet
from edges import Stand, as_if_large, execute, opened, result, rows, ruleset
from galera import Cluster, Node
from oslo_db.exception import DBDeadlock
from proxy import CommitGate, Fault, Proxy
from servers import sql

from cellsync import cli, journal, run
from cellsync.apply import executing, loading
from cellsync.errors import ConfigurationError, ExitCode, JournalUnavailable, ReadFailed
from cellsync.journal import writers
from cellsync.model import CellResult, Report
from cellsync.run import past

TABLES = {
    # As Nova's aggregates: no UNIQUE index on the key.
    "things": "id int PRIMARY KEY AUTO_INCREMENT, name varchar(40) NOT NULL, size int, KEY (name)",
    "parts": "id int PRIMARY KEY AUTO_INCREMENT, thing_id int NOT NULL, label varchar(9), KEY (thing_id)",
}
RULES = """
rules:
  - {table: things, key: [name], on_extra: delete, limits: {deletes: 100%, updates: 100%}}
  - {table: parts, key: [thing_id, label], references: {thing_id: things}, on_extra: delete}
"""
NAMES = 20
PAIRS = int(os.environ.get("CELLSYNC_PAIRS", "2"))
CLIENTS = int(os.environ.get("CELLSYNC_CLIENTS", "1"))
NODES = int(os.environ.get("CELLSYNC_NODES", "1"))
SEED = int(os.environ.get("CELLSYNC_SEED", "20150"))
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Place:
    """A parent and a child in the cluster, and what the child's rows were."""

    cluster: Cluster
    parent: str
    child: str
    before: Contents

    def url(self, node: Node, schema: str = "") -> str:
        """Return the URL of the child, or of another schema, through a node."""
        return node.url(schema or self.child).render_as_string(hide_password=False)

    def stand(self, child_url: str) -> Stand:
        """Return the topology, its child reached by this URL."""
        return Stand({"api": self.url(self.cluster.nodes[2], self.parent), "c1": child_url}, ruleset(RULES))


@pytest.fixture
def place(galera: Cluster) -> Iterator[Place]:
    """Give a parent with twenty names, and a child that has none of them, but two of its own."""
    galera.recover()
    number = next(_numbers)
    with fresh_place(galera, f"g{number}") as made:
        yield made
        galera.recover()


@contextmanager
def fresh_place(cluster: Cluster, prefix: str, *, names: int = NAMES) -> Iterator[Place]:
    """Make both schemas, with so many names in the parent, and drop them and the journal at the end."""
    first = cluster.nodes[0]
    place = Place(cluster, f"{prefix}_api", f"{prefix}_c1", {})
    try:
        for schema in (place.parent, place.child):
            sql(first.url(), f"CREATE DATABASE {schema} CHARACTER SET utf8mb4")
            made = (f"CREATE TABLE {name} ({columns})" for name, columns in TABLES.items())
            execute(place.url(first, schema), *made)
        things = ", ".join(f"('n{n}', {n})" for n in range(names))
        execute(
            place.url(first, place.parent),
            f"INSERT INTO things (name, size) VALUES {things}",
            "INSERT INTO parts (thing_id, label) SELECT id, 'x' FROM things",
        )
        execute(
            place.url(first),
            "INSERT INTO things (name, size) VALUES ('e1', 1), ('e2', 2)",
            "INSERT INTO parts (thing_id, label) SELECT id, 'x' FROM things",
        )
        with opened(place.url(first)) as database:
            before = contents(database, *TABLES)
        cluster.settle()  # no node knows the schemas before it has applied them
        yield Place(cluster, place.parent, place.child, before)
    finally:
        for schema in (place.parent, place.child, "cellsync"):
            sql(first.url(), f"DROP DATABASE IF EXISTS {schema}")


DOUBLED = "SELECT name FROM things GROUP BY name HAVING COUNT(*) > 1"
DANGLING = "SELECT id FROM parts WHERE thing_id NOT IN (SELECT id FROM things)"
PUSHED = "SELECT * FROM cellsync.pushed WHERE database_name = '{0}' ORDER BY rule, identity"
MISSING = "SELECT p.name FROM {0}.things p WHERE p.name NOT IN (SELECT name FROM {1}.things)"


def find_faults(place: Place, *, whole: bool = True) -> list[str]:
    """Say what is wrong in the child, seen from each node: rows, references, journal, pushed rows."""
    place.cluster.settle()
    wrong = []
    nodes: list[object] = []
    for number, node in enumerate(place.cluster.nodes, 1):
        url = place.url(node)
        queries = {"doubled": DOUBLED, "dangling": DANGLING}
        if whole:
            queries["missing"] = MISSING.format(place.parent, place.child)
        found = {name: rows(url, query) for name, query in queries.items()}
        wrong += [f"node {number}: {name}: {each}" for name, each in found.items() if each]
        with opened(url) as database:
            wrong += [f"node {number}: {each}" for each in disagreements(place.before, database)]
            nodes.append((contents(database, *TABLES), read_pushed(url, place.child)))
        wrong += [f"node {number}: {each}" for each in find_pushed_faults(url, place.child)]
    return wrong + (["the nodes differ"] if any(each != nodes[0] for each in nodes) else [])


def read_pushed(url: str, child: str) -> list[dict[str, Any]]:
    """Return the memory of pushed rows; a client that was killed early has not made all of the journal."""
    with opened(url) as database:
        made = database.has_table("pushed", schema="cellsync")
    return rows(url, PUSHED.format(child)) if made else []


def find_pushed_faults(url: str, child: str) -> list[str]:
    """Say where the memory of pushed rows is not what is there."""
    remembered = read_pushed(url, child)
    wrong = []
    for table in TABLES:
        there = {f"[{row['id']}]" for row in rows(url, f"SELECT id FROM {table}")}
        known = {row["identity"] for row in remembered if row["rule"] == table}
        wrong += [f"pushed {table} {sorted(known - there)} are not there"] if known - there else []
    return wrong


def write_through(gate: CommitGate, request: run.Request, prepared: run.Prepared) -> Report:
    """Write what was prepared; after that nobody waits at the gate for this run."""
    try:
        return run.write(request, prepared)
    finally:
        gate.leave()


def write_at_once(gate: CommitGate, *stands: Stand) -> list[Report]:
    """Let two repairs compare, wait for each other, and write; the gate is told when one has ended."""
    ready = threading.Barrier(len(stands), timeout=60)

    def repair(number: int, stand: Stand) -> Report:
        prepared = stand.prepare(f"r{time.time_ns()}-{number}")
        ready.wait()
        return write_through(gate, *prepared)

    with ThreadPoolExecutor(len(stands)) as pool:
        return [each.result() for each in [pool.submit(repair, *pair) for pair in enumerate(stands)]]


def repair_pair(place: Place) -> tuple[list[Report], int]:
    """Repair the child twice at once, through two nodes, with every COMMIT released together.

    Returns both reports, and at how many COMMITs they met.
    """
    gate = CommitGate()
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(place.url(node), gate=gate)) for node in place.cluster.nodes[:2]]
        return write_at_once(gate, *(place.stand(proxy.url) for proxy in proxies)), gate.meetings


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_repairs_through_two_nodes_write_every_row_once(galera: Cluster) -> None:
    """One of them writes, and the other ends with exit code 5."""
    met = 0
    for number in range(PAIRS):
        with fresh_place(galera, f"pair{number}") as place:
            reports, meetings = repair_pair(place)
            met += meetings > 0
            assert find_faults(place) == [], number
            codes = sorted(each.exit_code for each in reports)
            assert codes == [ExitCode.IN_STEP, ExitCode.LOCKED], (number, *map(problems, reports))
    print(
        f"\n{PAIRS} pairs of repairs, of which {met} met at a COMMIT: 0 doubled rows, 0 dangling references"
    )


@dataclass
class Freezing:
    """The gate of a client that stops before one of its commands, as a process that is suspended does."""

    before: str
    """How the command begins; ``after`` is how one before it began."""
    after: str
    only: str = ""
    """Let other commands through but those that begin so; all stand still where it is empty."""
    frozen: threading.Event = field(default_factory=threading.Event)
    thawed: threading.Event = field(default_factory=threading.Event)
    _due: bool = False

    def __call__(self, command: str) -> None:
        """Wait from that command on."""
        self._due = self._due or command.startswith(self.after)
        if self._due and command.startswith(self.before):
            self.frozen.set()
        if self.frozen.is_set() and command.startswith(self.only):
            self.thawed.wait(60)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs taken for dead after a second."""
    monkeypatch.setattr(writers, "BEAT_SECONDS", 0.25)
    monkeypatch.setattr(writers, "STALE_SECONDS", 1)


def problems(report: Report) -> str:
    """Return what went wrong in a report, and its notices."""
    cells = [each for each in report.cells if isinstance(each, CellResult)]
    assert len(cells) == len(report.cells), report.cells
    return "\n".join(line for each in cells for line in (*each.problems, *each.notices))


def repair_while_frozen(place: Place, frozen: Freezing) -> tuple[Report, Report]:
    """Repair through one node, which freezes, then through another, and let the first go on; both reports."""
    one, two = place.cluster.nodes[:2]
    with Proxy(place.url(one), gate=frozen) as proxy, ThreadPoolExecutor(1) as pool:
        try:
            first = pool.submit(place.stand(proxy.url).repair, "first")
            assert frozen.frozen.wait(30)
            time.sleep(2 * writers.STALE_SECONDS)
            second = place.stand(place.url(two)).repair("second")
        finally:
            frozen.thawed.set()
        return first.result(), second


def test_a_run_that_was_taken_for_dead_writes_nothing_more(place: Place, impatient: None) -> None:
    """It stands still in a transaction; another run through another node does the work; then it goes on."""
    report, second = repair_while_frozen(place, Freezing(before="COMMIT", after="INSERT INTO `parts`"))
    assert find_faults(place) == []
    assert second.exit_code is ExitCode.IN_STEP, problems(second)
    assert "run first (repair by o on h) was cut off" in problems(second)
    assert report.exit_code is ExitCode.INCOMPLETE
    assert f"another run took over the writing of {place.child}" in problems(report)


def test_a_run_at_work_through_another_node_is_never_called_cut_off(place: Place, impatient: None) -> None:
    """It takes longer between two transactions than the dead are given: its signs of life go on."""
    report, second = repair_while_frozen(
        place, Freezing(before="COMMIT", after="INSERT INTO `parts`", only="COMMIT")
    )
    assert find_faults(place) == []
    assert second.exit_code is ExitCode.LOCKED, problems(second)
    assert "through another node of its cluster: run first" in problems(second)
    assert report.exit_code is ExitCode.IN_STEP, problems(report)


def test_a_lost_commit_is_decided_before_it_is_looked_for(place: Place) -> None:
    """The connection is cut at a COMMIT, which reaches its node later than the next try another node."""
    one, two = place.cluster.nodes[:2]
    with Proxy(place.url(one)) as proxy:
        proxy.arm(2, Fault.LATE, holding="^COMMIT$")
        proxy.struck_leads_to = place.url(two)
        report = place.stand(proxy.url).repair("r1")
    assert proxy.struck
    assert find_faults(place) == []
    assert (report.exit_code, problems(report)) == (ExitCode.IN_STEP, "")


def test_two_undos_through_two_nodes_take_a_run_back_once(place: Place) -> None:
    """As two repairs: one of them writes."""
    assert place.stand(place.url(place.cluster.nodes[0])).repair("made").exit_code is ExitCode.IN_STEP
    gate = CommitGate()
    with ExitStack() as stack:
        stands = [
            place.stand(stack.enter_context(Proxy(place.url(node), gate=gate)).url)
            for node in place.cluster.nodes[:2]
        ]
        requests = [stand.request("undo", f"u{number}") for number, stand in enumerate(stands)]
        prepared = [(request, run.prepare_undo(request, "made")) for request in requests]
        with ThreadPoolExecutor(2) as pool:
            reports = [
                each.result() for each in [pool.submit(write_through, gate, *pair) for pair in prepared]
            ]
    assert find_faults(place, whole=False) == []
    assert sorted(each.exit_code for each in reports) == [ExitCode.IN_STEP, ExitCode.LOCKED]
    with opened(place.url(place.cluster.nodes[2])) as database:
        assert contents(database, *TABLES) == place.before


def test_rows_that_are_loaded_are_loaded_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into empty tables, thousands by a statement, through two nodes at once: a batch begins as others do."""
    as_if_large(monkeypatch)
    monkeypatch.setattr(executing, "LOADED", 7)
    url = place.url(place.cluster.nodes[0])
    execute(url, *(f"DELETE FROM {table}" for table in TABLES))
    for schema in (place.parent, place.child):
        execute(url, f"ALTER TABLE {schema}.things ADD UNIQUE (name)")
    empty = replace(place, before={table: {} for table in TABLES})
    marked: list[str] = []
    plain = loading.Batch.run

    def load(batch: loading.Batch, *arguments: Any) -> loading.Loaded:
        marked.append(batch.load.sample.table)
        return plain(batch, *arguments)

    monkeypatch.setattr(loading.Batch, "run", load)
    reports, _ = repair_pair(empty)
    assert find_faults(empty) == []
    assert sorted(each.exit_code for each in reports) == [ExitCode.IN_STEP, ExitCode.LOCKED]
    assert marked.count("things") == -(-NAMES // 7), "rows were not loaded"


def test_a_journal_of_an_older_version_gets_what_a_cluster_needs(place: Place) -> None:
    """A login that may not make tables is told what an administrator must run."""
    first = place.cluster.nodes[0]
    url = place.url(first)
    with opened(url) as database:
        journal.prepare(database, cell="c1")
        age_journal(url)
        journal.prepare(database, cell="c1")
        assert journal.unseen(database) is False
        assert rows(url, "SELECT MAX(version) AS v FROM cellsync.format") == [{"v": journal.VERSION}]
        assert rows(url, "SELECT COUNT(*) AS n FROM cellsync.writers") == [{"n": 0}]
    age_journal(url)
    execute(
        url,
        "CREATE USER IF NOT EXISTS weak@'%' IDENTIFIED BY 'pw'",
        f"GRANT ALL ON `{place.child}`.* TO weak@'%'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON cellsync.* TO weak@'%'",
    )
    try:
        weak = first.url(place.child).set(username="weak", password="pw")
        told = pytest.raises(JournalUnavailable, match="An administrator of c1's server can make it")
        with opened(weak.render_as_string(hide_password=False)) as database, told:
            journal.prepare(database, cell="c1")
    finally:
        execute(url, "DROP USER weak@'%'")


def age_journal(url: str) -> None:
    """Make a journal one of version 1."""
    old = ("DROP TABLE cellsync.writers", "DROP TABLE cellsync.heartbeats", "DELETE FROM cellsync.format")
    execute(url, *old, "INSERT INTO cellsync.format VALUES (1)")


def test_runs_are_forgotten_through_any_node(place: Place) -> None:
    """One transaction for each run, that a run at work sees."""
    stand = place.stand(place.url(place.cluster.nodes[1]))
    assert stand.repair("made").exit_code is ExitCode.IN_STEP
    counted = f"SELECT transactions AS n FROM cellsync.writers WHERE database_name = '{place.child}'"
    before = rows(place.url(place.cluster.nodes[1]), counted)[0]["n"]
    assert past.prune(stand.request("history", "p"), keep=timedelta(0))["c1"] == 1
    place.cluster.settle()
    for node in place.cluster.nodes:
        assert rows(place.url(node), counted)[0]["n"] == before + 1
        assert rows(place.url(node), "SELECT COUNT(*) AS n FROM cellsync.changes") == [{"n": 0}]


def test_two_names_for_one_database_through_two_nodes_are_found(place: Place) -> None:
    """The nodes have a uid and locks of their own."""
    one, two = (place.url(node) for node in place.cluster.nodes[:2])
    with pytest.raises(ConfigurationError, match="api and c1 are the same database"):
        Stand({"api": one, "c1": two}, ruleset(RULES)).diff()


LOADED = multiprocessing.get_context("forkserver")
"""Starts processes that have loaded already what they need: that takes longer than the repair."""
LOADED.set_forkserver_preload(
    ["pytest", *(f"cellsync.{name}" for name in ("cli", "cells", "rules", "run", "report"))]
)
MANY = 400
"""Names in the parent where the writing is to take a while."""
MOMENTS = (1, 1, MANY + 1, 2 * MANY + 1)
"""How many changes are in the journal when a client or a node is killed: there are four transactions."""


def start_repair(folder: Path, place: Place, child_url: str) -> BaseProcess:
    """Start a repair as a process of its own; its report goes to ``report.json``."""
    (folder / "pack.yaml").write_text("pack: killed\n" + RULES)
    config = folder / "cellsync.yaml"
    parent_url = place.url(place.cluster.nodes[2], place.parent)
    lines = [
        f"parent: {json.dumps({'name': 'api', 'database': parent_url})}",
        f"children: [{json.dumps({'name': 'c1', 'database': child_url})}]",
        "rules: [./pack.yaml]",
        "settle: 0",
    ]
    config.write_text("\n".join(lines) + "\n")
    output = ["--format", "json", "--output", str(folder / "report.json")]
    words = ["-c", str(config), "repair", "--yes", *output]
    process = LOADED.Process(target=cli.main, args=(words,))
    process.start()
    return process


def wait_for_changes(place: Place, process: BaseProcess, number: int, node: Node) -> None:
    """Wait until so many changes are in the journal, as a node sees it, or the process has ended."""
    with opened(place.url(node)) as database:
        while process.is_alive():
            # Making the journal aborts whoever reads it on another node.
            with suppress(DBDeadlock, ReadFailed):
                if database.has_table("changes", schema="cellsync") and (
                    query(database, "SELECT COUNT(*) FROM cellsync.changes")[0][0] >= number
                ):
                    return
            time.sleep(0.002)


def kill_client(place: Place, folder: Path, chosen: random.Random) -> str:
    """Kill a repair somewhere in its writing, check, and let a run through another node go on from there."""
    nodes = chosen.sample(place.cluster.nodes, 2)
    process = start_repair(folder, place, place.url(nodes[0]))
    wait_for_changes(place, process, chosen.choice(MOMENTS), nodes[0])
    time.sleep(chosen.uniform(0, 0.1))
    process.kill()
    process.join()
    ended = process.exitcode == 0
    assert find_faults(place, whole=ended) == []
    # What its connections began ends with them, a moment later.
    for node in place.cluster.nodes:
        with opened(place.url(node)) as database:
            quiet(database)
    time.sleep(writers.STALE_SECONDS)  # a run through another node waits for no sign of life
    report = place.stand(place.url(chosen.choice(place.cluster.nodes))).repair(f"r{time.time_ns()}")
    assert report.exit_code is ExitCode.IN_STEP, problems(report)
    assert ended or "was cut off" in problems(report) or not result(report, "c1").counts.applied
    assert find_faults(place) == []
    return "ended" if ended else "killed"


def kill_node(place: Place, folder: Path, chosen: random.Random) -> str:
    """Kill the node that a repair writes to; a load balancer leads it to another one."""
    gone, other = chosen.sample(place.cluster.nodes[:2], 2)
    with Proxy(place.url(gone)) as proxy:
        process = start_repair(folder, place, proxy.url)
        wait_for_changes(place, process, chosen.choice(MOMENTS), gone)
        time.sleep(chosen.uniform(0, 0.1))
        proxy.lead_to(place.url(other))
        gone.kill()
        process.join(120)
    place.cluster.recover()
    assert process.exitcode in (ExitCode.IN_STEP, ExitCode.INCOMPLETE), process.exitcode
    done = process.exitcode == ExitCode.IN_STEP
    assert find_faults(place, whole=done) == [], (folder / "report.json").read_text()
    report = place.stand(place.url(gone)).repair(f"r{time.time_ns()}")
    assert report.exit_code is ExitCode.IN_STEP, problems(report)
    assert not (done and result(report, "c1").counts.applied)
    assert find_faults(place) == []
    return "went on" if done else "incomplete"


@pytest.mark.timeout(7200)
def test_a_client_that_is_killed_leaves_one_story_on_all_nodes(
    galera: Cluster, tmp_path: Path, impatient: None
) -> None:
    """And the next run goes on from there, through any node."""
    came_of: Counter[str] = Counter()
    for number in range(CLIENTS):
        with fresh_place(galera, f"client{number}", names=MANY) as place:
            came_of[kill_client(place, tmp_path, random.Random(SEED + number))] += 1
            print("c", end="", flush=True)
    print(f"\n{CLIENTS} kills of a client: {dict(came_of)}; 0 disagreements")


@pytest.mark.timeout(7200)
def test_a_node_that_is_killed_takes_nothing_with_it(galera: Cluster, tmp_path: Path) -> None:
    """The run goes on through another node, and says what it did."""
    came_of: Counter[str] = Counter()
    for number in range(NODES):
        with fresh_place(galera, f"node{number}", names=MANY) as place:
            came_of[kill_node(place, tmp_path, random.Random(SEED + number))] += 1
            print("n", end="", flush=True)
    print(f"\n{NODES} kills of a node: {dict(came_of)}; 0 disagreements")
    assert came_of["went on"], "no run went on through another node"

"""watch: rounds, what is said of them, and a clean end whenever it comes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from deployment import Deployment
from prometheus_client.parser import text_string_to_metric_families
from rabbitmq import free_port
from registered import configured
from servers import sql

from cellsync import driftlog
from cellsync.apply.executing import INSERTS

pytestmark = pytest.mark.slow

PATIENCE = 60
ROWS = 20_000
RULES = """
pack: shop
rules:
  - {table: ware, key: [name]}
"""


class Watch:
    """A watch in a process of its own, and what it has said so far."""

    def __init__(
        self, cells: Deployment, *options: str, program: str = "from cellsync.cli import main; main()"
    ) -> None:
        self.out = cells.folder / f"watch-{time.monotonic_ns()}.out"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    program,
                    "-c",
                    str(cells.config),
                    "watch",
                    "--interval",
                    "1",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    @property
    def said(self) -> list[str]:
        """Return the lines that it has said."""
        return self.out.read_text(encoding="utf-8").splitlines()

    def until(self, true: Callable[[], object]) -> None:
        """Wait until something is so."""
        ended = time.monotonic() + PATIENCE
        while not true():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < ended, self.said
            time.sleep(0.02)

    def lines(self, number: int) -> list[str]:
        """Wait for so many lines and return them."""
        self.until(lambda: len(self.said) >= number)
        return self.said

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def watching(cells: Deployment, *options: str) -> Iterator[Watch]:
    """Run a watch; it is killed if it is still there in the end."""
    watch = Watch(cells, *options)
    try:
        yield watch
    finally:
        watch.process.kill()
        watch.process.wait()


def test_a_watch_goes_on_under_a_limit_and_says_once_what_waits(cells: Deployment) -> None:
    """New rows come round after round while the deletes wait; a waiver lifts the guard."""
    for cell in cells.urls:
        cells.sql(cell, "CREATE TABLE ware (id int AUTO_INCREMENT PRIMARY KEY, name varchar(20) UNIQUE)")
        cells.sql(cell, "INSERT INTO ware (name) VALUES ('kept')")
    cells.sql("c1", "INSERT INTO ware (name) SELECT CONCAT('old', seq) FROM seq_1_to_30")
    shop = cells.rule_file(RULES.replace("key: [name]", "key: [name], on_extra: delete"))
    with watching(shop, "--repair") as watch:
        for number in range(3):
            cells.sql("parent", f"INSERT INTO ware (name) VALUES ('new{number}')")
            watch.until(lambda: cells.sql("c1", f"SELECT 1 FROM ware WHERE name = 'new{number}'"))  # noqa: B023
        watch.lines(3)
        assert watch.end() == 0
    assert sum("30 deletes" in line for line in watch.said) == 1, watch.said
    assert len(cells.sql("c1", "SELECT name FROM ware WHERE name LIKE 'old%'")) == 30
    with watching(shop, "--repair", "--waive", "limit:ware") as watch:
        watch.until(lambda: not cells.sql("c1", "SELECT 1 FROM ware WHERE name LIKE 'old%'"))
        assert watch.end() == 0


@pytest.fixture
def shop(cells: Deployment) -> Deployment:
    """Give a parent with wares, and two children that have them all."""
    for cell in cells.urls:
        cells.sql(cell, "CREATE TABLE ware (id int AUTO_INCREMENT PRIMARY KEY, name varchar(20) UNIQUE)")
        cells.sql(cell, "INSERT INTO ware (name) SELECT CONCAT('w', seq) FROM seq_1_to_3")
    return cells.rule_file(RULES)


def test_it_says_what_has_changed_and_nothing_else(shop: Deployment) -> None:
    """One line for each change of the verdict; what is wrong with a cell does not end it."""
    with watching(shop) as watch:
        assert "both cells are in step with parent" in watch.lines(1)[0]
        shop.sql("parent", "INSERT INTO ware (name) VALUES ('new')")
        assert "2 of 2 cells are out of step with parent: 2 rows missing" in watch.lines(2)[1]
        time.sleep(3)
        assert len(watch.said) == 2
        text = shop.config.read_text()
        configured(shop, c1={"database": f"mysql+pymysql://u:hunter2@127.0.0.1:{free_port()}/n"})
        assert "1 of 2 cells could not be compared" in watch.lines(3)[2]
        shop.config.write_text("parent: [")
        assert "exit code 2" in watch.lines(4)[3]
        shop.config.write_text(text)
        assert "2 of 2 cells are out of step" in watch.lines(5)[4]
        assert watch.end() == 0
        assert all(re.match(r"2\d{3}-\d\d-\d\dT[0-9:]+Z exit code \d: ", line) for line in watch.said)
        assert "hunter2" not in "".join(watch.said)


def test_a_repairing_watch_keeps_cells_in_step(shop: Deployment, tmp_path: Path) -> None:
    """Quiet while all is in step; metrics in a file and over HTTP."""
    file = tmp_path / "w.prom"
    options = ("--repair", "--quiet", "--metrics-port", "0", "--metrics-file", str(file), "--format", "json")
    with watching(shop, *options) as watch:
        url = watch.lines(1)[0].removeprefix("metrics: ")
        watch.until(file.exists)
        shop.sql("parent", "INSERT INTO ware (name) VALUES ('new')")
        for cell in ("c1", "c2"):
            watch.until(lambda cell=cell: shop.sql(cell, "SELECT 1 FROM ware WHERE name = 'new'"))
        watch.until(lambda: _sample(_get(url)[1], "cellsync_exit_code") == 0)
        assert _get(url.replace("/metrics", "/healthz"))[0] == 200
        assert _get(url.replace("/metrics", "/other"))[0] == 404
        assert _sample(file.read_text(), "cellsync_last_success_timestamp_seconds")
        shop.sql("c1", "DROP TABLE ware")
        found = json.loads(watch.lines(2)[1])
        assert (found["exit_code"], bool(found["run"])) == (4, True)
        watch.until(lambda: _get(url.replace("/metrics", "/healthz"))[0] == 503)
        assert watch.end(signal.SIGINT) == 0


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _sample(text: str, name: str) -> float | None:
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
    return next((sample.value for sample in samples if sample.name == name), None)


def test_it_ends_in_the_middle_of_a_repair_with_nothing_half_done(shop: Deployment) -> None:
    """After the batch that is being written: each row is journaled, each journaled row is there."""
    shop.sql("parent", f"INSERT INTO ware (name) SELECT CONCAT('n', seq) FROM seq_1_to_{ROWS}")
    with watching(shop, "--repair") as watch:
        watch.until(lambda: shop.sql("c1", "SELECT COUNT(*) > 3 FROM ware") == [(1,)])
        assert watch.end() == 0
    written = {cell: shop.sql(cell, "SELECT COUNT(*) - 3 FROM ware")[0][0] for cell in ("c1", "c2")}
    assert 0 < sum(written.values()) < 2 * ROWS
    changes = "SELECT cell, COUNT(*), COUNT(DISTINCT identity) FROM cellsync.changes GROUP BY cell"
    assert {name: (n, d) for name, n, d in shop.sql("c1", changes)} == {
        name: (number, number) for name, number in written.items() if number
    }
    (run,) = shop.json("history").report["runs"]
    assert (run["finished"] is not None, run["status"]) == (True, "incomplete")
    assert shop.run("repair", "--yes").code == 0
    assert shop.run("diff").code == 0


def test_it_ends_within_the_transaction_that_is_open(shop: Deployment) -> None:
    """A row of another writer holds one up in every cell: after it, that one is committed, and no other."""
    shop.sql("parent", f"INSERT INTO ware (name) SELECT CONCAT('n', seq) FROM seq_1_to_{ROWS}")
    written = "SELECT COUNT(*) - 3 FROM ware"
    waiting = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'"
    with contextlib.ExitStack() as stack:
        held = []
        for cell in ("c1", "c2"):
            engine = sa.create_engine(shop.urls[cell], poolclass=sa.NullPool)
            held.append(stack.enter_context(engine.connect()))
            held[-1].exec_driver_sql(f"INSERT INTO ware (name) VALUES ('n{ROWS // 2}')")
        watch = stack.enter_context(watching(shop, "--repair"))
        # The server renews this table when nobody has read it for a tenth of a second.
        watch.until(lambda: not time.sleep(0.2) and shop.sql("c1", waiting) == [(2,)])
        before = {cell: shop.sql(cell, written)[0][0] for cell in ("c1", "c2")}
        watch.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert watch.process.poll() is None
        for connection in held:
            connection.rollback()
        assert watch.process.wait(PATIENCE) == 0
    for cell, number in before.items():
        assert 0 < shop.sql(cell, written)[0][0] - number <= INSERTS
    journaled = "SELECT COUNT(*) FROM cellsync.changes WHERE cell = :name"
    for cell in before:
        assert shop.sql("c1", journaled, name=cell) == shop.sql(cell, written)


def test_it_ends_at_once_while_it_waits_for_a_lock(shop: Deployment) -> None:
    """Nothing is being written, so nobody waits for what is being read."""
    with contextlib.ExitStack() as stack:
        engine = sa.create_engine(shop.urls["parent"], poolclass=sa.NullPool)
        connection = stack.enter_context(engine.connect())
        connection.exec_driver_sql("LOCK TABLES ware WRITE")
        watch = stack.enter_context(watching(shop))
        waits = "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE LIKE '%metadata lock%'"
        watch.until(lambda: sql(shop.urls["c1"], waits))
        started = time.monotonic()
        assert watch.end() == 0
        assert time.monotonic() - started < 4


def test_two_watches_do_not_collide(shop: Deployment) -> None:
    """They repair the same cells; each row is written once."""
    with watching(shop, "--repair") as one, watching(shop, "--repair") as other:
        one.lines(1)
        other.lines(1)
        for number in range(200):
            shop.sql("parent", "INSERT INTO ware (name) VALUES (:name)", name=f"x{number}")
        for watch in (one, other):
            for cell in ("c1", "c2"):
                watch.until(lambda cell=cell: shop.sql(cell, "SELECT COUNT(*) FROM ware") == [(203,)])
        assert (one.end(), other.end()) == (0, 0)
    made = "SELECT cell, COUNT(*), COUNT(DISTINCT row_key) FROM cellsync.changes GROUP BY cell"
    assert {(n, d) for _, n, d in shop.sql("c1", made)} == {(200, 200)}


def test_two_watches_share_a_drift_log_and_a_file_of_metrics(shop: Deployment, tmp_path: Path) -> None:
    """One compares and one repairs; no line of the log is torn, and the file is always whole."""
    log, file = tmp_path / "drift.jsonl", tmp_path / "w.prom"
    kept = ("--drift-log", str(log), "--metrics-file", str(file))
    with watching(shop, *kept) as one, watching(shop, "--repair", *kept) as other:
        ended = time.monotonic() + PATIENCE
        seen: set[str] = set()
        number = 0
        while seen < {"diff", "repair"} or len(driftlog.read(log).sightings) < 8:
            assert time.monotonic() < ended, (one.said, other.said)
            number += 1
            shop.sql("parent", "INSERT INTO ware (name) VALUES (:name)", name=f"x{number}")
            if file.exists():
                families = list(text_string_to_metric_families(file.read_text()))
                seen |= {
                    s.labels["verb"] for f in families for s in f.samples if f.name == "cellsync_exit_code"
                }
            time.sleep(0.1)
        assert (one.end(), other.end()) == (0, 0)
        assert not [line for line in one.said + other.said if line.startswith("cellsync: ")]
    reading = driftlog.read(log)
    assert reading.torn == 0
    assert {each.verb for each in reading.sightings} == {"diff", "repair"}
    found = {row.key[0] for each in reading.sightings for rule in each.cells[0].rules for row in rule.rows}
    assert found and all(name.startswith("x") for name in found)
    assert not list(tmp_path.glob("*.part"))


def test_a_place_that_cannot_be_written_is_said_once_and_ends_nothing(
    shop: Deployment, tmp_path: Path
) -> None:
    """Neither the metrics nor the drift log are worth more than the repairs."""
    folder = tmp_path / "kept"
    folder.mkdir()
    kept = ("--drift-log", str(folder / "drift.jsonl"), "--metrics-file", str(folder / "w.prom"))
    with watching(shop, "--repair", *kept) as watch:
        watch.until((folder / "w.prom").exists)
        shutil.rmtree(folder)
        watch.until(lambda: sum(line.startswith("cellsync: cannot write") for line in watch.said) == 2)
        for name in ("one", "two"):
            shop.sql("parent", "INSERT INTO ware (name) VALUES (:name)", name=name)
            watch.until(lambda name=name: shop.sql("c1", "SELECT 1 FROM ware WHERE name = :n", n=name))
        folder.mkdir()
        watch.until((folder / "w.prom").exists)
        assert watch.end() == 0
    assert sum(line.startswith("cellsync: ") for line in watch.said) == 2


def test_a_mistake_in_the_files_ends_it_before_it_begins(shop: Deployment) -> None:
    """Exit code 2, as with every command; so does a port that is taken."""
    assert shop.process("watch", "--rules", "nowhere.yaml").code == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = shop.process("watch", "--metrics-port", str(taken.getsockname()[1]))
    assert (done.code, "--metrics-port" in done.said) == (2, True)


def test_a_watch_compares_whoever_holds_its_server(cells: Deployment) -> None:
    """Two hundred idle clients, and few descriptors: the rounds go on, and who asks is answered."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
    watch = Watch(cells, "--metrics-port", "0", program=f"{limited}from cellsync.cli import main; main()")
    idle: list[socket.socket] = []
    try:
        watch.until(lambda: len(watch.said) >= 2)
        found = re.search(r"127\.0\.0\.1:(\d+)", "\n".join(watch.said))
        assert found, watch.said
        port = int(found[1])
        idle = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(200)]
        sql(cells.urls["c1"], "DROP TABLE aggregate_hosts")
        watch.until(lambda: "incomplete" in "\n".join(watch.said) or "exit code 4" in "\n".join(watch.said))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert b"cellsync" in answer.read()
    finally:
        for client in idle:
            client.close()
        assert watch.end() == 0

"""The demonstration keeps its promises, says so when it cannot, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servers import PrivateServer, checksums, sql

from cellsync import demo
from cellsync.demo import nova

BACKENDS = ("mariadb", "sqlite")
each_backend = pytest.mark.parametrize("backend", BACKENDS)

# Stands in for the command that the demonstration runs; the first argument is its exit code.
ENDS_WITH = "import sys; print('said something'); sys.exit(int(sys.argv[1]))"
SLEEPS = "import sys, time; print('asleep'); time.sleep(60)"

# A demonstration whose command sleeps: sends a line at each step, so that a test knows where it is.
SLEEPING_DEMO = f"""
import signal, sys
from cellsync import demo
# A job in the background of a script inherits it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
echo = lambda text: print(text, flush=True)
command = [sys.executable, "-c", {SLEEPS!r}]
sys.exit(demo.run(backend=sys.argv[1], keep=False, echo=echo, cellsync=command))
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the demonstration make its folder where the test can see what is left of it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def _processes_using(folder: Path) -> list[str]:
    # Only this machine's /proc tells; elsewhere the empty folder has to be enough.
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if str(folder) in command:
            found.append(command)
    return found


@pytest.mark.slow
@each_backend
def test_the_demo_shows_diff_repair_and_undo_and_cleans_up(backend: str, temporary: Path) -> None:
    """Every step ends as it must, the databases end as they began, and nothing stays."""
    done = subprocess.run(
        [sys.executable, "-m", "cellsync", "demo", "--backend", backend],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for promise in (
        "$ cellsync diff",
        "$ cellsync repair --yes",
        "c1   az-east:",
        "$ cellsync undo",
        "byte for byte",
    ):
        assert promise in done.stdout
    assert list(temporary.iterdir()) == []
    assert _processes_using(temporary) == []


@each_backend
@pytest.mark.parametrize("code", [0, 2, 4, 70])
def test_a_step_with_another_exit_code_fails_the_demo(backend: str, code: int, temporary: Path) -> None:
    """A first diff that finds no differences, or breaks, is named; the exit code is 1."""
    said: list[str] = []
    command = [sys.executable, "-c", ENDS_WITH, str(code)]
    assert demo.run(backend=backend, keep=False, echo=said.append, cellsync=command) == 1
    assert "said something" in "\n".join(said)
    assert said[-1].startswith("The demonstration failed: 'cellsync diff' ended with")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_the_server_and_removes_the_folder(number: signal.Signals, temporary: Path) -> None:
    """Ctrl-C, a closed terminal and a plain kill leave no server and no file behind."""
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPING_DEMO, "mariadb"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("$ cellsync diff"):
                break
        assert len(_processes_using(temporary)) > 0
        os.killpg(process.pid, number)  # as a terminal does: the command that runs gets it too
        assert process.wait(30) != 0
    assert list(temporary.iterdir()) == []
    assert _processes_using(temporary) == []


def test_a_server_that_cannot_start_says_why(temporary: Path) -> None:
    """The end of the server's own log stands in the error, and no process stays."""
    server = PrivateServer(temporary / "server", options=("--no-such-option",))
    with pytest.raises(demo.ServerFailed, match="no-such-option"):
        server.__enter__()
    assert _processes_using(temporary) == []


def test_a_killed_server_comes_back_on_its_port_with_its_commits(throwaway_server: PrivateServer) -> None:
    """What was committed before SIGKILL is there after a new start, under the same URL."""
    server = throwaway_server
    sql(server.url(), "CREATE DATABASE kept")
    url = server.url("kept")
    sql(url, "CREATE TABLE t (id INT PRIMARY KEY)")
    sql(url, "INSERT INTO t VALUES (1)")
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start()
    assert sql(url, "SELECT id FROM t") == [(1,)]


@pytest.mark.parametrize(
    ("column", "before", "after"),
    [
        ("v VARCHAR(20)", "'a'", "'A'"),
        ("v VARCHAR(20)", "'a'", "'a '"),
        ("v VARCHAR(20)", "''", "NULL"),
        ("v VARCHAR(20)", "'NULL'", "NULL"),
        ("v FLOAT", "0.1", "0.10000001"),
        ("v DOUBLE", "0.1", "0.10000000000000002"),
        ("v VARBINARY(9)", "x'00'", "x'0000'"),
        ("v DATETIME(6)", "'2016-01-01 00:00:00'", "'2016-01-01 00:00:00.000001'"),
        ("v TINYINT(1)", "0", "NULL"),
    ],
)
def test_checksums_see_the_last_bit(column: str, before: str, after: str, database) -> None:  # type: ignore[no-untyped-def]
    """A change that most comparisons miss makes another checksum; undoing it, the first one."""
    url = database()
    sql(url, f"CREATE TABLE t (id INT PRIMARY KEY, {column})")
    sql(url, f"INSERT INTO t VALUES (1, {before}), (2, {before})")
    first = checksums(url)
    sql(url, f"UPDATE t SET v = {after} WHERE id = 1")
    assert checksums(url) != first
    sql(url, f"UPDATE t SET v = {before} WHERE id = 1")
    assert checksums(url) == first


def test_the_databases_are_broken_as_the_demo_says(database) -> None:  # type: ignore[no-untyped-def]
    """Before a repair no child has a zone of the parent's; hosts of zones are plain, as Nova takes them."""
    urls = {cell: database(charset="utf8mb3") for cell in nova.CELLS}
    for cell, url in urls.items():
        nova.fill(url, cell=cell)
    assert all(list(nova.zones(urls[child])) == ["nova"] for child in nova.CHILDREN)
    assert sql(urls["api"], "SELECT COUNT(*) FROM aggregate_hosts WHERE host NOT LIKE 'api!c_@%'") == [(4,)]
    assert sql(urls["c1"], "SELECT COUNT(*) FROM aggregates") == [(0,)]
    assert sql(urls["c2"], "SELECT id, name FROM aggregates ORDER BY id") == [(1, "c2-only"), (7, "west")]

"""Output that cannot be written, and words that must not be written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from deployment import Deployment
from servers import Server, sql

from cellsync import driftlog
from cellsync.cli.preparing import put
from cellsync.errors import DriftLogUnavailable, ExitCode, OutputFailed
from cellsync.model import Sighting
from cellsync.symlinks import open_trusted

pytestmark = pytest.mark.slow

RULES = """\
pack: own
why: A pack of the test's own.
rules:
  - {id: t, why: w, table: t, key: [k], limits: {inserts: 100000, updates: 100000}}
"""


@pytest.fixture
def pair(database: Callable[..., str], tmp_path: Path) -> Deployment:
    """A parent with one row more than its child, and one that is changed."""
    urls = {name: database() for name in ("api", "c1")}
    for url in urls.values():
        sql(url, "CREATE TABLE t (k INT PRIMARY KEY, v INT)")
    sql(urls["api"], "INSERT INTO t VALUES (1, 1), (2, 2)")
    sql(urls["c1"], "INSERT INTO t VALUES (1, 9)")
    return Deployment(urls=urls, folder=tmp_path).rule_file(RULES)


def _shell(cells: Deployment, command: str, redirected: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell does, with its outputs led elsewhere."""
    program = f"{sys.executable} -m cellsync -c {cells.config} {command} {redirected}"
    return subprocess.run(
        ["bash", "-c", program],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
        check=False,
    )


def _rows(cells: Deployment) -> list[tuple[object, ...]]:
    return [tuple(row) for row in sql(cells.urls["c1"], "SELECT k, v FROM t ORDER BY k")]


WRITTEN = [(1, 1), (2, 2)]


def test_a_repair_whose_output_is_lost_says_so(pair: Deployment) -> None:
    """stdout that is full, or closed: the rows are written, and the exit code is 4, never 0 and never 70."""
    for redirected, why in ((">/dev/full", "No space left"), (">&-", "closed")):
        sql(pair.urls["c1"], "UPDATE t SET v = 9 WHERE k = 1")
        done = _shell(pair, "repair --yes", redirected)
        assert done.returncode == 4, (redirected, done.stderr)
        assert "cannot write to stdout" in done.stderr and why in done.stderr
        assert "Traceback" not in done.stderr
        assert _rows(pair) == WRITTEN


def test_a_full_file_is_no_wrong_usage_once_rows_are_written(pair: Deployment) -> None:
    """-o and --metrics-file on a full device: exit 4, and the run is named."""
    for option in ("-o", "--metrics-file"):
        sql(pair.urls["c1"], "UPDATE t SET v = 9 WHERE k = 1")
        done = _shell(pair, f"repair --yes {option} /dev/full", "")
        assert done.returncode == 4, done.stderr
        assert "cannot write /dev/full" in done.stderr
        assert "changes were made and are in the journal: cellsync history 20" in done.stderr
        assert _rows(pair) == WRITTEN


def test_errors_that_nobody_can_read_change_no_exit_code(pair: Deployment) -> None:
    """stderr that is full, or closed: a closed one is no file that something else is written into."""
    for redirected in ("2>/dev/full", "2>&-", "2>&- <&-"):
        assert _shell(pair, "diff -vvv", redirected).returncode == 1
        assert _shell(pair, "diff --rule nobody", redirected).returncode == 2
    for redirected in ("2>/dev/full", "2>&-", ">&- 2>&-"):
        sql(pair.urls["c1"], "UPDATE t SET v = 9 WHERE k = 1")
        done = _shell(pair, "repair --yes -vvv", redirected)
        assert done.returncode == (4 if ">&- 2" in redirected else 0)
        assert _rows(pair) == WRITTEN


def test_a_reader_that_leaves_does_not_hide_how_it_ended(pair: Deployment) -> None:
    """Behind `| head`, too, the exit code is that of the command."""
    program = f"{sys.executable} -m cellsync -c {pair.config} diff | true; exit ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(
            ["bash", "-c", program],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")


# -- A server that goes away -----------------------------------------------------------------------


SOON_TIRED = """
from cellsync.apply import executing
from cellsync.cli import main
executing.TRIES = 1
main()
"""
"""cellsync, which tries a batch once more and not for 15 seconds."""


def test_a_server_that_goes_away_is_told_once(pair: Deployment, server: Server) -> None:
    """Not with a traceback, and not with a line for each of the rows that are left."""
    for url in pair.urls.values():
        sql(url, "INSERT INTO t SELECT seq, 0 FROM seq_3_to_8000")
    sql(pair.urls["api"], "UPDATE t SET v = 5")
    name = "'gone'@'127.0.0.1'"
    sql(server.url(), f"CREATE OR REPLACE USER {name} IDENTIFIED BY 'pw'")
    sql(server.url(), f"GRANT ALL ON *.* TO {name}")
    url = sa.make_url(pair.urls["c1"]).set(username="gone", password="pw")
    leaving = pair.configure(urls={**pair.urls, "c1": url.render_as_string(hide_password=False)})

    def lock_out() -> None:
        ended = time.monotonic() + 60
        while time.monotonic() < ended and not sql(pair.urls["c1"], "SELECT 1 FROM t WHERE v = 5 LIMIT 1"):
            time.sleep(0.01)
        sql(server.url(), f"ALTER USER {name} ACCOUNT LOCK")
        sql(server.url(), f"KILL USER {name}")

    thread = threading.Thread(target=lock_out)
    thread.start()
    try:
        done = leaving.process("repair", "--yes", "--quiet", code=SOON_TIRED)
    finally:
        thread.join()
        sql(server.url(), f"DROP USER {name}")
    assert done.code == 4, done.said
    assert done.err == ""
    said = done.out[done.out.index("went wrong:") :]
    assert len(said.splitlines()) < 12, said
    assert "more changes failed for the same reason (-v shows all)" in said


# -- What an error is called -----------------------------------------------------------------------


def test_a_column_without_a_default_is_no_lack_of_privileges(pair: Deployment) -> None:
    """1364 cannot be granted away: another refusal, with the server's words."""
    sql(pair.urls["c1"], "ALTER TABLE t ADD n INT NOT NULL")
    done = pair.repair()
    assert done.code in (3, 4), done.said
    refusals = {each["code"]: each["message"] for each in done.cell("c1")["refusals"]}
    assert "privilege" not in refusals, refusals
    if refusals:
        assert "(error 1364)" in refusals["not-writable"] and "grant" not in refusals["not-writable"]
    assert "grant" not in done.said


def test_a_lack_of_privileges_is_one(pair: Deployment, server: Server) -> None:
    """As it was: the server's words, and what to do."""
    name = "'narrow'@'127.0.0.1'"
    sql(server.url(), f"CREATE OR REPLACE USER {name} IDENTIFIED BY 'pw'")
    sql(server.url(), f"GRANT SELECT ON *.* TO {name}")
    sql(server.url(), f"GRANT ALL ON cellsync.* TO {name}")
    url = sa.make_url(pair.urls["c1"]).set(username="narrow", password="pw")
    narrow = pair.configure(urls={**pair.urls, "c1": url.render_as_string(hide_password=False)})
    try:
        done = narrow.repair()
    finally:
        sql(server.url(), f"DROP USER {name}")
    assert done.code == 3, done.said
    (refusal,) = done.cell("c1")["refusals"]
    assert refusal["code"] == "privilege" and "grant it" in refusal["message"]


# -- Secrets and controls --------------------------------------------------------------------------

SECRET = "c4n4ry-pa55"
URLS = (f"mysql+pymysql://u:{SECRET}@h/x", f"mysql+pymysql:/u:{SECRET}@h/x", f"/mysql://u:{SECRET}@h/x")


def test_a_url_in_the_place_of_a_path_is_refused_and_not_shown(pair: Deployment) -> None:
    """In cellsync.yaml, wherever it wants a file: with the place, and without the password."""
    text = pair.config.read_text(encoding="utf-8")
    c1 = f'{{"name": "c1", "database": "{pair.urls["c1"]}"}}'
    assert c1 in text
    for url in URLS:
        written = {
            "nova_conf": text.replace(c1, f'{{"name": "c1", "nova_conf": "{url}"}}'),
            "defaults_file": text.replace(
                c1, f'{{"name": "c1", "database": "mysql:///x", "defaults_file": "{url}"}}'
            ),
            "a reference": text.replace(c1, f'{{"name": "c1", "database": "mysql://u:${{file:{url}}}@h/x"}}'),
            "TLS": text.replace(c1, f'{{"name": "c1", "database": "mysql://h/x?ssl_ca={url}"}}'),
            "rules": text.replace("./own.yaml", url),
            "drift_log": f"{text}drift_log: '{url}'\n",
        }
        for what, changed in written.items():
            assert changed != text, what
            pair.config.write_text(changed, encoding="utf-8")
            for more in ((), ("--log-format", "json"), ("-vvv",)):
                done = pair.run("diff", *more)
                assert (done.code, done.out) == (2, ""), (what, url, done.said)
                assert SECRET not in done.said, (what, url, done.said)
                assert "cellsync.yaml:" in done.err, (what, url, done.said)


def test_a_url_in_the_place_of_an_argument_is_refused_and_not_shown(pair: Deployment) -> None:
    """Exit 2, whatever the option."""
    calls = [
        ["diff", "-c"],
        ["diff", "-r"],
        ["diff", "--metrics-file"],
        ["diff", "--drift-log"],
        ["diff", "-o"],
    ]
    calls += [["repair", "--yes", "--plan"], ["rules", "validate"], ["rules", "init", "t", "-o"], ["diff"]]
    calls += [["diff", "--rule"], ["undo", "--yes"], ["history"], ["diff", "--format"], ["diff", "--nothing"]]
    for url in URLS:
        for call in calls:
            done = pair.run(*call, url)
            assert (done.code, done.out) == (2, ""), (call, url, done.said)
            assert SECRET not in done.said, (call, url, done.said)


def test_controls_do_not_reach_the_terminal(pair: Deployment) -> None:
    """A colour, a bell or a turned reading direction in a path or a name is shown as an escape."""
    text = pair.config.read_text(encoding="utf-8")
    evil = "x\\x1b[31m\\x07\\u202e\\x9b"
    for changed in (
        text.replace('"./own.yaml"', f'"./{evil}.yaml"'),
        text.replace('"name": "c1"', f'"name": "{evil}"'),
        f'{text}"{evil}": 1\n',
        f'{text}settle: "{evil}"\n',
        f'{text}drift_log: "/nowhere/{evil}"\n',
        f'{text}drift_log: "x\\0y"\n',
    ):
        assert changed != text
        pair.config.write_text(changed, encoding="utf-8")
        for more in ((), ("-vvv",)):
            done = pair.run("diff", *more)
            assert done.code in (1, 2, 4), done.said
            assert not {"\x1b", "\x07", "\u202e", "\x9b"} & {*done.said}, done.said
    pair.config.write_text(text, encoding="utf-8")
    done = pair.run("diff", "x\x1b[31m")
    assert done.code == 2 and "\x1b" not in done.said and "\\x1b" in done.err


# -- Symbolic links --------------------------------------------------------------------------------


def _plant(link: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a link that belongs to another user."""
    link.symlink_to(target)
    if os.geteuid() == 0:
        os.lchown(link, 12345, 12345)
    else:
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)


def test_a_link_of_another_user_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drift log says why; what the link leads to is as it was, or not there."""
    now = datetime.now(timezone.utc)
    sighting = Sighting(
        run="r",
        verb="diff",
        started=now,
        finished=now,
        topology="api",
        exit_code=ExitCode.IN_STEP,
        rules=(),
        cells=(),
    )
    victim = tmp_path / "victim"
    victim.write_text("mine\n", encoding="utf-8")
    for number, target in enumerate((victim, tmp_path / "not-there")):
        link = tmp_path / f"planted{number}"
        _plant(link, target, monkeypatch)
        with pytest.raises(OSError, match="a symbolic link of another user"):
            open_trusted(link, os.O_RDWR | os.O_CREAT)
        with pytest.raises(DriftLogUnavailable, match="a symbolic link of another user"):
            driftlog.append(link, sighting)
    assert victim.read_text(encoding="utf-8") == "mine\n"
    assert not (tmp_path / "not-there").exists()


def test_a_link_to_a_device_is_not_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is another user's link to a pipe, where -o would write to what is there."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        link = tmp_path / "planted"
        _plant(link, pipe, monkeypatch)
        with pytest.raises(OutputFailed, match="a symbolic link of another user"):
            put(["secret"], str(link))
    finally:
        os.close(reading)


def test_own_links_are_followed(tmp_path: Path) -> None:
    """One's own, from one to the next, and those of the kernel, to which /dev/stdout leads."""
    target, middle, link = (tmp_path / name for name in ("target", "middle", "link"))
    middle.symlink_to("target")
    link.symlink_to(middle)
    os.close(open_trusted(link, os.O_RDWR | os.O_CREAT, 0o600))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600 and link.is_symlink()
    reading, writing = os.pipe()
    try:
        os.write(open_trusted(f"/proc/self/fd/{writing}", os.O_WRONLY), b"x")
        assert os.read(reading, 9) == b"x"
    finally:
        os.close(reading)
        os.close(writing)
    target.unlink()
    target.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links"):
        open_trusted(link, os.O_RDWR)

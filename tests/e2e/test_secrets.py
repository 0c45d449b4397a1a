"""No password in any output, log, journal, plan file or traceback, in no spelling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy as sa
from deployment import Deployment, Done
from servers import Server, sql

HEAD, TAIL = "hunter2", "Qzx9Kv"
PASSWORD = f"{HEAD}@:/%#'\"\\{TAIL}"
"""Every character here ends or escapes something somewhere."""

SPELLINGS = (HEAD, TAIL, quote(PASSWORD, safe=""), quote_plus(PASSWORD), repr(PASSWORD), json.dumps(PASSWORD))
VERBOSE = "-vvv"


@pytest.fixture
def guarded(cells: Deployment, server: Server) -> Iterator[Deployment]:
    """Give the deployment as a user with that password sees it, the password in the cell file."""
    user = "'secretive'@'127.0.0.1'"
    with sa.create_engine(server.url(), poolclass=sa.pool.NullPool).begin() as connection:
        quoted = PASSWORD.replace("\\", "\\\\").replace("'", "''").replace("%", "%%")
        connection.exec_driver_sql(f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{quoted}'", ())
        connection.exec_driver_sql(f"GRANT ALL ON *.* TO {user}")
    yield cells.configure(urls={cell: _as_user(url) for cell, url in cells.urls.items()})
    sql(server.url(), f"DROP USER {user}")


def _as_user(url: str, **changed: object) -> str:
    made = sa.make_url(url).set(username="secretive", password=PASSWORD, **changed)
    return made.render_as_string(hide_password=False)


def _assert_clean(text: str) -> None:
    for spelling in SPELLINGS:
        assert spelling not in text


def _hunt(done: Done) -> Done:
    _assert_clean(done.out)
    _assert_clean(done.err)
    return done


def test_a_whole_round_tells_nobody_the_password(guarded: Deployment, tmp_path: Path) -> None:
    """Comparing, planning, repairing, looking back and undoing, as talkative as they can be."""
    plan = str(tmp_path / "plan.json")
    assert _hunt(guarded.process(VERBOSE, "diff")).code == 1
    assert _hunt(guarded.run("diff", "--format", "jsonl")).code == 1
    assert _hunt(guarded.run("plan", "-o", plan)).code == 1
    repaired = _hunt(guarded.process(VERBOSE, "repair", "--yes", "--format", "json"))
    assert repaired.code == 1
    assert "SELECT" in repaired.err  # -vvv shows the SQL, else this hunts for nothing
    run = repaired.report["run"]
    assert _hunt(guarded.run("history", run)).code == 0
    assert _hunt(guarded.run("schema")).code == 0
    assert _hunt(guarded.process(VERBOSE, "undo", run, "--yes")).code == 0
    assert _hunt(guarded.run("repair", "--yes", "--plan", plan)).code == 1
    _assert_clean(Path(plan).read_text(encoding="utf-8"))
    journals = guarded.journals()
    assert journals["c1"]["changes"]
    _assert_clean(repr(journals))


WAYS = ("environment", "file", "defaults file", "nova.conf")


def test_every_way_to_give_a_password_works_and_hides_it(
    guarded: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password of awkward characters logs in, wherever it is kept, and nobody sees it."""
    monkeypatch.setenv("CELLSYNC_PASSWORD", PASSWORD)
    urls = {cell: sa.make_url(url) for cell, url in guarded.urls.items()}
    for way in WAYS:
        entries = {cell: _entry(way, cell, url, guarded.folder) for cell, url in urls.items()}
        children = "".join(f"  - {entries[cell]}\n" for cell in ("c1", "c2"))
        guarded.config.write_text(
            f"parent: {entries['parent']}\nchildren:\n{children}rules: [nova-cells-v1]\nsettle: 0\n"
        )
        done = _hunt(guarded.json("diff", "--rule", "aggregates"))
        assert done.code == 1, (way, done.err)
        assert done.counts() == {"c1": {"aggregates": (6, 0, 0)}, "c2": {"aggregates": (5, 0, 1)}}


def _entry(way: str, cell: str, url: sa.engine.URL, folder: Path) -> str:
    place = f"{url.host}:{url.port}/{url.database}"
    if way == "environment":
        return f'{{name: {cell}, database: "mysql+pymysql://secretive:${{CELLSYNC_PASSWORD}}@{place}"}}'
    if way == "file":
        (folder / "password").write_text(PASSWORD + "\n")
        return f'{{name: {cell}, database: "mysql+pymysql://secretive:${{file:password}}@{place}"}}'
    if way == "defaults file":
        escaped = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
        (folder / "my.cnf").write_text(f'[client]\nuser = secretive\npassword = "{escaped}"\n')
        return f'{{name: {cell}, defaults_file: my.cnf, database: "mysql+pymysql://{place}"}}'
    text = url.set(query={}).render_as_string(hide_password=False)
    (folder / f"{cell}.conf").write_text(f"[database]\nconnection = {text}\n")
    return f"{{name: {cell}, nova_conf: {cell}.conf}}"


def test_a_password_outside_latin_1_logs_in(cells: Deployment, server: Server) -> None:
    """It is sent as MariaDB's own client sends it, in UTF-8; a wrong one is not shown in part."""
    user = "'foreign'@'127.0.0.1'"
    for password in ("zażółć", "密码", "grün"):
        sql(server.url(), f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{password}'")
        sql(server.url(), f"GRANT ALL ON *.* TO {user}")
        for given, code in ((password, 1), (f"{password}ł", 4)):
            urls = {
                cell: sa.make_url(url)
                .set(username="foreign", password=given)
                .render_as_string(hide_password=False)
                for cell, url in cells.urls.items()
            }
            done = cells.configure(urls=urls).run("diff", "--rule", "aggregates")
            assert done.code == code, done.said
            assert password not in done.said and "ł" not in done.said
    sql(server.url(), f"DROP USER {user}")


WRONG = ({"port": 1}, {"database": "no_such_nova"}, {"host": "no-such-host.invalid"})


def test_a_connection_that_fails_hides_the_password(guarded: Deployment) -> None:
    """Every failure of the login says where, with stars."""
    for place in WRONG:
        broken = guarded.configure(urls={**guarded.urls, "c1": _as_user(guarded.urls["c1"], **place)})
        for done in (broken.process(VERBOSE, "diff"), broken.json("repair", "--yes"), broken.run("history")):
            assert _hunt(done).code == 4
            assert "secretive:***@" in done.said


BROKEN_FILES = {
    "an unescaped password": "parent: {{name: parent, database: 'mysql://secretive:{plain}@127.0.0.1/nova'}}\n",
    "the URL as a name": "parent: {{name: '{url}', database: x}}\nchildren: []\n",
    "the URL as a key": "parent:\n  name: parent\n  ? '{url}'\n  : x\n",
    "the URL as the whole file": "{url}\n",
    "the URL as a list": "parent: ['{url}']\nchildren: '{url}'\n",
    "the URL as a rule": "{good}rules: ['{url}']\n",
    "the URL as the settle time": "{good}rules: [nova-cells-v1]\nsettle: '{url}'\n",
    "a wrong driver": "parent: {{name: parent, database: 'postgresql{rest}'}}\nchildren: []\n",
    "an unclosed quote": "parent: {{name: parent, database: '{url}}}\nchildren: []\n",
    "a broker with two users": "parent: {{name: p, database: '{url}', broker: 'rabbit{rest}@x'}}\n",
}


def test_a_broken_cell_file_is_described_without_its_password(guarded: Deployment) -> None:
    """A URL in the wrong place is still a secret: exit 2, the place, and no part of it."""
    url = sa.make_url(guarded.urls["c1"]).set(query={}).render_as_string(hide_password=False)
    good = guarded.config.read_text().partition("rules:")[0]
    rest, plain = url.partition("mysql+pymysql")[2], PASSWORD.replace("'", "''")
    for fault, text in BROKEN_FILES.items():
        guarded.config.write_text(text.format(plain=plain, url=url, rest=rest, good=good))
        done = _hunt(guarded.run("diff"))
        assert done.code == 2, (fault, done.said)
        assert "Traceback" not in done.err


BUGS = {"cellsync.run.compare.planned": 70, "cellsync.db.Database.identity": 4, "cellsync.yamlfile.load": 70}
"""Where it crashes: in the command, in one cell's work, while the cells are read; the exit code."""

CRASHING = """
import sys, importlib
from urllib.parse import quote
password = {password!r}
import cellsync.cli, cellsync.run, cellsync.db, cellsync.cells
def crash(*_, **__):
    url = "mysql+pymysql://secretive:" + quote(password, safe="") + "@127.0.0.1/nova"
    other = "mysql://secretive:" + password + "@127.0.0.1/nova"
    # Until the cells are read nobody knows what is a password: it shows only in a URL.
    bare = [] if "yamlfile" in {place!r} else [password, [url]]
    raise RuntimeError("lost " + url + " and " + other, *bare)
owner, _, name = {place!r}.rpartition(".")
thing = sys.modules.get(owner)
if thing is None:
    module, _, kind = owner.rpartition(".")
    thing = getattr(importlib.import_module(module), kind)
assert hasattr(thing, name), {place!r}
setattr(thing, name, crash)
cellsync.cli.main()
"""


def test_a_bug_is_told_without_the_password(guarded: Deployment) -> None:
    """Even where an error of somebody else's quotes it, in whatever spelling."""
    for place, code in BUGS.items():
        program = CRASHING.format(password=PASSWORD, place=place)
        done = _hunt(guarded.process(VERBOSE, "diff", code=program))
        assert done.code == code, done.said
        assert "bug in cellsync" in done.said
        assert "RuntimeError" in done.said

"""cells create, list, delete, isolate and restore, on real databases: what is written, and what is refused.

The brokers are names only here; tests/brokers logs in to real ones.
"""

from __future__ import annotations

import io
import json
from datetime import datetime, timezone
from typing import Any

import pytest
from deployment import Deployment, Done
from registered import ROW, brokers_of, configured, registered, rows, with_tables

PARENT_URL = "rabbit://guest:guest@127.0.0.1:1/parent"
C1_URL = "rabbit://guest:guest@127.0.0.1:1/c1"
C2_URL = "rabbit://guest:guest@127.0.0.1:1,guest:guest@127.0.0.1:2/c2"
URLS = {"parent": PARENT_URL, "c1": C1_URL, "c2": C2_URL}
PATH = "parent!c1"
CREATE = ("cells", "create", "--waive", "broker")
"""Nobody listens at these brokers."""


@pytest.fixture
def empty(cells: Deployment) -> Deployment:
    """Give a deployment in which nobody is registered yet."""
    return with_tables(cells)


@pytest.fixture
def known(cells: Deployment) -> Deployment:
    """Give a deployment in which everybody is registered, and no instance keeps a cell from going."""
    cells.sql("parent", "UPDATE instances SET cell_name = NULL")
    return registered(cells, URLS)


# What nova-manage cell create of Liberty wrote for these options (created_at left out): the parent's row
# for c1 and c2, and a child's row for the parent.
LIBERTY = {
    "c1": (None, None, 1, None, 0.0, 1.0, "c1", 0, 0, "rabbit://guest:guest@127.0.0.1:5672/c1"),
    "c2": (
        *(None, None, 2, None, 0.0, 1.0, "c2", 0, 0),
        "rabbit://guest:guest@127.0.0.1:5672,guest:guest@127.0.0.1:5673/c2",
    ),
    "parent": (None, None, 1, None, 0.0, 1.0, "parent", 1, 0, "rabbit://guest:guest@127.0.0.1:5672/parent"),
}
BROKER = ("--username", "guest", "--password", "guest")


def test_create_writes_what_nova_manage_writes(empty: Deployment) -> None:
    """Both sides, one broker from the options, the other from cellsync.yaml."""
    brokers_of(empty, parent="rabbit://guest:guest@127.0.0.1:5672/parent")
    one = (
        "--hostname",
        "127.0.0.1",
        "--port",
        "5672",
        "--virtual_host",
        "c1",
        "--woffset",
        "0",
        "--wscale",
        "1",
    )
    two = ("--broker_hosts", "127.0.0.1:5672,127.0.0.1:5673", "--virtual-host", "c2")
    before = datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)
    for name, options in (("c1", one), ("c2", two)):
        done = empty.run(*CREATE, name, "--cell_type", "child", *BROKER, *options, "--yes")
        assert done.code == 0, done.said
    assert rows(empty, "parent") == [LIBERTY["c1"], LIBERTY["c2"]]
    assert rows(empty, "c1") == rows(empty, "c2") == [LIBERTY["parent"]]
    (created,) = empty.sql("c1", "SELECT created_at FROM cells")[0]
    assert before <= created <= datetime.now(timezone.utc).replace(tzinfo=None)


def test_create_can_describe_the_parents_broker_and_write_one_side(empty: Deployment) -> None:
    """--cell_type api, as nova-manage spells it, run for the child's side alone."""
    options = ("--hostname", "127.0.0.1", "--port", "5672", "--virtual_host", "parent", "--side", "child")
    done = empty.run(*CREATE, "c1", "--cell-type", "api", *BROKER, *options, "--yes")
    assert done.code == 0, done.said
    assert (rows(empty, "parent"), rows(empty, "c1")) == ([], [LIBERTY["parent"]])


def test_a_creation_is_undone(empty: Deployment) -> None:
    """Both rows are gone, not only deleted softly."""
    brokers_of(empty, **URLS)
    assert empty.run(*CREATE, "c1", "--yes").code == 0
    undone = empty.run("undo", _last(empty), "--yes")
    assert undone.code == 0, undone.said
    assert (rows(empty, "parent"), rows(empty, "c1")) == ([], [])
    assert "nova-cells of parent sees it within 60 s" in undone.out
    assert "nova-cells of c1 sees it within 60 s" in undone.out


PASSWORDS = ["pw%41+!$x", "p: %zz", "a;b'c\"d\\e"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("given", ["stdin", "environment", "option"])
def test_a_password_comes_from_where_nobody_sees_it_and_is_written_as_liberty_reads_it(
    empty: Deployment, monkeypatch: pytest.MonkeyPatch, password: str, given: str
) -> None:
    """It is in the row, and neither in what is printed nor in the journal's record of the command."""
    from cellsync.model import Broker, Escaping

    brokers_of(empty, parent=PARENT_URL)
    options = ["--username", "nova", "--hostname", "::1", "--virtual_host", "/", "--side", "parent"]
    if given == "stdin":
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        options.append("--password-stdin")
    elif given == "environment":
        monkeypatch.setenv("CELLSYNC_BROKER_PASSWORD", password)
    else:
        options.append(f"--password={password}")
    monkeypatch.setattr("sys.argv", ["cellsync", "cells", "create", "c1", *options])
    done = empty.run("-v", *CREATE, "c1", *options, "--yes")
    assert done.code == 0, done.said
    text = rows(empty, "parent")[0][-1]
    assert text == f"rabbit://nova:{password}@[::1]:5672//"
    written = Broker.parse(text, Escaping.RAW)
    assert written.hosts[0].password is not None
    assert (written.hosts[0].password.reveal(), written.hosts[0].host, written.vhost) == (
        password,
        "::1",
        "/",
    )
    shown = done.said + json.dumps(empty.journal("parent")["runs"], default=str)
    for command in (("history", "-v", _last(empty)), ("undo", _last(empty), "--dry-run", "--format", "json")):
        shown += empty.run(*command).said
    shown += empty.run("cells", "list", "--format", "json").said
    assert password not in shown
    assert written.hosts[0].password.reveal() not in shown
    assert str(written) not in shown
    assert text not in shown


HARD = "a@b/c:d?e#f,g[h]i%41+!$é"
"""Only a percent-encoded URL can hold it."""


def create_with(empty: Deployment, password: str, *options: str) -> Done:
    """Register c1 in the parent with this password."""
    brokers_of(empty, parent=PARENT_URL)
    given = ("--username", "nova", f"--password={password}", "--hostname", "127.0.0.1", *options)
    return empty.run(*CREATE, "c1", *given, "--side", "parent", "--yes")


@pytest.mark.parametrize("version", [233, 302, 319])
def test_what_an_old_release_cannot_hold_is_refused_with_its_characters(
    empty: Deployment, version: int
) -> None:
    """And with its release; nothing is written, and the rest of the password is not shown."""
    for cell in empty.urls:
        empty.sql(cell, "UPDATE migrate_version SET version = :version", version=version)
    done = create_with(empty, HARD)
    assert done.code == 2
    assert "the broker of c1: the password has @, /, ?, #, ,, [, ] and é, which no transport_url" in done.said
    assert f"(migrate_version {version})" in done.said
    assert HARD not in done.said and "%41" not in done.said
    assert rows(empty, "parent") == []


@pytest.mark.parametrize("version", [216, 334, 391])
def test_what_another_release_decodes_is_encoded(empty: Deployment, version: int) -> None:
    """Havana's own parser, and oslo.messaging from Newton on."""
    from cellsync.model import Broker, Secret

    for cell in empty.urls:
        empty.sql(cell, "UPDATE migrate_version SET version = :version", version=version)
    assert create_with(empty, HARD).code == 0
    text = rows(empty, "parent")[0][-1]
    assert text.startswith("rabbit://nova:a%40b%2Fc%3Ad")
    assert Broker.parse(text).hosts[0].password == Secret(HARD)


def test_cellsync_yaml_can_say_the_release(empty: Deployment) -> None:
    """Where nothing says the release, only what all of them read alike is written."""
    for cell in empty.urls:
        empty.sql(cell, "DROP TABLE migrate_version")
    unsure = create_with(empty, "pw%41")
    assert (unsure.code, "add release to cellsync.yaml" in unsure.said) == (2, True), unsure.said
    assert create_with(empty, "plain").code == 0
    empty.sql("parent", "DELETE FROM cells")

    def create(release: str) -> Done:
        brokers_of(empty, parent=PARENT_URL)
        empty.config.write_text(f"{empty.config.read_text()}release: {release}\n")
        given = ("--username", "nova", "--password=pw%41", "--hostname", "127.0.0.1", "--side", "parent")
        return empty.run(*CREATE, "c1", *given, "--yes")

    assert create("Liberty").code == 0
    assert rows(empty, "parent")[0][-1] == "rabbit://nova:pw%41@127.0.0.1:5672/"
    empty.sql("parent", "DELETE FROM cells")
    assert create("newton").code == 0
    assert rows(empty, "parent")[0][-1] == "rabbit://nova:pw%2541@127.0.0.1:5672/"


def test_a_row_that_an_earlier_cellsync_encoded_is_called_wrong(known: Deployment) -> None:
    """As Liberty reads it the password is another one than that of cellsync.yaml."""
    encoded = "rabbit://nova:pw%2541%2B@127.0.0.1:1/c1"
    brokers_of(known, **{**URLS, "c1": encoded})
    known.sql("parent", "UPDATE cells SET transport_url = :broker WHERE name = 'c1'", broker=encoded)
    done = known.run("cells", "list")
    assert (done.code, "which Liberty (migrate_version 302) does not decode" in done.out) == (1, True)
    raw = "rabbit://nova:pw%41+@127.0.0.1:1/c1"
    known.sql("parent", "UPDATE cells SET transport_url = :broker WHERE name = 'c1'", broker=raw)
    assert known.run("cells", "list").code == 0


def test_the_broker_of_a_nova_conf_is_read_as_its_release_reads_it(known: Deployment) -> None:
    """The one of cellsync.yaml is percent-encoded in every release."""
    (known.folder / "c1.conf").write_text(
        "[DEFAULT]\ntransport_url = rabbit://nova:pw%41+!$$x@127.0.0.1:1/c1\n[cells]\nname = c1\n"
    )
    configured(known, c1={"nova_conf": "c1.conf"}, parent={"broker": PARENT_URL})
    known.sql("parent", "DELETE FROM cells WHERE name = 'c1'")
    assert known.run(*CREATE, "c1", "--side", "parent", "--yes").code == 0
    assert rows(known, "parent", "name = 'c1'")[0][-1] == "rabbit://nova:pw%41+!$x@127.0.0.1:1/c1"


def _last(cells: Deployment) -> str:
    return str(cells.json("history").report["runs"][0]["run"])


NAMES = {
    "a!b": "!",
    "a@b": "@",
    "a.b": ".",
    "a b": "blank",
    "a\tb": "blank",
    "": "1 to 255",
    "x" * 256: "1 to 255",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_nova_stumbles_over_are_refused(empty: Deployment, name: str) -> None:
    """Before anything is looked at."""
    done = empty.run(*CREATE, "--yes", "--", name)
    assert (done.code, NAMES[name] in done.said) == (2, True), done.said


def test_a_url_that_the_column_would_cut_is_refused(empty: Deployment) -> None:
    """Outside strict mode the server cuts it and says nothing."""
    brokers_of(empty, parent=PARENT_URL)
    hosts = ",".join(f"rabbit-{number}.example.org:5672" for number in range(8))
    done = empty.run(*CREATE, "c1", "--broker_hosts", hosts, *BROKER, "--yes")
    assert done.code == 2
    assert "characters and the column 255" in done.said
    assert rows(empty, "parent") == []


def test_create_goes_on_where_it_was_cut_off_and_refuses_what_is_there(known: Deployment) -> None:
    """One side is there as wanted: the other is made. Both: refused. Another row of the name: refused."""
    brokers_of(known, **URLS)
    known.sql("c1", "DELETE FROM cells")
    done = known.run(*CREATE, "c1", "--yes")
    assert done.code == 0, done.said
    assert rows(known, "c1")[0][6:] == ("parent", 1, 0, PARENT_URL)
    assert len(rows(known, "parent")) == 2
    again = known.run(*CREATE, "c1", "--yes")
    assert (again.code, "registered already" in again.said) == (3, True)
    brokers_of(known, **{**URLS, "c1": "rabbit://guest:guest@127.0.0.1:9/c1"})
    other = known.run(*CREATE, "c1", "--yes")
    assert (other.code, "has a row named c1 already (id 1)" in other.said) == (3, True)
    assert known.sql("parent", "SELECT COUNT(*) FROM cells") == [(2,)]


def test_one_refused_side_stops_the_other(known: Deployment) -> None:
    """A child that is half registered takes requests and cannot answer."""
    brokers_of(known, **{**URLS, "parent": "rabbit://guest:guest@127.0.0.1:9/parent"})
    known.sql("parent", "DELETE FROM cells WHERE name = 'c1'")
    assert known.run(*CREATE, "c1", "--yes").code == 3
    assert known.sql("parent", "SELECT COUNT(*) FROM cells WHERE name = 'c1'") == [(0,)]


def test_a_side_that_cannot_be_asked_stops_the_other(empty: Deployment) -> None:
    """--side says that one is enough."""
    configured(
        empty,
        parent={"broker": PARENT_URL},
        c1={"broker": C1_URL, "database": "mysql+pymysql://u:p@127.0.0.1:1/n"},
    )
    done = empty.run(*CREATE, "c1", "--yes")
    assert done.code == 4, done.said
    assert rows(empty, "parent") == []
    assert empty.run(*CREATE, "c1", "--side", "parent", "--yes").code == 0
    assert len(rows(empty, "parent")) == 1


@pytest.mark.parametrize("hosts", ["127.0.0.1:1", "127.0.0.1:1,10.0.0.9:5672"])
def test_a_row_that_would_lead_back_is_refused(empty: Deployment, hosts: str) -> None:
    """The parent's own broker as the child's, alone or put before it as nova-manage does it."""
    brokers_of(empty, parent=PARENT_URL)
    asked = (*CREATE, "c1", "--broker_hosts", hosts, *BROKER, "--virtual_host", "parent", "--yes")
    done = empty.run(*asked)
    assert (done.code, "own-broker" in done.said, "127.0.0.1:1" in done.said) == (3, True, True)
    assert empty.run(*asked, "--waive", "own-broker").code == 0


def test_two_vhosts_of_one_broker_are_two_brokers(empty: Deployment) -> None:
    """Small deployments and every test of Nova have them."""
    brokers_of(empty, parent=PARENT_URL, c1=C1_URL)
    assert empty.run(*CREATE, "c1", "--yes").code == 0


def test_a_broker_that_nobody_named_is_asked_for(empty: Deployment) -> None:
    """Exit code 2, and what to write."""
    done = empty.run(*CREATE, "c1", "--yes")
    assert (done.code, "--hostname" in done.said) == (2, True)
    assert empty.run(*CREATE, "c9", "--yes").code == 2
    assert empty.run(*CREATE, "c1", "--username", "u", "--yes").code == 2


GRIZZLY = "CREATE TABLE cells (id int PRIMARY KEY, name text, rpc_host text, rpc_port int, deleted bool)"


def test_grizzlys_table_is_recognised_and_not_written(cells: Deployment) -> None:
    """So is a table of that name that is not Nova's, and none at all."""
    for made, said in (
        (GRIZZLY, "Grizzly"),
        ("CREATE TABLE cells (id int PRIMARY KEY)", "not Nova's"),
        ("", "no table"),
    ):
        for cell in cells.urls:
            cells.sql(cell, "DROP TABLE IF EXISTS cells")
            if made:
                cells.sql(cell, made)
        brokers_of(cells, **URLS)
        for verb in ("create", "delete", "isolate"):
            done = cells.run("cells", verb, "c1", "--yes")
            assert (done.code, said in done.said) == (4, True), done.said
        assert cells.run("cells", "list").code == 4


# -- delete, undo --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["c1", "1"])
def test_delete_takes_both_rows_softly_and_undo_brings_them_back(known: Deployment, name: str) -> None:
    """By name and by id; byte for byte."""
    before = {cell: rows(known, cell) for cell in known.urls}
    assert known.run("cells", "delete", name, "--yes").code == 0
    for cell, gone in (("parent", "name = 'c1'"), ("c1", "name = 'parent'")):
        (deleted,) = known.sql(
            cell, f"SELECT deleted = id AND deleted_at IS NOT NULL FROM cells WHERE {gone}"
        )
        assert deleted == (1,)
    assert rows(known, "c2") == before["c2"]
    undone = known.run("undo", _last(known), "--yes")
    assert undone.code == 0, undone.said
    assert {cell: rows(known, cell) for cell in known.urls} == before


def test_delete_fails_when_nothing_matches(known: Deployment) -> None:
    """nova-manage says nothing then, and exits with 0."""
    for name in ("c9", "99", "parent"):
        done = known.run("cells", "delete", name, "--yes")
        assert (done.code, "no live row matches" in done.said) == (2, True)
    assert known.run("cells", "delete", "c1", "--yes").code == 0
    assert known.run("cells", "delete", "c1", "--yes").code == 2


def test_delete_refuses_while_instances_are_in_the_cell(known: Deployment) -> None:
    """With their number; a path below it counts, and another cell's name that begins alike does not."""
    for path in ("parent!c1", "parent!c1!deeper", "parent!c10", "parent!c2"):
        known.sql(
            "parent", "UPDATE instances SET cell_name = :path WHERE cell_name IS NULL LIMIT 1", path=path
        )
    done = known.run("cells", "delete", "c1", "--yes")
    assert done.code == 3
    assert "2 live instances are in c1" in done.said
    assert known.sql("parent", "SELECT COUNT(*) FROM cells WHERE deleted <> 0") == [(0,)]
    assert known.sql("c1", "SELECT COUNT(*) FROM cells WHERE deleted <> 0") == [(0,)]
    assert known.run("cells", "delete", "c1", "--yes", "--waive", "instances").code == 0


def test_delete_of_a_child_that_is_gone_does_the_parents_side(known: Deployment) -> None:
    """A cell that is taken down for good: its database does not answer any more."""
    configured(known, c1={"database": "mysql+pymysql://u:p@127.0.0.1:1/n"})
    done = known.run("cells", "delete", "c1", "--yes")
    assert done.code == 4
    assert rows(known, "parent", "deleted <> 0")[0][6] == "c1"
    assert known.run("cells", "delete", "c2", "--side", "parent", "--yes").code == 0
    assert rows(known, "c2", "deleted = 0") != []


# -- list ----------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, str, str]] = {
    "a name that differs by case": (
        "parent",
        "UPDATE cells SET name = 'C1' WHERE id = 1",
        "C1 is not a child in cellsync.yaml; c1 is",
    ),
    "a name that nobody has": (
        "parent",
        "UPDATE cells SET name = 'old' WHERE name = 'c1'",
        "old is not a child in cellsync.yaml",
    ),
    "no row in the parent": ("parent", "DELETE FROM cells WHERE name = 'c1'", "parent has no row for c1"),
    "no row in the child": ("c1", "DELETE FROM cells", "c1 has no row for parent"),
    "the parent by another name": (
        "c1",
        "UPDATE cells SET name = 'api'",
        "api is not the name of the parent in cellsync.yaml",
    ),
    "another broker": (
        "parent",
        "UPDATE cells SET transport_url = 'rabbit://g:hunter2@h9:1/c1' WHERE name = 'c1'",
        "cellsync.yaml says that the broker of c1 is rabbit://guest:***@127.0.0.1:1/c1",
    ),
    "the parent's own broker": (
        "parent",
        f"UPDATE cells SET transport_url = '{PARENT_URL}' WHERE name = 'c2'",
        "leads to the broker of parent itself: 127.0.0.1:1",
    ),
    "the parent's broker before the child's": (
        "parent",
        "UPDATE cells SET transport_url = 'rabbit://guest:guest@127.0.0.1:1,g:g@h2:1/c1' WHERE name = 'c1'",
        "leads to the broker of parent itself: 127.0.0.1:1",
    ),
    "the child's broker in the child": (
        "c1",
        f"UPDATE cells SET transport_url = '{C1_URL}'",
        "leads to the broker of c1 itself",
    ),
    "a password that was not encoded": (
        "parent",
        "UPDATE cells SET transport_url = 'rabbit://cu:hunter2/1%@h:1/v' WHERE name = 'c1'",
        "transport_url the broker URL has an @ behind its hosts",
    ),
    "a child marked as a parent": (
        "parent",
        "UPDATE cells SET is_parent = 1 WHERE id = 1",
        "it is marked as a parent of the parent",
    ),
    "a row that Nova does not see": (
        "parent",
        "INSERT INTO cells (name, is_parent, transport_url) VALUES ('c1', 0, 'x://h/c1')",
        "deleted is NULL: Nova does not see the row",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_list_marks_what_is_wrong(known: Deployment, mistake: str) -> None:
    """Each mistake by its words, and only it; exit code 1, no password."""
    brokers_of(known, parent=PARENT_URL, c1=C1_URL)
    sound = known.run("cells", "list")
    assert (sound.code, "4 rows, 0 mismatches" in sound.out) == (0, True), sound.said
    assert known.run("--quiet", "cells", "list").out == ""
    where, statement, said = MISTAKES[mistake]
    known.sql(where, statement)
    done = known.run("cells", "list")
    assert done.code == 1
    assert said in done.out
    found = known.json("cells", "list").report
    texts = [text for row in found["rows"] for text in row["mismatches"]] + found["missing"]
    assert any(said in text for text in texts)
    assert "hunter2" not in done.said + json.dumps(found)


def test_list_compares_with_what_a_cell_calls_itself(known: Deployment) -> None:
    """[cells] name of its nova.conf."""
    conf = known.folder / "c1.conf"
    conf.write_text("[cells]\nname = cell-one\n")
    configured(known, c1={"nova_conf": "c1.conf"})
    done = known.run("cells", "list")
    assert (done.code, "c1 calls itself cell-one" in done.out) == (1, True)


def test_list_shows_the_cells_that_answer_when_others_do_not(known: Deployment) -> None:
    """Exit code 4, and the other rows."""
    configured(known, c1={"database": "mysql+pymysql://u:p@127.0.0.1:1/n"})
    done = known.run("cells", "list")
    assert done.code == 4
    assert "cannot connect to c1" in done.out
    assert [row["name"] for row in known.json("cells", "list").report["rows"]] == ["c1", "c2", "parent"]


# -- isolate, restore ----------------------------------------------------------------------------


def test_isolate_and_restore_bring_the_same_row_back(known: Deployment) -> None:
    """Byte for byte; the journal has the whole row, and diff and list say that the child is isolated."""
    before = rows(known, "parent")
    done = known.run("cells", "isolate", "c1", "--yes")
    assert done.code == 0, done.said
    assert "nova-cells of parent sees it within 60 s" in done.out
    assert "cells restore c1" in done.out
    assert rows(known, "parent", "name = 'c1' AND deleted = id AND deleted_at IS NOT NULL") != []
    (kept,) = [change for change in known.journal("parent")["changes"] if change[5] == "cells"]
    assert C1_URL in str(kept)
    assert "isolated since" in known.run("diff", "c1").out
    listed = known.json("cells", "list").report
    assert [row["name"] for row in listed["isolated"]] == ["c1"]
    again = known.run("cells", "isolate", "c1", "--yes")
    assert (again.code, "c1 is isolated already" in again.out) == (0, True)
    assert known.run("cells", "restore", "c1", "--yes").code == 3
    back = known.run("cells", "restore", "c1", "--yes", "--waive", "broker", "--timeout", "1")
    assert back.code == 0, back.said
    assert rows(known, "parent") == before
    assert "isolated" not in known.run("diff", "c1").out
    there = known.run("cells", "restore", "c1", "--yes")
    assert (there.code, "c1 is not isolated" in there.out) == (0, True)


def test_a_child_that_is_named_twice_is_isolated_once(known: Deployment) -> None:
    """And brought back once."""
    assert known.run("cells", "isolate", "c1", "c1", "--yes").code == 0
    assert known.run("cells", "restore", "c1", "c1", "--yes", "--waive", "broker", "--timeout", "1").code == 0
    assert rows(known, "parent", "deleted <> 0") == []


def test_an_isolation_is_undone_like_any_run(known: Deployment) -> None:
    """And its undo too."""
    before = rows(known, "parent")
    assert known.run("cells", "isolate", "c1", "--yes").code == 0
    assert known.run("undo", _last(known), "--yes").code == 0
    assert rows(known, "parent") == before


def test_a_row_that_nova_archived_comes_back_from_the_journal(known: Deployment) -> None:
    """With its id and every value."""
    before = rows(known, "parent")
    assert known.run("cells", "isolate", "c1", "--yes").code == 0
    known.sql("parent", "DELETE FROM cells WHERE name = 'c1'")
    assert known.run("cells", "restore", "c1", "--yes", "--waive", "broker").code == 0
    assert rows(known, "parent") == before


def test_isolate_refuses_more_than_its_share(known: Deployment) -> None:
    """One of two children by default; a number, a percentage, or a waiver lifts it."""
    assert known.run("cells", "isolate", "c1", "c2", "--yes").code == 3
    assert rows(known, "parent", "deleted <> 0") == []
    assert known.run("cells", "isolate", "c1", "--yes").code == 0
    done = known.run("cells", "isolate", "c2", "--yes")
    assert (done.code, "2 of 2 children would be isolated, and 1 may be" in done.out) == (3, True)
    assert known.run("cells", "isolate", "c2", "--dry-run", "--max-isolated", "100%").code == 0
    assert known.run("cells", "isolate", "c2", "--dry-run", "--waive", "max-isolated").code == 0
    assert known.run("cells", "isolate", "c2", "--yes", "--max-isolated", "2").code == 0
    assert known.run("cells", "isolate", "c2", "--yes", "--max-isolated", "many").code == 0  # it is already
    assert known.run("cells", "isolate", "c9", "--yes").code == 2


def test_nothing_is_edited_where_nova_cells_reads_a_file(known: Deployment) -> None:
    """[cells] cells_config: a row would change nothing."""
    (known.folder / "nova.conf").write_text(
        "[cells]\nname = parent\ncells_config = /etc/nova/cells.json\ndb_check_interval = 7\n"
    )
    configured(known, parent={"nova_conf": "nova.conf"})
    before = rows(known, "parent")
    for verb in ("isolate", "delete"):
        done = known.run("cells", verb, "c1", "--yes")
        assert (done.code, "/etc/nova/cells.json" in done.out) == (3, True), done.said
    assert rows(known, "parent") == before


def test_the_seconds_are_those_of_nova_conf(known: Deployment) -> None:
    """db_check_interval."""
    (known.folder / "nova.conf").write_text("[cells]\nname = parent\ndb_check_interval = 7\n")
    configured(known, parent={"nova_conf": "nova.conf"})
    assert "sees it within 7 s" in known.run("cells", "isolate", "c1", "--yes").out


def test_an_isolated_child_is_repaired_when_its_database_answers(known: Deployment) -> None:
    """Its rows are as much out of step as anybody's."""
    assert known.run("cells", "isolate", "c1", "--yes").code == 0
    done = known.repair("c1", "--rule", "aggregate-hosts")
    assert done.cell("c1")["isolated"]
    assert done.cell("c1")["changes"]["applied"] > 0
    failed = configured(known, c1={"database": "mysql+pymysql://u:p@127.0.0.1:1/n"}).run("diff", "c1")
    assert "c1: isolated since" in failed.out


def test_what_moves_between_the_look_and_the_write_is_a_conflict(
    known: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changes the row after the plan: it is left alone, and no password is shown."""
    from cellsync.run import write as writing

    moved: list[Any] = []

    def acquire(self: Any) -> None:
        moved.append(
            known.sql("parent", "UPDATE cells SET transport_url = 'rabbit://g:hunter2@h/c1' WHERE id = 1")
        )

    monkeypatch.setattr("cellsync.db.NamedLock.acquire", acquire)
    done = known.run("cells", "isolate", "c1", "--yes")
    assert moved and writing
    assert done.code == 4
    assert "transport_url was rabbit://guest:***@127.0.0.1:1/c1 and is rabbit://g:***@h/c1" in done.out
    assert rows(known, "parent", "deleted <> 0") == []


def test_a_row_with_a_tombstone_of_its_name_is_made(known: Deployment) -> None:
    """Deleted rows do not stand in the way of a new one."""
    brokers_of(known, **URLS)
    assert known.run("cells", "delete", "c1", "--yes").code == 0
    done = known.run(*CREATE, "c1", "--yes")
    assert done.code == 0, done.said
    assert [row[6:9] for row in rows(known, "parent")] == [("c1", 0, 1), ("c2", 0, 0), ("c1", 0, 0)]
    known.sql("parent", ROW, name="c3", is_parent=0, broker=C1_URL)
    assert known.run("cells", "delete", "c3", "--yes").code == 0

"""Bad input: a clear message, the exit code of the contract, and nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import nova
import pytest
import sqlalchemy as sa
from deployment import Deployment
from servers import Server, sql

from cellsync.cli.preparing import put
from cellsync.demo.database import connected
from cellsync.errors import NoRoom, UsageError

Check = Callable[[], None]

OWN_RULES = """\
pack: own
why: A pack of the test's own.
defaults:
  soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}
  on_insert: {deleted: 0, created_at: now}
  columns: {exclude: [created_at, updated_at]}
rules:
  - id: aggregates
    why: They are needed.
    table: aggregates
    key: [name]
"""


@pytest.fixture
def untouched(cells: Deployment) -> Iterator[None]:
    """Hold that no database changed, and that no journal was made."""
    before = cells.checksums()
    yield
    assert cells.checksums() == before
    assert cells.journals() == {"parent": {}, "c1": {}, "c2": {}}


def _url(cells: Deployment, cell: str) -> sa.engine.URL:
    return sa.make_url(cells.urls[cell])


def _with(cells: Deployment, cell: str, url: sa.engine.URL) -> Deployment:
    text = url.render_as_string(hide_password=False)
    return cells.configure(urls={**cells.urls, cell: text})


# -- Rule files --------------------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)

BROKEN_RULES = {
    "an unknown key": (OWN_RULES + "    tabel: x\n", ("own.yaml:12:5:", "tabel", "table")),
    "a reference to an unknown rule": (
        OWN_RULES + "    references: {name: agregates}\n",
        ("own.yaml:12:", "agregates"),
    ),
    "an empty file": ("", ("own.yaml:", "empty")),
    "only a comment": ("# nothing\n", ("own.yaml:", "empty")),
    "an alias bomb": (BOMB, ("own.yaml:2:", "alias *a is not allowed")),
    "not YAML": ("pack: [", ("own.yaml:",)),
    "a list": ("- 1\n", ("own.yaml:1:1:",)),
    "no rules in it": ("pack: own\nwhy: x\nrules: []\n", ("own.yaml:3:", "rules")),
    "an unknown transform": (
        OWN_RULES + "    transforms: {name: upper_case}\n",
        ("own.yaml:12:", "upper_case"),
    ),
}


VERBS = (["diff"], ["repair", "--yes"], ["plan"], ["schema"], ["rules", "validate"])


@pytest.mark.usefixtures("untouched")
def test_a_broken_rule_file_is_refused_with_the_place(cells: Deployment) -> None:
    """Exit 2, one line with file:line:column for each problem, for every verb."""
    for fault, (text, expected) in BROKEN_RULES.items():
        broken = cells.rule_file(text)
        for verb in VERBS:
            done = broken.run(*verb)
            assert (done.code, done.out) == (2, ""), fault
            assert all(part in done.err for part in expected), (fault, done.err)
            assert "Traceback" not in done.err


@pytest.mark.usefixtures("untouched")
def test_every_problem_of_a_rule_file_is_told_at_once(cells: Deployment) -> None:
    """People mend a file once."""
    done = cells.rule_file(OWN_RULES + "    tabel: x\n    on_missing: push\n").run("diff")
    assert done.code == 2
    assert "own.yaml:12:5:" in done.err
    assert "own.yaml:13:" in done.err


@pytest.mark.usefixtures("untouched")
def test_a_pack_that_is_not_there_is_named(cells: Deployment) -> None:
    """So is a rule file; the message says which packs there are."""
    done = cells.run("diff", "-r", "nova-cells-v9")
    assert done.code == 2
    assert "nova-cells-v9" in done.err and "nova-cells-v1" in done.err
    done = cells.run("diff", "-r", "./gone.yaml")
    assert done.code == 2
    assert "gone.yaml" in done.err


# -- The command line --------------------------------------------------------------------------

WRONG_USE = {
    "no terminal": (["repair"], ("--yes", "--dry-run")),
    "no terminal for an undo": (["undo", "x"], ("--yes",)),
    "an unknown cell": (["diff", "c9"], ("c9", "c1, c2")),
    "the parent as a cell": (["diff", "parent"], ("parent", "c1, c2")),
    "an unknown rule": (["diff", "--rule", "agregates"], ("agregates", "aggregates")),
    "an unknown feature": (["repair", "--yes", "--feature", "zones"], ("zones", "availability-zones")),
    "an unknown run": (["undo", "20200101-000000-abcd", "--yes"], ("20200101-000000-abcd", "history")),
    "an unknown run in history": (["history", "20200101-000000-abcd"], ("20200101-000000-abcd",)),
    "an unknown option": (["diff", "--fix"], ("--fix",)),
    "an unknown command": (["mend"], ("mend",)),
    "an unknown format": (["diff", "--format", "yaml"], ("yaml", "json")),
}


@pytest.mark.usefixtures("untouched")
def test_wrong_use_is_refused(cells: Deployment) -> None:
    """Exit 2; the message names what is wrong and what there is instead."""
    for fault, (arguments, expected) in WRONG_USE.items():
        done = cells.run(*arguments)
        assert (done.code, done.out) == (2, ""), fault
        assert all(part in done.err for part in expected), (fault, done.err)
        assert "Traceback" not in done.err


@pytest.mark.usefixtures("untouched")
def test_an_output_that_cannot_be_written_is_named(cells: Deployment) -> None:
    """Exit 2 with the path and the reason; a repair must know it before it writes."""
    for place in ("/nowhere/at/all.json", "."):
        for verb in (["diff"], ["plan"], ["repair", "--yes"]):
            done = cells.run(*verb, "-o", place)
            assert (done.code, done.out) == (2, "")
            assert f"cannot write {place}" in done.err


def test_an_output_file_is_whole(cells: Deployment, tmp_path: Path) -> None:
    """What -o writes is what stdout would have had, and no leftover lies beside it."""
    path = tmp_path / "report.txt"
    done = cells.run("diff", "-o", str(path))
    assert (done.code, done.out) == (1, "")
    assert "2 of 2 cells are out of step" in path.read_text(encoding="utf-8")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cellsync.yaml", "report.txt"]


# -- The cell file -----------------------------------------------------------------------------


def test_what_is_no_file_is_written_to_and_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /dev/null, which -o took the place of where root said so, and everybody writes to."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        put(["one ", "two"], str(pipe))
        assert os.read(reading, 100) == b"one two"
    finally:
        os.close(reading)
    assert pipe.is_fifo()
    assert [*tmp_path.iterdir()] == [pipe]
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for whoever is not root
    with pytest.raises(UsageError, match="it is not writable"):
        put(["three"], str(pipe))


@pytest.mark.usefixtures("untouched")
def test_a_wrong_password_is_unreachable_and_is_not_shown(cells: Deployment) -> None:
    """Exit 4 with the server's own words; the other child is compared."""
    done = _with(cells, "c1", _url(cells, "c1").set(password="0pen-Ses@me")).json("diff")
    assert done.code == 4
    assert done.cell("c1")["status"] == "unreachable"
    assert "Access denied" in done.cell("c1")["error"]
    assert done.table("c2", "aggregates")["missing"] == 5
    for shown in ("0pen-Ses", "Ses@me", "Ses%40me"):
        assert shown not in done.said


@pytest.mark.usefixtures("untouched")
def test_a_schema_that_is_not_there_is_unreachable(cells: Deployment) -> None:
    """Exit 4 with the schema's name; the other child is compared."""
    done = _with(cells, "c1", _url(cells, "c1").set(database="no_such_nova")).json("diff")
    assert done.code == 4
    assert done.cell("c1")["status"] == "unreachable"
    assert "no_such_nova" in done.cell("c1")["error"]
    assert done.table("c2", "aggregates")["missing"] == 5


PAIRS = (("parent", "c1"), ("c1", "c2"))


@pytest.mark.usefixtures("untouched")
def test_two_cells_with_one_database_are_refused(cells: Deployment) -> None:
    """Exit 2 naming both; what is desired would be what is written."""
    for one, other in PAIRS:
        for verb in (["diff"], ["repair", "--yes"]):
            done = _with(cells, other, _url(cells, one)).run(*verb)
            assert (done.code, done.out) == (2, "")
            assert f"{one} and {other} are the same database" in done.err


@pytest.mark.usefixtures("untouched")
def test_two_names_for_one_server_are_found_out(cells: Deployment, server: Server) -> None:
    """127.0.0.1, localhost and a socket lead to one database, whatever the URLs say."""
    user = f"'{server.user}'@'localhost'"
    sql(server.url(), f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{server.password}'")
    sql(server.url(), f"GRANT ALL ON *.* TO {user}")
    for one, other in PAIRS:
        socket = _url(cells, one).set(host=None, port=None, query={"unix_socket": server.socket})
        for url in (_url(cells, one).set(host="localhost"), socket):
            for verb in (["diff"], ["repair", "--yes"]):
                done = _with(cells, other, url).run(*verb)
                assert (done.code, done.out) == (2, ""), done.said
                assert f"{one} and {other} are the same database" in done.err


@pytest.mark.usefixtures("untouched")
def test_a_cell_file_that_is_not_there_is_named(cells: Deployment, tmp_path: Path) -> None:
    """Exit 2, and how to name another."""
    cells.config.unlink()
    done = cells.run("diff")
    assert (done.code, done.out) == (2, "")
    assert "cellsync.yaml" in done.err and "-c" in done.err


@pytest.mark.usefixtures("untouched")
def test_a_variable_that_is_not_set_is_named(cells: Deployment) -> None:
    """Exit 2 with the place in the cell file."""
    assert "NO_SUCH_VARIABLE" not in os.environ
    text = cells.config.read_text().replace("settle: 0", "settle: ${NO_SUCH_VARIABLE}")
    cells.config.write_text(text)
    done = cells.run("diff")
    assert done.code == 2
    assert "NO_SUCH_VARIABLE" in done.err
    assert f"{cells.config}:6:" in done.err


# -- Databases that are not as they should be ---------------------------------------------------


def test_a_missing_table_stops_its_rule_and_those_that_refer_to_it(cells: Deployment) -> None:
    """Exit 4; the rules that do not need the table are compared and repaired, in both cells."""
    for table in ("aggregate_hosts", "aggregate_metadata", "aggregates"):
        cells.sql("c1", f"DROP TABLE {table}")
    done = cells.json("diff")
    assert done.code == 4
    for rule in ("aggregates", "aggregate-metadata", "aggregate-hosts"):
        table = done.table("c1", rule)
        assert (table["missing"], table["changed"], table["extra"]) == (None, None, None)
        assert table["status"] == "incomplete"
        assert "c1 has no table aggregate" in table["error"]
    assert done.counts("flavors") == {"c1": {"flavors": (2, 0, 0)}, "c2": {"flavors": (2, 0, 0)}}
    assert done.cell("c1")["status"] == "incomplete"
    repaired = cells.repair()
    assert repaired.code == 4
    assert cells.sql("c1", "SELECT COUNT(*) FROM instance_types") == [(4,)]
    assert cells.sql("c2", "SELECT COUNT(*) FROM aggregates") == [(7,)]
    text = cells.run("diff")
    assert text.code == 4
    assert "c1 has no table aggregates" in text.out


def test_a_missing_table_of_the_parent_is_no_reason_to_delete(cells: Deployment) -> None:
    """Exit 4; what the children have stays."""
    for table in ("aggregate_hosts", "aggregate_metadata", "aggregates"):
        cells.sql("parent", f"DROP TABLE {table}")
    before = cells.checksums()["c2"]["aggregates"]
    done = cells.repair()
    assert done.code == 4
    assert "parent has no table aggregates" in done.table("c2", "aggregates")["error"]
    assert cells.checksums()["c2"]["aggregates"] == before


def test_a_missing_column_stops_its_rule(cells: Deployment) -> None:
    """Exit 4 naming table, cell and column; the other rules go on."""
    cells.sql("c2", "ALTER TABLE aggregates DROP COLUMN deleted_at, DROP COLUMN name")
    done = cells.repair()
    assert done.code == 4
    assert "table aggregates in c2 has no column name" in done.table("c2", "aggregates")["error"]
    assert done.table("c2", "aggregate-hosts")["missing"] is None
    assert done.table("c2", "flavors")["status"] == "repaired"
    assert done.cell("c1")["status"] == "repaired"


def test_a_column_of_another_kind_stops_its_rule(cells: Deployment) -> None:
    """Text is not compared with numbers: exit 4, the others go on."""
    cells.sql("c2", "ALTER TABLE key_pairs MODIFY fingerprint INT")
    done = cells.json("diff")
    assert done.code == 4
    assert "fingerprint" in done.table("c2", "key-pairs")["error"]
    assert done.table("c2", "flavors")["missing"] == 2


def test_a_child_of_another_version_is_left_alone(cells: Deployment) -> None:
    """Exit 4 with both numbers; the other child is repaired."""
    cells.sql("c1", "UPDATE migrate_version SET version = 319")
    before = cells.checksums()["c1"]
    done = cells.repair()
    assert done.code == 4
    assert done.cell("c1")["status"] == "incomplete"
    assert "migrate_version is 302 in parent and 319 in c1" in done.cell("c1")["error"]
    assert done.cell("c1")["tables"] == []
    assert done.cell("c2")["status"] == "repaired"
    assert cells.checksums()["c1"] == before


def test_two_rows_with_one_key_are_named_and_the_others_go_on(cells: Deployment) -> None:
    """Neither is right by itself: a finding with both ids, exit 1, everything else is written."""
    cells.sql("parent", nova.insert("aggregates", {"id": 90, "name": "east"}))
    cells.sql("c2", nova.insert("aggregates", {"id": 91, "name": "plain"}))
    cells.sql("c2", nova.insert("aggregates", {"id": 92, "name": "plain"}))
    done = cells.repair()
    assert done.code == 1, done.said
    found = {(cell, code): message for cell, code, message in done.findings("aggregates")}
    assert "id 1 and id 90" in found["c1", "duplicate-key"]
    in_c2 = [message for cell, _, message in done.findings("aggregates") if cell == "c2"]
    assert any("id 91 and id 92" in message for message in in_c2)
    names = sorted(cells.sql("c1", "SELECT name FROM aggregates"))
    assert names == [("empty-az",), ("gold",), ("plain",), ("ssd",), ("west",)]
    # Rows that refer to either of them cannot be placed: not written, and not silently dropped.
    assert cells.sql("c2", "SELECT * FROM aggregate_metadata WHERE aggregate_id IN (91, 92)") == []
    skipped = [(each["rule"], each["key"]) for each in done.cell("c2")["skipped"]]
    assert ("aggregate-metadata", {"aggregate_id": "plain", "key": "pinned"}) in skipped
    again = cells.repair()
    assert [cell["changes"]["applied"] for cell in again.report["cells"]] == [0, 0]


def test_a_value_that_does_not_fit_stops_its_row_alone(cells: Deployment) -> None:
    """Four-byte text for a three-byte column: a finding that names the row; the others are written."""
    cells.sql("parent", "ALTER TABLE aggregate_metadata CONVERT TO CHARACTER SET utf8mb4")
    cells.sql("parent", "UPDATE aggregate_metadata SET value = '🚀' WHERE `key` = 'pinned'")
    done = cells.repair("c1")
    assert done.code == 1, done.said
    ((code, message),) = [each[1:] for each in done.findings("aggregate-metadata") if "pinned" in each[2]]
    assert (code, "does not fit" in message) == ("unwritable-value", True)
    assert cells.sql("c1", "SELECT COUNT(*) FROM aggregate_metadata") == [(7,)]
    assert cells.sql("c1", "SELECT COUNT(*) FROM aggregate_metadata WHERE `key` = 'pinned'") == [(0,)]


def test_a_file_that_was_not_written_to_its_end_is_not_there(tmp_path: Path) -> None:
    """Nor is the part of it that was."""

    def pieces() -> Iterator[str]:
        yield "half of a report"
        raise NoRoom("no room")

    with pytest.raises(NoRoom):
        put(pieces(), str(tmp_path / "report.json"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "rules: /dev/zero",
        "parent: {name: p, nova_conf: /dev/zero}",
        "parent: {name: p, database: 'mysql://h/n', defaults_file: /dev/zero}",
        "parent: {name: p, database: 'mysql://u:${file:/dev/zero}@h/n'}",
        "",
    ],
    ids=["rules", "nova_conf", "defaults_file", "file", "configuration"],
)
def test_a_file_without_end_is_refused(cells: Deployment, line: str) -> None:
    """A device in the place of a file would fill the memory."""
    given = {"parent": "parent: {name: p, database: 'sqlite:///x.db'}", "rules": "rules: [nova-cells-v1]"}
    given[line.partition(":")[0]] = line
    cells.config.write_text("\n".join([*given.values(), "children: [{name: c, database: 'sqlite:///c.db'}]"]))
    done = cells.run(*(("-c", "/dev/zero") if not line else ()), "diff")
    assert done.code == 2
    assert "larger than 16 MiB" in done.said


def test_a_plan_file_without_end_is_refused(cells: Deployment) -> None:
    """It may be large, and come through a pipe, but not from a device."""
    done = cells.run("repair", "--yes", "--plan", "/dev/zero")
    assert (done.code, "larger than 16 MiB" in done.said) == (2, True)


@pytest.mark.parametrize("verb", [("validate",), ("list",)])
def test_the_name_of_a_pack_shows_no_password(
    cells: Deployment, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    """A URL got into it by mistake."""
    file = tmp_path / "own.yaml"
    file.write_text(OWN_RULES.replace("pack: own", "pack: ownrabbit://u:hunter2@h:5672/"))
    cells.config.write_text(cells.config.read_text().replace("nova-cells-v1", str(file)))
    done = cells.run("rules", *verb)
    assert done.code == 0
    assert "ownrabbit://" in done.out and "hunter2" not in done.said


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ("accept: [{cell: c1, rule: t, key: '*', until: '2020-01-01', why: 'rabbit://u:hunter2@h/'}]", 1, ""),
        ('rules: ["t\\ud800"]', 2, "half of a surrogate pair"),
    ],
    ids=["why", "surrogate"],
)
def test_a_text_of_the_configuration_shows_no_password(
    cells: Deployment, tmp_path: Path, given: str, code: int, said: str
) -> None:
    """Where it is repeated: why a difference was accepted. What is no character is refused."""
    text = (
        "parent: {name: api, database: 'sqlite:///api.db'}\n"
        "children: [{name: c1, database: 'sqlite:///c1.db'}]"
    )
    rules = "" if "rules" in given else "\nrules: [./own.yaml]"
    (tmp_path / "own.yaml").write_text("rules: [{table: t, key: [k]}]")
    (tmp_path / "cellsync.yaml").write_text(f"{text}\n{given}{rules}\n")
    for cell, row in (("api", 1), ("c1", 2)):
        with connected(sa.make_url(f"sqlite:///{tmp_path}/{cell}.db")) as connection:
            connection.exec_driver_sql("CREATE TABLE t (k int PRIMARY KEY)")
            connection.exec_driver_sql(f"INSERT INTO t VALUES ({row})")
    for format_ in ("text", "json"):
        done = cells.run("-c", str(tmp_path / "cellsync.yaml"), "diff", "--format", format_)
        assert done.code == code, done.said
        assert "hunter2" not in done.said and said in done.said


def test_the_path_of_a_sqlite_file_shows_no_password(cells: Deployment, tmp_path: Path) -> None:
    """A URL got into it."""
    url = "sqlite:///c1.dbmysql+pymysql:/user:hunter2@127.0.0.1/x"
    (tmp_path / "cellsync.yaml").write_text(
        f"parent: {{name: api, database: 'sqlite:///api.db'}}\nchildren: [{{name: c1, database: '{url}'}}]\n"
    )
    done = cells.run("-c", str(tmp_path / "cellsync.yaml"), "diff")
    assert done.code == 2
    assert "is a URL" in done.said and "hunter2" not in done.said

"""A large table that a child has no row of is filled without a look at each row, and to the same end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import servers
import sqlalchemy as sa
from column_types import TYPES, Raw
from edges import Stand, add, as_if_large, execute, opened, result, rows, ruleset, stand_of, table
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import DatabaseFactory, Server, checksums

from cellsync import apply, codec, db, run
from cellsync.apply import executing
from cellsync.apply import loading as apply_loading
from cellsync.db.writing import Writing
from cellsync.diff import loading as loadable_rules
from cellsync.errors import TransactionLost
from cellsync.journal import Journal, prepare
from cellsync.model import Action, Fate, Load, Report, Spelled, TableFailure
from cellsync.report import json as as_json
from cellsync.report import text
from cellsync.report.page import Style
from cellsync.spool import parts

THINGS = "CREATE TABLE things (id int PRIMARY KEY AUTO_INCREMENT, name varchar(20) NOT NULL UNIQUE, size int)"
BY_NAME = "rules:\n  - {table: things, key: [name]}"
BY_ID = "rules:\n  - {table: things, key: [id], surrogate: {id: preserve}}"
SPELLED = {name: values for name, values in TYPES.items() if not name.startswith(("float", "double"))}
SHAPES = ("point", "geometry", "multipoint")
"""These two kinds cannot be spelled."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    as_if_large(monkeypatch)
    monkeypatch.setattr(executing, "INSERTS", 7)
    monkeypatch.setattr(executing, "LOADED", 7)


def filled(database: DatabaseFactory, rules: str = BY_NAME, number: int = 20, *tables: str) -> Stand:
    """Return a parent with so many things, and a child with none, whose ids will be others."""
    stand = stand_of(database, rules, *(tables or (THINGS,)))
    execute(
        stand.urls["api"],
        f"INSERT INTO things (name, size) SELECT CONCAT('n', seq), seq FROM seq_1_to_{number}",
    )
    execute(stand.urls["c1"], "ALTER TABLE things AUTO_INCREMENT = 500")
    return stand


def loads(prepared: run.Prepared) -> list[Load]:
    """Return the loads of all plans."""
    return [part for edge in prepared.edges for part in parts(edge.plan.changes) if isinstance(part, Load)]


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every row looked at, as those of other tables are."""
    monkeypatch.setattr(loadable_rules, "loadable", lambda *_: False)
    monkeypatch.setattr("cellsync.diff.loadable", lambda *_: False)


def journal(url: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what the journal says of changes, as values, and of what was pushed."""
    mine = "WHERE database_name = DATABASE() ORDER BY CAST(SUBSTR(identity, 2) AS INT)"
    changes = rows(url, f"SELECT * FROM cellsync.changes {mine}")
    for change in changes:
        change.update(sequence=0, made="", database_name="")
        change["after_row"] = codec.row_from_text(change["after_row"])
    pushed = rows(url, f"SELECT * FROM cellsync.pushed {mine}")
    return changes, [{**each, "database_name": ""} for each in pushed]


def told(report: Report) -> list[Any]:
    """Return a report as JSON, without what is another in each run: names of runs, times, the order."""
    data = json.loads("".join(as_json.render(report)))
    (cell,) = data["cells"]
    for some in (cell["tables"][0]["differences"], *(plan["changes"] for plan in cell["plans"])):
        some.sort(key=str)
    return [(name, value) for name, value in data.items() if name not in ("run", "started", "finished")]


def _unnumbered(shown: str) -> Iterator[str]:
    return (line.lstrip(" 0123456789") for line in shown.splitlines())


# -- The same end ------------------------------------------------------------------------------


def test_rows_of_all_types_come_over_as_if_each_had_been_looked_at(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows, their records and what is remembered of them, each odd value of each type, and NULLs."""
    kinds = [kind for kind in SPELLED if not kind.startswith(SHAPES)]
    columns = ", ".join(f"`c{n}` {kind}" for n, kind in enumerate(kinds))
    made = THINGS.replace("size int", columns)
    ends = []
    for each in (True, False):
        stand = stand_of(database, BY_ID, made)
        most = max(map(len, SPELLED.values()))
        for row in range(most):
            values = {f"c{n}": SPELLED[kind][row] for n, kind in enumerate(kinds) if row < len(SPELLED[kind])}
            assert not any(isinstance(value, Raw) for value in values.values())
            add(stand.urls["api"], "things", {"id": 7 + row, "name": f"n'{row}", **values})
        if not each:
            one_by_one(monkeypatch)
        request, prepared = stand.prepare("r1")
        assert bool(loads(prepared)) is each
        differences = table(prepared.report, "c1", "things").differences
        found = sorted((d.key, d.action, *map(repr, d.desired.values)) for d in differences if d.desired)
        report = run.write(request, prepared)
        assert (result(report, "c1").counts.applied, report.exit_code) == (most, 0)
        there = rows(stand.urls["c1"], "SELECT * FROM things ORDER BY id")
        ends.append((found, there, journal(stand.urls["c1"])))
        assert stand.diff().exit_code == 0
        assert result(stand.undo("r1", "u1"), "c1").problems == ()
        assert rows(stand.urls["c1"], "SELECT * FROM things") == []
    for one, other in zip(*ends, strict=True):
        assert one == other


def test_keys_of_all_types_are_recorded_as_if_each_row_had_been_looked_at(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the letter: the journal is asked about rows by the text of their keys."""
    kinds = [kind for kind in SPELLED if not kind.startswith(SHAPES) and not _is_long(kind)]
    thing = "CREATE TABLE k{} (id int PRIMARY KEY, c {} NOT NULL UNIQUE)"
    made = [thing.format(n, kind) for n, kind in enumerate(kinds)]
    exact = [kind for kind in kinds if not kind.startswith("decimal")]
    each_rule = [f"  - {{table: k{n}, key: [c], surrogate: {{id: preserve}}}}" for n in range(len(kinds))]
    ends = []
    for each in (True, False):
        stand = stand_of(database, "\n".join(["rules:", *each_rule]), *made)
        for n, kind in enumerate(kinds):
            for at, value in enumerate(SPELLED[kind]):
                with suppress(sa.exc.IntegrityError):  # the same key under the collation
                    add(stand.urls["api"], f"k{n}", {"id": at, "c": value})
        if not each:
            one_by_one(monkeypatch)
        request, prepared = stand.prepare("r1")
        assert len(loads(prepared)) == (len(exact) if each else 0)
        assert run.write(request, prepared).exit_code == 0
        changes = "FROM cellsync.changes WHERE database_name = DATABASE() ORDER BY rule, identity"
        ends.append(rows(stand.urls["c1"], f"SELECT rule, identity, row_key {changes}"))
    assert ends[0] == ends[1]


def _is_long(kind: str) -> bool:
    """Say whether columns of a type cannot be unique as they are."""
    return kind.partition("(")[0].partition(" ")[0].endswith(("text", "blob", "json"))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(
    st.tuples(st.one_of(st.none(), TEXTS), st.one_of(st.none(), st.binary(max_size=20)), st.integers(-5, 5)),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def empty_pair(server: Server) -> Iterator[Stand]:
    """Give a parent and a child for the rows of a property test."""
    with servers.pair(server, "loading") as urls:
        for url in urls.values():
            execute(
                url, "CREATE TABLE odd (id int PRIMARY KEY, t text COLLATE utf8mb4_nopad_bin, b blob, n int)"
            )
        yield Stand(urls, ruleset("rules:\n  - {table: odd, key: [id], surrogate: {id: preserve}}"))


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_any_text_and_any_bytes_come_over(empty_pair: Stand, values: list[tuple[Any, Any, int]]) -> None:
    """And a report of them shows the same values."""
    stand = empty_pair
    for url in stand.urls.values():
        execute(url, "DELETE FROM odd")
    named = [dict(zip("tbn", row, strict=True)) | {"id": n} for n, row in enumerate(values)]
    add(stand.urls["api"], "odd", *named)
    request, prepared = stand.prepare(f"r{time.monotonic_ns()}")
    assert loads(prepared)
    shown = [
        (d.key[0], *d.desired.values) for d in table(prepared.report, "c1", "odd").differences if d.desired
    ]
    assert sorted(shown) == [(row["id"], row["t"], row["b"], row["n"]) for row in named]
    assert run.write(request, prepared).exit_code == 0
    assert checksums(stand.urls["c1"]) == checksums(stand.urls["api"])


def test_what_a_rule_writes_besides_is_written_and_other_columns_have_their_defaults(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts with names in them, a time of the server, a live mark, a column that only the child has."""
    rules = """
        rules:
          - table: things
            key: [name]
            columns: {exclude: [size, note, at, own]}
            soft_delete: {column: deleted, live: 0, tombstone: id}
            on_insert: {note: "it's of {parent}, 100% \\\\ :x", at: now, size: 5}
        """
    more = "note varchar(40), at datetime, deleted int, own varchar(9) DEFAULT 'mine', UNIQUE (name, deleted)"
    made = THINGS.replace(" UNIQUE", "").replace("size int", f"size int, {more}")
    ends = []
    for each in (True, False):
        stand = stand_of(database, rules, made)
        live = "SELECT CONCAT('n', seq), 0 FROM seq_1_to_20"
        execute(stand.urls["api"], f"INSERT INTO things (name, deleted) {live}")
        execute(stand.urls["c1"], "INSERT INTO things (name, deleted) VALUES ('n1', 7), ('n2', 8)")
        if not each:
            one_by_one(monkeypatch)
        request, prepared = stand.prepare("r1")
        assert bool(loads(prepared)) is each
        assert run.write(request, prepared).exit_code == 0
        query = "SELECT name, size, note, deleted, own, at IS NOT NULL FROM things ORDER BY name, deleted"
        ends.append(rows(stand.urls["c1"], query))
        assert len(ends[-1]) == 22
        assert ends[-1][-1]["note"] == "it's of api, 100% \\ :x"
    assert ends[0] == ends[1]


def test_a_table_may_have_any_name(database: DatabaseFactory) -> None:
    """Colons and quotes in it mean nothing."""
    name = "made:x ``'%s"
    plain = name.replace("``", "`")
    made = THINGS.replace("things", f"`{name}`").replace("size int", "`a:b 'c' %(d)s` int")
    stand = stand_of(database, f'rules:\n  - {{id: odd, table: "{plain}", key: [name]}}', made)
    execute(stand.urls["api"], f"INSERT INTO `{name}` SELECT seq, CONCAT('n', seq), seq FROM seq_1_to_9")
    request, prepared = stand.prepare("r1")
    assert loads(prepared)
    assert result(run.write(request, prepared), "c1").problems == ()
    assert stand.diff().exit_code == 0
    assert result(stand.undo("r1", "u1"), "c1").problems == ()


def test_a_table_may_be_called_as_a_statement_calls_something(database: DatabaseFactory) -> None:
    """Its rows are recorded, not those that the statement is given."""
    made = THINGS.replace("things", "cellsync_made").replace(
        "size int", "number int, row_key int, origin int"
    )
    stand = stand_of(database, "rules:\n  - {id: odd, table: cellsync_made, key: [name]}", made)
    execute(
        stand.urls["api"],
        "INSERT INTO cellsync_made (name, number) SELECT CONCAT('n', seq), seq FROM seq_1_to_9",
    )
    request, prepared = stand.prepare("r1")
    assert loads(prepared)
    assert run.write(request, prepared).exit_code == 0
    assert [each["after_row"]["number"] for each in journal(stand.urls["c1"])[0]] == [*range(1, 10)]
    assert result(stand.undo("r1", "u1"), "c1").problems == ()


def test_what_a_missing_row_means_is_in_its_record(database: DatabaseFactory) -> None:
    """In the words of the rule, for this row."""
    stand = filled(
        database, "rules:\n  - {table: things, key: [name], says: [{missing: '{name} lacks {size}'}]}"
    )
    request, prepared = stand.prepare("r1")
    assert loads(prepared)
    assert run.write(request, prepared).exit_code == 0
    assert {each["reason"] for each in journal(stand.urls["c1"])[0]} == {
        f"n{n} lacks {n}" for n in range(1, 21)
    }


def test_reports_do_not_tell_how_rows_were_looked_at(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every difference and every change, as JSON and as text."""
    stand = filled(database, BY_ID)
    packed = stand.prepare("r1")[1].report
    one_by_one(monkeypatch)
    looked_at = stand.prepare("r1")[1].report
    assert told(packed) == told(looked_at)
    for verbose in (False, True):
        style = Style(verbose=verbose)
        same = replace(looked_at, finished=packed.finished, run=packed.run)
        one, other = ("".join(text.render(each, style)) for each in (packed, same))
        assert not verbose or sorted(_unnumbered(one)) == sorted(_unnumbered(other))
        assert verbose or len(one.splitlines()) == len(other.splitlines())


def test_the_primary_keys_are_remembered_with_those_that_the_rows_were_made_from(
    database: DatabaseFactory,
) -> None:
    """So that a row that is renamed above is renamed below, and one that is deleted is known."""
    stand = filled(database)
    assert stand.repair("r1").exit_code == 0
    execute(stand.urls["api"], "UPDATE things SET name = 'other' WHERE name = 'n7'")
    found = table(stand.diff(), "c1", "things")
    (renamed,) = found.differences
    assert (renamed.key, renamed.action) == (("other",), Action.UPDATE)
    assert stand.repair("r2").exit_code == 0
    assert rows(stand.urls["c1"], "SELECT id FROM things WHERE name = 'other'") == [{"id": 506}]


# -- What is not taken -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "made"),
    [
        ("{table: things, key: [size, name]}", THINGS),  # a NULL in a key
        ("{table: things, key: [size]}", THINGS),  # twice, perhaps
        ("{table: things, key: [name], overrides: {c1: {size: 3}}}", THINGS),
        ("{table: things, key: [name], on_missing: report}", THINGS),
        ("{table: things, key: [name]}", THINGS.replace("size int", "size double")),
        ("{table: things, key: [name]}", THINGS.replace("size int", "size int, at point")),
        (
            "{table: things, key: [name]}",
            THINGS.replace("id int PRIMARY KEY AUTO_INCREMENT", "id char(9) PRIMARY KEY"),
        ),
    ],
)
def test_tables_whose_rows_need_a_look_are_looked_at(
    database: DatabaseFactory, rules: str, made: str
) -> None:
    """What is found and planned is the same for people; nothing of it is a load."""
    stand = stand_of(database, f"rules:\n  - {rules}", made)
    number = "seq, " if "char(9)" in made else ""
    named = "id, " if number else ""
    execute(
        stand.urls["api"],
        f"INSERT INTO things ({named}name, size) SELECT {number}CONCAT('n', seq), seq FROM seq_1_to_9",
    )
    _, prepared = stand.prepare("r1")
    assert loads(prepared) == []
    assert len(table(prepared.report, "c1", "things").differences) == 9


@pytest.mark.parametrize("cell", ["api", "c1"])
def test_a_row_in_limbo_has_all_rows_looked_at(database: DatabaseFactory, cell: str) -> None:
    """On either side it is a finding, as ever, and the others go on."""
    rules = "rules:\n  - {table: things, key: [name], soft_delete: {column: deleted, live: 0, tombstone: id}}"
    made = THINGS.replace("size int", "size int, deleted int")
    stand = stand_of(database, rules, made)
    execute(
        stand.urls["api"], "INSERT INTO things (name, deleted) SELECT CONCAT('n', seq), 0 FROM seq_1_to_9"
    )
    execute(stand.urls[cell], "INSERT INTO things (name, deleted) VALUES ('limbo', NULL)")
    request, prepared = stand.prepare("r1")
    assert loads(prepared) == []
    report = run.write(request, prepared)
    assert [finding.code for finding in table(report, "c1", "things").findings] == ["deleted-is-null"]
    assert result(report, "c1").counts.applied == 9


def test_rows_that_come_while_it_waits_are_not_inserted_again(database: DatabaseFactory) -> None:
    """The table is no longer empty when it is read again: then each row is looked at."""
    stand = filled(database)

    def come(_: float) -> None:
        execute(stand.urls["c1"], "INSERT INTO things (name, size) VALUES ('n3', 3), ('n4', -1)")

    request = replace(stand.request("repair", "r1"), settle=timedelta(seconds=30), sleep=come)
    prepared = run.compare(request)
    assert loads(prepared) == []
    report = run.write(request, prepared)
    assert (result(report, "c1").counts.applied, report.exit_code) == (19, 0)
    assert rows(stand.urls["c1"], "SELECT COUNT(*) AS n FROM things") == [{"n": 20}]


def test_a_row_that_the_server_does_not_take_is_left_alone_and_the_others_are_written(
    database: DatabaseFactory,
) -> None:
    """Another row came with its name after the plan was made: which one it is, is said as ever."""
    stand = filled(database)
    request, prepared = stand.prepare("r1")
    assert loads(prepared)
    execute(stand.urls["c1"], "INSERT INTO things (id, name) VALUES (9, 'N3')")
    done = result(run.write(request, prepared), "c1")
    assert done.problems == ("insert things name=n3: conflict: the key is taken by id 9",)
    assert done.counts.applied == len(journal(stand.urls["c1"])[0]) == 19
    assert rows(stand.urls["c1"], "SELECT COUNT(*) AS n FROM things") == [{"n": 20}]


def test_a_row_that_the_server_would_keep_otherwise_is_not_kept(database: DatabaseFactory) -> None:
    """A trigger changes what is written: the checksum tells, and each row is told by itself."""
    stand = filled(database, BY_ID)
    request, prepared = stand.prepare("r1")
    assert loads(prepared)
    execute(
        stand.urls["c1"],
        "CREATE TRIGGER t BEFORE INSERT ON things FOR EACH ROW SET NEW.size = IF(NEW.size = 5, 6, NEW.size)",
    )
    done = result(run.write(request, prepared), "c1")
    assert done.problems == (
        "insert things id=5: failed: it does not fit: the server keeps size 5 as 6; "
        "the table has the trigger t",
    )
    assert done.counts.applied == len(journal(stand.urls["c1"])[0]) == 19
    assert rows(stand.urls["c1"], "SELECT id FROM things WHERE id = 5") == []


def test_rows_that_the_server_does_not_record_are_not_kept_as_they_are(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row without a record could not be taken back: then each is looked at, and recorded by itself."""
    stand = filled(database)
    request, prepared = stand.prepare("r1")
    spelled = Writing.spelled

    def lacking(writing: Writing, name: str, key: Sequence[str]) -> Spelled:
        return spelled(writing, name, key)._replace(table="(SELECT * FROM things WHERE size <> 3) AS t")

    monkeypatch.setattr(Writing, "spelled", lacking)
    done = result(run.write(request, prepared), "c1")
    assert (done.counts.applied, done.problems) == (20, ())
    assert len(journal(stand.urls["c1"])[0]) == 20


def test_a_row_whose_record_is_too_long_is_not_kept(
    database: DatabaseFactory, server_with: Callable[..., Server]
) -> None:
    """A trigger makes it long in a column that the rule leaves out; without a record it could not go back."""
    rules = "rules:\n  - {table: things, key: [name], columns: {exclude: [note]}}"
    made = THINGS.replace("size int", "size int, note mediumtext")
    urls = {"api": database(), "c1": database(server_with("--max-allowed-packet=1M"))}
    for url in urls.values():
        execute(url, made)
    stand = Stand(urls, ruleset(rules))
    execute(urls["api"], "INSERT INTO things (name, size) SELECT CONCAT('n', seq), seq FROM seq_1_to_20")
    long = "SET NEW.note = IF(NEW.size = 5, REPEAT(CHAR(34), 600000), NULL)"
    request, prepared = stand.prepare("r1")
    assert loads(prepared)
    execute(urls["c1"], f"CREATE TRIGGER long_note BEFORE INSERT ON things FOR EACH ROW {long}")
    done = result(run.write(request, prepared), "c1")
    changes, _ = journal(urls["c1"])
    assert len(changes) == done.counts.applied == 19
    assert all(change["after_row"] for change in changes)
    assert "max_allowed_packet" in done.problems[0]
    assert len(rows(urls["c1"], "SELECT id FROM things")) == 19


def test_rows_that_changed_when_all_is_written_are_named(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksum of the table is another one, so each row is read again."""
    stand = filled(database)
    request, prepared = stand.prepare("r1")
    verify = apply.verify_all

    def late(*given: Any, **more: Any) -> Iterator[str]:
        execute(
            stand.urls["c1"],
            "UPDATE things SET size = 99 WHERE name = 'n4'",
            "DELETE FROM things WHERE name = 'n5'",
        )
        execute(stand.urls["c1"], "INSERT INTO things (name) VALUES ('of its own')")
        with opened(stand.urls["c1"]) as other:
            yield from verify(*given, **{**more, "reader": other})

    monkeypatch.setattr(apply, "verify_all", late)
    done = result(run.write(request, prepared), "c1")
    assert sorted(done.problems) == [
        "things n4 was written, but size is 99 instead of 4",
        "things n5 was written, and is not there",
    ]


@pytest.mark.parametrize("side", ["api", "c1"])
@pytest.mark.parametrize("kind", ["mediumtext", "mediumblob"])
def test_rows_too_large_to_be_packed_are_looked_at(
    database: DatabaseFactory, server_with: Callable[..., Server], side: str, kind: str
) -> None:
    """The servers' max_allowed_packet: of the one that spells them, of the one that takes them."""
    small = server_with("--max-allowed-packet=1M")
    urls = {name: database(small) if name == side else database() for name in ("api", "c1")}
    stand = Stand(urls, ruleset(BY_NAME))
    for url in urls.values():
        execute(url, THINGS.replace("size int", f"size int, note {kind}"))
    execute(urls["api"], "INSERT INTO things (name) SELECT CONCAT('n', seq) FROM seq_1_to_9")
    # Escaped, or in hexadecimal, it is twice as long, and more than one packet.
    long = "UPDATE things SET note = REPEAT(CHAR(39), {}) WHERE name = '{}'"
    execute(urls["api"], long.format(300_000, "n3"), long.format(300_000, "n4"), long.format(250_000, "n5"))
    if side == "api":
        execute(urls["api"], long.format(550_000, "n6"))
    request, prepared = stand.prepare("r1")
    assert bool(loads(prepared)) is (side == "c1")
    assert result(run.write(request, prepared), "c1").problems == ()
    assert stand.diff().exit_code == 0
    query = "SELECT name, MD5(note) FROM things ORDER BY name"
    assert rows(urls["c1"], query) == rows(urls["api"], query)
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert rows(urls["c1"], "SELECT * FROM things") == []


@pytest.mark.parametrize("first", [True, False])
def test_text_that_is_none_fails_its_rule_alone(database: DatabaseFactory, first: bool) -> None:
    """A server takes half of a surrogate pair, which nobody can read."""
    rules = BY_NAME + "\n  - {id: others, table: others, key: [name]}"
    stand = filled(database, rules, 20, THINGS, THINGS.replace("things", "others"))
    execute(stand.urls["api"], "INSERT INTO others (name) SELECT name FROM things")
    half = "UPDATE things SET name = CONCAT('x', _utf8mb4 x'EDA080') WHERE name = '{}'"
    execute(stand.urls["api"], half.format("n1" if first else "n9"))
    report = stand.repair("r1")
    found = {each.rule: each for each in result(report, "c1").tables}
    assert isinstance(found["things"], TableFailure)
    assert result(report, "c1").counts.applied == 20
    assert report.exit_code == 4


def test_a_key_of_bits_is_looked_at(database: DatabaseFactory) -> None:
    """It is a number, and comes as bytes."""
    made = THINGS.replace("id int PRIMARY KEY AUTO_INCREMENT", "id bit(16) PRIMARY KEY")
    stand = stand_of(database, BY_ID.replace("size", "name"), made)
    execute(stand.urls["api"], "INSERT INTO things SELECT seq, CONCAT('n', seq), seq FROM seq_1_to_9")
    request, prepared = stand.prepare("r1")
    assert loads(prepared) == []
    assert run.write(request, prepared).exit_code == 0


def test_a_record_larger_than_a_packet_has_its_rows_looked_at(
    database: DatabaseFactory, server_with: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said of each row is in it; no connection is lost over it."""
    monkeypatch.setattr(executing, "LOADED", 1_000)
    urls = {"api": database(), "c1": database(server_with("--max-allowed-packet=1M"))}
    says = f"[{{missing: '{{name}} {'x' * 1_100}'}}]"
    stand = Stand(urls, ruleset(f"rules:\n  - {{table: things, key: [name], says: {says}}}"))
    for url in urls.values():
        execute(url, THINGS)
    execute(urls["api"], "INSERT INTO things (name) SELECT CONCAT('n', seq) FROM seq_1_to_1000")
    lost = "SHOW GLOBAL STATUS LIKE 'Aborted_clients'"
    request, prepared = stand.prepare("r1")
    before = rows(urls["c1"], lost)
    assert run.write(request, prepared).exit_code == 0
    assert rows(urls["c1"], lost) == before
    assert len(journal(urls["c1"])[0]) == 1_000


# -- What breaks -------------------------------------------------------------------------------


class Killed:
    """A database whose connection is killed in its first transaction, before or after the commit."""

    def __init__(self, database: Any, url: str, *, committed: bool) -> None:
        self._database, self._url, self._committed, self._left = database, url, committed, 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def _kill(self) -> None:
        number = self._database.connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar()
        execute(self._url, f"KILL {number}")
        time.sleep(0.05)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        first, self._left = self._left, 0
        with self._database.transaction():
            yield
            if first and not self._committed:
                self._kill()
        if first and self._committed:
            self._kill()
            raise TransactionLost("c1: Lost connection to server during query (error 2013)")


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("way", ["the only one", "the first of two", "the second of two"])
def test_a_lost_connection_writes_every_row_once(
    database: DatabaseFactory, caplog: pytest.LogCaptureFixture, committed: bool, way: str
) -> None:
    """Where nobody saw whether the commit came through, the journal decides; what comes then is loaded."""
    alone = way == "the only one"
    stand = filled(database, BY_NAME if alone else BY_ID, 140)
    _, prepared = stand.prepare("r1")
    (edge,) = prepared.edges
    with opened(stand.urls["c1"]) as held, opened(stand.urls["c1"]) as beside:
        prepare(held, cell="c1")
        journaled = Journal(
            held, stand.request("repair", "r1").run, cell="c1", database=held.identity().schema
        )
        writers: list[Any] = [held, beside]
        at = 1 if way == "the second of two" else 0
        writers[at] = Killed(writers[at], stand.urls["c1"], committed=committed)
        second = None if alone else apply.Lane(writers[1], journaled.through(beside))
        with caplog.at_level("DEBUG", "cellsync.apply"):
            made = list(
                apply.execute(
                    edge.plan.changes,
                    writer=writers[0],
                    recorder=journaled,
                    targets=edge.targets,
                    second=second,
                )
            )
    fates = (each.rows if isinstance(each, apply.Loaded) else each.fate is Fate.APPLIED for each in made)
    assert sum(fates) == 140
    assert sum("one by one" in record.getMessage() for record in caplog.records) <= 3
    assert rows(stand.urls["c1"], "SELECT COUNT(*) AS n FROM things") == [{"n": 140}]
    keys = [change["row_key"] for change in journal(stand.urls["c1"])[0]]
    assert keys == [f'["n{n}"]' if alone else f"[{n}]" for n in range(1, 141)]


def test_a_login_may_have_one_connection_alone_to_write_with(database: DatabaseFactory) -> None:
    """And another one for the lock; a third would be the second way for rows."""
    stand = filled(database, BY_ID)
    few = sa.make_url(stand.urls["c1"]).set(username="few", password="pw")
    url = stand.urls["c1"]
    limited = "CREATE USER few@'%' IDENTIFIED BY 'pw' WITH MAX_USER_CONNECTIONS 2"
    execute(url, limited, "GRANT ALL ON *.* TO few@'%'")
    try:
        away = Stand({**stand.urls, "c1": few.render_as_string(hide_password=False)}, stand.rules)
        request, prepared = away.prepare("r1")
        assert loads(prepared)
        done = result(run.write(request, prepared), "c1")
    finally:
        execute(url, "DROP USER few@'%'")
    assert (done.counts.applied, done.problems) == (20, ())


@pytest.mark.parametrize("balanced", [False, True])
def test_rows_that_have_their_numbers_go_two_ways(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch, balanced: bool
) -> None:
    """Unless what balances connections has led the second one to another server."""
    stand = filled(database, BY_ID)
    request, prepared = stand.prepare("r1")
    ways: list[Writing] = []
    made: list[db.Database] = []
    load, connect = Writing.load, db.connect

    def counting(writing: Writing, *arguments: Any, **options: Any) -> Sequence[int]:
        ways.append(writing)
        return load(writing, *arguments, **options)

    def connecting(*arguments: Any) -> db.Database:
        made.append(connect(*arguments))
        if balanced and len(made) == 4:  # after those which write, hold the lock, and look at the parent
            elsewhere = replace(made[-1].identity(), server="another")
            monkeypatch.setattr(made[-1], "identity", lambda: elsewhere)
        return made[-1]

    monkeypatch.setattr(Writing, "load", counting)
    monkeypatch.setattr(db, "connect", connecting)
    assert run.write(request, prepared).exit_code == 0
    assert (len(made), len(ways)) == (4, 3)
    assert len({*map(id, ways)}) == (1 if balanced else 2)


def test_no_second_way_is_opened_for_rows_that_the_server_numbers(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, prepared = filled(database).prepare("r1")
    made: list[db.Database] = []
    connect = db.connect

    def connecting(*arguments: Any) -> db.Database:
        made.append(connect(*arguments))
        return made[-1]

    monkeypatch.setattr(db, "connect", connecting)
    assert run.write(request, prepared).exit_code == 0
    assert len(made) == 3  # those which write, hold the lock, and look at the parent


def test_rows_that_refer_to_each_other_go_one_way(
    database: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """By a foreign key of their table, which no rule knows: none is inserted before those that it needs."""
    made = THINGS.replace("size int", "size int, FOREIGN KEY (size) REFERENCES things (id)")
    stand = stand_of(database, BY_ID, made)
    chain = "SELECT seq, CONCAT('n', seq), NULLIF(seq - 1, 0) FROM seq_1_to_20"
    execute(stand.urls["api"], f"INSERT INTO things (id, name, size) {chain}")
    request, prepared = stand.prepare("r1")
    (load,) = loads(prepared)
    assert load.numbered
    assert not load.apart
    with caplog.at_level("DEBUG", "cellsync.apply"):
        assert run.write(request, prepared).exit_code == 0
    assert not any("one by one" in record.getMessage() for record in caplog.records)
    assert result(stand.undo("r1", "u1"), "c1").counts.applied == 20


def test_what_was_not_begun_is_said(database: DatabaseFactory) -> None:
    """Told to stop after the first batch: its rows are verified, the others are for the next run."""
    stand = filled(database)
    request, prepared = stand.prepare("r1")
    asked: list[None] = []

    def stopping() -> bool:
        asked.append(None)
        return len(asked) > 1

    done = result(run.write(replace(request, stopping=stopping), prepared), "c1")
    assert (done.counts.applied, len(done.unmade)) == (7, 13)
    assert done.problems == ("told to stop: 13 changes were not begun",)
    assert result(stand.repair("r2"), "c1").counts.applied == 13
    assert stand.diff().exit_code == 0


def test_a_table_that_cannot_be_read_again_is_a_failure(database: DatabaseFactory) -> None:
    """It is never in step, and never empty."""
    stand = filled(database)

    def gone(_: float) -> None:
        execute(stand.urls["c1"], "RENAME TABLE things TO elsewhere")

    request = replace(stand.request("diff", "d"), settle=timedelta(seconds=30), sleep=gone)
    (failed,) = result(run.compare(request).report, "c1").tables
    assert isinstance(failed, TableFailure)
    assert "things" in failed.error


def test_a_rule_that_is_not_granted_is_refused_and_another_is_loaded_all_the_same(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of a plan when a rule is taken out of it is written as planned."""
    rules = BY_NAME + "\n  - {id: others, table: others, key: [name]}"
    stand = filled(database, rules, 20, THINGS, THINGS.replace("things", "others"))
    execute(stand.urls["api"], "INSERT INTO others (name) SELECT name FROM things")
    denial = apply.Denial(("c1: no, no",), privilege=True)
    monkeypatch.setattr(apply, "denied", lambda deeds, *, writer: {"others": denial})
    report = stand.repair("r1")
    refusals = [(refusal.rule, refusal.code) for refusal in result(report, "c1").refusals]
    assert refusals == [("others", "privilege")]
    assert result(report, "c1").counts.applied == 20
    assert rows(stand.urls["c1"], "SELECT * FROM others") == []


# -- What it costs -----------------------------------------------------------------------------


def test_children_that_are_empty_share_one_reading_of_the_parent(
    database: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """And what is read and written goes by batches, not by rows."""
    stand = stand_of(database, BY_NAME, THINGS, cells=("api", "c1", "c2", "c3"))
    execute(stand.urls["api"], "INSERT INTO things (name) SELECT CONCAT('n', seq) FROM seq_1_to_70")
    with caplog.at_level("DEBUG", "cellsync.db"):
        report = stand.repair("r1")
    assert report.exit_code == 0
    said = [record.getMessage() for record in caplog.records]
    assert sum("QUOTE(" in line and line.startswith("api:") for line in said) == 1
    for child in ("c1", "c2", "c3"):
        assert (
            sum(line.startswith(f"{child}: INSERT INTO `things`") and "RETURNING" in line for line in said)
            == 10
        )
        assert not any("FOR UPDATE" in line for line in said if line.startswith(child))


def test_statistics_of_an_empty_table_do_no_harm(
    database: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that takes the table for empty would read all of it for each batch."""
    stand = filled(database)
    execute(stand.urls["c1"], "ANALYZE TABLE things PERSISTENT FOR ALL")
    request, prepared = stand.prepare("r1")
    with caplog.at_level("DEBUG", "cellsync.db"):
        assert run.write(request, prepared).exit_code == 0
    checks = [each.getMessage() for each in caplog.records if " IN (...)" in each.getMessage()]
    assert len(checks) == 3
    assert all("FORCE INDEX (`PRIMARY`)" in each for each in checks)


@pytest.mark.parametrize("bytes_", [100, 3_000])
def test_batches_are_cut_by_bytes_as_well(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch, bytes_: int
) -> None:
    """So that none is longer than a server takes, and few are in memory."""
    monkeypatch.setattr(executing, "LOADED", 1_000)
    monkeypatch.setattr(apply_loading, "MOST_BYTES", 10_000)
    stand = stand_of(database, BY_NAME, THINGS.replace("size int", "size int, note text"))
    note = f"REPEAT('é', {bytes_ // 2})"
    execute(
        stand.urls["api"], f"INSERT INTO things (name, note) SELECT CONCAT('n', seq), {note} FROM seq_1_to_30"
    )
    _, prepared = stand.prepare("r1")
    (load,) = loads(prepared)
    found = [len(batch.packed) for batch in apply_loading.batches(load, rows=1_000, packet=1 << 24)]
    assert found == ([30] if bytes_ == 100 else [3] * 10)
    assert stand.repair("r2").exit_code == 0


def test_a_log_holds_no_values(database: DatabaseFactory, caplog: pytest.LogCaptureFixture) -> None:
    """As with rows that are looked at: statements alone."""
    stand = filled(database, BY_ID)
    execute(stand.urls["api"], "UPDATE things SET id = id + 770000")
    request, prepared = stand.prepare("r1")
    execute(stand.urls["c1"], "INSERT INTO things (name) VALUES ('n12')")
    with caplog.at_level("DEBUG", "cellsync"):
        run.write(request, prepared)
    said = [record.getMessage() for record in caplog.records]
    assert not any(value in line for line in said for value in ("'n7'", "'n12'", "770007"))
    assert any("looked at one by one" in line for line in said)

"""What is read from a real MariaDB can be written to another one, and is the same to the byte."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import servers
import sqlalchemy as sa
from column_types import TYPES, Raw
from edges import TIMEOUTS, add, cell, execute, opened, pairs, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import DatabaseFactory, PrivateServer, Server

from cellsync import codec, db
from cellsync.db import joining
from cellsync.db.dialects import escaped
from cellsync.db.schema import family
from cellsync.demo.database import connected
from cellsync.errors import Locked, ReadFailed, Rejected, TransactionLost, Unreachable, WriteFailed
from cellsync.model import (
    Bucketing,
    Dangling,
    Family,
    Fold,
    Join,
    LookUp,
    Projected,
    Projection,
    Row,
    ServerTime,
    SoftDelete,
    Value,
)
from cellsync.transforms import REGISTRY

ODD_OPTIONS = (
    "--default-time-zone=+05:30",
    "--sql-mode=ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,TRADITIONAL",
    "--character-set-server=latin1",
    "--innodb-strict-mode=OFF",
)


@pytest.fixture(scope="module")
def schema(server: Server) -> Iterator[str]:
    """Give one schema for the tests of this module; each makes tables of its own."""
    with servers.database(server, name="test_db", charset="utf8mb4") as url:
        yield url


@pytest.fixture(scope="module")
def odd(server_with: Callable[..., PrivateServer]) -> Iterator[str]:
    """Give a schema in a server whose every default is another one."""
    with servers.database(server_with(*ODD_OPTIONS), name="odd", charset="latin1") as url:
        yield url


def projection(table: str, key: str, *columns: str, types: dict[str, str], **more: Any) -> Projection:
    """Return a projection of plain columns, by the primary key ``id``."""

    def project(name: str) -> Projected:
        return Projected(column=name, family=family(types[name]))

    return Projection(
        rule=table,
        table=table,
        key=(project(key),),
        columns=tuple(map(project, columns)),
        identity=("id",),
        identity_families=(Family.INTEGER,),
        parent="api",
        child="c1",
        **more,
    )


def test_a_connection_that_asks_for_no_tls_reads_no_certificates(
    schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyMySQL reads all of the system's for every connection; with many cells that takes longest of all."""
    monkeypatch.setattr(ssl, "create_default_context", None)
    for _ in range(2):
        with opened(schema) as there:
            assert there.query("SELECT 1")


# -- Every type --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """The same rows in two servers: written by their own SQL here, and by cellsync there."""

    here: str
    there: str
    types: dict[str, str]
    """Column -> its type, as the server tells it."""
    read: dict[Value, Row]
    read_there: dict[Value, Row]
    locked: dict[Value, dict[str, Value]]


COLUMNS = {kind: f"v{index}" for index, kind in enumerate(TYPES)}
each_type = pytest.mark.parametrize("kind", TYPES)


def wide(*, key: str, types: dict[str, str]) -> Projection:
    """Return the projection of the table that has a column of every type."""
    columns = COLUMNS.values() if key == "id" else ()
    return projection("wide", key, *columns, types=types)


def make_wide(url: str) -> None:
    """Make a table with a column of every type."""
    columns = ", ".join(f"{COLUMNS[kind]} {kind} NULL" for kind in TYPES)
    execute(url, f"CREATE TABLE wide (id int PRIMARY KEY, {columns})")


def fill_wide(url: str) -> None:
    """Give every column one value of its list after the other, NULL before and behind."""
    with connected(sa.make_url(url)) as connection:
        mode = "ALLOW_INVALID_DATES,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO"
        connection.exec_driver_sql(f"SET SESSION sql_mode = '{mode}', time_zone = '+00:00'")
        for number in range(max(map(len, TYPES.values())) + 2):
            chosen = {k: values[number - 1] for k, values in TYPES.items() if 0 < number <= len(values)}
            marks = [value.sql if isinstance(value, Raw) else f":{COLUMNS[k]}" for k, value in chosen.items()]
            names = [COLUMNS[k] for k in chosen]
            statement = (
                f"INSERT INTO wide ({', '.join(['id', *names])}) VALUES ({', '.join([':id', *marks])})"
            )
            values = {COLUMNS[k]: value for k, value in chosen.items() if not isinstance(value, Raw)}
            connection.execute(sa.text(statement), {"id": number, **values})


@pytest.fixture(scope="module")
def copied(schema: str, odd: str) -> Copy:
    """Read the table of every type, and write it to the other server, once by each way of writing."""
    make_wide(schema)
    make_wide(odd)
    fill_wide(schema)
    with opened(schema) as here, opened(odd, "c2") as there:
        types = {column.name: column.type for column in here.tables(["wide"])["wide"].columns}
        read = {row.identity[0]: row for row in here.rows(wide(key="id", types=types))}
        with here.transaction():
            locked = here.lock("wide", ("id",), [(number,) for number in read])
        with there.transaction():
            for number, row in read.items():
                text = codec.row_to_text(dict(zip(COLUMNS.values(), row.values, strict=True)))
                values: Any = codec.row_from_text(text)
                if isinstance(number, int) and number % 2:
                    there.insert("wide", {"id": number, **values})
                else:
                    there.insert("wide", {"id": number})
                    there.update("wide", {"id": number}, values)
        read_there = {row.identity[0]: row for row in there.rows(wide(key="id", types=types))}
    by_number = {identity[0]: dict(row) for identity, row in locked.items()}
    return Copy(schema, odd, types, read, read_there, by_number)


@pytest.mark.parametrize("fold", Fold)
def test_digests_are_the_same_in_every_server(copied: Copy, fold: Fold) -> None:
    """Whatever the defaults of the server and of its tables are: one digest for each row."""
    each_row = Bucketing(width=1, fold=fold)
    found = []
    for url in (copied.here, copied.there):
        with opened(url) as database:
            found.append(sorted(database.digest(wide(key="id", types=copied.types), each_row)))
    assert found[0] == found[1]
    assert len(found[0]) == len(copied.read) == len({digest.checksum for digest in found[0]})


@each_type
@pytest.mark.parametrize("fold", Fold)
def test_unequal_values_have_unequal_checksums(copied: Copy, kind: str, fold: Fold) -> None:
    """NULL, '' and '0' are three; equal ones have equal checksums in both servers."""
    by_value = wide(key=COLUMNS[kind], types=copied.types)
    checksums: dict[Any, set[int]] = {}
    for url in (copied.here, copied.there):
        with opened(url) as database:
            for pair in pairs(database, by_value, Bucketing(count=1, fold=fold)):
                checksums.setdefault(repr(pair.key), set()).add(pair.checksum)
    assert all(len(each) == 1 for each in checksums.values()), checksums
    assert len({checksum for each in checksums.values() for checksum in each}) == len(checksums)
    assert len(checksums) > min(len(TYPES[kind]), 2)  # NULL too


def held(url: str, column: str, kind: str) -> list[tuple[Any, ...]]:
    """Return the bytes of a column, whatever the server's defaults are."""
    exact = f"CAST({column} AS DOUBLE)" if kind == "float" else column
    with connected(sa.make_url(url)) as connection:
        connection.exec_driver_sql("SET SESSION sql_mode = '', time_zone = '+00:00'")
        query = f"SELECT id, HEX(CAST({exact} AS BINARY)), LENGTH({column}) FROM wide ORDER BY id"
        return [tuple(row) for row in connection.exec_driver_sql(query)]


@each_type
def test_a_value_of_every_type_arrives_to_the_byte(copied: Copy, kind: str) -> None:
    """Read -> text of the journal -> written to a server with other defaults: the same bytes."""
    column = COLUMNS[kind]
    at = list(COLUMNS).index(kind)
    assert held(copied.there, column, kind) == held(copied.here, column, kind)
    values = {number: repr(row.values[at]) for number, row in copied.read.items()}
    assert {number: repr(row.values[at]) for number, row in copied.read_there.items()} == values
    assert {number: repr(row[column]) for number, row in copied.locked.items()} == values
    assert values[0] == "None"
    assert len(set(values.values())) >= min(len(TYPES[kind]), 2)


@each_type
def test_a_value_of_every_type_is_the_same_in_a_row_that_is_asked_for(copied: Copy, kind: str) -> None:
    """Which comes as one value, and is taken apart here; beside text with what is odd there."""
    columns = dict.fromkeys(COLUMNS[name] for name in (kind, "varchar(255) character set utf8mb4"))
    one = projection("wide", "id", *columns, types=copied.types)
    by_value = projection("wide", "id", COLUMNS[kind], types=copied.types, age=(COLUMNS["datetime(6)"],))
    for each in (one, by_value):
        with opened(copied.here) as here:
            whole = {row.key: repr(row) for row in here.rows(each)}
            asked = {row.key: repr(row) for row in here.rows(each, keys=list(whole))}
        assert asked == whole


def test_a_row_that_is_asked_for_is_one_value_on_the_wire(
    schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """So is one that is locked: a driver takes four times as long for many values."""
    execute(schema, "CREATE OR REPLACE TABLE one (id int PRIMARY KEY, name varchar(9), at datetime)")
    add(schema, "one", {"id": 1, "name": "n"})
    read = projection("one", "id", "name", "at", types={"id": "int", "name": "varchar(9)", "at": "datetime"})
    with opened(schema) as there, there.transaction():
        there.tables(["one"])
        with caplog.at_level("DEBUG", "cellsync.db"):
            assert [row.values for row in there.rows(read, keys=[(1,)])] == [("n", None)]
            assert there.lock("one", ("id",), [(1,)]) == {(1,): {"id": 1, "name": "n", "at": None}}
    sent = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert len(sent) == 2
    assert all(each.startswith("SELECT CONCAT(") for each in sent)


def test_a_row_that_is_too_long_for_one_value_comes_all_the_same(
    database: DatabaseFactory, server_with: Callable[..., PrivateServer]
) -> None:
    url = database(server_with("--max-allowed-packet=1M"))
    execute(url, "CREATE TABLE large (id int PRIMARY KEY, data mediumblob)")
    execute(url, "INSERT INTO large VALUES (1, REPEAT('x', 600000)), (2, 'short')")
    read = projection("large", "id", "data", types={"id": "int(11)", "data": "mediumblob"})
    with opened(url) as there:
        sizes = {row.key: len(row.values[0]) for row in there.rows(read, keys=[(1,), (2,)])}  # type: ignore[arg-type]
        with there.transaction():
            locked = there.lock("large", ("id",), [(1,), (2,)])
    assert sizes == {(1,): 600_000, (2,): 5}
    assert {key: len(row["data"]) for key, row in locked.items()} == sizes  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bit(8)", "datetime(3)", "time", "year", "uuid", "int", "varchar(9)"])
def test_a_reference_is_the_same_in_a_row_that_is_asked_for(database: DatabaseFactory, kind: str) -> None:
    """Wherever it leads; what it holds itself is read uncast."""
    url, value = database(), {"uuid": "123e4567-e89b-12d3-a456-426614174000", "time": "10:00:00"}.get(kind)
    value = value or ("2024-01-02" if kind.startswith("datetime") else "7")
    execute(url, f"CREATE TABLE things (id int PRIMARY KEY, c {kind}, deleted int NOT NULL DEFAULT 0)")
    execute(url, f"CREATE TABLE parts (id int PRIMARY KEY, c {kind})")
    execute(url, f"INSERT INTO things (id, c) VALUES (1, '{value}')")
    execute(url, "INSERT INTO parts VALUES (1, NULL)", "INSERT INTO parts SELECT 2, c FROM things")
    gone = SoftDelete(column="deleted", live=0, tombstone="id", at=None)
    named = Projected(column="id", family=Family.INTEGER)
    join = Join(rule="things", table="things", column="c", key=(named,), soft_delete=gone)
    refers = Projected(column="c", family=family(kind), join=join)
    read = replace(projection("parts", "id", types={"id": "int"}), columns=(refers,))
    for deleted in (0, 1):
        execute(url, f"UPDATE things SET deleted = {deleted}")
        with opened(url) as there:
            assert [*map(repr, there.rows(read, keys=[(1,), (2,)]))] == [*map(repr, there.rows(read))]


def test_an_enum_of_bytes_is_the_same_in_a_row_that_is_asked_for(schema: str) -> None:
    """Else a row that is keyed by it would be another one, and missing ones none."""
    kind = "enum('a','\u00e9') CHARACTER SET binary"
    execute(schema, f"CREATE TABLE bytes_of_enum (id int PRIMARY KEY, c {kind})")
    execute(schema, "INSERT INTO bytes_of_enum VALUES (1, 'a'), (2, '\u00e9'), (3, NULL)")
    read = projection("bytes_of_enum", "id", "c", types={"id": "int", "c": kind})
    with opened(schema) as there:
        assert [*there.rows(read, keys=[(1,), (2,), (3,)])] == [*there.rows(read)]


def test_a_transformed_number_is_the_same_in_a_row_that_is_asked_for(schema: str) -> None:
    execute(schema, "CREATE TABLE numbered (id int PRIMARY KEY, n int)", "INSERT INTO numbered VALUES (1, 5)")
    for name in REGISTRY:
        read = replace(
            projection("numbered", "id", types={"id": "int"}),
            columns=(Projected(column="n", family=Family.INTEGER, transform=name),),
        )
        with opened(schema) as there:
            assert [*there.rows(read, keys=[(1,)])] == [*there.rows(read)]


def test_rows_that_are_too_long_to_be_returned_together_are_rejected(
    database: DatabaseFactory, server_with: Callable[..., PrivateServer]
) -> None:
    """They are written one by one then; the server says it as an error, for the statement writes."""
    url = database(server_with("--max-allowed-packet=1M"))
    filled = "note mediumtext DEFAULT (REPEAT('y', 600000))"
    execute(url, f"CREATE TABLE large (id int PRIMARY KEY, data mediumtext, {filled})")
    with opened(url) as there, there.transaction():
        with pytest.raises(Rejected, match="max_allowed_packet"):
            there.insert_many("large", [{"id": 1, "data": "short"}, {"id": 2, "data": "x" * 600_000}])
        there.insert("large", {"id": 2, "data": "x" * 600_000})
        read = there.read_back("large", ("id",), [(1,), (2,)])
    assert {key: len(row["data"]) for key, row in read.items()} == {(2,): 600_000}  # type: ignore[arg-type]


def test_whole_rows_are_the_same_as_one_value_each(copied: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locked, read back, and returned by what inserts them."""
    floats = ("float", "double")
    inexact = [name for kind, name in COLUMNS.items() if kind.startswith(floats) or _is_shape(kind)]
    execute(copied.there, "CREATE OR REPLACE TABLE exact LIKE wide")
    execute(copied.there, *(f"ALTER TABLE exact DROP COLUMN {name}" for name in inexact))
    kept = ", ".join(["id", *(name for name in COLUMNS.values() if name not in inexact)])
    execute(copied.there, f"INSERT INTO exact ({kept}) SELECT {kept} FROM wide")
    found: list[list[str]] = []
    for joined in (True, False):
        if not joined:
            monkeypatch.setattr(joining, "field", lambda scalar: None)
        with opened(copied.there) as there, there.transaction():
            assert bool(there._whole_rows("exact").fields) is joined
            locked = there.lock("exact", ("id",), [(number,) for number in copied.locked])
            assert len(locked) == len(copied.locked)
            there.connection.exec_driver_sql("DELETE FROM exact")
            made = there.insert_many("exact", list(locked.values()))
            read = there.read_back("exact", ("id",), list(locked))
            there.connection.exec_driver_sql("ROLLBACK")
        assert made is not None
        found.append([*map(repr, locked.values()), *map(repr, made), *map(repr, read.values())])
    assert found[0] == found[1]


def _is_shape(kind: str) -> bool:
    return "LINESTRING" in str(TYPES[kind]) or "POINT" in str(TYPES[kind])


@each_type
def test_a_value_of_every_type_finds_its_row(copied: Copy, kind: str) -> None:
    """As a key, a canonical value finds at least its own row, and NULL finds NULL."""
    if _is_shape(kind):
        return  # a shape is no key: MariaDB compares shapes with nothing
    at = list(COLUMNS).index(kind)
    asked = {row.values[at]: number for number, row in copied.read.items()}
    with opened(copied.there) as there:
        by_value = wide(key=COLUMNS[kind], types=copied.types)
        for value, number in asked.items():
            found = {row.identity[0]: row.key for row in there.rows(by_value, keys=[(value,)])}
            assert found.get(number) == (value,), value


def test_what_many_rows_are_given_at_once_arrives_to_the_byte(copied: Copy) -> None:
    """Values of every type, one row's below the other's in one statement; NULL among them."""
    rows = {(number,): row for number, row in copied.locked.items()}
    given = {key: {name: row[name] for name in COLUMNS.values()} for key, row in rows.items()}
    with opened(copied.there) as there, there.transaction():
        execute_here = there.connection.exec_driver_sql
        execute_here("CREATE TEMPORARY TABLE wide_again LIKE wide")
        for (number,) in rows:
            execute_here(f"INSERT INTO wide_again (id) VALUES ({number})")
        there.tables(["wide"])
        there._tables["wide_again"] = there._tables["wide"]  # information_schema knows no temporary tables
        assert there.update_many("wide_again", ("id",), given)
        found = there.read_back("wide_again", ("id",), list(rows))
    assert {key: repr(dict(row)) for key, row in found.items()} == {k: repr(r) for k, r in rows.items()}


def test_many_rows_are_updated_all_or_none(schema: str) -> None:
    """Where one is not taken or is not there, and where one statement cannot say it."""
    execute(schema, "CREATE OR REPLACE TABLE many (id int PRIMARY KEY, n tinyint, at datetime)")
    add(schema, "many", *({"id": number, "n": 0} for number in (1, 2, 3)))

    def held(database: db.Database) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in database.query("SELECT n, at IS NULL FROM many ORDER BY id")]

    untouched = [(0, 1)] * 3
    with opened(schema) as database, database.transaction():
        for rows in ({1: {"n": 1}, 2: {"n": 300}}, {1: {"n": 1}, 9: {"n": 1}}):
            with pytest.raises(Rejected):
                database.update_many("many", ("id",), {(key,): row for key, row in rows.items()})
            assert held(database) == untouched
        mixed: list[dict[Any, Any]] = [
            {1: {"n": 1}, 2: {"n": "1"}},
            {"1": {"n": 1}, "2": {"n": 1}},
            {1: {"at": ServerTime.NOW}, 2: {"at": None}},
            {1: {"at": ServerTime.NOW}, 2: {"at": "2026-01-01 00:00:00"}},
        ]
        for each in mixed:
            assert not database.update_many("many", ("id",), {(key,): row for key, row in each.items()})
            assert held(database) == untouched
        now = {"n": None, "at": ServerTime.NOW}
        assert database.update_many("many", ("id",), {(1,): now, (3,): {**now, "n": 3}})
        assert held(database) == [(None, 0), (0, 1), (3, 0)]


# -- Names and people's SQL --------------------------------------------------------------------

NAMES = ["a`b", "a b", "o'clock", 'say "x"', "100%", "%s", "%(x)s", "a:b", "a :b", ":b", ":", "a\\:b",
         "select", "Ünï", "a.b", "{x}", "a--b", "主机"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_table_and_of_its_columns_will_do(schema: str, name: str) -> None:
    """Read, looked for, locked, inserted, updated and deleted, under a name that needs quoting."""
    table, column = f"t{name}", name
    quoted, field = (f"`{each.replace('`', '``')}`" for each in (table, column))
    execute(schema, f"CREATE TABLE {quoted} (id int PRIMARY KEY AUTO_INCREMENT, {field} varchar(20))")
    with opened(schema) as database:
        by_name = projection(table, column, types={column: "varchar"})
        with database.transaction():
            number = database.insert(table, {column: "x"})
            assert database.update(table, {"id": number}, {column: "y"}) == 1
            assert database.lock(table, ("id",), [(number,)]) == {(number,): {"id": number, column: "y"}}
            assert [row.key for row in database.taken(by_name, [("y",)])] == [("y",)]
        assert [row.key for row in database.rows(by_name, keys=[("y",)])] == [("y",)]
        assert database.look_up(LookUp(table=table, column=column)) == {"y"}
        with database.transaction():
            assert database.delete(table, {"id": number}) == 1
        assert list(database.rows(by_name)) == []
    execute(schema, f"DROP TABLE {quoted}")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("name LIKE 'a%'", {"a:b", "a%"}),
        ("name = 'a%'", {"a%"}),
        ("name LIKE '%\\\\\\\\%'", {"x\\y", "x\\:y", "\\: "}),
        ("name = 'a:b'", {"a:b"}),
        ("name = '10:00:00'", {"10:00:00"}),
        ("at > '2026-11-23 10:00:00'", {"o'clock"}),
        ("name = 'o''clock'", {"o'clock"}),
        ('name = "o\'clock"', {"o'clock"}),
        ("name = 'x\\\\y'", {"x\\y"}),
        ("name = 'x\\\\:y'", {"x\\:y"}),
        ("name = '\\\\: '", {"\\: "}),
        ("name IN (':k0', ':v0', '::')", {":k0", "::"}),
        ("name = ':k0' OR name = 'o''clock' -- a comment", None),
    ],
)
def test_a_where_means_what_its_author_wrote(schema: str, where: str, expected: set[str] | None) -> None:
    """Percent signs, colons, quotes and backslashes reach the server as they stand in the file."""
    execute(schema, "CREATE OR REPLACE TABLE said (id int PRIMARY KEY, name varchar(20), at datetime)")
    names = ["a:b", "a%", "10:00:00", "o'clock", "x\\y", "x\\:y", "\\: ", ":k0", "::"]
    add(schema, "said", *({"id": n, "name": name, "at": None} for n, name in enumerate(names)))
    execute(schema, "UPDATE said SET at = '2026-11-23 10:00:01' WHERE name = 'o''clock'")
    with opened(schema) as database:
        read = projection("said", "name", types={"name": "varchar"}, where=where)
        if expected is None:
            with pytest.raises(ReadFailed):
                list(database.rows(read))
            return
        assert {row.key[0] for row in database.rows(read)} == expected
        keys = [(name,) for name in names]
        assert {row.key[0] for row in database.rows(read, keys=keys)} == expected
        assert database.look_up(LookUp(table="said", column="name", where=where)) == expected


# -- Transforms --------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PATHS = st.lists(
    st.sampled_from(["@", "!", "api", "c1", "é", " ", "'", "\\", "%", ":x", "😀", "\0"]), max_size=8
)
ITEMS = st.one_of(TEXTS, PATHS.map("".join))
# A NUL cannot stand in the SQL of SQLite; no cell's name has one.
CELLS = ITEMS.map(lambda text: text.replace("\0", ""))


SPECIAL = st.text(st.sampled_from("'\"\\\0\n\r\x1a%_:`;nZ0é😀"), max_size=12)


@settings(max_examples=50)
@given(values=st.lists(st.one_of(SPECIAL, TEXTS), min_size=1, max_size=20))
def test_every_text_reaches_the_server_as_it_is(schema: str, *, values: list[str]) -> None:
    """To the byte, whatever it is made of: as a parameter of a statement and as one of many rows'."""
    values = [*values, "".join(map(chr, range(0x300))), "".join(map(chr, reversed(range(0x80))))]
    with opened(schema) as database:
        asked = ", ".join(f"HEX(:v{number})" for number in range(len(values)))
        (said,) = database.query(f"SELECT {asked}", **{f"v{n}": value for n, value in enumerate(values)})
        assert [bytes.fromhex(each) for each in said] == [value.encode() for value in values]
        database.connection.exec_driver_sql("CREATE TEMPORARY TABLE said (v text CHARACTER SET utf8mb4)")
        database.execute(sa.text("INSERT INTO said VALUES (:v)"), [{"v": value} for value in values])
        found = database.query("SELECT HEX(v) FROM said")
        assert sorted(bytes.fromhex(each) for (each,) in found) == sorted(v.encode() for v in values)


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("backend", ["mariadb", "sqlite"])
@settings(max_examples=40)
@given(values=st.lists(ITEMS, min_size=1, max_size=20), parent=CELLS, child=CELLS)
def test_both_faces_of_a_transform_agree(
    backend: str, name: str, schema: str, *, values: list[str], parent: str, child: str
) -> None:
    """What SQL makes of a text is what Python makes of it; NULL stays NULL."""
    expected = {n: REGISTRY[name].function(v, parent=parent, child=child) for n, v in enumerate(values)}
    with opened(schema if backend == "mariadb" else "sqlite://") as database:
        column = "text CHARACTER SET utf8mb4" if backend == "mariadb" else "text"
        database.connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE said (id integer PRIMARY KEY, v {column})"
        )
        stored = [*({"id": n, "v": value} for n, value in enumerate(values)), {"id": -1, "v": None}]
        database.execute(sa.text("INSERT INTO said VALUES (:id, :v)"), stored)
        read = Projection(
            rule="said",
            table="said",
            key=(Projected(column="v", family=Family.TEXT, transform=name),),
            columns=(Projected(column="v", family=Family.TEXT, transform=name),),
            identity=("id",),
            identity_families=(Family.INTEGER,),
            parent=parent,
            child=child,
        )
        found = {row.identity[0]: row.key[0] for row in database.rows(read)}
        assert found == {**expected, -1: None}
        for number, value in expected.items():
            assert number in {row.identity[0] for row in database.rows(read, keys=[(value,)])}


# -- References ----------------------------------------------------------------------------------


def test_a_key_may_lead_through_references_and_end_in_nothing(schema: str) -> None:
    """A NULL on the way, a row whose own key is NULL, and no row at all are told apart."""
    execute(
        schema,
        "CREATE TABLE top (id int PRIMARY KEY, x int, y int)",
        "CREATE TABLE middle (id int PRIMARY KEY, top_id int, name varchar(9))",
        "CREATE TABLE low (id int PRIMARY KEY, middle_id int, label varchar(9))",
        "INSERT INTO top VALUES (1, 5, 6), (2, NULL, NULL)",
        "INSERT INTO middle VALUES (1, 1, 'm'), (2, 2, 'm'), (3, NULL, 'm'), (4, 99, 'm')",
        "INSERT INTO low VALUES (1, 1, 'l'), (2, 2, 'l'), (3, 3, 'l'), (4, 4, 'l')",
        "INSERT INTO low VALUES (5, NULL, 'l'), (6, 99, 'l')",
    )

    def number(column: str, join: Join | None = None) -> Projected:
        return Projected(column=column, family=Family.INTEGER, join=join)

    def text(column: str) -> Projected:
        return Projected(column=column, family=Family.TEXT)

    top = Join(rule="top", table="top", column="id", key=(number("x"), number("y")), soft_delete=None)
    middle = Join(
        rule="middle",
        table="middle",
        column="id",
        key=(number("top_id", top), text("name")),
        soft_delete=None,
    )
    read = Projection(
        rule="low", table="low", key=(number("middle_id", middle), text("label")), columns=(),
        identity=("id",), identity_families=(Family.INTEGER,), parent="", child="",
    )  # fmt: skip
    expected = {
        1: (((5, 6), "m"), "l"),
        2: (((None, None), "m"), "l"),
        3: ((None, "m"), "l"),
        4: ((Dangling(raw=99, deleted=False), "m"), "l"),
        5: (None, "l"),
        6: (Dangling(raw=99, deleted=False), "l"),
    }
    with opened(schema) as database:
        assert {row.identity[0]: row.key for row in database.rows(read)} == expected
        for identity in (1, 2, 3, 5):
            found = {row.identity[0] for row in database.rows(read, keys=[expected[identity]])}
            assert identity in found
            assert 5 not in found - {identity} and 6 not in found
        with database.transaction():
            assert database.resolve(top, [(5, 6), (None, None), (7, 7)]) == {(5, 6): (1,), (None, None): (2,)}


def test_tombstones_limbo_and_live_rows_are_read_apart(schema: str) -> None:
    """A reference to a deleted row leads nowhere, except for the tombstones themselves."""
    soft = SoftDelete(column="deleted", live=0, tombstone="id", at="deleted_at")
    execute(
        schema,
        "CREATE TABLE soft (id int PRIMARY KEY, name varchar(9), deleted int, deleted_at datetime)",
        "INSERT INTO soft VALUES (1, 'live', 0, NULL), (2, 'dead', 2, '2026-01-02 03:04:05')",
        "INSERT INTO soft VALUES (3, 'limbo', NULL, NULL)",
    )
    with opened(schema) as database:
        read = projection("soft", "name", types={"name": "varchar"}, soft_delete=soft)
        assert {(row.key[0], row.limbo) for row in database.rows(read)} == {("live", False), ("limbo", True)}
        (dead,) = database.rows(read, tombstones=True)
        assert (dead.key, dead.since, dead.limbo) == (("dead",), "2026-01-02 03:04:05", False)


def test_sql_reaches_the_server_as_it_was_written(schema: str) -> None:
    """With parameters and without: percent signs, colons and backslashes are none of them."""
    with opened(schema) as database:
        literal = escaped("'5% of a:b, %s, %(x)s, :c, C:\\\\d'")
        expected = "5% of a:b, %s, %(x)s, :c, C:\\d"
        assert [tuple(row) for row in database.query(f"SELECT {literal}")] == [(expected,)]
        both = database.query(f"SELECT {literal}, :v, :w + 1", v="%s :w", w=2)
        assert [tuple(row) for row in both] == [(expected, "%s :w", 3)]


MANY = """
CREATE OR REPLACE TABLE many (
    id int PRIMARY KEY AUTO_INCREMENT, `a:b %s` varchar(9) UNIQUE, f float, made datetime, own int DEFAULT 7
)"""


def many(*names: str) -> list[dict[str, Any]]:
    """Return rows for the table; the server gives the rest."""
    return [{"a:b %s": name, "f": 0.1, "made": ServerTime.NOW} for name in names]


@pytest.mark.parametrize("packet", [1 << 20, 300], ids=["one statement", "several"])
def test_many_rows_are_inserted_at_once_and_returned(
    schema: str, monkeypatch: pytest.MonkeyPatch, packet: int
) -> None:
    """In order, whole, numbered, as they are when they are read back."""
    execute(schema, MANY)
    names = ["b", "a", "%s", ":c", "it's", "\\"]
    with opened(schema) as database:
        monkeypatch.setattr(database, "packet", lambda: packet)
        with database.transaction():
            made = database.insert_many("many", many(*names))
            assert made is not None
            numbers = [(row["id"],) for row in made]
            read = database.read_back("many", ("id",), numbers)
        assert [row["a:b %s"] for row in made] == names
        assert [read[number] for number in numbers] == made  # type: ignore[index]
        assert {(row["f"], row["own"]) for row in made} == {(0.10000000149011612, 7)}
        assert all(row["made"] for row in made)


@pytest.mark.parametrize("packet", [1 << 20, 300], ids=["one statement", "several"])
def test_of_many_rows_none_is_inserted_where_one_is_not_taken(
    schema: str, monkeypatch: pytest.MonkeyPatch, packet: int
) -> None:
    """The transaction goes on, with what was in it before."""
    execute(schema, MANY)
    with opened(schema) as database:
        monkeypatch.setattr(database, "packet", lambda: packet)
        with database.transaction():
            database.insert("many", {"a:b %s": "first"})
            for bad in ("longer than 9", "first", "x" * 400):
                with pytest.raises(Rejected):
                    database.insert_many("many", many("b", "c", "d", "e", bad))
    assert [row["a:b %s"] for row in rows(schema, "SELECT * FROM many")] == ["first"]


# -- Errors --------------------------------------------------------------------------------------


def test_what_the_server_refuses_comes_out_as_cellsyncs_own_error(schema: str) -> None:
    """With the server's words, after which cell, without statement or parameters."""
    execute(schema, "CREATE OR REPLACE TABLE strict (id int PRIMARY KEY, name varchar(3) NOT NULL)")
    with opened(schema) as database, database.transaction():
        database.insert("strict", {"id": 1, "name": "a"})
        for values in (
            {"id": 1, "name": "b"},
            {"id": 2, "name": "secret"},
            {"id": 3, "name": None},
            {"id": 4},
        ):
            with pytest.raises(Rejected, match=r"^c1: .* \(error \d+\)$") as rejected:
                database.insert("strict", values)  # type: ignore[arg-type]
            assert "INSERT" not in str(rejected.value) and "secret" not in str(rejected.value)
        database.insert("strict", {"id": 5, "name": "c"})
    assert [row["id"] for row in rows(schema, "SELECT id FROM strict")] == [1, 5]
    with opened(schema) as database:
        with pytest.raises(WriteFailed) as failed:
            database.insert("nowhere", {"id": 1})
        assert not isinstance(failed.value, (Rejected, TransactionLost))
        with pytest.raises(ReadFailed):
            list(database.rows(projection("nowhere", "name", types={"name": "varchar"})))


# PyMySQL trips over itself when it throws a cut-off cursor away.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_read_that_is_cut_off_is_an_error_and_not_the_end_of_the_rows(schema: str) -> None:
    """Two well-known tools delete good rows when the source dies in the middle of a scan."""
    execute(
        schema,
        "CREATE OR REPLACE TABLE large (id int PRIMARY KEY, name varchar(255))",
        "INSERT INTO large SELECT seq, REPEAT('x', 255) FROM seq_1_to_60000",
    )
    with opened(schema) as database:
        number = database.connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar()
        reading = database.rows(projection("large", "id", "name", types={"id": "int", "name": "varchar"}))
        next(reading)
        execute(schema, f"KILL {number}")
        with pytest.raises(ReadFailed):
            for _ in reading:
                pass


def test_a_lost_connection_is_told_and_opened_again(schema: str) -> None:
    """Killed by the server, it costs the transaction and nothing else."""
    execute(schema, "CREATE OR REPLACE TABLE again (id int PRIMARY KEY)")
    with opened(schema) as database:
        number = database.connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar()
        with pytest.raises(TransactionLost), database.transaction():  # noqa: PT012
            database.insert("again", {"id": 1})
            execute(schema, f"KILL {number}")
            database.insert("again", {"id": 2})
        database.reconnect()
        with database.transaction():
            database.insert("again", {"id": 3})
    assert [row["id"] for row in rows(schema, "SELECT id FROM again")] == [3]


def test_a_statement_is_not_spelled_through_a_lost_connection(schema: str) -> None:
    """Its values are spelled as the session wants them: without one that is an error as any other."""
    execute(schema, "CREATE OR REPLACE TABLE spelled (id int PRIMARY KEY, CHECK (id > 0))")
    live = projection(
        "spelled", "id", types={"id": "int"}, soft_delete=SoftDelete(column="id", live=0, tombstone="id")
    )
    with opened(schema) as database:
        (check,) = database.read_checks("spelled")
        database.tables(["spelled"])
        number = database.connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar()
        execute(schema, f"KILL {number}")
        with pytest.raises(ReadFailed):
            database.query("SELECT 1")
        for read in (
            lambda: database.read_checks("spelled"),
            lambda: list(database.find_broken("spelled", check, ["id"], [(1,)])),
            lambda: database.find_doubles(live, [("id", None, None)]),
        ):
            with pytest.raises(ReadFailed, match="the connection was lost"):
                read()
        with pytest.raises(TransactionLost, match="the connection was lost"):
            database.literal("x")


def test_a_login_that_fails_never_shows_the_password(server: Server) -> None:
    """Whatever was wrong: the password, the port, the schema."""
    for url in (
        server.url("test_db").set(password="top-secret"),
        server.url("test_db").set(password="top-secret", port=1),
        server.url("no_such_schema"),
    ):
        text = url.render_as_string(hide_password=False)
        with pytest.raises(Unreachable, match="cannot connect to c1") as refused:
            db.connect(cell("c1", text), TIMEOUTS)
        assert "top-secret" not in str(refused.value) and server.password not in str(refused.value)


def test_every_session_has_the_same_settings(odd: str) -> None:
    """Whatever the server's defaults are."""
    with opened(odd) as database:
        (found,) = database.connection.exec_driver_sql(
            "SELECT @@time_zone, @@sql_mode, @@character_set_client, @@tx_isolation, @@lock_wait_timeout"
        ).all()
    assert found[0] == "+00:00"
    assert "STRICT_ALL_TABLES" in found[1] and "ANSI" not in found[1] and "BACKSLASH" not in found[1]
    assert found[2:] == ("utf8mb4", "REPEATABLE-READ", TIMEOUTS.lock)


# -- Locks ---------------------------------------------------------------------------------------


def test_a_taken_key_is_kept_from_others_until_the_end(schema: str) -> None:
    """Also where the rule has a ``where``: nobody adds a row with that key in between."""
    execute(
        schema,
        "CREATE OR REPLACE TABLE kept (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), KEY (name))",
    )
    read = projection("kept", "name", types={"name": "varchar"}, where="name <> 'other'")
    with opened(schema) as database, opened(schema, "c2") as other:
        with database.transaction():
            assert list(database.taken(read, [("a",)])) == []
            with pytest.raises(TransactionLost), other.transaction():
                other.insert("kept", {"name": "a"})
            database.insert("kept", {"name": "a"})
        assert [row.key for row in database.rows(read)] == [("a",)]


def test_a_second_writer_is_told_who_holds_the_lock(schema: str) -> None:
    """At once; another database of the same server has a lock of its own."""
    with opened(schema) as first, opened(schema) as second, opened(schema) as third:
        held = db.NamedLock(first, "nova")
        held.acquire()
        with pytest.raises(Locked, match=r"c1: another cellsync run writes to this database: cellsync@"):
            db.NamedLock(second, "nova").acquire()
        db.NamedLock(third, "nova2").acquire()
        held.release()
        db.NamedLock(second, "nova").acquire()


def test_a_lock_that_was_given_back_can_be_taken_at_once(schema: str) -> None:
    """A server takes a moment to notice that a connection was closed; nobody waits for that."""
    for _ in range(30):
        with opened(schema) as first, opened(schema) as second:
            held = db.NamedLock(first, "nova-again")
            held.acquire()
            held.release()
            db.NamedLock(second, "nova-again").acquire()
            db.NamedLock(second, "nova-again").release()


def test_long_names_do_not_share_a_lock(schema: str) -> None:
    """The name of a lock has 64 characters at most, and so has that of a schema."""
    with opened(schema) as first, opened(schema) as second:
        db.NamedLock(first, "x" * 63 + "1").acquire()
        db.NamedLock(second, "x" * 63 + "2").acquire()


def test_two_names_for_one_database_are_found_out(schema: str, odd: str, tmp_path: Path) -> None:
    """The same server and schema, however it is reached."""

    def same(one: str, other: str) -> bool:
        with opened(one) as first, opened(other) as second:
            return db.same_database(first, second, first.identity(), second.identity())

    assert (
        same(schema, schema.replace("127.0.0.1", "localhost"))
        if "localhost" in schema
        else same(schema, schema)
    )
    assert not same(schema, odd)
    assert not same(schema, schema.replace("/test_db", "/mysql"))
    one, other = f"sqlite:///{tmp_path}/one", f"sqlite:///{tmp_path}/other"
    assert same(one, one.replace("/one", "/./one")) and not same(one, other)


# -- Schemas -------------------------------------------------------------------------------------


def test_a_table_is_described_with_its_keys(schema: str) -> None:
    """Columns, primary key, indexes, foreign keys both ways, triggers, engine."""
    execute(
        schema,
        "CREATE TABLE up (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9) CHARACTER SET utf8mb3 NOT NULL, "
        "low int AS (id + 1), UNIQUE both_idx (name, id), KEY plain_idx (name(3)))",
        "CREATE TABLE down (id int PRIMARY KEY, up_id int DEFAULT 5, "
        "CONSTRAINT of_up FOREIGN KEY (up_id) REFERENCES up (id) ON DELETE CASCADE)",
        "CREATE TRIGGER up_audit AFTER INSERT ON up FOR EACH ROW SET @x = 1",
    )
    with opened(schema) as database:
        found = database.tables(["up", "down", "no such table"])
    assert set(found) == {"up", "down"}
    up, down = found["up"], found["down"]
    assert up.primary_key == ("id",)
    assert {(i.name, i.columns, i.unique) for i in up.indexes} == {
        ("both_idx", ("name", "id"), True),
        ("plain_idx", ("name",), False),
    }
    assert (up.triggers, up.engine) == (("up_audit",), "InnoDB")
    assert [(str(key), key.on_delete, key.on_update) for key in up.cascades] == [("down.of_up", True, False)]
    columns = {column.name: column for column in up.columns}
    assert columns["id"].auto_increment and columns["low"].generated and not columns["name"].nullable
    assert (columns["name"].charset, str(columns["name"].collation)[:8]) == ("utf8mb3", "utf8mb3_")
    assert [(k.columns, k.table, k.references, k.on_delete) for k in down.foreign_keys] == [
        (("up_id",), "up", ("id",), "CASCADE")
    ]
    column = down.column("UP_ID")
    assert column is not None and column.default == "5"


def test_the_server_time_is_utc(odd: str) -> None:
    """On a server in India too, and without a fraction."""
    execute(odd, "CREATE TABLE clock (id int PRIMARY KEY, at datetime(6), was datetime)")
    with opened(odd) as database, database.transaction():
        database.insert("clock", {"id": 1, "at": ServerTime.NOW})
    (found,) = rows(
        odd, "SELECT ABS(TIMESTAMPDIFF(SECOND, at, UTC_TIMESTAMP())) AS off, MICROSECOND(at) AS f FROM clock"
    )
    assert found["off"] < 60 and found["f"] == 0

"""What is read from a real MariaDB can be written to another one, and is the same to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
import servers
import sqlalchemy as sa
from edges import TIMEOUTS, add, cell, execute, opened, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import PrivateServer, Server

from cellsync import codec, db
from cellsync.db.schema import family
from cellsync.demo.database import connected
from cellsync.errors import Locked, ReadFailed, Rejected, TransactionLost, Unreachable, WriteFailed
from cellsync.model import (
    Dangling,
    Family,
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


@dataclass(frozen=True)
class Raw:
    """An SQL expression, for what no parameter can say."""

    sql: str


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


# -- Every type --------------------------------------------------------------------------------

LATIN = ["", " ", "a", "A", "a ", " a", "o'clock", 'say "x"', "back\\slash", "%", "%s %(x)s 100%", "\n\r\t",
         ":name 10:00:00", "\\:x", "nul\0nul", "\x1a", "`", "--", "é", "NULL", "0", "1.0"]  # fmt: skip
EUROPEAN = ["Свет", "plain"]
ASIAN = ["€", "主机", "e\u0301"]
ASTRAL = ["😀", "😁", "𝔘"]

TYPES: dict[str, list[object]] = {
    "tinyint": [-128, 0, 127],
    "tinyint unsigned": [0, 255],
    "bool": [0, 1],
    "smallint": [-32768, 32767],
    "smallint unsigned": [65535],
    "mediumint": [-8388608, 8388607],
    "mediumint unsigned": [16777215],
    "int": [-2147483648, 2147483647],
    "int(5) unsigned zerofill": [7, 4294967295],
    "bigint": [-(2**63), 2**63 - 1],
    "bigint unsigned": [0, 2**64 - 1],
    "bit(1)": [0, 1],
    "bit(8)": [0, 1, 255],
    "bit(64)": [0, 2**63, 2**64 - 1],
    "year": [0, 1901, 2000, 2155],
    "decimal(65,30)": ["0", "-0.000000000000000000000000000001", "9" * 35 + "." + "9" * 30],
    "decimal(10,0)": ["-9999999999", "0"],
    "decimal(20,5) unsigned": ["1.10000", "123456789012345.99999"],
    "float": ["0", "-0.0", "0.1", "3.4028234e38", "-3.4028234e38", "1.17549435e-38", "1.4e-45", "16777216"],
    "double": ["0", "-0.0", "0.1", "1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "1e23"],
    "date": ["0000-00-00", "2023-02-31", "2023-00-00", "1000-01-01", "9999-12-31", "2024-02-29"],
    **{
        f"datetime({n})": ["0000-00-00 00:00:00", "2023-02-31 10:00:00", "9999-12-31 23:59:59",
                           "2024-02-29 23:59:59.999999"[: 20 + n].rstrip("."), "2024-01-01 00:00:00"]
        for n in range(7)
    },
    **{
        f"timestamp({n}) null": ["0000-00-00 00:00:00", "1970-01-01 00:00:01", "2038-01-19 03:14:07",
                                 "2024-10-27 00:30:00", "2024-10-27 01:30:00.123456"[: 20 + n].rstrip(".")]
        for n in range(7)
    },
    **{
        f"time({n})": ["-838:59:59", "838:59:59", "25:00:00", "00:00:00", "-00:00:01",
                       "-00:00:00.123456"[: 10 + n].rstrip(".")]
        for n in range(7)
    },
    "char(20) character set utf8mb4": [*LATIN, *EUROPEAN, *ASIAN, *ASTRAL],
    "char(20) character set binary": [b"", b"a\0"],
    "varchar(255) character set utf8mb4": [*LATIN, *EUROPEAN, *ASIAN, *ASTRAL],
    "varchar(255) character set utf8mb4 collate utf8mb4_bin": [*LATIN, *EUROPEAN, *ASIAN, *ASTRAL],
    "varchar(255) character set utf8mb3": [*LATIN, *EUROPEAN, *ASIAN],
    "varchar(255) character set latin1": [*LATIN, "€"],
    "varchar(255) character set cp1251": [*EUROPEAN, "€"],
    "varchar(255) character set utf16": [*LATIN, *EUROPEAN, *ASIAN, *ASTRAL],
    "tinytext": [*LATIN, *ASTRAL],
    "text character set utf8mb3": [*LATIN, *ASIAN],
    "mediumtext": ["x" * 70000, *ASTRAL],
    "longtext collate utf8mb4_unicode_ci": [*LATIN, *ASTRAL],
    "enum('a','B','o''clock','é','')": ["a", "B", "o'clock", "é", ""],
    "set('a','b','c d')": ["", "a", "a,c d", "a,b,c d"],
    "binary(4)": [b"\0\0\0\0", b"ab", b"\xff\xfe\x00\x01"],
    "varbinary(255)": [b"", b"\0", b"a ", bytes(range(256))[:255], b"%s :x \\ '"],
    "tinyblob": [b"", b"\x89PNG\r\n\x1a\n\0"],
    "blob": [b"", bytes(range(256)) * 4],
    "mediumblob": [b"x" * 70000],
    "longblob": [b"\xf0\x9f\x98\x80"],
    "json": ['{"b": 1, "a": [true, null, "😀\\\\"]}', '{ "b":1,"a":2 }', "null", '"x"'],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000", "00000000-0000-0000-0000-000000000000"],
    "inet6": ["::", "::1", "fe80::1", "::ffff:192.0.2.1"],
    "inet4": ["0.0.0.0", "192.0.2.1"],
    "point": [Raw("ST_GeomFromText('POINT(1 2)')"), Raw("ST_GeomFromText('POINT(1.5 -2)', 4326)")],
    "geometry": [Raw("ST_GeomFromText('LINESTRING(0 0, 1 1)')"),
                 Raw("ST_GeomFromText('POLYGON((0 0, 0 1, 1 1, 0 0))')")],
    "multipoint": [Raw("ST_GeomFromText('MULTIPOINT(1 1, 2 2)')")],
}  # fmt: skip


def make(url: str, table: str, kind: str, values: list[object]) -> None:
    """Make a table with a column ``v`` of that type, and a row for NULL and for each value."""
    execute(url, f"DROP TABLE IF EXISTS `{table}`", f"CREATE TABLE `{table}` (id int PRIMARY KEY, v {kind})")
    with connected(sa.make_url(url)) as connection:
        connection.exec_driver_sql(
            "SET SESSION sql_mode = 'ALLOW_INVALID_DATES,STRICT_ALL_TABLES', time_zone = '+00:00'"
        )
        for number, value in enumerate([None, *values] if values else []):
            expression = value.sql if isinstance(value, Raw) else ":v"
            parameters = {} if isinstance(value, Raw) else {"v": value}
            connection.execute(sa.text(f"INSERT INTO {table} VALUES ({number}, {expression})"), parameters)


def held(url: str, table: str, kind: str) -> list[tuple[Any, ...]]:
    """Return the bytes of every row, whatever the server's defaults are."""
    exact = "CAST(v AS DOUBLE)" if kind == "float" else "v"
    with connected(sa.make_url(url)) as connection:
        connection.exec_driver_sql("SET SESSION sql_mode = '', time_zone = '+00:00'")
        found = connection.exec_driver_sql(
            f"SELECT id, HEX(CAST({exact} AS BINARY)), LENGTH(v) FROM {table} ORDER BY id"
        )
        return [tuple(row) for row in found]


@pytest.mark.parametrize("kind", TYPES)
def test_a_value_of_every_type_is_read_written_and_found_again(schema: str, odd: str, kind: str) -> None:
    """Read -> text of the journal -> write to a server with other defaults: the same bytes.

    And every value, as a key, finds its own row; locked and read by projection, it is one value.
    """
    make(schema, "here", kind, TYPES[kind])
    make(odd, "there", kind, [])
    with opened(schema) as here, opened(odd, "c2") as there:
        types = {column.name: column.type for column in here.tables(["here"])["here"].columns}
        read = {row.identity[0]: row for row in here.rows(projection("here", "id", "v", types=types))}
        assert len(read) == len(TYPES[kind]) + 1
        locked = here.lock("here", ("id",), [(number,) for number in read])
        for number, row in read.items():
            value = codec.row_from_text(codec.row_to_text({"v": row.values[0]}))["v"]  # type: ignore[index]
            assert repr(value) == repr(row.values[0])
            assert repr(locked[number,]["v"]) == repr(row.values[0])
            with there.transaction():
                there.insert("there", {"id": number, "v": None})
                there.update("there", {"id": number}, {"v": value})
        assert held(odd, "there", kind) == held(schema, "here", kind)
        again = {row.identity[0]: row for row in there.rows(projection("there", "id", "v", types=types))}
        assert {n: repr(row.values) for n, row in again.items()} == {
            n: repr(row.values) for n, row in read.items()
        }
        if family(kind) is Family.BINARY and "blob" not in kind and "binary" not in kind:
            return  # a shape is no key: MariaDB compares shapes with nothing
        by_value = projection("there", "v", types=types)
        for number, row in read.items():
            found = {each.identity[0] for each in there.rows(by_value, keys=[(row.values[0],)])}
            assert number in found, row.values[0]

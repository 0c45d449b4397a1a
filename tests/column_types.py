"""Every type of column that MariaDB has, each with values that are odd for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Raw:
    """An SQL expression, for what no parameter can say."""

    sql: str


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
    "tinytext character set utf8mb4": [*LATIN, *ASTRAL],
    "text character set utf8mb3": [*LATIN, *ASIAN],
    "mediumtext character set utf8mb4": ["x" * 70000, *ASTRAL],
    "longtext collate utf8mb4_unicode_ci": [*LATIN, *ASTRAL],
    "enum('a','B','o''clock','é','') character set utf8mb4": ["a", "B", "o'clock", "é", ""],
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

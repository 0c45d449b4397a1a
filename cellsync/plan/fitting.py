"""Values that the written column cannot hold: a row with one of them is a finding, and is not planned.

A server rounds, cuts or pads such a value, with a note at most, or refuses it. Only columns that differ
between the two sides are looked at, and those whose values a rule makes.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from decimal import Context, Decimal

from cellsync.model import (
    Change,
    Column,
    Family,
    Index,
    KeyPart,
    Pairing,
    Reference,
    Secrets,
    ServerTime,
    Stored,
    Table,
    shown,
)
from cellsync.plan.changing import find_constants
from cellsync.plan.inputs import Target

_SHOWN = 80
"""Characters of a value in a reason."""

_BITS = {"tinyint": 8, "bool": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
_BYTES = {"tiny": 1 << 8, "": 1 << 16, "medium": 1 << 24, "long": 1 << 32}
"""What a TEXT or BLOB has fewer bytes than, by how its name begins."""
_LATIN1 = frozenset("\x81\x8d\x8f\x90\x9d")
"""What MariaDB's latin1 has beside Windows' code page 1252."""
_BASIC_PLANE = ("utf8", "utf8mb3", "ucs2")
_CODECS = {"utf8": "utf-8", "utf8mb3": "utf-8", "utf8mb4": "utf-8", "ucs2": "utf-16-be", "utf16": "utf-16-be"}
"""Charsets of several bytes by the codec that says how many; of others a character takes one at least."""
_EXACT = Context(prec=100)
_CLOCK = re.compile(r"-?\d{2,3}:\d\d:\d\d(\.\d+)?")
_UUID = re.compile("[0-9A-Fa-f]{32}")
_FIRST_TIMESTAMP, _LAST_TIMESTAMP = "1970-01-01 00:00:01", "2106-02-07 06:28:15.999999"


def find_narrow_columns(
    pairing: Pairing, written: Table, desired: Table | None, target: Target
) -> Mapping[str, Column]:
    """Return the written columns that may be unable to hold what is planned for them, by name."""
    if written.engine == "sqlite":
        return {}  # it takes any value into any column
    rule = pairing.rule
    made = {*rule.transforms, *(name for columns in rule.overrides.values() for name in columns)}
    made |= {part.column for part in (*pairing.desired.key, *pairing.desired.columns) if part.transform}
    lower = {name.lower() for name in made}
    found = {}
    for column in written.columns:
        other = desired.column(column.name) if desired else None
        differs = other is not None and not _is_wider(column, other)
        if not column.generated and (differs or column.name.lower() in lower):
            found[column.name] = column
    for name, value in find_constants(rule, target):
        constant = written.column(name)
        if constant is not None and not is_held(constant, value):
            found[name] = constant
    return found


def find_recomputed_columns(pairing: Pairing, written: Table, desired: Table | None) -> Iterator[Column]:
    """Yield the key columns that the written server computes, maybe not as the desired side has them.

    It computes from columns of other types, or otherwise.
    """
    for name in pairing.rule.key:
        column = written.column(name)
        if column is None or not column.generated:
            continue
        bases = written.base_columns(Index(name=name, columns=(name,), unique=False))
        here = [column.expression, *(_describe_kind(written.column(base)) for base in bases)]
        other = desired.column(name) if desired else None
        there = [
            other.expression if other else "",
            *(_describe_kind(desired.column(b)) for b in bases if desired),
        ]
        if bases and here != there:
            yield column


def _describe_kind(column: Column | None) -> tuple[object, ...]:
    return (column.type, column.charset, column.collation, column.members) if column else ()


def _is_wider(column: Column, other: Column) -> bool:
    """Say whether a column takes whatever another one has: most differing ones are just longer."""
    if not column.nullable and other.nullable:
        return False
    if column.charset != other.charset or column.members != other.members:
        return False
    if column.type == other.type:
        return True
    kinds = {_kind(column), _kind(other)}
    one, two = _numbers(column), _numbers(other)
    if kinds in ({"varchar"}, {"varbinary"}):
        return bool(one and two) and one >= two
    bits, others = _BITS.get(_kind(column), 0), _BITS.get(_kind(other), 0)
    return bool(others) and bits >= others and ("unsigned" in column.type) == ("unsigned" in other.type)


def find_long_columns(table: Table, most: int) -> frozenset[str]:
    """Return the columns, in lower case, that can make a row longer than ``most`` characters and bytes.

    The others, together, take half of that; () where no row can be so long.
    """
    sizes = {column.name.lower(): _measure_column(column) for column in table.columns}
    if sum(sizes.values()) <= most:
        return frozenset()
    return frozenset(name for name, size in sizes.items() if size > most // 2 // len(sizes))


def _measure_column(column: Column) -> int:
    kind, numbers = _kind(column), _numbers(column)
    for end in ("text", "blob"):
        if kind.endswith(end):
            return _BYTES.get(kind.removesuffix(end), 0)
    return numbers[0] if numbers and column.family in (Family.TEXT, Family.BINARY) else 0


def describe_misfit(change: Change, narrow: Mapping[str, Column], pairing: Pairing, secrets: Secrets) -> str:
    """Say which value of a change its column cannot hold; "" where all fit."""
    for name, value in (change.after or {}).items():
        column = narrow.get(name)
        if column is None or is_held(column, value):
            continue
        safe: KeyPart = secrets.safe(name, value, table=change.table)  # type: ignore[arg-type]
        text = shown(safe)
        short = repr(shorten(text)) if value is not None else text
        charset = f" {column.charset}" if column.charset else ""
        nulls = " NOT NULL" if value is None else ""
        return (
            f"{name} {short} does not fit into the column in {pairing.existing_cell}, which is "
            f"{column.type}{charset}{nulls}: the server would refuse it or keep another value; make the "
            f"column like that of {pairing.desired_cell}, or change the row"
        )
    return ""


def shorten(text: str) -> str:
    """Return a value as a reason has room for it."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_held(column: Column, value: Stored | None) -> bool:
    """Say whether a column gives a planned value back as it was written."""
    if value is None:
        return column.nullable or column.auto_increment
    return isinstance(value, (Reference, ServerTime)) or can_hold(column, value)


def can_hold(column: Column, value: Stored) -> bool:
    """Say whether a column gives a value back as it was written.

    True where only the server knows: of dates that no calendar has, of rare charsets and types.
    """
    check = _CHECKS.get(column.family)
    return check is None or check(column, value)


def _kind(column: Column) -> str:
    return re.split(r"[ (]", column.type, maxsplit=1)[0]


def _numbers(column: Column) -> tuple[int, ...]:
    """Return the numbers in the parentheses of a type: those of decimal(20,4)."""
    found = re.search(r"\(([\d,]+)\)", column.type)
    return tuple(map(int, found.group(1).split(","))) if found else ()


def _holds_integer(column: Column, value: Stored) -> bool:
    kind = _kind(column)
    if not isinstance(value, int):
        return True
    if kind == "year":
        return value == 0 or 1901 <= value <= 2155
    if kind == "bit":
        return 0 <= value < 1 << (_numbers(column) or (1,))[0]
    bits = _BITS.get(kind)
    if bits is None:
        return True
    if "unsigned" in column.type:
        return 0 <= value < 1 << bits
    return -(1 << (bits - 1)) <= value < 1 << (bits - 1)


def _holds_decimal(column: Column, value: Stored) -> bool:
    digits, scale = (*_numbers(column), 0)[:2] if _numbers(column) else (10, 0)
    if not isinstance(value, (Decimal, int)):
        return True
    number = Decimal(value)
    if "unsigned" in column.type and number < 0:
        return False
    rounded = number.quantize(Decimal(1).scaleb(-scale), context=_EXACT)
    return rounded == number and abs(number) < Decimal(10) ** (digits - scale)


def _holds_float(column: Column, value: Stored) -> bool:
    if not isinstance(value, (float, int)):
        return True
    number, numbers = float(value), _numbers(column)
    if "unsigned" in column.type and number < 0:
        return False
    if len(numbers) == 2:
        digits, scale = numbers
        if abs(number) >= 10 ** (digits - scale):
            return False
        rounded = round(number, scale)
    else:
        rounded = number
    if _kind(column) == "float":
        try:
            return bool(struct.unpack("f", struct.pack("f", rounded))[0] == number)
        except OverflowError:
            return False
    return rounded == number


def _holds_time(column: Column, value: Stored) -> bool:
    if not isinstance(value, str):
        return True
    kind = _kind(column)
    if kind == "time":
        alike = _CLOCK.fullmatch(value) is not None
    else:
        alike = (len(value) == len("2024-01-01")) is (kind == "date") and "-" in value[1:]
    fraction = value.partition(".")[2].rstrip("0")
    if not alike or len(fraction) > (_numbers(column) or (0,))[0]:
        return False
    return kind != "timestamp" or value.startswith("0000") or _FIRST_TIMESTAMP <= value <= _LAST_TIMESTAMP


def _holds_bytes(column: Column, value: Stored) -> bool:
    if not isinstance(value, bytes):
        return True
    kind, numbers = _kind(column), _numbers(column)
    if kind == "binary":
        return len(value) == (numbers or (1,))[0]  # what is shorter is padded
    if kind == "varbinary":
        return not numbers or len(value) <= numbers[0]
    return not kind.endswith("blob") or len(value) < _BYTES.get(kind.removesuffix("blob"), 1 << 32)


def _holds_text(column: Column, value: Stored) -> bool:
    if not isinstance(value, str):
        return True
    kind, numbers = _kind(column), _numbers(column)
    if not _has_charset(column, value):
        return False
    if kind == "enum":
        return not value or value in column.members  # the empty text is the error value of any
    if kind == "set":
        chosen = value.split(",") if value else []
        return chosen == [member for member in column.members if member in chosen]
    if kind in ("inet4", "inet6"):
        return _is_address(value)
    if kind == "uuid":
        return _UUID.fullmatch(value.replace("-", "")) is not None
    if kind == "char" and value.endswith(" "):
        return False  # a CHAR gives back no spaces at its end, whatever the collation
    if kind in ("char", "varchar"):
        return not numbers or len(value) <= numbers[0]
    if kind.endswith("text"):
        codec = _CODECS.get(column.charset or "")
        size = len(value.encode(codec, "surrogatepass")) if codec else len(value)
        return size < _BYTES.get(kind.removesuffix("text"), 1 << 32)
    return True


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _has_charset(column: Column, value: str) -> bool:
    if value.isascii():
        return True
    if column.charset == "ascii":
        return False
    if column.charset in _BASIC_PLANE:
        return max(map(ord, value)) < 1 << 16
    if column.charset == "latin1":
        return all(each in _LATIN1 or each.encode("cp1252", "ignore") for each in value)
    return True


_CHECKS: Mapping[Family, Callable[[Column, Stored], bool]] = {
    Family.INTEGER: _holds_integer,
    Family.DECIMAL: _holds_decimal,
    Family.FLOAT: _holds_float,
    Family.TEMPORAL: _holds_time,
    Family.BINARY: _holds_bytes,
    Family.TEXT: _holds_text,
}

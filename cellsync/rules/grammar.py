"""The small languages inside a rule file: version gates, durations, limits and templates.

Every function takes one value as YAML gave it and returns what it means, or raises ValueError
with a message for the person who wrote it.
"""

from __future__ import annotations

import re
import string
from datetime import timedelta
from typing import Any

from cellsync.model import Comparison, Gate, Limit, ServerTime, Value

LONGEST = timedelta(hours=1)
LARGEST = 10**65
"""One more than the largest number of a DECIMAL column. NaN is not below it either."""
CELLS = frozenset({"parent", "child"})
CHANGED = frozenset({"was", "now"})

_COMPARISON = re.compile(
    r"""version\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?:'(?P<single>[^'"]+)'|"(?P<double>[^'"]+)"|(?P<bare>[\w.-]+))"""
)
_VERSION_NAME = re.compile(r"(?!version$)(?=.*[a-zA-Z])\w+")
_RANGE = re.compile(r"([0-9]{1,18})\s*\.\.\s*([0-9]{1,18})")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")
_DURATION = re.compile(r"([0-9.]+)\s*(ms|s|m)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
_FIELD = re.compile(r"[^\W\d][\w$-]*")


def gate(text: str) -> Gate:
    """Read "version >= 255 and version < 319"; alternatives are joined with "or"."""
    return Gate(text=text, alternatives=tuple(_condition(part, text) for part in _alternatives(text)))


def version_range(text: str) -> Gate:
    """Read "20..67 or d67eeaabee36": ranges (both ends included), names and conditions of a gate."""
    return Gate(text=text, alternatives=tuple(_versions(part, text) for part in _alternatives(text)))


def _alternatives(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\s+or\s+", text.strip())]


def _versions(part: str, text: str) -> tuple[Comparison, ...]:
    if _VERSION_NAME.fullmatch(part):
        return (Comparison(operator="==", operand=part),)
    ends = _RANGE.fullmatch(part)
    if ends is None:
        return _condition(part, text)
    low, high = int(ends[1]), int(ends[2])
    if low > high:
        raise ValueError(f"the range {part!r} holds no version: write the smaller end first")
    return (Comparison(operator=">=", operand=low), Comparison(operator="<=", operand=high))


def _condition(part: str, text: str) -> tuple[Comparison, ...]:
    return tuple(_comparison(each, text) for each in re.split(r"\s+and\s+", part))


def _comparison(part: str, text: str) -> Comparison:
    match = _COMPARISON.fullmatch(part.strip())
    if match is None:
        raise ValueError(
            f'{text!r} is not a version condition: write "version >= 255", several joined with "and" or '
            '"or"; operators are == != < <= > >='
        )
    word = match["single"] or match["double"] or match["bare"]
    operand = int(word) if _INTEGER.fullmatch(word) else word
    if isinstance(operand, str) and match["operator"] not in ("==", "!="):
        raise ValueError(f"{match['operator']} needs a number, and {word!r} is a name: use == or !=")
    return Comparison(operator=match["operator"], operand=operand)


def duration(value: float | str) -> timedelta:
    """Read "500ms", "0.5s", "2m" or a number of seconds; at most one hour."""
    seconds = _seconds(value)
    if not 0 <= seconds <= LONGEST.total_seconds():
        raise ValueError(f"{value} is not between 0s and 60m")
    return timedelta(seconds=seconds)


def _seconds(value: float | str) -> float:
    if not isinstance(value, str):
        return float(value)
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError(f'{value!r} is not a duration: write "500ms", "0.5s", "2m" or a number of seconds')
    return float(match[1]) * _UNITS[match[2]]


def limit(value: float | str) -> Limit | None:
    """Read a number of changes, "25%", or "unlimited", which is None."""
    if not isinstance(value, str):
        return Limit(count=int(value))
    if value == "unlimited":
        return None
    percent = float(value.rstrip("% "))
    if not 0 <= percent <= 100:
        raise ValueError(f"{value} is not a percentage: it must be between 0% and 100%, or say unlimited")
    return Limit(percent=percent)


def scalar(value: Any) -> Value:
    """Read one column value: true and false are 1 and 0, as the server stores them."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and not abs(value) < LARGEST:
        raise ValueError(f"no column holds {value}: write a number of at most 65 digits")
    assert value is None or isinstance(value, (int, float, str))
    return value


def inserted(value: Any) -> Value | ServerTime:
    """Read a value of on_insert: a scalar, ``now``, or a template of the cells' names."""
    if value == ServerTime.NOW.value:
        return ServerTime.NOW
    return cells_template(value) if isinstance(value, str) else scalar(value)


def cells_template(text: str) -> str:
    """Check that a template has no fields but {parent} and {child}, and return it."""
    unknown = sorted(fields(text) - CELLS)
    if unknown:
        raise ValueError(f"{{{unknown[0]}}} is not known here: only {{parent}} and {{child}} are")
    return text


def route_path(text: str) -> str:
    """Check the template of a route's path, and return it."""
    if "child" not in fields(cells_template(text)):
        raise ValueError("the path does not hold {child}: every child would own the same rows")
    return text


def unchanging(text: str) -> str:
    """Check a saying about a missing or an extra row, and return it."""
    wrong = sorted(fields(text) & CHANGED)
    if wrong:
        raise ValueError(f"{{{wrong[0]}}} is known only in changed: name a column")
    return text


def fields(text: str) -> frozenset[str]:
    """Return the names that a template has in braces; only plain names are allowed there."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(
            f"the template is broken ({error}): a brace that is meant literally is doubled"
        ) from None
    return frozenset(_plain_name(*part[1:]) for part in parsed if part[1] is not None)


def parameters(sql: str) -> frozenset[str]:
    """Return the names that a query has behind colons."""
    return frozenset(_PARAMETER.findall(sql))


def _plain_name(name: str | None, specification: str | None, conversion: str | None) -> str:
    if not name or specification or conversion or not _FIELD.fullmatch(name):
        spelled = (
            f"{name}{'!' + conversion if conversion else ''}{':' + specification if specification else ''}"
        )
        raise ValueError(
            f"{{{spelled}}} is not a plain name in braces: write a name such as {{child}}, and double "
            "a brace that is meant literally"
        )
    return name

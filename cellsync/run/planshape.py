"""What a plan file must look like, and the place of what does not: the file may come from anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Union

from cellsync import codec
from cellsync.model import Action, Direction

Path = tuple[Union[str, int], ...]


class Fault(NamedTuple):
    """One value that a plan file cannot have."""

    path: Path
    """Where it stands: names and indexes, from the outermost value on."""
    message: str


def find_fault(data: Any) -> Fault | None:
    """Return the first value of a plan file that is not what it must be; None where all are."""
    return next(_faults(data), None)


def position_of(text: str, path: Path) -> tuple[int, int]:
    """Return line and column of a value in a JSON text, or of the nearest value around it.

    Each step is looked for from the start of what surrounds it: for messages, not for thousands of values.
    """
    at = _after_blanks(text, 0)
    for step in path:
        found = _step(text, at, step)
        if found is None:
            break
        at = found
    line = text.count("\n", 0, at) + 1
    return line, at - text.rfind("\n", 0, at)


# -- What must be where --------------------------------------------------------------------------


def _is_text(value: Any) -> str:
    return "" if isinstance(value, str) else "must be text"


def _is_list_of_texts(value: Any) -> str:
    listed = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return "" if listed else "must be a list of texts"


def _is_action(value: Any) -> str:
    # A soft delete stands in a plan as the update that it is.
    known = [Action.INSERT.value, Action.UPDATE.value, Action.DELETE.value]
    return "" if value in known else f"must be {', '.join(known[:-1])} or {known[-1]}"


def _is_direction(value: Any) -> str:
    known = [each.value for each in Direction]
    return "" if value in known else f"must be {' or '.join(known)}"


def _is_values(value: Any) -> str:
    return _undecodable(value) if isinstance(value, list) else "must be a list of values"


def _is_row(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, dict):
        return "must be a row: column names with their values, or null"
    return next(filter(None, map(_undecodable, value.values())), "")


def _is_parts(value: Any) -> str:
    return _is_row(value) if isinstance(value, dict) else "must be column names with their values"


def _is_numbers_of_rows(value: Any) -> str:
    counted = isinstance(value, dict) and all(_is_number_of_rows(each) for each in value.values())
    return "" if counted else "must be rules with their numbers of rows"


def _is_number_of_rows(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _undecodable(value: Any) -> str:
    try:
        codec.decode(value)
    except (ValueError, TypeError, KeyError):
        return "has a value that no plan file has"
    return ""


_Check = Callable[[Any], str]

_HEAD: Mapping[str, _Check] = {"run": _is_text, "rules": _is_text, "rule_ids": _is_list_of_texts}
_PLAN: Mapping[str, _Check] = {
    "direction": _is_direction,
    "child": _is_text,
    "written": _is_text,
    "notices": _is_list_of_texts,
    "desired_rows": _is_numbers_of_rows,
}
_DATABASE: Mapping[str, _Check] = {"server": _is_text, "schema": _is_text, "version": _is_text}
_LISTED: Mapping[str, Mapping[str, _Check]] = {
    "changes": {
        "rule": _is_text,
        "table": _is_text,
        "action": _is_action,
        "key": _is_values,
        "key_columns": _is_list_of_texts,
        "identity_columns": _is_list_of_texts,
        "identity": _is_values,
        "before": _is_row,
        "after": _is_row,
        "origin": _is_values,
        "reason": _is_text,
        "together": _is_text,
        "unwritten": _is_parts,
    },
    "skipped": {"rule": _is_text, "key": _is_values, "reason": _is_text},
    "refusals": {"code": _is_text, "rule": _is_text, "message": _is_text, "holds": _is_list_of_texts},
}
_OPTIONAL = ("desired_rows", "unwritten", "holds")
"""What a plan of an older cellsync does not have."""


def _faults(data: Any) -> Iterator[Fault]:
    yield from _faults_of(data, _HEAD, ())
    plans = data.get("plans") if isinstance(data, dict) else None
    if not isinstance(plans, list):
        yield Fault(("plans",), "plans must be a list")
        return
    for number, plan in enumerate(plans):
        path: Path = ("plans", number)
        yield from _faults_of(plan, _PLAN, path)
        yield from _faults_of(plan.get("database"), _DATABASE, (*path, "database"), exactly=True)
        for name, checks in _LISTED.items():
            items = plan.get(name)
            if not isinstance(items, list):
                yield Fault((*path, name), f"{name} must be a list")
                return
            for index, item in enumerate(items):
                yield from _faults_of(item, checks, (*path, name, index), exactly=name == "refusals")


def _faults_of(
    given: Any, checks: Mapping[str, _Check], path: Path, *, exactly: bool = False
) -> Iterator[Fault]:
    if not isinstance(given, dict):
        yield Fault(path, f"{path[-1] if path else 'it'} must be an object")
        return
    for name, check in checks.items():
        if name not in given and name in _OPTIONAL:
            continue
        if name not in given:
            yield Fault(path, f"{name} is missing")
        elif fault := check(given[name]):
            yield Fault((*path, name), f"{name} {fault}")
    if exactly and (unknown := sorted(given.keys() - checks.keys())):
        yield Fault((*path, unknown[0]), "has a name that is not known here")


# -- Where it stands -----------------------------------------------------------------------------

_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def _after_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def _step(text: str, at: int, step: str | int) -> int | None:
    """Return where a part of the object or list at a place begins; None where it has none such."""
    if text[at : at + 1] != ("{" if isinstance(step, str) else "["):
        return None
    at, number = _after_blanks(text, at + 1), 0
    while text[at : at + 1] not in ("", "}", "]"):
        name: str | int = number
        if isinstance(step, str):
            name, at = _DECODER.raw_decode(text, at)
            at = _after_blanks(text, _after_blanks(text, at) + 1)  # behind the colon
        if name == step:
            return at
        _, at = _DECODER.raw_decode(text, at)
        at, number = _after_blanks(text, _after_blanks(text, at) + 1), number + 1  # behind the comma
    return None

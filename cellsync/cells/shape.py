"""Which keys a cell file has and of what kind their values are, with messages of our own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

import jsonschema

from cellsync import yamlfile
from cellsync.model import RELEASES

CELL_MAPPINGS = "cell_mappings"

DATE = "a date: 2026-12-31"
KEY = 'a mapping, {COLUMN: VALUE}, or "*" for every row of the rule'


def _mapping(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


_STRING = {"type": "string"}
_NULLABLE = {"type": ["string", "null"]}
_TEXT = {"type": "string", "minLength": 1}
# "wanted" is no word of JSON Schema: it says what a value must be, where kinds alone do not.
_DATE = {"type": "string", "wanted": DATE}
_KEY = {"type": ["object", "string"], "minProperties": 1, "wanted": KEY}
_BOUND = {"type": ["number", "string", "null"]}
_BUDGET = _mapping([], time=_BOUND, failures=_BOUND)
_URLS = {"type": "object", "additionalProperties": _TEXT}
_CELL = _mapping(
    ["name"],
    name=_STRING,
    database=_STRING,
    broker=_NULLABLE,
    nova_conf=_TEXT,
    defaults_file=_TEXT,
    databases=_URLS,
    endpoints=_URLS,
    budget=_BUDGET,
)
_RELEASE = {"type": "string", "wanted": f"a release of Nova: {', '.join(RELEASES)}"}
_PATTERNS = {"type": "array", "items": _TEXT}
_ACCEPTED = _mapping(["cell", "rule", "key", "why"], cell=_TEXT, rule=_TEXT, key=_KEY, why=_TEXT, until=_DATE)

_LISTED = {"type": "array", "minItems": 1, "items": _CELL}
# {from: cell_mappings}: "from" is no name of an argument.
_FROM = {"enum": [CELL_MAPPINGS], "wanted": f"{CELL_MAPPINGS}: the table of nova_api that lists the cells"}
_MAPPED = _mapping(
    ["from"],
    **{"from": _FROM},
    database=_STRING,
    broker=_STRING,
    nova_conf=_TEXT,
    username=_TEXT,
    password=_STRING,
)


def _schema(children: dict[str, Any]) -> dict[str, Any]:
    return _mapping(
        ["parent", "children"],
        parent=_CELL,
        children=children,
        rules={"type": ["array", "string"], "items": _STRING},
        settle={"type": ["number", "string"]},
        budget=_BUDGET,
        accept={"type": "array", "items": _ACCEPTED},
        secrets=_mapping([], hide=_PATTERNS, show=_PATTERNS),
        drift_log=_TEXT,
        release=_RELEASE,
    )


def misshapen(data: Any) -> Iterable[tuple[yamlfile.Path, str]]:
    """Return what JSON Schema finds, in words of our own: jsonschema's repeat the values."""
    if data is None:
        return [((), "the file is empty: name a parent and its children")]
    mapped = isinstance(data, dict) and isinstance(data.get("children"), dict)
    schema = _schema(_MAPPED if mapped else _LISTED)
    errors = jsonschema.Draft202012Validator(schema).iter_errors(data)
    return dict.fromkeys(fault for error in errors for fault in _faults(error))


def _faults(error: jsonschema.ValidationError) -> Iterator[tuple[yamlfile.Path, str]]:
    path: yamlfile.Path = tuple(error.absolute_path)
    value, wanted, schema = cast(Any, (error.instance, error.validator_value, error.schema))
    if "wanted" in schema:
        yield path, f"{_title(path)} must be {schema['wanted']}"
    elif error.validator == "type":
        yield path, _wrong_type(path, wanted, value)
    elif error.validator == "required":
        yield from ((path, f"{key} is missing") for key in wanted if key not in value)
    elif error.validator == "additionalProperties":
        known = list(schema["properties"])
        yield from (((*path, key), _unknown_key(key, known)) for key in value if key not in known)
    else:
        yield path, f"{_title(path)} is empty"


_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "null": "null",
}


def _wrong_type(path: yamlfile.Path, wanted: str | list[str], value: Any) -> str:
    kinds = [wanted] if isinstance(wanted, str) else wanted
    message = f"{_title(path)} must be {' or '.join(_KINDS[kind] for kind in kinds)}"
    quotable = "string" in kinds and isinstance(value, (bool, int, float))
    return f"{message}: put it in quotes" if quotable else message


def _title(path: yamlfile.Path) -> str:
    if not path:
        return "the file"
    step = path[-1]
    return step if isinstance(step, str) else f"item {step + 1} of {_title(path[:-1])}"


def _unknown_key(key: str, known: list[str]) -> str:
    # {name: c1, mysql://u:p@h/nova} makes a key of the URL: only what looks like a key is shown.
    label = f"the key {key!r}" if re.fullmatch(r"[A-Za-z][\w-]{0,30}", key) else "this key"
    close = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
    return f"{label} is unknown: " + (f"did you mean {close[0]}?" if close else f"use {', '.join(known)}")

"""Turn the errors of the JSON Schema into sentences: what is wrong, where, and what to do.

jsonschema's own messages show whole values and speak of "additional properties"; a person who
mistyped a key wants to hear the key and its right spelling. There is one problem for each
mistake: a mistyped key is not also reported as a missing one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jsonschema

from cellsync.errors import Problem
from cellsync.rules import grammar, shape
from cellsync.yamlfile import Document, Path

Complaint = tuple[Path, str]
"""The path of a value, and what is wrong with it."""

_VALIDATOR = jsonschema.Draft202012Validator(shape.schema())


def check(document: Document) -> dict[Complaint, Problem]:
    """Return the document's breaches of the schema, each with its path, as problems."""
    if document.data is None:
        empty: Complaint = ((), "the file is empty: a rule file needs at least rules")
        return {empty: document.problem(*empty)}
    huge: list[Path] = []
    data = _without_huge(document.data, (), huge)
    found = [complaint for error in _VALIDATOR.iter_errors(data) for complaint in _complain(error)]
    complaints = [(path, f"{_name(path)}: a number of more than 65 digits") for path in huge]
    complaints += [complaint for complaint in found if complaint[0] not in huge]
    return {complaint: document.problem(*complaint) for complaint in complaints}


def _without_huge(value: Any, path: Path, huge: list[Path]) -> Any:
    # 0xfff... may have millions of digits, which Python refuses to write out: jsonschema would fail on it.
    if isinstance(value, int) and abs(value) >= grammar.LARGEST:
        huge.append(path)
        return 0
    if isinstance(value, list):
        return [_without_huge(item, (*path, index), huge) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _without_huge(item, (*path, key), huge) for key, item in value.items()}
    return value


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?", or the list of what is known where nothing is near."""
    names = sorted(known)
    near = nearest(word, names)
    if near:
        return f"did you mean {near!r}?"
    return f"known: {', '.join(names)}" if names else "there are none"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known name that a word is most like, or None where none is."""
    folded = {name.lower(): name for name in reversed(known)}
    matches = difflib.get_close_matches(word.lower(), folded, n=1)
    return folded[matches[0]] if matches else None


def _complain(error: jsonschema.ValidationError) -> Iterator[Complaint]:
    path: Path = tuple(error.absolute_path)
    assert isinstance(error.schema, Mapping)
    say = _SAYINGS.get(str(error.validator), _unexpected)
    for steps, message in say(path, error.instance, error.schema):
        yield (*path, *steps), message


Say = Callable[[Path, Any, Mapping[str, Any]], Iterable[Complaint]]


def _unexpected(path: Path, found: Any, schema: Mapping[str, Any]) -> Iterator[Complaint]:
    yield (), f"{_name(path)}: expected {schema['title']}, found {_shown(found)}"


def _choice(path: Path, found: Any, schema: Mapping[str, Any]) -> Iterator[Complaint]:
    near = nearest(found, schema["enum"]) if isinstance(found, str) else None
    advice = f": did you mean {near!r}?" if near else ""
    yield (), f"{_name(path)}: expected {schema['title']}, found {_shown(found)}{advice}"


def _unknown_keys(path: Path, found: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Complaint]:
    for key in found:
        if key not in schema["properties"]:
            yield (key,), _unknown_key(key, path, schema["properties"])


def _unknown_key(key: str, path: Path, known: Iterable[str]) -> str:
    if path == ("defaults",) and key in shape.NO_DEFAULT:
        return f"{key!r} cannot stand in defaults: give it in each rule"
    return f"unknown key {key!r} in {_name(path)}: {suggest(key, known)}"


def _missing_keys(path: Path, found: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Complaint]:
    unknown = [key for key in found if key not in schema["properties"]]
    for key in schema["required"]:
        # A mistyped key has been reported under its own name; once is enough.
        mistyped = any(nearest(other, sorted(schema["properties"])) == key for other in unknown)
        if key not in found and not mistyped:
            meaning = schema["properties"][key]["description"].split(". ")[0].rstrip(".")
            yield (), f"{_name(path)} needs {key!r}: {meaning}"


def _given_twice(path: Path, found: Sequence[Any], schema: Mapping[str, Any]) -> Iterator[Complaint]:
    for index, item in enumerate(found):
        if item in found[:index]:
            yield (index,), f"{_shown(item)} is given twice in {_name(path)}: remove one"


def _too_few(path: Path, found: Any, schema: Mapping[str, Any]) -> Iterator[Complaint]:
    yield (), f"{_name(path)} is empty: expected {schema['title']}"


def _bad_name(path: Path, found: str, schema: Mapping[str, Any]) -> Iterator[Complaint]:
    # The error of a propertyNames is that of the name itself; its path is that of the mapping.
    if "title" in schema:
        yield from _unexpected(path, found, schema)
    else:
        rest = schema.get("description", "a name is not empty or padded")
        yield (found,), f"{_shown(found)} in {_name(path)} is no name: {rest}"


_SAYINGS: Mapping[str, Say] = {
    "enum": _choice,
    "additionalProperties": _unknown_keys,
    "required": _missing_keys,
    "uniqueItems": _given_twice,
    "minItems": _too_few,
    "minProperties": _too_few,
    "pattern": _bad_name,
}


_ITEMS: Mapping[Path, str] = {("rules",): "a rule", ("detectors",): "a detector"}


def _name(path: Path) -> str:
    if not path:
        return "the file"
    if isinstance(path[-1], str):
        return path[-1]
    item = _ITEMS.get(path[:-1])
    return item or f"{_name(path[:-1])}[{path[-1]}]"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a mapping"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

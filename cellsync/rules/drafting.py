"""Write guesses down as a rule file that a person finishes: `cellsync rules init`.

A guess stands under a comment with its reason. What could not be guessed is a key without a value under
a TODO, which no rule file may have: it is refused until somebody has answered. Unlike `drafts`, which
reads rule files, this writes one.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cellsync.model import Survey
from cellsync.rules.guessing import Guess, Guesses, Value, guess

WIDTH = 100
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_NOT_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Words that YAML takes for something else than text."""


@dataclass(frozen=True, kw_only=True)
class Drafted:
    """A rule file as far as it can be guessed."""

    text: str
    guesses: int
    """How many values have to be checked."""
    todos: int
    """How many are missing: with none, the file is one that `rules.load` takes."""


def draft(survey: Survey, names: Sequence[str], *, command: str) -> Drafted:
    """Draft the rules of these tables of the parent; ``command`` is named as what wrote the file.

    All names must be tables of the survey. Reads nothing. The text ends with a newline.
    """
    made = guess(survey, names)
    lines = [*_head(survey, command), *_requires(survey), "rules:"]
    for guesses in made:
        lines += ["", *_rule(guesses)] if lines[-1] != "rules:" else _rule(guesses)
    text = "\n".join(lines) + "\n"
    counted = re.findall(r"^ *# (guess|TODO): ", text, re.MULTILINE)
    return Drafted(text=text, guesses=counted.count("guess"), todos=counted.count("TODO"))


def _head(survey: Survey, command: str) -> Iterator[str]:
    asked = [child for child, tables in survey.children.items() if not isinstance(tables, str)]
    of_children = f", and compared with those of {', '.join(asked)}" if asked else ""
    yield from _comment(f"Drafted by {command} from the tables of {survey.parent}{of_children}.")
    yield from _comment(
        'Check every "guess" and take its comment out. A "TODO" is what the tables do not say: cellsync '
        "refuses this file until it has a value (`cellsync rules validate FILE`). Columns that are not named "
        "are compared and copied; rows that only a child has are reported."
    )
    for child, tables in survey.children.items():
        if isinstance(tables, str):
            yield from _comment(f"note: {child} did not answer, so its tables were not looked at: {tables}")


def _requires(survey: Survey) -> Iterator[str]:
    if survey.version_tables:
        named = " and ".join(survey.version_tables)
        yield from _comment(
            f"guess: {survey.parent} has its schema's version in {named}, and only equal ones are compared"
        )
        yield f"requires: {{equal_versions: {_listed(survey.version_tables)}}}"


def _rule(guesses: Guesses) -> list[str]:
    lines = [f"  - table: {_name(guesses.table)}"]
    for note in guesses.notes:
        lines += _indented(_comment(f"note: {note}"), 4)
    for remark in guesses.remarks:
        lines += _indented(_comment(f"guess: {remark}"), 4)
    lines += _indented(_entry(guesses.key), 4)
    lines += _indented(_mapping("references", guesses.references), 4)
    lines += _indented(_mapping("surrogate", guesses.surrogate), 4)
    if guesses.soft_delete is not None:
        lines += _indented(_entry(guesses.soft_delete), 4)
    if guesses.exclude:
        lines += _indented(["columns:", "  exclude:"], 4)
        for reason, excluded in groupby(guesses.exclude, key=lambda each: each.reason):
            items = [f"- {_name(each.about)}" for each in excluded]
            lines += _indented([*_comment(f"guess: {reason}"), *items], 8)
    return lines + _indented(_mapping("on_insert", guesses.on_insert), 4)


def _mapping(name: str, entries: Iterable[Guess]) -> list[str]:
    lines = [line for each in entries for line in _entry(each)]
    return [f"{name}:", *_indented(lines, 2)] if lines else []


def _entry(each: Guess) -> list[str]:
    if each.value is None:
        return [*_comment(f"TODO: {each.reason}"), f"{_name(each.about)}:"]
    return [*_comment(f"guess: {each.reason}"), f"{_name(each.about)}: {_value(each.value)}"]


def _value(value: Value) -> str:
    if isinstance(value, tuple):
        return _listed(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_name(key)}: {_value(item)}" for key, item in value.items()) + "}"
    return _name(value) if isinstance(value, str) else str(value)


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_name, names))}]"


def _name(name: str) -> str:
    """Return a name as YAML reads it back: plain where that is safe, else quoted as JSON."""
    if _PLAIN.fullmatch(name) and name.lower() not in _NOT_TEXT:
        return name
    quoted = json.dumps(name, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def _comment(text: str) -> list[str]:
    """Return a text as comment lines; whatever a name holds, it cannot end the comment."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return textwrap.wrap(
        printable,
        width=WIDTH,
        initial_indent="# ",
        subsequent_indent="#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _indented(lines: Iterable[str], by: int) -> list[str]:
    return [" " * by + line for line in lines]

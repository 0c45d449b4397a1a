"""Read a YAML file together with the place of every value, so that each problem has a position.

Rule files and cell files are read through here. The values are plain (dict, list, str, int,
float, bool, None); places are looked up by path, a tuple of mapping keys and list indexes,
as jsonschema names them: ``("rules", 0, "key")``.

Aliases are refused: a rule file has no use for them, and ten lines of nested aliases expand to
gigabytes (the "billion laughs"). A key given twice in one mapping is an error too, because
YAML readers would silently keep the last one.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Union

import yaml

from cellsync.errors import ConfigurationError, Problem

Step = Union[str, int]
Path = tuple[Step, ...]

MAX_BYTES = 4 * 1024 * 1024
_TEXT = "tag:yaml.org,2002:str"

_HALF = re.compile("[\ud800-\udfff]")
_READ_OTHERWISE = re.compile(r"[\t\ufeff?]|[|>][-+\d]*#|(?<![^\s\[{,:])!(\s|$|\S{0,99}[],[{}]|\S{99})")
"""Where libyaml takes what PyYAML refuses, or reads it otherwise: tabs in words, a mark of byte order inside,
"?" in the words of {...}, a comment right behind "|", a tag that is empty or has a comma. Most of what looks
so is something else, and only takes longer."""


@dataclass(frozen=True)
class Document:
    """One YAML file: its values, and where each of them stands."""

    file: str
    data: Any
    places: Mapping[Path, tuple[int, int]]

    def problem(self, path: Path, message: str) -> Problem:
        """Return a problem at ``path``, or at its nearest enclosing value that has a place."""
        while path and path not in self.places:
            path = path[:-1]
        line, column = self.places.get(path, (1, 1))
        return Problem(self.file, line, column, message)


def load(text: str, *, file: str) -> Document:
    """Parse one YAML document.

    ``file`` is the name that problems are reported under. The place of a mapping's value is the
    place of its *key*, which is what a person looks for.
    Raises ConfigurationError for a syntax error, an alias, a duplicate key, a key that is not
    text, or a file over 4 MiB.
    """
    if len(text) > MAX_BYTES:
        raise ConfigurationError([Problem(file, 0, 0, f"the file is larger than {MAX_BYTES} bytes")])
    try:
        node = _composed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigurationError([Problem(file, line, column, message)]) from None
    except RecursionError:
        raise ConfigurationError([Problem(file, 0, 0, "the file is nested too deeply")]) from None
    except yaml.YAMLError as error:
        # A character that YAML does not allow has a position in the stream, but no mark.
        raise ConfigurationError([Problem(file, 0, 0, str(error).splitlines()[0])]) from None
    if node is None:
        return Document(file, None, {})
    places: dict[Path, tuple[int, int]] = {(): _place(node)}
    problems: list[Problem] = []
    data = _plain(node, (), file, places, problems)
    if problems:
        raise ConfigurationError(problems)
    return Document(file, data, places)


def _composed(text: str) -> yaml.Node | None:
    """Return the nodes of the one document, by libyaml where it reads as PyYAML does: in a tenth of the time.

    What is wrong with a file is said by PyYAML, so that it is the same everywhere.
    """
    if yaml.__with_libyaml__ and not _READ_OTHERWISE.search(text):
        with suppress(yaml.YAMLError, UnicodeEncodeError, RecursionError):
            node = _Fast(text).get_single_node()
            if isinstance(node, yaml.MappingNode):  # the place of an empty document is another one
                return node
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _WithoutAliases(yaml.composer.Composer):
    """A composer that takes no aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # type: ignore[attr-defined]
            event = self.peek_event()  # type: ignore[attr-defined]
            raise yaml.composer.ComposerError(
                None, None, f"alias *{event.anchor} is not allowed: write the value out", event.start_mark
            )
        return super().compose_node(parent, index)


class _Loader(_WithoutAliases, yaml.SafeLoader):
    """A safe loader that composes no aliases."""


if yaml.__with_libyaml__:

    class _Fast(_WithoutAliases, yaml.CSafeLoader):
        """The same with libyaml's parser; its own composer would take aliases, and any depth of nesting."""

        def __init__(self, text: str) -> None:
            yaml.CSafeLoader.__init__(self, text)
            _WithoutAliases.__init__(self)


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _plain(
    node: yaml.Node, path: Path, file: str, places: dict[Path, tuple[int, int]], problems: list[Problem]
) -> Any:
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node, file, problems) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, Hashable) or not isinstance(key, str):
                problems.append(Problem(file, *_place(key_node), "a key must be text: put it in quotes"))
                continue
            if key in result:
                problems.append(Problem(file, *_place(key_node), f"the key {key!r} is given twice"))
            here: Path = (*path, key)
            places[here] = _place(key_node)
            result[key] = _plain(value_node, here, file, places, problems)
        return result
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            at: Path = (*path, index)
            places[at] = _place(item)
            items.append(_plain(item, at, file, places, problems))
        return items
    return _scalar(node, file, problems)


def _scalar(node: yaml.Node, file: str, problems: list[Problem]) -> Any:
    if _HALF.search(node.value):
        problems.append(Problem(file, *_place(node), "the text has half of a surrogate pair: no character"))
        return None
    if node.tag == _TEXT:
        return node.value
    try:
        value = yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        problems.append(Problem(file, *_place(node), str(error).splitlines()[0]))
        return None
    except (LookupError, AttributeError):
        # PyYAML's own slips: !!bool x, !!timestamp x, !!int "".
        problems.append(Problem(file, *_place(node), f"{node.value!r} is not what its tag says"))
        return None
    if isinstance(value, int) and ":" in node.value:
        return str(node.value)  # to YAML 1.1 a bare 12:30 is 750, in base 60
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    # A bare 2026-01-31 is a date to YAML; rule and cell files know text only.
    return str(node.value)

"""YAML with the place of every value, and without the parts of YAML that bite."""

from __future__ import annotations

import marshal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cellsync import rules, yamlfile
from cellsync.errors import ConfigurationError, Problem

TEXT = """\
pack: p
rules:
  - table: t
    key: [a, b]
  - {table: u}
"""


CHARACTERS = " \n\t:?-,[]{}!&*#|>'\"%a1~"
PARTS = (*CHARACTERS, "  ", ": ", "- ", "\n  ", "---\n", "!!str ", "k: v\n", "\ufeff", "x" * 130)


def read(text: str) -> object:
    """Return all that comes of a text, as bytes: two nan are equal in them."""
    try:
        document = yamlfile.load(text, file="f")
    except ConfigurationError as error:
        return error.problems
    return marshal.dumps(document.data, 0), document.places


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        yamlfile.load(text, file="f")
    return [str(problem) for problem in raised.value.problems]


def test_values_are_plain_and_have_places() -> None:
    """The place of a mapping's value is that of its key; a list's items have their own."""
    document = yamlfile.load(TEXT, file="f")
    assert document.data == {"pack": "p", "rules": [{"table": "t", "key": ["a", "b"]}, {"table": "u"}]}
    assert document.places == {
        (): (1, 1),
        ("pack",): (1, 1),
        ("rules",): (2, 1),
        ("rules", 0): (3, 5),
        ("rules", 0, "table"): (3, 5),
        ("rules", 0, "key"): (4, 5),
        ("rules", 0, "key", 0): (4, 11),
        ("rules", 0, "key", 1): (4, 14),
        ("rules", 1): (5, 5),
        ("rules", 1, "table"): (5, 6),
    }


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        (("rules", 0, "key", 1), 4, 14),
        (("rules", 0, "why"), 3, 5),
        (("rules", 7, "x"), 2, 1),
        (("nowhere",), 1, 1),
    ],
)
def test_a_problem_stands_at_the_nearest_enclosing_place(path: yamlfile.Path, line: int, column: int) -> None:
    """A value that is missing has no place; what it is missing from has one."""
    document = yamlfile.load(TEXT, file="f")
    assert document.problem(path, "wrong") == Problem("f", line, column, "wrong")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0.5", 0.5),
        ("yes", True),
        ("~", None),
        ("'1'", "1"),
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31 10:00:00", "2026-01-31 10:00:00"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("固态", "固态"),
    ],
)
def test_scalars_are_json_values_and_dates_stay_text(text: str, value: Any) -> None:
    """Rule and cell files have no dates; a bare one is the text that was written."""
    found = yamlfile.load(f"a: {text}", file="f").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_a_file_without_a_document_holds_nothing() -> None:
    """Nothing is not an error here: the reader knows what it needs."""
    assert yamlfile.load("", file="f").data is None
    assert yamlfile.load("# only a comment\n", file="f").data is None


def test_an_alias_is_refused_before_it_is_expanded() -> None:
    """Ten lines of nested aliases would otherwise be gigabytes."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    assert refused("\n".join(lines)) == ["f:2:10: alias *a0 is not allowed: write the value out"]


def test_a_recursive_alias_is_refused() -> None:
    """A list that holds itself has no end."""
    assert "alias *a is not allowed" in refused("a: &a [*a]")[0]


def test_duplicate_keys_are_all_reported() -> None:
    """YAML readers would silently keep the last one."""
    assert refused("a: 1\na: 2\nb: {c: 1, c: 2}\n") == [
        "f:2:1: the key 'a' is given twice",
        "f:3:11: the key 'c' is given twice",
    ]


@pytest.mark.parametrize("key", ["1", "true", "~", "[a]", "{a: b}", "1.5"])
def test_a_key_must_be_text(key: str) -> None:
    """``on``, ``no`` and numbers are not text in YAML unless they are quoted."""
    assert refused(f"? {key}\n: x\n") == ["f:1:3: a key must be text: put it in quotes"]


@pytest.mark.parametrize(
    "text", ["a: [", "a: 'b", "a: b: c", "\ta: 1", "- a\nb: 1", "%YAML 9.9\n---\na: 1", "@"]
)
def test_a_syntax_error_has_a_place(text: str) -> None:
    """Line and column count from 1."""
    (problem,) = refused(text)
    _, line, column, _ = problem.split(":", 3)
    assert int(line) >= 1
    assert int(column) >= 1


@pytest.mark.parametrize("text", ["a: \x00", "a: \x1b[31m", "a: \ud800"])
def test_a_character_that_yaml_forbids_is_refused(text: str) -> None:
    """It has a position in the stream, but no line."""
    assert "special characters are not allowed" in refused(text)[0]


@pytest.mark.parametrize("text", ["[" * 3000, "- " * 3000, "{a: " * 3000])
def test_deep_nesting_is_refused(text: str) -> None:
    """Python's stack is not the limit that a person should see."""
    assert refused(text) == ["f:0:0: the file is nested too deeply"]


def test_a_huge_file_is_refused() -> None:
    """A rule file is never over 4 MiB."""
    assert refused("#" * (yamlfile.MAX_BYTES + 1)) == ["f:0:0: the file is larger than 4194304 bytes"]


@pytest.mark.parametrize(
    "text",
    ["a: !!python/object/apply:os.system [id]", "a: !!python/name:os.system", "a: !!int x", "a: !!binary x"],
)
def test_a_tag_makes_no_objects(text: str) -> None:
    """Only plain values come out of a file, and only when they are what their tag says."""
    try:
        value = yamlfile.load(text, file="f").data["a"]
    except ConfigurationError:
        return
    assert value in (["id"], "", None)


@pytest.mark.parametrize("text", ["a: !!bool x", "a: !!timestamp x", "a: !!int", "a: !!float ''"])
def test_a_wrong_tag_is_a_problem_of_the_file(text: str) -> None:
    """PyYAML raises KeyError, AttributeError and IndexError here, not a YAMLError."""
    assert refused(text)


@given(
    text=st.text(alphabet=st.characters(exclude_characters="!")) | st.text(alphabet=" \n:-[]{}&*#'\"|>?,a1~")
)
def test_any_text_is_read_or_refused(text: str) -> None:
    """Reading ends in a document or in a ConfigurationError with a position."""
    try:
        document = yamlfile.load(text, file="f")
    except ConfigurationError:
        return
    assert all(line >= 1 and column >= 1 for line, column in document.places.values())


ODD = (
    "a: {b?c: d}",
    "a: [x\ty]",
    "a: 1\n\ufeff",
    "a: |# no\n  x",
    "a: [!!str, b]",
    "a: ! ",
    "--- ",
    "- a\n- \n",
    "x",
    "a: \x85b",
    "%YAML 1.3\n---\na: 1",
)
FILES = sorted(Path(__file__).parent.joinpath("mistakes").rglob("*.yaml")) + sorted(rules.packs().values())


@pytest.mark.parametrize("text", [*ODD, *(file.read_text(encoding="utf-8") for file in FILES)])
def test_files_read_the_same_without_libyaml(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, places and messages do not depend on how PyYAML was built."""
    found = read(text)
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert found == read(text)


@given(text=st.lists(st.sampled_from(PARTS)).map("".join))
def test_any_text_reads_the_same_without_libyaml(text: str) -> None:
    """What libyaml alone would take is left to PyYAML."""
    found = read(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(yaml, "__with_libyaml__", False)
        assert found == read(text)


def test_the_packs_are_read_by_libyaml() -> None:
    """What sends a file to PyYAML, and its reader into ten times the work, is in none of them."""
    for pack in rules.packs().values():
        assert not yamlfile._READ_OTHERWISE.search(pack.read_text(encoding="utf-8")), pack

"""What a detector finds in answers: how they relate, what it says, and what there is to do."""

from __future__ import annotations

import shlex
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsync import diff
from cellsync.diff import relating
from cellsync.errors import ReadFailed
from cellsync.model import Advice, Answer, Ask, Detector, Position, Role, Source, Value, Way


def detector(**changed: Any) -> Detector:
    """Return one that looks for hosts that are not mapped."""
    made: dict[str, Any] = {
        "id": "unmapped",
        "pack": "p",
        "position": Position(file="p.yaml", line=1, column=1),
        "asks": (
            Ask(name="hosts", of=Source.CHILD, sql="..."),
            Ask(name="mapped", of=Source.PARENT, sql="..."),
        ),
        "finds": "SELECT host FROM hosts WHERE host NOT IN (SELECT host FROM mapped)",
        "key": ("host",),
        "says": "host {host} of {child} is unknown in {parent}",
        "do": Advice(text="map {host}", way=Way.SHELL),
    }
    return Detector(**{**made, **changed})


def answer(*columns: str, rows: list[tuple[Value, ...]]) -> Answer:
    return Answer(columns=columns, rows=tuple(rows))


HOSTS = answer("host", rows=[("a",), ("A",), ("b c",)])
MAPPED = answer("host", rows=[("a",)])


def test_every_row_of_what_is_found_is_a_finding_with_its_words_and_its_command() -> None:
    """Text is compared to the byte, and a value in a command is quoted for a shell."""
    found = diff.relate(detector(), {"hosts": HOSTS, "mapped": MAPPED}, parent="api", child="c1")
    assert [(each.code, each.cell, each.key) for each in found] == [
        ("unmapped", "c1", ("A",)),
        ("unmapped", "c1", ("b c",)),
    ]
    assert [each.message for each in found] == [
        "host A of c1 is unknown in api",
        "host b c of c1 is unknown in api",
    ]
    assert [each.do and each.do.text for each in found] == ["map A", "map 'b c'"]


def test_without_finds_the_rows_of_the_answer_are_the_findings() -> None:
    """One question may say it all; then no SQLite is needed, and values stay what they are."""
    one = detector(asks=(Ask(name="hosts", of=Source.CHILD, sql="..."),), finds="")
    found = diff.relate(one, {"hosts": answer("host", rows=[(b"\xab",), (None,)])}, parent="api", child="c1")
    assert [each.key for each in found] == [(b"\xab",), (None,)]
    assert [each.message for each in found] == [
        "host 0xab of c1 is unknown in api",
        "host NULL of c1 is unknown in api",
    ]


def test_a_column_cell_says_whose_rows_are_wrong() -> None:
    """Else it is the child that is looked at, or the parent where none is."""
    every = detector(
        asks=(Ask(name="hosts", of=Source.CHILDREN, sql="..."),),
        finds="SELECT host, MAX(cell) AS cell FROM hosts GROUP BY host HAVING COUNT(*) > 1",
        says="{host} is in {cell} too",
        do=Advice(text="DELETE FROM hosts WHERE host = {host}", way=Way.SQL),
    )
    hosts = diff.together({"c1": HOSTS, "c2": MAPPED})
    assert hosts.columns == ("host", "cell")
    (found,) = diff.relate(every, {"hosts": hosts}, parent="api")
    assert (found.cell, found.message) == ("c2", "a is in c2 too")
    assert found.do is not None
    assert (found.do.text, found.do.cell) == ("DELETE FROM hosts WHERE host = 'a'", "c2")
    above = detector(
        asks=(Ask(name="mapped", of=Source.PARENT, sql="..."),), finds="", says="{host}", do=Advice(text="")
    )
    assert [each.cell for each in diff.relate(above, {"mapped": MAPPED}, parent="api")] == ["api"]


@pytest.mark.parametrize(("role", "cell"), [(Role.PARENT, "api"), (Role.CHILD, "c1"), (None, "c1")])
def test_statements_say_whose_database_they_are_for(role: Role | None, cell: str) -> None:
    """The parent's, the child's, or that of the cell whose rows are wrong."""
    one = detector(do=Advice(text="DELETE FROM x", way=Way.SQL, cell=role))
    found = diff.relate(one, {"hosts": HOSTS, "mapped": MAPPED}, parent="api", child="c1")
    assert {each.do.cell for each in found if each.do} == {cell}


def test_numbers_of_any_size_relate_and_stay_numbers() -> None:
    """A SUM comes as DECIMAL; what is too large for SQLite is text, and loses nothing."""
    rows: list[tuple[Value, ...]] = [(Decimal("12"), 12, 1), (2**64, 2**64, 2), (Decimal("0.5"), 0.5, 3)]
    numbers = detector(
        asks=(Ask(name="n", of=Source.CHILD, sql="..."),),
        finds="SELECT id, one FROM n WHERE one = other",
        key=("id",),
        says="{one}",
        do=Advice(text=""),
    )
    found = diff.relate(numbers, {"n": answer("one", "other", "id", rows=rows)}, parent="api", child="c1")
    assert [(each.key, each.message) for each in found] == [((1,), "12"), ((2,), str(2**64)), ((3,), "0.5")]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"finds": "SELECT hst FROM hosts"}, "finds: SQLite says: no such column: hst"),
        ({"says": "{hots}"}, "unmapped names hots, and what it finds has the columns host"),
        ({"do": Advice(text="{hots}")}, "unmapped names hots"),
        ({"key": ("hots",)}, "unmapped names hots"),
        ({"finds": "DELETE FROM hosts"}, "finds: SQLite says: near"),
    ],
)
def test_answers_that_do_not_relate_are_no_clean_result(changed: dict[str, Any], message: str) -> None:
    """Also where nothing would have been found: a mistake shows at the first run."""
    empty = answer("host", rows=[])
    with pytest.raises(ReadFailed, match=message):
        diff.relate(detector(**changed), {"hosts": empty, "mapped": empty}, parent="api", child="c1")


def test_answers_of_children_must_be_of_one_shape() -> None:
    """A column that is called cell would be taken for the cell."""
    with pytest.raises(ReadFailed, match="not the same columns"):
        diff.together({"c1": answer("a", rows=[]), "c2": answer("b", rows=[])})
    with pytest.raises(ReadFailed, match="call its own something else"):
        diff.together({"c1": answer("Cell", rows=[])})


def test_very_many_findings_are_a_failure_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are never cut: a list that ends somewhere looks like all there is."""
    monkeypatch.setattr(relating, "MOST_ROWS", 1)
    with pytest.raises(ReadFailed, match="there are 2 findings, and at most 1 are taken"):
        diff.relate(detector(), {"hosts": HOSTS, "mapped": MAPPED}, parent="api", child="c1")


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_a_value_in_a_command_is_one_word(value: str) -> None:
    """Whatever a host is called, the shell that runs the command sees that and nothing else."""
    rows: list[tuple[Value, ...]] = [(value,)]
    found = diff.relate(detector(finds=""), {"hosts": answer("host", rows=rows)}, parent="api", child="c1")
    assert found[0].do is not None
    assert shlex.split(found[0].do.text) == ["map", value]

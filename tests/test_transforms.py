"""The Python face of the transforms; their SQL face is compared with it on a real server elsewhere."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsync.transforms import REGISTRY, Transform, transform


@pytest.mark.parametrize(
    ("value", "item"),
    [
        ("api!c1@compute-1", "compute-1"),
        ("compute-1", "compute-1"),
        ("api!c@1@compute-1", "compute-1"),
        ("api!c1@", ""),
        ("@", ""),
        ("", ""),
        ("api!c1@主机", "主机"),
    ],
)
def test_the_cell_path_ends_at_the_last_at_sign(value: str, item: str) -> None:
    """As in Nova's split_cell_and_item: a path may hold an "@", an item may not."""
    assert REGISTRY["item_of_cell_path"].function(value, parent="api", child="c1") == item


def test_the_cell_path_is_that_of_the_child() -> None:
    """As in Nova's cell_with_item."""
    function = REGISTRY["item_with_cell_path"].function
    assert function("compute-1", parent="api", child="c1") == "api!c1@compute-1"


@given(item=st.text(), parent=st.text(), child=st.text())
def test_stripping_undoes_adding(item: str, parent: str, child: str) -> None:
    """Every item without an "@" survives the way up and down, whatever the cells are called."""
    plain = item.replace("@", "")
    spelled = REGISTRY["item_with_cell_path"].function(plain, parent=parent, child=child)
    assert REGISTRY["item_of_cell_path"].function(spelled, parent=parent, child=child) == plain


@given(value=st.text())
def test_stripping_twice_is_stripping_once(value: str) -> None:
    """A value that is already plain stays as it is."""
    function = REGISTRY["item_of_cell_path"].function
    once = function(value, parent="api", child="c1")
    assert function(once, parent="api", child="c1") == once


def test_every_transform_has_a_summary_and_a_well_formed_sql_face() -> None:
    """The SQL has a place for the value, and for nothing but the value and the cells' names."""
    for name, known in REGISTRY.items():
        assert known.name == name
        assert known.summary
        fields = {field for _, field, _, _ in string.Formatter().parse(known.sql) if field is not None}
        assert "value" in fields
        assert fields <= {"value", "parent", "child"}


def test_a_transform_is_added_with_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decorator gives the function back and registers it under its name."""
    added: dict[str, Transform] = {}
    monkeypatch.setattr("cellsync.transforms._REGISTRY", added)

    @transform(sql="LOWER({value})")
    def lower(value: str, *, parent: str, child: str) -> str:
        """Fold to lower case."""
        return value.lower()

    assert lower("A", parent="", child="") == "a"
    assert added["lower"].summary == "Fold to lower case."
    assert added["lower"].sql == "LOWER({value})"

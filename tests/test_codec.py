"""What goes into the journal and into plan files comes out of them as it was."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsync import codec
from cellsync.model import (
    Action,
    Change,
    Dangling,
    DatabaseIdentity,
    Plan,
    Reference,
    Refusal,
    ServerTime,
    Skipped,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, allow_infinity=False, places=30),
    TEXTS,
    st.binary(max_size=8),
)
PARTS = st.recursive(
    st.one_of(VALUES, st.builds(Dangling, raw=VALUES, deleted=st.booleans())),
    lambda parts: st.lists(parts, max_size=3).map(tuple),
    max_leaves=5,
)
KEYS = st.lists(PARTS, max_size=3).map(tuple)
STORED = st.one_of(VALUES, st.builds(Reference, rule=TEXTS, key=KEYS), st.just(ServerTime.NOW))
ROWS = st.one_of(st.none(), st.dictionaries(TEXTS, STORED, max_size=4))
NAMES = st.lists(TEXTS, max_size=3).map(tuple)
IDENTITIES = st.lists(VALUES, max_size=2).map(tuple)
CHANGES = st.builds(
    Change,
    rule=TEXTS,
    table=TEXTS,
    action=st.sampled_from([Action.INSERT, Action.UPDATE, Action.DELETE]),
    key=KEYS,
    key_columns=NAMES,
    identity_columns=NAMES,
    identity=IDENTITIES,
    before=ROWS,
    after=ROWS,
    origin=IDENTITIES,
    reason=TEXTS,
    together=TEXTS,
)


def same(one: Any, other: Any) -> bool:
    """Say whether two values are one to the byte and to the type: 1, 1.0 and Decimal(1) are three."""
    return one == other and repr(one) == repr(other)


@given(row=ROWS)
def test_a_row_comes_back_as_it_was(row: Any) -> None:
    """Every value, reference and server time, under any column name."""
    assert same(codec.row_from_text(codec.row_to_text(row)), row)


@given(key=KEYS)
def test_a_key_comes_back_as_it_was(key: Any) -> None:
    """However deep its references go."""
    assert same(codec.tuple_from_text(codec.tuple_to_text(key)), key)


@given(changes=st.lists(CHANGES, max_size=3).map(tuple), notices=NAMES)
def test_a_plan_comes_back_as_it_was(changes: tuple[Change, ...], notices: tuple[str, ...]) -> None:
    """Through the text of a file."""
    plan = Plan(
        child="c1",
        written="c1",
        database=DatabaseIdentity(server="s", schema="nova", version="10"),
        changes=changes,
        skipped=tuple(Skipped(rule=c.rule, key=c.key, reason=c.reason) for c in changes),
        refusals=(Refusal(code="limit", rule="r", message="m"),),
        notices=notices,
    )
    text = "".join(codec.document(codec.plan_to_data(plan)))
    assert same(codec.plan_from_data(json.loads(text)), plan)


@given(one=KEYS, other=KEYS)
def test_two_keys_have_one_text_only_if_they_are_one(one: Any, other: Any) -> None:
    """The journal finds a change by the text of its key."""
    assert (codec.tuple_to_text(one) == codec.tuple_to_text(other)) is same(one, other)


@pytest.mark.parametrize(
    "value",
    [
        *(-0.0, 5e-324, 1.7976931348623157e308, math.inf, Decimal("1.10"), Decimal("-0.00"), 2**64 - 1),
        *("\0", "\ud7ff", b"\xff\x00", '{"bytes": "00"}', "NULL", ""),
    ],
)
def test_awkward_values_keep_their_last_bit(value: Any) -> None:
    """A sign, a trailing zero, a byte."""
    back = codec.decode(json.loads(json.dumps(codec.encode(value))))
    assert same(back, value)
    if isinstance(value, float):
        assert math.copysign(1, back) == math.copysign(1, value)


@pytest.mark.parametrize(
    "data", [{}, {"child": "c1"}, {"child": "c1", "written": "c1", "database": {"x": 1}}]
)
def test_what_is_no_plan_says_so(data: Any) -> None:
    """The errors that plan files are caught by."""
    with pytest.raises((KeyError, TypeError)):
        codec.plan_from_data(data)

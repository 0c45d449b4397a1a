"""Values on the wire are what PyMySQL makes of them, by a quicker way."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cellsync.db import literals
from cellsync.model import ServerTime

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.sampled_from(
    ["", "\0", "\\", "'", '"', "%s", "a\0b", "\\'\0", "NULL", "\n\r\x1a"]
)
PLAIN = st.none() | st.integers() | TEXTS
OTHERS = st.booleans() | st.floats() | st.decimals() | st.binary(max_size=4) | st.just(ServerTime.NOW)
COLUMNS = st.one_of(
    *(st.lists(kind, min_size=1) for kind in (TEXTS, st.integers(), st.none(), PLAIN, PLAIN | OTHERS)),
    # All the same, or only equal.
    st.builds(lambda value, number: [value] * number, PLAIN | OTHERS, st.integers(1, 4)),
    st.permutations([0, 0.0, -0.0, False, Decimal("0.0"), Decimal(0)]),
)


def escaped(value: object) -> str:
    """Return a literal as the connection spells it, and otherwise what tells one value from all others."""
    if type(value) is str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0") + "'"
    return "NULL" if value is None else str(value) if type(value) is int else f"{type(value)} {value!r}"


@given(column=COLUMNS, backslashes=st.booleans())
def test_the_literals_of_a_column_are_those_of_its_values(column: list[Any], backslashes: bool) -> None:
    """Whatever it holds, and whatever the values have in common."""
    assert [*literals.of(column, escaped, backslashes=backslashes)] == [*map(escaped, column)]

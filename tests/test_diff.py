"""What is a difference, what is a finding, and what is neither: on plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from edges import ruleset
from hypothesis import given
from hypothesis import strategies as st
from plain import row, table

from cellsync import diff
from cellsync.model import (
    Dangling,
    ForeignKey,
    Index,
    Key,
    KeyPart,
    Kind,
    Pairing,
    Row,
    Rule,
    Status,
    Table,
    TableDiff,
    TableFailure,
)

THINGS = table(
    "things", "id int auto_increment", "name varchar(9)", "size int", "ratio double", "deleted int"
)
PARTS = table("parts", "id int auto_increment", "thing_id int", "label varchar(9)", "twin_id int")
RULES = """
rules:
  - {table: things, key: [name], columns: {include: [size]}}
  - {table: parts, key: [thing_id, label], references: {thing_id: things}}
"""


def pair(keys: str = "", desired: Table = THINGS, existing: Table | None = None) -> Pairing:
    """Return the pairing of one rule for ``things`` with these further keys."""
    known = ruleset(f"rules: [{{table: {desired.name}, key: [name], {keys}}}]")
    made = diff.pair(
        known.rules[0],
        known,
        parent_tables={desired.name: desired},
        child_tables={desired.name: existing or desired},
        parent="api",
        child="c1",
    )
    assert isinstance(made, Pairing), made
    return made


SIZED = pair("columns: {include: [size]}")


def compare(
    desired: Iterable[Row], existing: Iterable[Row], pairing: Pairing = SIZED, **more: Any
) -> TableDiff:
    """Compare rows, for the child c1."""
    return diff.compare(pairing, desired, existing, child="c1", **more)


def kinds(found: TableDiff) -> list[tuple[str, Key]]:
    """Return the kind and key of every difference."""
    return sorted(((d.kind.value, d.key) for d in found.differences), key=repr)


# -- Rows --------------------------------------------------------------------------------------


def test_missing_changed_and_extra_rows_are_told_apart() -> None:
    """By the key alone: the id means nothing in another database."""
    found = compare(
        [row("a", 1), row("b", 2), row("same", 3, number=3)],
        [row("b", 8), row("x", 9), row("same", 3, number=77)],
    )
    assert kinds(found) == [("changed", ("b",)), ("extra", ("x",)), ("missing", ("a",))]
    changed = next(d for d in found.differences if d.kind is Kind.CHANGED)
    assert [(c.column, c.desired, c.existing) for c in changed.columns] == [("size", 2, 8)]
    assert (found.desired_rows, found.existing_rows, found.status) == (3, 3, Status.DIFFERS)


def test_equal_sides_are_in_step() -> None:
    """Whatever the order of the rows."""
    found = compare([row("a", 1), row("b", None)], [row("b", None), row("a", 1)])
    assert (found.status, found.differences, found.findings) == (Status.IN_STEP, (), ())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, ""),
        (None, "NULL"),
        (None, 0),
        ("", 0),
        ("1", 1),
        ("a", "A"),
        ("a", "a "),
        ("é", "e\u0301"),
        (b"a", "a"),
    ],
)
def test_values_that_look_alike_are_different(one: KeyPart, other: KeyPart) -> None:
    """As keys and as values; NULL equals NULL and nothing else."""
    assert kinds(compare([row("k", one)], [row("k", other)])) == [("changed", ("k",))]
    assert {kind for kind, _ in kinds(compare([row(one, 1)], [row(other, 1)]))} == {"missing", "extra"}
    assert compare([row(None, None)], [row(None, None)]).status is Status.IN_STEP


def test_two_rows_of_one_key_are_a_finding_that_names_both() -> None:
    """On either side; nothing is said of that key, and the other rows go on."""
    twice = [row("a", 1, number=4), row("a", 2, number=9), row("a", 2, number=11), row("b", 2)]
    found = compare(twice, [row("a", 7), row("b", 8)])
    assert [f.code for f in found.findings] == ["duplicate-key"]
    assert found.findings[0].cell == "api"
    assert "3 rows of things in api have the key name=a: id 4 and id 9 and id 11" in found.findings[0].message
    assert kinds(found) == [("changed", ("b",))]
    mirrored = compare([row("a", 7), row("b", 8)], twice)
    assert [(f.code, f.cell) for f in mirrored.findings] == [("duplicate-key", "c1")]
    assert kinds(mirrored) == [("changed", ("b",))]
    assert mirrored.existing_rows == 4


def test_one_row_in_two_spellings_is_one_row() -> None:
    """The parent has a host both plain and with its path; through the transform they are the same."""
    both = [row("h", 1, route="api!c1@h"), row("h", 1, route="h", number=2)]
    assert compare(both, [row("h", 1)]).status is Status.IN_STEP
    unlike = [row("h", 1, route="api!c1@h"), row("h", 2, route="h", number=2)]
    assert [f.code for f in compare(unlike, [row("h", 1)]).findings] == ["duplicate-key"]


def test_a_row_in_limbo_is_a_finding_and_no_row() -> None:
    """The application does not see it, so its key is missing (or only the other side's)."""
    pairing = pair("columns: {include: [size]}, soft_delete: {column: deleted, live: 0, tombstone: id}")
    found = compare([row("a", 1)], [row("a", 1, number=7, limbo=True)], pairing)
    assert [(f.code, f.cell, f.key) for f in found.findings] == [("deleted-is-null", "c1", ("a",))]
    assert "things id 7 in c1 (name=a) has deleted NULL" in found.findings[0].message
    assert kinds(found) == [("missing", ("a",))]
    assert found.existing_rows == 0


@pytest.mark.parametrize(("deleted", "said"), [(False, "id 5 (missing)"), (True, "id 5 (deleted)")])
def test_a_reference_to_nowhere_is_a_finding(deleted: bool, said: str) -> None:
    """In the key on either side, and among the desired values; the row is not judged."""
    nowhere = Dangling(raw=5, deleted=deleted)
    for desired, existing, cell in (
        ([row(nowhere, 1)], [], "api"),
        ([], [row(nowhere, 1)], "c1"),
        ([row("a", nowhere)], [row("a", 1)], "api"),
        ([row("a", nowhere)], [], "api"),
    ):
        found = compare(desired, existing)
        assert [(f.code, f.cell) for f in found.findings] == [("dangling-reference", cell)]
        assert said in found.findings[0].message
        assert found.differences == ()


def test_a_reference_to_nowhere_in_an_existing_value_is_mended() -> None:
    """What is desired is known, so it is an ordinary change."""
    found = compare([row("a", ("t",))], [row("a", Dangling(raw=5, deleted=False))])
    assert (kinds(found), found.findings) == ([("changed", ("a",))], ())


def test_keys_that_were_set_aside_are_not_judged() -> None:
    """Neither as missing, nor as changed, nor as extra."""
    aside = frozenset({("a",), ("b",), ("c",)})
    assert compare([row("a", 1), row("b", 1)], [row("b", 2), row("c", 1)], aside=aside).differences == ()


# -- Preserved ids, overrides, tolerance ---------------------------------------------------------


def test_a_preserved_id_is_compared_and_never_changed() -> None:
    """One key with two ids, and one id with two keys, are findings; an equal id is in step."""
    pairing = pair("columns: {include: [size]}, surrogate: {id: preserve}")
    assert pairing.columns == ("id", "size")
    found = compare(
        [row("a", 1, 10), row("b", 2, 10), row("c", 3, 10)], [row("a", 9, 10), row("z", 2, 10)], pairing
    )
    assert sorted((f.code, f.key) for f in found.findings) == [
        ("preserved-id", ("a",)),
        ("preserved-id", ("b",)),
    ]
    messages = {f.key: f.message for f in found.findings}
    assert "has id 1 in api, but c1 has id 9" in messages[("a",)]
    assert "has id 2 in api, but c1 has id 2 for z" in messages[("b",)]
    assert kinds(found) == [("extra", ("z",)), ("missing", ("c",))]


def test_an_override_is_what_is_desired_in_that_child() -> None:
    """A child's own goes before that for all children."""
    pairing = pair("columns: {include: [size]}, overrides: {'*': {size: 5}, c1: {size: 6}}")
    for child, size in (("c1", 6), ("c2", 5)):
        assert diff.compare(pairing, [row("a", 1)], [row("a", size)], child=child).status is Status.IN_STEP
        assert kinds(diff.compare(pairing, [row("a", 1)], [row("a", 1)], child=child)) == [
            ("changed", ("a",))
        ]


@pytest.mark.parametrize(
    ("desired", "existing", "equal"),
    [
        (1.0, 1.05, True),
        (1.0, 1.2, False),
        (1.0, None, False),
        (None, 1.0, False),
        (None, None, True),
        (1, 1.05, True),
    ],
)
def test_tolerance_is_for_two_numbers_alone(desired: KeyPart, existing: KeyPart, equal: bool) -> None:
    """A number and NULL are never about the same."""
    pairing = pair("columns: {include: [ratio]}, tolerance: {ratio: 0.1}")
    found = compare([row("a", desired)], [row("a", existing)], pairing)
    assert (found.status is Status.IN_STEP) is equal


# -- Routing -----------------------------------------------------------------------------------

ROUTED = """
rules:
  - table: things
    key: [name]
    route: {column: name, path: "{parent}!{child}", else_where_exists: {table: services, column: host}}
"""
UP = """
rules: [{table: things, direction: up, key: [name], on_missing: report, on_changed: report,
         route: {column: name, path: "{parent}!{child}"}}]
"""


def route(text: str, *values: Any, **owners: frozenset[str] | None) -> diff.Routed:
    """Route rows with these values among c1 and c2."""
    rule = ruleset(text).rules[0]
    made = [row(str(value), route=value, number=number) for number, value in enumerate(values)]
    known = diff.Owners(rule, parent="api", children=("c1", "c2"), owns=owners)
    return diff.route(made, rule, known, parent="api")


def dealt(routed: diff.Routed) -> dict[str, list[Any]]:
    """Return child -> the values of its rows."""
    return {child: [each.route for each in rows] for child, rows in routed.rows.items()}


BOTH: Any = {"c1": frozenset({"h1", "both"}), "c2": frozenset({"h2", "both"})}


def test_a_path_ends_at_the_last_at_sign() -> None:
    """Nova splits there too; a plain value belongs to the child that has it."""
    routed = route(ROUTED, "api!c1@h9", "api!c2@h9", "h1", "h2", **BOTH)
    assert dealt(routed) == {"c1": ["api!c1@h9", "h1"], "c2": ["api!c2@h9", "h2"]}
    assert (routed.findings, routed.aside, routed.unknown) == ((), frozenset(), ())


@pytest.mark.parametrize("value", ["api!c3@h1", "api!c1@x@h1", "@h1", "nobody", "H1", "", None, "api!C1@h1"])
def test_a_value_that_no_child_has_is_an_orphan(value: str | None) -> None:
    """Values are compared binary, as Nova compares host names."""
    routed = route(ROUTED, value, **BOTH)
    assert [(f.code, f.cell) for f in routed.findings] == [("orphan", "api")]
    assert dealt(routed) == {"c1": [], "c2": []}


def test_a_value_that_two_children_have_is_ambiguous_and_judged_nowhere() -> None:
    """A path tells whose it is."""
    routed = route(ROUTED, "both", "api!c2@both", **BOTH)
    assert [f.code for f in routed.findings] == ["ambiguous"]
    assert "claimed by c1 and c2: give it a path (api!c1@...)" in routed.findings[0].message
    assert routed.aside == {("both",)}
    assert dealt(routed) == {"c1": [], "c2": ["api!c2@both"]}


def test_a_child_that_cannot_be_asked_might_have_every_plain_value() -> None:
    """So these are unknown, not orphans, and nobody's; what has a path is known all the same."""
    routed = route(ROUTED, "h1", "nobody", "api!c1@h9", c1=frozenset({"h1"}), c2=None)
    assert (dealt(routed), routed.findings) == ({"c1": ["api!c1@h9"], "c2": []}, ())
    assert routed.aside == {("h1",), ("nobody",)}
    assert routed.unknown == ("2 rows without a cell path: c2 could not be asked whose they are",)


def test_rows_that_go_up_are_routed_by_the_whole_value() -> None:
    """cell_name is the path itself; no child needs to be asked."""
    routed = route(UP, "api!c1", "api!c2", "api", None, "c1")
    assert dealt(routed) == {"c1": ["api!c1"], "c2": ["api!c2"]}
    assert [f.code for f in routed.findings] == ["orphan"] * 3


# -- Which columns -------------------------------------------------------------------------------

WIDE = table("things", "id int auto_increment", "name varchar(9)", "size int", "made datetime", "deleted int",
             "deleted_at datetime", "total int generated", "note text")  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "columns"),
    [
        ("", ("size", "made", "deleted", "deleted_at", "note")),
        ("columns: {exclude: [note, made]}", ("size", "deleted", "deleted_at")),
        ("columns: {include: [note, total]}", ("total", "note")),
        ("on_insert: {made: now}", ("size", "deleted", "deleted_at", "note")),
        ("surrogate: {id: preserve}, columns: {include: [size]}", ("id", "size")),
        ("surrogate: {size: remap}", ("made", "deleted", "deleted_at", "note")),
        (
            "soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}",
            ("size", "made", "note"),
        ),
    ],
)
def test_the_rule_says_which_columns_are_compared(keys: str, columns: tuple[str, ...]) -> None:
    """Never the key again, nor what the server numbers or computes, unless the rule names it."""
    assert pair(keys, WIDE).columns == columns


def test_the_desired_side_says_which_columns_there_are() -> None:
    """A column more in the child is its own business; one less blocks the rule."""
    more = table("things", "id int auto_increment", "name varchar(9)", "own int", "size int")
    less = table("things", "id int auto_increment", "name varchar(9)", "size int")
    assert pair("", less, more).columns == ("size",)
    known = ruleset("rules: [{table: things, key: [name]}]")
    tables: Any = {"parent_tables": {"things": more}, "child_tables": {"things": less}}
    failed = diff.pair(known.rules[0], known, **tables, parent="api", child="c1")
    assert isinstance(failed, TableFailure)
    assert failed.error == "table things in c1 has no column own"


def test_a_reference_is_read_through_the_key_of_its_row() -> None:
    """By the column that the foreign key names, else by the primary key."""
    known = ruleset(RULES)
    key = ForeignKey(name="f", columns=("thing_id",), table="things", references=("name",))
    keyed = table("parts", "id int auto_increment", "thing_id int", "label varchar(9)", foreign_keys=(key,))
    for parts, column in ((PARTS, "id"), (keyed, "name")):
        tables = {"things": THINGS, "parts": parts}
        made = diff.pair(
            known.rules[1], known, parent_tables=tables, child_tables=tables, parent="api", child="c1"
        )
        assert isinstance(made, Pairing)
        join = made.desired.key[0].join
        assert join is not None and (join.table, join.column) == ("things", column)
        assert [part.column for part in join.key] == ["name"]


@pytest.mark.parametrize(
    ("parent", "child", "error"),
    [
        ((), ("things", "parts"), "api has no table parts; api has no table things"),
        (("things", "parts"), ("parts",), "c1 has no table things"),
    ],
)
def test_a_missing_table_blocks_the_rules_that_need_it(
    parent: Sequence[str], child: Sequence[str], error: str
) -> None:
    """Also where it is only referred to."""
    known = ruleset(RULES)
    tables = {"things": THINGS, "parts": PARTS}
    failed = diff.pair(
        known.rules[1],
        known,
        parent_tables={name: tables[name] for name in parent},
        child_tables={name: tables[name] for name in child},
        parent="api",
        child="c1",
    )
    assert isinstance(failed, TableFailure)
    assert failed.error == error


# -- Schemas -------------------------------------------------------------------------------------


def differences(
    desired: Table, existing: Table, *used: str
) -> dict[str, tuple[str | None, str | None, bool]]:
    """Return path -> what differs, and whether it blocks."""
    found = diff.schema(desired, existing, used=set(used))
    return {each.path: (each.desired, each.existing, each.blocking) for each in found}


def test_the_order_and_the_case_of_columns_are_no_difference() -> None:
    """Upgrades and re-created tables move columns."""
    one = table("t", "id int auto_increment", "a int", "B int")
    other = table("t", "b int", "id int auto_increment", "A int")
    assert differences(one, other, "a", "b") == {}


def test_only_what_a_rule_cannot_do_without_blocks() -> None:
    """A used column that is missing, or of another family; all else is shown."""
    desired = table(
        "t", "id int", "a int", "b varchar(9)", "c varchar(9)", "d int required", "e int", engine="InnoDB"
    )
    existing = table("t", "id int", "a varchar(9)", "c varchar(5)", "d int", "e text", engine="MyISAM")
    assert differences(desired, existing, "a", "b", "c", "d") == {
        "column a: family": ("integer", "text", True),
        "column a: type": ("int", "varchar(9)", False),
        "column b": ("varchar(9)", None, True),
        "column c: type": ("varchar(9)", "varchar(5)", False),
        "column d: nullable": ("False", "True", False),
        "column e: family": ("integer", "text", False),
        "column e: type": ("int", "text", False),
        "engine": ("innodb", "myisam", False),
    }


def test_keys_and_triggers_are_compared_too() -> None:
    """An index that only one side has, other columns, another rule of a foreign key."""
    key = ForeignKey(name="f", columns=("a",), table="o", references=("id",), on_delete="CASCADE")
    one = table(
        "t", "id int", indexes=(Index(name="i", columns=("a", "b"), unique=True),), foreign_keys=(key,)
    )
    other = table("t", "id int", indexes=(Index(name="i", columns=("b", "a"), unique=True),), triggers=("x",))
    assert differences(one, other) == {
        "index i": ("unique (a, b)", "unique (b, a)", False),
        "foreign key f": ("(a) -> o (id) on delete CASCADE on update RESTRICT", None, False),
        "triggers": ("", "x", False),
    }


# -- Confirming ----------------------------------------------------------------------------------


def confirm(first: TableDiff, desired: list[Row], existing: list[Row], **more: Any) -> TableDiff:
    """Confirm differences; to the server each key is one of its own unless a test says otherwise."""
    more.setdefault("classify", lambda keys: keys)
    return diff.confirm(SIZED, first, desired, existing, child="c1", **more)


def test_only_what_still_differs_counts() -> None:
    """The row arrived meanwhile, or another value did: the second reading is the truth."""
    first = compare([row("a", 1), row("b", 1), row("c", 1)], [row("b", 2), row("x", 1)])
    again = confirm(first, [row("a", 1), row("b", 5), row("c", 1)], [row("a", 1), row("b", 3)])
    assert kinds(again) == [("changed", ("b",)), ("missing", ("c",))]
    columns = next(d for d in again.differences if d.kind is Kind.CHANGED).columns
    assert [(c.desired, c.existing) for c in columns] == [(5, 3)]
    settled = confirm(
        first,
        [row("a", 1), row("b", 2), row("c", 1)],
        [row(k, v) for k, v in zip("abc", (1, 2, 1), strict=True)],
    )
    assert (settled.status, settled.differences) == (Status.IN_STEP, ())


def test_rows_that_only_look_like_an_unsettled_key_are_not_judged() -> None:
    """The server finds more than it was asked for: whatever its collation takes for equal."""
    first = compare([row("a", 1)], [])
    assert kinds(confirm(first, [row("a", 1), row("B", 1)], [row("B", 2)])) == [("missing", ("a",))]


@pytest.mark.parametrize("twin", ["A", "á", "a "])
def test_a_key_in_another_spelling_is_a_finding_and_not_inserted(twin: str) -> None:
    """Where the server says that they are one to its collation."""
    first = compare([row("a", 1)], [])
    asked: list[Key] = []

    def classify(keys: Sequence[Key]) -> list[str]:
        asked.extend(keys)
        return ["one"] * len(keys)

    found = confirm(first, [row("a", 1)], [row(twin, 1)], classify=classify)
    assert (asked, found.differences) == ([("a",), (twin,)], ())
    assert [(f.code, f.cell, f.key) for f in found.findings] == [("collation-twin", "c1", ("a",))]


def test_keys_that_look_alike_are_two_where_the_server_says_so() -> None:
    """Under a binary collation "a" and "A" are two rows."""
    first = compare([row("a", 1)], [])
    assert kinds(confirm(first, [row("a", 1)], [row("A", 1)])) == [("missing", ("a",))]


@pytest.mark.parametrize(
    "leftover",
    [row("A", 1, limbo=True), row((("A",), Dangling(raw=1, deleted=True)), 1)],
    ids=["limbo", "dangling"],
)
def test_a_row_that_the_application_does_not_see_is_no_twin(leftover: Row) -> None:
    """It is a finding of its own."""
    first = compare([row("a", 1)], [])
    found = confirm(first, [row("a", 1)], [leftover], classify=lambda keys: ["one"] * len(keys))
    assert kinds(found) == [("missing", ("a",))]


def test_an_extra_row_learns_when_the_parent_deleted_it() -> None:
    """The newest tombstone of that very key."""
    first = compare([], [row("a", 1), row("b", 1)])
    tombstones = [row("a", since="2026-01-01"), row("a", since="2026-02-01"), row("A", since="2027-01-01")]
    found = confirm(first, [], [row("a", 1), row("b", 1)], tombstones={Kind.EXTRA: tombstones})
    assert {d.key: d.tombstone for d in found.differences} == {("a",): "2026-02-01", ("b",): None}


def test_findings_are_said_once() -> None:
    """Those of the first reading stay; the second adds what is new."""
    first = compare([row("a", 1), row("d", 1), row("d", 2, number=2)], [row("a", 2)])
    again = confirm(first, [row("a", 1), row("a", 3, number=3)], [row("a", 2)])
    assert [(f.code, f.key) for f in again.findings] == [("duplicate-key", ("d",)), ("duplicate-key", ("a",))]
    assert again.differences == ()


# -- As a property -------------------------------------------------------------------------------

VALUES = st.one_of(st.none(), st.integers(0, 3), st.sampled_from(["", "a", "A", "a ", "NULL", "0"]))
ROWS = st.dictionaries(st.tuples(VALUES, VALUES), VALUES, max_size=8)
TWO_KEYS = ruleset("rules: [{table: things, key: [name, size], columns: {include: [ratio]}}]")


@given(desired=ROWS, existing=ROWS)
def test_the_differences_turn_one_side_into_the_other(
    desired: dict[Key, KeyPart], existing: dict[Key, KeyPart]
) -> None:
    """Insert the missing, change the changed, remove the extra: what is left is what is desired."""
    rule: Rule = TWO_KEYS.rules[0]
    tables = {"things": THINGS}
    pairing = diff.pair(rule, TWO_KEYS, parent_tables=tables, child_tables=tables, parent="api", child="c1")
    assert isinstance(pairing, Pairing)
    found = compare(
        [row(k, v) for k, v in desired.items()], [row(k, v) for k, v in existing.items()], pairing
    )
    held = dict(existing)
    for difference in found.differences:
        if difference.desired is None:
            del held[difference.key]
        else:
            held[difference.key] = difference.desired.values[0]
    assert held == desired
    assert (found.status is Status.IN_STEP) is (desired == existing)

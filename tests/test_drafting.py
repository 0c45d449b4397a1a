"""From tables to a rule file: what is guessed, why, and what is left for a person to say."""

from __future__ import annotations

import itertools
import string
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellsync import rules
from cellsync.errors import ConfigurationError
from cellsync.model import (
    Column,
    Family,
    ForeignKey,
    Index,
    Rule,
    RuleSet,
    ServerTime,
    SoftDelete,
    Survey,
    Table,
)
from cellsync.rules import drafting
from cellsync.rules.drafting import Drafted

FAMILIES = {
    "int": Family.INTEGER,
    "tinyint": Family.INTEGER,
    "datetime": Family.TEMPORAL,
    "double": Family.FLOAT,
}


def _family(kind: str) -> Family:
    return FAMILIES.get(kind.partition("(")[0], Family.TEXT)


def column(text: str) -> Column:
    """Return a column from "NAME TYPE [null|auto|default|generated]", NOT NULL unless it says otherwise."""
    name, kind, *words = text.split()
    return Column(
        name=name,
        type=kind,
        family=_family(kind),
        nullable="null" in words,
        default="1" if "default" in words else None,
        auto_increment="auto" in words,
        generated="generated" in words,
    )


def table(
    name: str,
    columns: str,
    *unique: Sequence[str],
    primary: Sequence[str] = ("id",),
    keys: Mapping[str, str] | None = None,
    triggers: Sequence[str] = (),
) -> Table:
    """Return a table: columns parted by commas, unique keys, foreign keys as column -> "table.column"."""
    return Table(
        name=name,
        columns=tuple(map(column, columns.split(", "))),
        primary_key=tuple(primary),
        indexes=tuple(
            Index(name=f"uq_{'_'.join(each)}", columns=tuple(each), unique=True) for each in unique
        ),
        foreign_keys=tuple(
            ForeignKey(
                name=f"fk_{name}_{source}",
                columns=(source,),
                table=target.partition(".")[0],
                references=(target.partition(".")[2],),
            )
            for source, target in (keys or {}).items()
        ),
        triggers=tuple(triggers),
    )


def survey(*tables: Table, versions: Sequence[str] = (), **children: Sequence[Table] | str) -> Survey:
    """Return what was seen: the parent's tables, and those of the children, or why one did not answer."""
    return Survey(
        parent="hub",
        tables={each.name: each for each in tables},
        children={
            name: each if isinstance(each, str) else {found.name: found for found in each}
            for name, each in children.items()
        },
        version_tables=tuple(versions),
    )


def draft(seen: Survey, *names: str) -> Drafted:
    """Draft the rules of these tables, or of all."""
    return drafting.draft(seen, names or tuple(seen.tables), command="cellsync rules init")


def loaded(text: str) -> RuleSet:
    """Return the rules of a text, read as a file is."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "draft.yaml"
        file.write_text(text, encoding="utf-8")
        return rules.load([str(file)])


def refused(drafted: Drafted) -> list[str]:
    """Return why a draft is refused, each with the line that it is about."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(drafted.text)
    lines = drafted.text.splitlines()
    return [f"{lines[each.line - 1].strip()} {each.message}" for each in caught.value.problems]


def remarks(drafted: Drafted) -> str:
    """Return all comments as one line."""
    comments = (line.strip().removeprefix("#").strip() for line in drafted.text.splitlines() if "#" in line)
    return " ".join(comments)


def only(*tables: Table, **children: Sequence[Table] | str) -> Rule:
    """Draft the rule of the first table, which must leave nothing open, and return it."""
    (rule,) = loaded(draft(survey(*tables, **children), tables[0].name).text).rules
    return rule


SUPPLIER = table("supplier", "id int auto, code varchar(20), name varchar(90)", ["name"], ["code"])
PRODUCT = table(
    "product",
    "id int auto, sku varchar(20), supplier_id int, title varchar(90), created_at datetime, "
    "updated_at datetime null",
    ["sku"],
    keys={"supplier_id": "supplier.id"},
)


def test_a_draft_says_what_it_guessed_and_why() -> None:
    """The whole file, as a person gets it."""
    seen = survey(SUPPLIER, PRODUCT, north=(SUPPLIER, PRODUCT), south="south is down")
    drafted = draft(seen, "product", "supplier")
    assert drafted.text == GOLDEN
    assert (drafted.guesses, drafted.todos) == (7, 0)
    product = loaded(drafted.text).rule("product")
    assert product is not None
    assert (product.key, product.references) == (("sku",), {"supplier_id": "supplier"})
    assert (product.exclude, product.on_insert) == (
        ("created_at", "updated_at"),
        {"created_at": ServerTime.NOW},
    )


GOLDEN = """\
# Drafted by cellsync rules init from the tables of hub, and compared with those of north.
# Check every "guess" and take its comment out. A "TODO" is what the tables do not say: cellsync
#   refuses this file until it has a value (`cellsync rules validate FILE`). Columns that are not
#   named are compared and copied; rows that only a child has are reported.
# note: south did not answer, so its tables were not looked at: south is down
rules:
  - table: supplier
    # guess: the unique key uq_code says that it tells one row from another; unique too: (name) by the
    #   unique key uq_name; check that one row has it in all databases, and that nobody changes it
    key: [code]
    surrogate:
      # guess: AUTO_INCREMENT: each database counts for itself, so it is neither compared nor copied;
      #   preserve would copy it, where rows must have one id everywhere
      id: remap

  - table: product
    # guess: the unique key uq_sku says that it tells one row from another; check that one row has it in
    #   all databases, and that nobody changes it
    key: [sku]
    references:
      # guess: the foreign key fk_product_supplier_id leads to supplier.id, which each database counts for
      #   itself
      supplier_id: supplier
    surrogate:
      # guess: AUTO_INCREMENT: each database counts for itself, so it is neither compared nor copied;
      #   preserve would copy it, where rows must have one id everywhere
      id: remap
    columns:
      exclude:
        # guess: when the row was written here, which each database says for itself
        - created_at
        - updated_at
    on_insert:
      # guess: the column has no default of its own
      created_at: now
"""


# -- The key -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "key"),
    [
        pytest.param(table("t", "id int auto, a varchar(9)", ["a"]), ("a",), id="not the counter"),
        pytest.param(
            table("t", "id int auto, a varchar(9) null, b int, c int", ["a"], ["b", "c"]),
            ("b", "c"),
            id="NOT NULL first",
        ),
        pytest.param(
            table("t", "id int auto, a int, b int, c int", ["a", "b"], ["c"]), ("c",), id="then the short one"
        ),
        pytest.param(
            table("t", "id int auto, name varchar(9), z varchar(9)", ["name"], ["z"]),
            ("z",),
            id="then what is not a name",
        ),
        pytest.param(
            table("t", "a char(36), b int", ["b"], primary=["a"]), ("a",), id="then the primary key"
        ),
        pytest.param(
            table("t", "id int, code char(9)", ["code"]), ("code",), id="an id of a number is the last"
        ),
        pytest.param(
            table("t", "id int, v int"), ("id",), id="but better than none, where no database counts it"
        ),
        pytest.param(
            table("t", "a int, b int", primary=["b", "a"]), ("b", "a"), id="in the order of the key"
        ),
        pytest.param(
            table("t", "id int auto, a varchar(9) null", ["a"]), ("a",), id="NULLs are compared too"
        ),
        pytest.param(
            table("t", "id int auto, a int, g int generated", ["g"], ["a"]), ("a",), id="nothing generated"
        ),
        pytest.param(
            table("t", "id int auto, a int, f double", ["f"], ["a"]), ("a",), id="nothing that is not exact"
        ),
        pytest.param(
            table("t", "id int auto, a int, is_deleted int", ["a", "is_deleted"], ["a"]),
            ("a",),
            id="no mark of deletion",
        ),
    ],
)
def test_the_best_unique_key_is_guessed(made: Table, key: tuple[str, ...]) -> None:
    """It is NOT NULL, short, of columns that nobody changes, and holds no number that a database counts."""
    assert only(made).key == key


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        pytest.param(
            table("t", "id int auto, a int, b int, created_at datetime"),
            "tell a row of t in both databases, out of a, b: there is no unique key but of what each "
            "database counts for itself",
            id="only a counter",
        ),
        pytest.param(
            table("t", "id int auto, up int, name int", ["up", "name"], keys={"up": "t.id"}),
            "the unique key uq_up_name (up, name) is no key: up refers to a row of t itself, so it would "
            "have no end",
            id="a key of itself",
        ),
        pytest.param(
            table("t", "id int auto, a int, deleted_at datetime null", ["a", "deleted_at"]),
            "the unique key uq_a_deleted_at (a, deleted_at) is no key: deleted_at seems to mark deleted rows",
            id="a mark of deletion in it",
        ),
    ],
)
def test_a_key_that_cannot_be_guessed_is_asked_for(made: Table, reason: str) -> None:
    """The file is refused until somebody gives one, and the question says what there is to choose from."""
    drafted = draft(survey(made))
    assert drafted.todos == 1
    assert refused(drafted) == ["key: key: expected a list of columns, found nothing"]
    assert reason in remarks(drafted)


def test_a_key_that_a_child_cannot_have_is_not_guessed() -> None:
    """Neither one that it lacks, nor one that it has as another kind of value."""
    here = table("t", "id int auto, a int, b int, c int", ["a"], ["b"], ["c"])
    assert only(here, north=[table("t", "id int auto, b varchar(9), c int", ["c"])]).key == ("c",)
    drafted = draft(survey(here, north=[table("t", "id int auto, b varchar(9)")]))
    assert refused(drafted) == ["key: key: expected a list of columns, found nothing"]
    assert "the unique key uq_a (a) is no key: north has no column a" in remarks(drafted)
    assert "the unique key uq_b (b) is no key: b is int here and varchar(9) in north" in remarks(drafted)


# -- References --------------------------------------------------------------------------------


def test_a_column_that_is_named_after_a_table_refers_to_it() -> None:
    """In the singular and the plural, with a prefix or without; a foreign key is not needed."""
    item = "id int auto, number int"
    tables = [table(name, item, ["number"]) for name in ("shop_supplier", "boxes", "categories", "brand")]
    names = ("supplier_id", "box_id", "category_id", "brand_id")
    goods = table("goods", f"id int auto, a int, {', '.join(f'{name} int' for name in names)}", ["a"])
    rule = loaded(draft(survey(goods, *tables)).text).rule("goods")
    assert rule is not None
    assert rule.references == dict(zip(names, ("shop_supplier", "boxes", "categories", "brand"), strict=True))


def test_a_row_may_refer_to_another_row_of_its_table() -> None:
    """By a foreign key, or by a column that is called parent_id."""
    assert only(table("t", "id int auto, a int, boss int null", ["a"], keys={"boss": "t.id"})).references == {
        "boss": "t"
    }
    assert only(table("t", "id int auto, a int, parent_id int null", ["a"])).references == {"parent_id": "t"}


def test_a_reference_to_a_key_that_is_no_counter_is_plain_data() -> None:
    """It means the same everywhere."""
    country = table("country", "iso char(2), title varchar(9)", primary=["iso"])
    town = table("town", "id int auto, a int, country char(2)", ["a"], keys={"country": "country.iso"})
    rule = loaded(draft(survey(town, country)).text).rule("town")
    assert rule is not None
    assert rule.references == {}


def test_a_reference_leads_on_through_a_shared_primary_key() -> None:
    """The id of a detail is that of its product, and so is what refers to the detail."""
    detail = table(
        "detail", "product int, text varchar(9)", primary=["product"], keys={"product": "product.id"}
    )
    note = table("note", "id int auto, a int, detail int", ["a"], keys={"detail": "detail.product"})
    ruleset = loaded(draft(survey(note, detail, PRODUCT, SUPPLIER)).text)
    assert [rule.id for rule in ruleset.rules] == ["supplier", "product", "detail", "note"]
    assert [rule.references for rule in ruleset.rules[2:]] == [{"product": "product"}, {"detail": "detail"}]
    assert ruleset.rules[2].key == ("product",)


@pytest.mark.parametrize(
    ("tables", "names", "reason"),
    [
        pytest.param(
            [PRODUCT, SUPPLIER],
            ["product"],
            "supplier is not drafted here: draft both (rules init product supplier), write the id of its",
            id="a table that was not named",
        ),
        pytest.param(
            [
                table("goods", "id int auto, a int, box_id int", ["a"]),
                table("big_box", "id int auto, b int", ["b"]),
                table("small_box", "id int auto, b int", ["b"]),
            ],
            ["goods", "big_box", "small_box"],
            "say which of big_box, small_box it is, or exclude the column",
            id="two tables of such a name",
        ),
    ],
)
def test_a_reference_that_cannot_be_guessed_is_asked_for(
    tables: Sequence[Table], names: Sequence[str], reason: str
) -> None:
    """An id that each database counts for itself must never be copied as if it were data."""
    drafted = draft(survey(*tables), *names)
    assert drafted.todos == 1
    (problem,) = refused(drafted)
    assert problem.endswith("expected the id of a rule, found nothing")
    assert reason in remarks(drafted)


def test_a_circle_of_references_is_broken_by_asking() -> None:
    """At a column that is in no key; the other tables are still in order."""
    left = table("left", "id int auto, a int, right_id int null", ["a"], keys={"right_id": "right.id"})
    right = table("right", "id int auto, left_id int, n int", ["left_id", "n"], keys={"left_id": "left.id"})
    drafted = draft(survey(right, left))
    assert refused(drafted) == ["right_id: right_id: expected the id of a rule, found nothing"]
    assert "left -> right -> left refer to each other in a circle" in remarks(drafted).replace(
        "right -> left -> right", "left -> right -> left"
    )
    answered = drafted.text.replace("      right_id:\n", "").replace(
        "    references:\n      # TODO", "    # TODO"
    )
    assert [rule.id for rule in loaded(answered).rules] == ["left", "right"]


def test_an_id_after_which_no_table_is_named_is_remarked_upon() -> None:
    """It is copied, and whoever reads the draft is told."""
    drafted = draft(survey(table("t", "id int auto, a int, legacy_id int", ["a"])))
    assert "guess: legacy_id is plain data, for no table that counts its rows is named after it" in remarks(
        drafted
    )
    assert loaded(drafted.text).rules[0].references == {}


# -- Other keys --------------------------------------------------------------------------------


def test_deletion_as_novas_is_guessed() -> None:
    """The mark is no part of the key, and a new row is live."""
    made = (
        "id int auto, name varchar(9), deleted int null, deleted_at datetime null, created_at datetime null"
    )
    rule = only(table("t", made, ["name", "deleted"]))
    assert rule.soft_delete == SoftDelete(column="deleted", live=0, tombstone="id", at="deleted_at")
    assert rule.key == ("name",)
    assert rule.on_insert == {"deleted": 0, "created_at": ServerTime.NOW}


@pytest.mark.parametrize("mark", ["deleted tinyint(1)", "is_deleted tinyint(1)", "deleted_at datetime null"])
def test_another_mark_of_deletion_is_data_and_remarked_upon(mark: str) -> None:
    """A flag that is copied marks the row below too."""
    drafted = draft(survey(table("t", f"id int auto, a int, {mark}", ["a"])))
    assert loaded(drafted.text).rules[0].soft_delete is None
    assert f"guess: {mark.partition(' ')[0]} is plain data: if it marks deleted rows" in remarks(drafted)


def test_an_id_that_no_database_counts_is_preserved() -> None:
    """It would otherwise be missing in a new row; the same id for another row is then a finding."""
    rule = only(table("t", "id int, code char(9)", ["code"]))
    assert {name: kind.value for name, kind in rule.surrogate.items()} == {"id": "preserve"}


def test_what_a_child_has_not_is_left_out() -> None:
    """So that the other columns can be compared; a column that only the child has and must fill is named."""
    here = table("t", "id int auto, a int, b int, c int", ["a"])
    there = table("t", "id int auto, a int, c varchar(9), d int, e int null", ["a"], triggers=["on_t"])
    drafted = draft(survey(here, north=[there], south=[]))
    assert loaded(drafted.text).rules[0].exclude == ("b", "c")
    said = remarks(drafted)
    assert "note: south has no table t: make it there first" in said
    assert "note: north has a column d that hub lacks and a new row must fill" in said
    assert "column e" not in said
    assert "note: t in north has triggers (on_t): a repair refuses it" in said


def test_the_version_table_is_required_to_be_equal() -> None:
    """A draft is for one version of the schema, as the tables are that it was made from."""
    drafted = draft(survey(SUPPLIER, versions=["alembic_version"]))
    assert loaded(drafted.text).packs[0].requires.equal_versions == ("alembic_version",)


def test_a_draft_never_says_anything_without_a_comment() -> None:
    """Every value in a rule stands below a guess, a TODO, or another value with the same reason."""
    lines = draft(survey(SUPPLIER, PRODUCT)).text.splitlines()
    heads = ("rules:", "- table:", "references:", "surrogate:", "columns:", "exclude:", "on_insert:")
    for before, line in itertools.pairwise(lines):
        if line.strip() and not line.strip().startswith(("#", *heads)):
            assert before.strip().startswith(("#", "- created_at")), line


# -- Any schema --------------------------------------------------------------------------------

WORDS = """
id name yes null On 1e3 0x1f #x [x {x} ' " deleted deleted_at created_at parent_id b_id b
!x &x *x %x @x `x \\ = << ~ x: \u00e4 \u4e3b \U000e0001
"""
ODD = (*WORDS.split(), "a: b", "- x", "x # guess: y", "TODO: x", "x\u2028y", "? y")
LETTERS = string.ascii_letters + "_ '\"#:-{}[]\\,&*?|>%@`!\u00e9\U0001f600"
NAMES = st.one_of(
    st.sampled_from(ODD),
    st.text(st.sampled_from(LETTERS), min_size=1, max_size=8).filter(lambda name: name == name.strip()),
)
TYPES = st.sampled_from(["int", "tinyint(1)", "varchar(9)", "datetime", "double", "char(36)"])


@st.composite
def _tables(draw: st.DrawFn) -> list[Table]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower))
    made = []
    for name in names:
        own = draw(st.lists(NAMES, min_size=1, max_size=6, unique_by=str.lower))
        counted = draw(st.sampled_from([None, own[0]]))
        columns = tuple(_column(draw, each, counted=each == counted) for each in own)
        indexes = draw(
            st.lists(st.lists(st.sampled_from(own), min_size=1, max_size=3, unique=True), max_size=3)
        )
        keys = draw(st.lists(st.tuples(st.sampled_from(own), st.sampled_from(names)), max_size=2))
        made.append((name, columns, own[0], indexes, keys))
    first = {name: columns[0].name for name, columns, *_ in made}
    return [
        Table(
            name=name,
            columns=columns,
            primary_key=(primary,),
            indexes=tuple(
                Index(name=f"i{number}", columns=tuple(each), unique=True)
                for number, each in enumerate(indexes)
            ),
            foreign_keys=tuple(
                ForeignKey(name=f"f{number}", columns=(source,), table=target, references=(first[target],))
                for number, (source, target) in enumerate(keys)
            ),
        )
        for name, columns, primary, indexes, keys in made
    ]


def _column(draw: st.DrawFn, name: str, *, counted: bool) -> Column:
    kind = "int" if counted else draw(TYPES)
    nullable = not counted and draw(st.booleans())
    return Column(name=name, type=kind, family=_family(kind), nullable=nullable, auto_increment=counted)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(tables=_tables(), without=st.integers(0, 3))
def test_every_draft_is_a_rule_file_but_for_its_todos(tables: list[Table], without: int) -> None:
    """Without one it is taken as it is, and with some it is refused for each of them and for nothing else."""
    drafted = draft(survey(*tables, north=tables[without:]))
    if drafted.todos:
        assert len(refused(drafted)) == drafted.todos
        return
    ruleset = loaded(drafted.text)
    assert {rule.table for rule in ruleset.rules} == {each.name for each in tables}
    for rule in ruleset.rules:
        made = next(each for each in tables if each.name == rule.table)
        named = {*rule.key, *rule.references, *rule.surrogate, *rule.exclude, *rule.on_insert}
        assert named <= {each.name for each in made.columns}
        counter = {each.name for each in made.columns if each.auto_increment}
        assert not counter & {*rule.key, *rule.exclude}

"""Rule files: what they mean, what is wrong with them, and the pack that is shipped."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cellsync import rules
from cellsync.errors import ConfigurationError, ExitCode, UsageError
from cellsync.model import (
    Action,
    Comparison,
    Direction,
    Gate,
    Heartbeats,
    Limit,
    Limits,
    LookUp,
    Need,
    Notice,
    Role,
    Rule,
    RuleSet,
    Saying,
    ServerTime,
    SoftDelete,
    Surrogate,
)
from cellsync.rules import grammar

MISTAKES = Path(__file__).parent / "mistakes"
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a rule file and return its path."""

    def write(text: str, name: str = "p.yaml") -> str:
        file = tmp_path / name
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return str(file)

    return write


@pytest.fixture
def one(write: Write) -> Callable[[str], Rule]:
    """Read the one rule of a file that gives only these keys besides its table and key."""

    def one(keys: str) -> Rule:
        text = "rules:\n  - table: t\n    key: [k]\n" + textwrap.indent(textwrap.dedent(keys), "    ")
        return rules.load([write(text)]).rules[0]

    return one


def ids(ruleset: RuleSet) -> list[str]:
    return [rule.id for rule in ruleset.rules]


# -- Mistakes ----------------------------------------------------------------------------------

EXPECTED = re.compile(r"# expect: (\d+):(\d+): (.*)")


@pytest.mark.parametrize("file", sorted(MISTAKES.glob("*.yaml")), ids=lambda file: file.stem)
def test_each_mistake_is_reported_once_where_it_stands(file: Path) -> None:
    """The problems of a file are exactly those that its first lines announce, in file order."""
    expected = EXPECTED.findall(file.read_text(encoding="utf-8"))
    assert expected, "the file announces nothing"
    with pytest.raises(ConfigurationError) as raised:
        rules.load([str(file)])
    found = raised.value.problems
    assert [(problem.line, problem.column) for problem in found] == [(int(a), int(b)) for a, b, _ in expected]
    for problem, (_, _, fragment) in zip(found, expected, strict=True):
        assert fragment in problem.message.replace(f"{MISTAKES}/", "")
        assert problem.file == str(file)


def problems(*sources: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        rules.load(sources)
    assert raised.value.exit_code is ExitCode.USAGE
    return [str(problem) for problem in raised.value.problems]


def test_a_source_that_is_not_there_is_named_with_what_is() -> None:
    """A mistyped pack is answered with the right one."""
    assert problems("nova-cell-v1") == [
        "nova-cell-v1:0:0: no pack and no file has this name: did you mean 'nova-cells-v1'? "
        "The packs are nova-api, nova-cells-v1, nova-cells-v2"
    ]


def test_no_sources_are_a_problem_and_not_an_empty_success() -> None:
    """A run without rules would find every cell in step."""
    assert "no rules are given" in problems()[0]


def test_an_empty_file_is_a_problem(write: Write) -> None:
    """A file of no bytes has no rules either."""
    assert "the file is empty" in problems(write(""))[0]


def test_files_that_cannot_be_read_are_problems(tmp_path: Path) -> None:
    """A folder and a file that is not UTF-8 are named, each with the reason."""
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"why: caf\xe9\n")
    first, second = problems(str(tmp_path), str(latin))
    assert first == f"{tmp_path}:0:0: the rule file cannot be read: Is a directory"
    assert second.startswith(f"{latin}:0:0: the rule file cannot be read: 'utf-8' codec")


def test_problems_of_all_files_come_out_together_in_order(write: Write) -> None:
    """One unreadable file does not hide the mistakes of the others, and invents none in them."""
    first = write(
        "rules:\n  - {table: t, key: [k], references: {a: elsewhere}, on_missing: never}\n", "a.yaml"
    )
    second = write("rules: [\n", "b.yaml")
    third = write("rules:\n  - {table: u, key: [k], settle: soon}\n", "c.yaml")
    found = problems(first, second, third)
    assert [Path(text.split(":")[0]).name for text in found] == ["a.yaml", "b.yaml", "c.yaml"]
    assert "on_missing" in found[0], "a reference into a file that cannot be read is not called unknown"


def test_two_packs_of_one_name_are_a_problem(write: Write) -> None:
    """The second one is told where the first stands."""
    first = write("pack: p\nrules:\n  - {table: t, key: [k]}\n", "a.yaml")
    second = write("pack: p\nrules:\n  - {table: u, key: [k]}\n", "b.yaml")
    assert problems(first, second) == [
        f"{second}:1:1: the pack name 'p' is taken by {first}: rename one of them"
    ]


def test_rule_ids_are_unique_over_all_files(write: Write) -> None:
    """A rule of a second file may not take the id of one in the first."""
    first = write("rules:\n  - {table: t, key: [k]}\n", "a.yaml")
    second = write("rules:\n  - {table: t, key: [k]}\n", "b.yaml")
    assert f"the rule id 't' is taken by {first}:2:5" in problems(first, second)[0]


# -- What a rule file means --------------------------------------------------------------------


def test_a_rule_without_options_has_the_safe_defaults(one: Callable[[str], Rule]) -> None:
    """Insert what is missing, update what changed, report what is extra."""
    rule = one("")
    assert (rule.id, rule.pack, rule.table, rule.child_table) == ("t", "p", "t", "t")
    assert rule.direction is Direction.DOWN
    assert (rule.on_missing, rule.on_changed, rule.on_extra) == (Action.INSERT, Action.UPDATE, Action.REPORT)
    assert rule.limits == Limits()
    assert (rule.include, rule.exclude, rule.soft_delete, rule.settle) == (None, (), None, None)
    assert (rule.position.line, rule.position.column) == (2, 5)


def test_every_key_reaches_the_rule(write: Write) -> None:
    """What a file says in any rule key is what the rule holds."""
    text = """
        pack: all
        why: Because.
        requires:
          equal_versions: migrate_version
          parent_version: "version == 'abc'"
          repository: nova
          child_repository: other
        features: {f: Something is lost.}
        services:
          - database: cinder
            table: s
            name: binary
            host: host
            beat: [seen, updated_at]
            where: deleted = 0
            stale: 2m
            parent: {api: Nothing works.}
            child: {"agent-*": No net.}
            optional: ["agent-*"]
            through_broker: ["agent-*"]
          - {table: t, name: n, host: h, beat: [b]}
        explains:
          f:
            - {says: "{child} has it", in: parent, query: SELECT 1, must: none, do: "mend {child}",
               when: version < 3, optional: true}
            - {says: It is in step., rules: [r]}
        rules:
          - {table: a, key: [name]}
          - id: r
            why: Because of this.
            table: t
            child_table: u
            direction: down
            key: [a_id, host]
            references: {a_id: a}
            surrogate: {id: preserve}
            columns: {include: [host, ratio, flag]}
            transforms: {host: item_of_cell_path}
            where: {desired: "a = 1", existing: "b = 2"}
            when: version >= 255 and version != '300'
            soft_delete: {column: deleted, live: false, tombstone: id, at: deleted_at}
            route: {column: a_id, path: "{child}", else_where_exists: {table: s, column: h, where: x}}
            on_insert: {deleted: false, made: now, by: "{parent}", nothing: null, n: 1.5}
            overrides: {c1: {flag: true}, "*": {flag: text}}
            on_missing: report
            on_changed: ignore
            on_extra: soft_delete
            limits: {inserts: 5, updates: 12.5%, deletes: unlimited, free: 0}
            settle: 500ms
            tolerance: {ratio: 0.1}
            features: [f]
            after: [{when: version < 3, notice: "restart {child}"}]
            says: [{rows: {flag: true}, missing: "{host}", changed: "{was} {now}", extra: "{parent}"}]
    """
    ruleset = rules.load([write(text)])
    rule = ruleset.rule("r")
    assert rule == Rule(
        id="r",
        pack="all",
        position=rule.position if rule else None,  # type: ignore[arg-type]
        table="t",
        child_table="u",
        why="Because of this.",
        key=("a_id", "host"),
        references={"a_id": "a"},
        surrogate={"id": Surrogate.PRESERVE},
        include=("ratio", "flag"),
        transforms={"host": "item_of_cell_path"},
        where_desired="a = 1",
        where_existing="b = 2",
        when=Gate(
            text="version >= 255 and version != '300'",
            alternatives=((Comparison(operator=">=", operand=255), Comparison(operator="!=", operand=300)),),
        ),
        soft_delete=SoftDelete(column="deleted", live=0, tombstone="id", at="deleted_at"),
        route=rule.route if rule else None,
        on_insert={"deleted": 0, "made": ServerTime.NOW, "by": "{parent}", "nothing": None, "n": 1.5},
        overrides={"c1": {"flag": 1}, "*": {"flag": "text"}},
        on_missing=Action.REPORT,
        on_changed=Action.IGNORE,
        on_extra=Action.SOFT_DELETE,
        limits=Limits(inserts=Limit(count=5), updates=Limit(percent=12.5), deletes=None, free=0),
        settle=timedelta(milliseconds=500),
        tolerance={"ratio": 0.1},
        features=("f",),
        after=(Notice(text="restart {child}", when=grammar.gate("version < 3")),),
        says=(Saying(rows={"flag": 1}, missing="{host}", changed="{was} {now}", extra="{parent}"),),
    )
    assert rule.route is not None
    assert rule.route.else_where_exists == LookUp(table="s", column="h", where="x")
    pack = ruleset.packs[0]
    assert (pack.name, pack.why) == ("all", "Because.")
    assert (pack.requires.equal_versions, pack.requires.repository) == (("migrate_version",), "nova")
    assert pack.requires.child_repository == "other"
    assert pack.explains == {
        "f": (
            Need(
                says="{child} has it",
                query="SELECT 1",
                cell=Role.PARENT,
                none=True,
                do="mend {child}",
                when=grammar.gate("version < 3"),
                optional=True,
            ),
            Need(says="It is in step.", rules=("r",)),
        )
    }
    assert pack.services == (
        Heartbeats(
            database="cinder",
            table="s",
            name="binary",
            host="host",
            beat=("seen", "updated_at"),
            where="deleted = 0",
            stale=timedelta(minutes=2),
            needed={Role.PARENT: {"api": "Nothing works."}, Role.CHILD: {"agent-*": "No net."}},
            optional=frozenset({"agent-*"}),
            through_broker=frozenset({"agent-*"}),
        ),
        Heartbeats(table="t", name="n", host="h", beat=("b",), needed={Role.PARENT: {}, Role.CHILD: {}}),
    )
    feature = ruleset.feature("f")
    assert feature is not None
    assert feature.lost == "Something is lost."


def test_true_is_stored_as_1_and_not_as_a_boolean(one: Callable[[str], Rule]) -> None:
    """1 == True in Python; the server's value is the integer."""
    rule = one("on_insert: {a: true}\noverrides: {c1: {b: false}}\n")
    assert type(rule.on_insert["a"]) is int
    assert type(rule.overrides["c1"]["b"]) is int


def test_one_where_is_for_both_sides(one: Callable[[str], Rule]) -> None:
    """A plain text restricts the desired and the existing side alike."""
    rule = one("where: a = 1\n")
    assert (rule.where_desired, rule.where_existing) == ("a = 1", "a = 1")


def test_a_rules_own_value_replaces_the_default(write: Write) -> None:
    """Mappings and lists too: what a rule says about a key is all there is."""
    text = """
        defaults:
          soft_delete: {column: deleted, live: 0, tombstone: id}
          on_insert: {deleted: 0, created_at: now}
          columns: {exclude: [created_at]}
          features: [f]
          direction: up
        rules:
          - {table: inherits, key: [k]}
          - {table: replaces, key: [k], soft_delete: false, on_insert: {a: 1}, columns: {include: [b]},
             features: [], direction: down}
    """
    inherits, replaces = rules.load([write(text)]).rules
    assert inherits.soft_delete is not None
    assert inherits.on_insert == {"deleted": 0, "created_at": ServerTime.NOW}
    assert (inherits.exclude, inherits.features, inherits.direction) == (
        ("created_at",),
        ("f",),
        Direction.UP,
    )
    assert replaces.soft_delete is None
    assert replaces.on_insert == {"a": 1}
    assert (replaces.include, replaces.exclude) == (("b",), ())
    assert (replaces.features, replaces.direction) == ((), Direction.DOWN)


def test_limits_merge_key_by_key(write: Write) -> None:
    """A rule that limits deletes keeps the default's updates and the built-in free ones."""
    text = """
        defaults: {limits: {updates: 5, deletes: 50%}}
        rules:
          - {table: t, key: [k], limits: {deletes: 0}}
    """
    rule = rules.load([write(text)]).rules[0]
    assert rule.limits == Limits(updates=Limit(count=5), deletes=Limit(count=0), free=10)


CHANGED = """
pack: mine
changes:
  t:
    on_missing: report
    limits: {updates: 7}
    overrides: {"*": {flag: true}}
"""


def test_a_file_changes_rules_of_another(write: Write) -> None:
    """Whatever their order; limits merge, all else is replaced, and the rule says where it was changed."""
    text = """
    defaults: {limits: {inserts: 3}, columns: {exclude: [x]}}
    rules:
      - {table: t, key: [k], limits: {deletes: 5}, overrides: {c1: {other: 2}}, on_changed: report}
      - {table: u, key: [k]}
    """
    theirs, mine = write(text, "theirs.yaml"), write(CHANGED, "mine.yaml")
    plain = rules.load([theirs])
    for sources in ([theirs, mine], [mine, theirs]):
        found = rules.load(sources)
        rule = found.rule("t")
        assert rule is not None
        assert (rule.on_missing, rule.on_changed) == (Action.REPORT, Action.REPORT)
        assert rule.limits == Limits(inserts=Limit(count=3), updates=Limit(count=7), deletes=Limit(count=5))
        assert rule.overrides == {"*": {"flag": 1}}
        assert (rule.pack, str(rule.position), str(rule.changed)) == (
            "theirs",
            f"{theirs}:4:5",
            f"{mine}:4:3",
        )
        assert found.rule("u") == plain.rule("u")
        assert {pack.name: pack.changes for pack in found.packs} == {"theirs": (), "mine": ("t",)}
        assert found.digest != plain.digest
        selected = rules.select(found, rules=["t"], features=[])
        assert selected.rule("t") == rule


def test_a_change_is_refused_where_it_stands(write: Write) -> None:
    """Not in the file of the rule, which may be a pack that came with cellsync."""
    theirs = write("rules: [{table: t, key: [k], columns: {exclude: [flag]}}]", "theirs.yaml")
    mine = write(CHANGED, "mine.yaml")
    assert problems(theirs, mine) == [
        f"{mine}:7:23: the column 'flag' is not compared (exclude or on_insert leaves it out), so this has "
        "no effect: compare it, or remove this"
    ]
    assert problems(mine) == [f"{mine}:4:3: no rule in use has the id 't': there are none"]
    other = write("pack: other\nchanges: {t: {on_changed: report}}", "other.yaml")
    assert f"{other}:2:11: 't' is changed at {mine}:4:3 already: put both into one place" in problems(
        theirs, mine, other
    )


def test_a_default_may_name_a_column_that_a_rule_does_not_compare(write: Write) -> None:
    """Only a rule's own mention of such a column is a mistake."""
    text = """
        defaults: {transforms: {host: item_of_cell_path}}
        rules:
          - {table: t, key: [k], columns: {include: [a]}}
    """
    assert rules.load([write(text)]).rules[0].transforms == {"host": "item_of_cell_path"}


def test_both_directions_may_share_a_table_when_they_share_no_columns(write: Write) -> None:
    """The parent is right about some columns of a row, the child about others."""
    text = """
        rules:
          - {id: down, table: t, key: [k], columns: {include: [metadata]}}
          - {id: up, table: t, key: [k], direction: up, columns: {include: [state]}, on_missing: report}
          - {id: again, table: t, key: [k], where: a = 1}
    """
    assert ids(rules.load([write(text.replace("          - {id: again", "          # {id: again"))])) == [
        "down",
        "up",
    ]
    assert "'up' writes up what 'again'" in problems(write(text))[0]


# -- Gates, durations, limits ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version", "admitted"),
    [
        ("version >= 255", 255, True),
        ("version >= 255", 254, False),
        ("version>=255 and version < 319", 318, True),
        ("version > 216  and  version <= 319 and version != 300", 300, False),
        ("version == liberty", "liberty", True),
        ("version != 'liberty'", "liberty", False),
        ('version == "8f2f"', "8f2f", True),
        ("version == 007", "007", True),
        ("version == 302", 302, True),
        ("version >= 255", "liberty", None),
        ("version >= 255", None, None),
        ("version < 3 or version >= 44 and version != 50", 2, True),
        ("version < 3 or version >= 44 and version != 50", 3, False),
        ("version < 3 or version >= 44 and version != 50", 50, False),
        ("version >= 44 or version == 8f2f", "8f2f", True),
        ("version >= 44 or version == 8f2f", "d67e", None),
    ],
)
def test_a_gate_admits_what_it_says(text: str, version: Any, admitted: bool | None) -> None:
    """Numbers are ordered; a name equals or differs, and its order cannot be told."""
    assert grammar.gate(text).admits(version) is admitted


@pytest.mark.parametrize(("version", "admitted"), [(215, False), (216, True), (319, True), (320, False)])
def test_a_range_holds_both_ends(version: int, admitted: bool) -> None:
    """216..319 is what the Nova pack requires."""
    assert grammar.version_range("216..319").admits(version) is admitted


@pytest.mark.parametrize(
    ("version", "admitted"),
    [
        (19, False),
        (20, True),
        (67, True),
        (68, False),
        ("d67e", True),
        ("8f2f", None),
        (101, True),
        (None, None),
    ],
)
def test_ranges_names_and_conditions_are_alternatives(version: object, admitted: bool | None) -> None:
    """A pack names the versions that it knows of both kinds; another name is not known to be one of them."""
    gate = grammar.version_range("20..67 or d67e or version > 100")
    assert gate.admits(version) is admitted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["20..67 or", "or d67e", "20..67 or 68", "20-67", "d67e b30f", "67..20 or d67e"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    """Also where only one of several alternatives is wrong."""
    with pytest.raises(ValueError, match=r"version condition|holds no version"):
        grammar.version_range(text)


@pytest.mark.parametrize(
    "text",
    ["", "255", "version", "version => 3", "version > x", "version = 3", "1 < version", "version > -1"],
)
def test_what_is_no_gate_is_refused(text: str) -> None:
    """A condition that is not understood must not pass as one that always holds."""
    with pytest.raises(ValueError, match=r"version condition|needs a number"):
        grammar.gate(text)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0.5s", 0.5), ("500ms", 0.5), ("2m", 120), ("1 s", 1), (0, 0), (1.5, 1.5), ("60m", 3600)],
)
def test_durations(one: Callable[[str], Rule], value: object, seconds: float) -> None:
    """A duration has a unit, or is a number of seconds."""
    assert one(f"settle: {value}\n").settle == timedelta(seconds=seconds)


# -- Order, selection, digest ------------------------------------------------------------------

CHAIN = """
rules:
  - {table: d, key: [k], features: [f]}
  - {table: c, key: [k], references: {b_id: b, own: c}, features: [g]}
  - {table: b, key: [k], references: {a_id: a}}
  - {table: a, key: [k]}
  - {table: e, key: [k], references: {c_id: c}, features: [f]}
"""


def test_a_referenced_rule_stands_before_its_referrers(write: Write) -> None:
    """Rules that do not reference each other stay in file order, and a rule may reference itself."""
    assert ids(rules.load([write(CHAIN)])) == ["d", "a", "b", "c", "e"]


def test_references_reach_over_files(write: Write) -> None:
    """A rule may reference one of a pack that is named after its own."""
    first = write("rules:\n  - {table: t, key: [k], references: {a: u}}\n", "a.yaml")
    second = write("rules:\n  - {table: u, key: [k]}\n", "b.yaml")
    assert ids(rules.load([first, second])) == ["u", "t"]


def test_a_long_chain_of_references_is_ordered(write: Write) -> None:
    """Thousands of rules that reference each other in a row do not exhaust the stack."""
    lines = [f"  - {{table: t{n}, key: [k], references: {{a: t{n + 1}}}}}" for n in range(1500)]
    ruleset = rules.load([write("\n".join(["rules:", *lines, "  - {table: t1500, key: [k]}"]))])
    assert ids(ruleset)[0] == "t1500"
    assert ids(ruleset)[-1] == "t0"


@pytest.mark.parametrize(
    ("named", "features", "expected"),
    [
        ([], [], ["d", "a", "b", "c", "e"]),
        (["b"], [], ["a", "b"]),
        (["e"], [], ["a", "b", "c", "e"]),
        ([], ["f"], ["d", "a", "b", "c", "e"]),
        ([], ["g"], ["a", "b", "c"]),
        (["d"], ["g"], ["d", "a", "b", "c"]),
    ],
)
def test_selecting_a_rule_brings_what_it_references(
    write: Write, named: list[str], features: list[str], expected: list[str]
) -> None:
    """Without its references a rule's rows could not be written."""
    selected = rules.select(rules.load([write(CHAIN)]), rules=named, features=features)
    assert ids(selected) == expected
    assert {rule.id for pack in selected.packs for rule in pack.rules} == set(expected)


def test_selecting_leaves_out_packs_without_a_selected_rule(write: Write) -> None:
    """What such a pack requires of the databases does not count then."""
    first = write("rules:\n  - {table: t, key: [k]}\n", "a.yaml")
    second = write("rules:\n  - {table: u, key: [k]}\n", "b.yaml")
    selected = rules.select(rules.load([first, second]), rules=["u"], features=[])
    assert [pack.name for pack in selected.packs] == ["b"]


def test_an_unknown_rule_or_feature_is_named_with_the_near_and_the_known_ones() -> None:
    """A person who mistyped a name gets the right one."""
    ruleset = rules.load(["nova-cells-v1"])
    with pytest.raises(UsageError, match=r"no rule 'flavour', did you mean 'flavors'.*known: agent-builds, "):
        rules.select(ruleset, rules=["flavour"], features=[])
    with pytest.raises(
        UsageError, match=r"no feature 'resizing', did you mean 'resize'.*known: availability-"
    ):
        rules.select(ruleset, rules=[], features=["resizing"])


def digest(write: Write, text: str) -> str:
    return rules.load([write(text)]).digest


def test_the_digest_ignores_what_only_people_read(write: Write) -> None:
    """Comments, order, explanations and blanks change no plan."""
    plain = digest(write, "rules:\n  - {table: t, key: [k], when: version >= 3}\n  - {table: u, key: [k]}\n")
    other = """
        # a comment
        pack: another
        why: Because.
        requires: {otherwise: use another pack}
        rules:
          - {key: [k], table: u, id: u}
          - table: t
            why: Because.
            key: [k]
            direction: down
            when: "version>=3"
            says: [{missing: it is gone}]
    """
    assert digest(write, other) == plain


@pytest.mark.parametrize(
    "text",
    [
        "rules:\n  - {table: t, key: [k, j]}\n",
        "rules:\n  - {table: t, key: [k], columns: {exclude: [position]}}\n",
        "rules:\n  - {table: t, key: [k], on_insert: {why: 1}}\n",
        "rules:\n  - {table: t, key: [k], on_insert: {why: '1'}}\n",
        "rules:\n  - {table: t, key: [k], settle: 1s}\n",
        "rules:\n  - {table: t, key: [k], when: version > 1}\n",
        "requires: {parent_version: 1..2}\nrules:\n  - {table: t, key: [k]}\n",
        "rules:\n  - {table: t, key: [k]}\n  - {table: u, key: [k]}\n",
    ],
)
def test_the_digest_tells_rules_that_mean_something_else(write: Write, text: str) -> None:
    """Every change of meaning changes the digest."""
    assert digest(write, text) != digest(write, "rules:\n  - {table: t, key: [k]}\n")


def test_the_digest_of_a_selection_is_its_own(write: Write) -> None:
    """It equals the digest of a file that holds only these rules."""
    selected = rules.select(rules.load([write(CHAIN)]), rules=["a"], features=[])
    assert selected.digest == digest(write, "rules:\n  - {table: a, key: [k]}\n")


# -- The schema --------------------------------------------------------------------------------


def nodes(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, node
    for name, below in node.get("properties", {}).items():
        yield from nodes(below, f"{path}/{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(node.get(keyword), Mapping):
            yield from nodes(node[keyword], f"{path}/{keyword}")


def test_every_key_of_the_schema_is_described_and_closed() -> None:
    """The rule reference is made of the descriptions, and a mistyped key is never ignored."""
    schema = rules.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for path, node in nodes(schema):
        assert node.get("title"), path
        if not path.endswith(("/items", "/additionalProperties")):
            assert node.get("description"), path
        if "properties" in node:
            assert node["additionalProperties"] is False, path


def test_a_callers_change_of_the_schema_stays_with_the_caller() -> None:
    """Every caller gets a schema of its own."""
    rules.schema()["properties"].clear()
    assert rules.schema()["properties"]


# -- The shipped pack --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nova() -> RuleSet:
    """Read the shipped pack by its name."""
    return rules.load(["nova-cells-v1"])


def test_a_shipped_pack_has_the_name_of_its_file() -> None:
    """People write the name; the file is found by it."""
    for name, file in rules.packs().items():
        assert rules.load([name]).packs[0].name == name
        assert rules.load([str(file)]).digest == rules.load([name]).digest


def test_the_nova_pack_holds_the_tables_that_nova_does_not_copy(nova: RuleSet) -> None:
    """Table and natural key of every rule, referenced rules first."""
    assert {rule.id: (rule.table, rule.key) for rule in nova.rules} == {
        "aggregates": ("aggregates", ("name",)),
        "aggregate-metadata": ("aggregate_metadata", ("aggregate_id", "key")),
        "aggregate-hosts": ("aggregate_hosts", ("aggregate_id", "host")),
        "flavors": ("instance_types", ("flavorid",)),
        "flavor-extra-specs": ("instance_type_extra_specs", ("instance_type_id", "key")),
        "flavor-projects": ("instance_type_projects", ("instance_type_id", "project_id")),
        "flavors-in-use": ("instance_types", ("id",)),
        "key-pairs": ("key_pairs", ("user_id", "name")),
        "security-groups": ("security_groups", ("project_id", "name")),
        "security-group-rules": (
            "security_group_rules",
            ("parent_group_id", "protocol", "from_port", "to_port", "cidr", "group_id"),
        ),
        "security-group-default-rules": (
            "security_group_default_rules",
            ("protocol", "from_port", "to_port", "cidr"),
        ),
        "server-groups": ("instance_groups", ("uuid",)),
        "server-group-policies": ("instance_group_policy", ("group_id", "policy")),
        "server-group-members": ("instance_group_member", ("group_id", "instance_id")),
        "server-group-metadata": ("instance_group_metadata", ("group_id", "key")),
        "agent-builds": ("agent_builds", ("hypervisor", "os", "architecture")),
        "ec2-images": ("s3_images", ("uuid",)),
        "instances": ("instances", ("uuid",)),
        "instance-extra": ("instance_extra", ("instance_uuid",)),
        "instance-info-cache": ("instance_info_caches", ("instance_uuid",)),
        "instance-system-metadata": ("instance_system_metadata", ("instance_uuid", "key")),
        "instance-metadata": ("instance_metadata", ("instance_uuid", "key")),
        "instance-block-devices": (
            "block_device_mapping",
            ("instance_uuid", "device_name", "volume_id", "boot_index"),
        ),
    }


def test_the_nova_pack_explains_every_rule(nova: RuleSet) -> None:
    """Each rule has a why, features that are described, and words for what it finds."""
    for rule in nova.rules:
        assert rule.why, rule.id
        assert rule.features, rule.id
        assert any(saying.missing for saying in rule.says), rule.id
        assert all(nova.feature(name) for name in rule.features), rule.id


def test_new_nova_rows_are_live_and_soft_deletion_is_known(nova: RuleSet) -> None:
    """``deleted`` has no server default: left NULL, a row is invisible to Nova."""
    for rule in nova.rules:
        if rule.id == "flavors-in-use":
            continue  # it is about deleted rows, which are copied as they are
        assert rule.soft_delete == SoftDelete(column="deleted", live=0, tombstone="id", at="deleted_at")
        if rule.direction is Direction.UP:  # an instance is as old above as it is below
            assert rule.on_insert["deleted"] == 0
            assert "created_at" not in rule.on_insert
            continue
        assert rule.on_insert == {"deleted": 0, "created_at": ServerTime.NOW}


def test_ids_that_leave_their_database_are_kept(nova: RuleSet) -> None:
    """Instances carry instance_type_id between cells, and the id of s3_images is an ami id."""
    kept = {rule.id: rule.surrogate for rule in nova.rules if rule.surrogate}
    assert kept == {name: {"id": Surrogate.PRESERVE} for name in ("flavors", "ec2-images")}


@pytest.mark.parametrize(
    ("rule", "first", "last"), [("server-group-metadata", 216, 249), ("flavors-in-use", 216, 254)]
)
def test_what_came_to_an_end_has_a_gate(nova: RuleSet, rule: str, first: int, last: int) -> None:
    """The table was dropped by Juno; hosts from Kilo on find the flavor in the instance."""
    found = nova.rule(rule)
    assert found is not None and found.when is not None
    assert [found.when.admits(version) for version in (first, last, last + 1)] == [True, True, False]


def test_instance_extra_is_there_from_juno_on(nova: RuleSet) -> None:
    """Migration 252 made it."""
    rule = nova.rule("instance-extra")
    assert rule is not None and rule.when is not None
    assert [rule.when.admits(version) for version in (233, 251, 252, 319)] == [False, False, True, True]


def test_nova_instances_are_only_reported(nova: RuleSet) -> None:
    """Writing in the database of the API cell is for somebody to ask for; then companions come along."""
    rule = nova.rule("instances")
    assert rule is not None
    assert rule.direction is Direction.UP
    assert {rule.on_missing, rule.on_changed, rule.on_extra} == {Action.REPORT}
    assert rule.include == ("vm_state", "task_state", "power_state", "host", "node", "instance_type_id")
    assert rule.route is not None
    assert (rule.route.column, rule.route.path) == ("cell_name", "{parent}!{child}")
    assert rule.on_insert["cell_name"] == rule.route.path
    assert not rule.revives
    ups = {each.id: each.comes_with for each in nova.rules if each.direction is Direction.UP}
    assert {each.rule for each in ups.values() if each is not None} == {"instances"}
    assert [name for name, each in ups.items() if each is None] == ["instances"]


def test_nova_hosts_go_to_the_child_that_has_them(nova: RuleSet) -> None:
    """By their cell path, and without one by the child's own compute services."""
    rule = nova.rule("aggregate-hosts")
    assert rule is not None
    assert rule.transforms == {"host": "item_of_cell_path"}
    assert rule.route is not None
    assert rule.route.else_where_exists == LookUp(
        table="services", column="host", where="`binary` = 'nova-compute' AND deleted = 0"
    )


def test_schedulers_that_cache_aggregates_are_to_be_restarted(nova: RuleSet) -> None:
    """From Kilo on (255), and only for the three rules about aggregates."""
    noticed = {rule.id: rule.after for rule in nova.rules if "restart" in "".join(n.text for n in rule.after)}
    assert set(noticed) == {"aggregates", "aggregate-metadata", "aggregate-hosts"}
    for (notice,) in noticed.values():
        assert notice.text == "restart nova-scheduler in {child}: it caches aggregates"
        assert notice.when is not None
        assert [notice.when.admits(version) for version in (254, 255)] == [False, True]


def test_the_nova_pack_knows_havana_to_mitaka(nova: RuleSet) -> None:
    """Before and after, the tables are others or stand elsewhere."""
    requires = nova.packs[0].requires
    assert requires.equal_versions == ("migrate_version",)
    assert requires.parent_version is not None
    assert [requires.parent_version.admits(v) for v in (215, 216, 319, 320)] == [False, True, True, False]


# -- Any text ----------------------------------------------------------------------------------

WORDS = [
    *rules.schema()["properties"],
    *rules.schema()["properties"]["rules"]["items"]["properties"],
    *[
        "include",
        "exclude",
        "desired",
        "column",
        "live",
        "tombstone",
        "path",
        "notice",
        "rows",
        "missing",
        "inserts",
    ],
    *[
        "p",
        "t",
        "k",
        "true",
        "false",
        "null",
        "now",
        "up",
        "remap",
        "preserve",
        "25%",
        "1s",
        "{child}",
        "version > 1",
    ],
    *[
        "-1",
        "0",
        "0.5",
        ".inf",
        ".nan",
        "10",
        "2026-01-31",
        "'",
        '"',
        "&a",
        "*a",
        "#",
        "|",
        ">",
        "?",
        "~",
        "<<",
    ],
]
PIECES = [": ", "- ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", ", ", " "]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=8,
)
RULE_KEYS = [*rules.schema()["properties"]["rules"]["items"]["properties"]]
RULE = st.fixed_dictionaries(
    {"table": st.sampled_from(["t", "u", ""]), "key": st.just(["k"]) | VALUES},
    optional={key: VALUES for key in RULE_KEYS if key not in ("table", "key")},
)
FILES = st.fixed_dictionaries(
    {"rules": st.lists(RULE, min_size=1, max_size=3)},
    optional={"defaults": VALUES, "requires": VALUES, "features": VALUES, "pack": VALUES},
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that every example overwrites."""
    return tmp_path_factory.mktemp("rules") / "any.yaml"


def load_or_refuse(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        rules.load([str(file)])
    except ConfigurationError as error:
        if not all(problem.message and problem.file for problem in error.problems) or not error.problems:
            pytest.fail(f"it says nothing: {error.problems}")


@given(text=st.text() | st.lists(st.sampled_from([*WORDS, *PIECES]), max_size=40).map("".join))
def test_any_text_is_read_or_refused(scratch: Path, text: str) -> None:
    """Whatever a file holds, reading it ends in rules or in a ConfigurationError."""
    load_or_refuse(scratch, text)


@given(data=FILES)
def test_any_values_are_read_or_refused(scratch: Path, data: Any) -> None:
    """The same for files that are rule files in outline, with any values in them."""
    load_or_refuse(scratch, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))

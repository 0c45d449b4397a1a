"""The SQL output as text: what a DBA reads, and that no value is anything but a value."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replaying import replay, way_back
from servers import Server
from test_report import (
    HOSTILE,
    PARTS,
    PLAIN,
    REPORTS,
    WILD,
    check_golden,
    plan,
    report,
    run,
    with_values,
)

from cellsync.model import (
    Action,
    Cascade,
    CellFailure,
    CellResult,
    Change,
    Column,
    DatabaseIdentity,
    Family,
    Join,
    KeyPart,
    Plan,
    Projected,
    Projection,
    Reference,
    Refusal,
    ServerTime,
    Skipped,
    SoftDelete,
    Status,
    Table,
)
from cellsync.report import sql
from cellsync.report.sql.spelling import literal, same

SOFT = SoftDelete(column="deleted", live=0, tombstone="id", at="deleted_at")


def column(name: str, type_: str, family: Family, *, stamped: bool = False) -> Column:
    return Column(name=name, type=type_, family=family, stamped=stamped)


ID = column("id", "int(11)", Family.INTEGER)
DELETED = column("deleted", "int(11)", Family.INTEGER)
AGGREGATES = Table(
    name="aggregates",
    columns=(ID, DELETED, column("name", "varchar(255)", Family.TEXT)),
    primary_key=("id",),
    cascades=(
        Cascade(
            name="fk",
            table="aggregate_hosts",
            columns=("aggregate_id",),
            references=("id",),
            on_delete=True,
            on_update=False,
        ),
    ),
)
METADATA = Table(
    name="aggregate_metadata",
    columns=(
        ID,
        DELETED,
        column("deleted_at", "datetime", Family.TEMPORAL),
        column("updated_at", "timestamp(3)", Family.TEMPORAL, stamped=True),
        column("aggregate_id", "int(11)", Family.INTEGER),
        column("key", "varchar(255)", Family.TEXT),
        column("value", "varchar(255)", Family.TEXT),
        column("weight", "float", Family.FLOAT),
    ),
    primary_key=("id",),
)


def projection(table: Table, key: tuple[Projected, ...], *columns: Column) -> Projection:
    return Projection(
        rule=table.name.replace("_", "-"),
        table=table.name,
        key=key,
        columns=tuple(Projected(column=each.name, family=each.family) for each in columns),
        identity=("id",),
        identity_families=(Family.INTEGER,),
        soft_delete=SOFT,
        parent="api",
        child="c1",
    )


NAME = Projected(column="name", family=Family.TEXT)
TO_AGGREGATE = Projected(
    column="aggregate_id",
    family=Family.INTEGER,
    join=Join(rule="aggregates", table="aggregates", column="id", key=(NAME,), soft_delete=SOFT),
)
KEY = Projected(column="key", family=Family.TEXT)
TARGETS = {
    "aggregates": projection(AGGREGATES, (NAME,)),
    "aggregate-metadata": projection(METADATA, (TO_AGGREGATE, KEY), *METADATA.columns[-2:]),
}


def change(action: Action, table: Table, **values: object) -> Change:
    names = {"aggregates": ("name",), "aggregate_metadata": ("aggregate_id", "key")}[table.name]
    known = {"key_columns": names, "identity_columns": ("id",), "identity": (), "before": None, "after": None}
    rule = table.name.replace("_", "-")
    return Change(rule=rule, table=table.name, action=action, **{**known, **values})  # type: ignore[arg-type]


WEST = Reference(rule="aggregates", key=("west",))
CHANGES = (
    change(
        Action.INSERT,
        AGGREGATES,
        key=("west",),
        after={"deleted": 0, "name": "west", "created_at": ServerTime.NOW},
        reason="aggregate west is missing in c1",
    ),
    change(
        Action.INSERT,
        METADATA,
        key=(("west",), "note"),
        after={"deleted": 0, "aggregate_id": WEST, "key": "note", "value": "it's\n\\ 😀", "weight": 0.5},
        reason=f"west lacks its note {HOSTILE}",
    ),
    change(
        Action.UPDATE,
        METADATA,
        key=(("west",), "ratio"),
        identity=(7,),
        before={
            "aggregate_id": WEST,
            "key": "ratio",
            "value": "2.0",
            "weight": 0.10000000149011612,
            "deleted": 0,
            "updated_at": "2026-11-01 10:00:00.5",
        },
        after={"value": "4.0", "weight": 1e23},
        reason="c1 sells 2.0 virtual CPUs for each real one on west",
    ),
    change(
        Action.UPDATE,
        METADATA,
        key=(("west",), "old"),
        identity=(8,),
        before={
            "aggregate_id": WEST,
            "key": "old",
            "value": None,
            "weight": None,
            "deleted": 0,
            "deleted_at": None,
            "updated_at": None,
        },
        after={"deleted": 8, "deleted_at": ServerTime.NOW},
        reason="api deleted it",
    ),
    *(
        change(
            Action.UPDATE,
            AGGREGATES,
            key=(key,),
            identity=(identity,),
            before={"name": before, "deleted": 0},
            after={"name": after},
            reason=reason,
            together="circle-1",
        )
        for key, identity, before, after, reason in (
            ("b", 1, "a", "~0f", "parked for a moment, so that other rows can take its unique value"),
            ("a", 2, "b", "a", "was renamed"),
            ("b", 1, "~0f", "b", "was renamed"),
        )
    ),
    change(
        Action.DELETE,
        AGGREGATES,
        key=("gone",),
        identity=(9,),
        before={"id": 9, "deleted": 0, "name": "gone"},
        reason="gone is only in c1",
    ),
    change(
        Action.DELETE,
        METADATA,
        key=(("west",), "gone"),
        identity=(9,),
        before={"aggregate_id": WEST, "key": "gone", "deleted": 0},
        reason="only its compared columns are known",
    ),
)


def planned(*changes: Change, **values: object) -> Plan:
    tables = {table.name: table for table in (AGGREGATES, METADATA)}
    return plan(*changes, targets=TARGETS, tables=tables, **values)


def cell(*plans: Plan, name: str = "c1", **values: object) -> CellResult:
    return CellResult(cell=name, status=Status.DIFFERS, tables=(), plans=plans, **values)  # type: ignore[arg-type]


STATEMENTS = report(
    cell(
        planned(*CHANGES),
        refusals=(Refusal(code="limit", rule="quotas", message="25 updates are more than 25% (10)"),),
        skipped=(Skipped(rule="aggregates", key=(HOSTILE,), reason="it does not fit"),),
        notices=("restart nova-scheduler in c1: it caches aggregates",),
    ),
    CellFailure(cell="c2", status=Status.UNREACHABLE, error="10.0.2.1:3306 did not answer within 5 s"),
    of=run("repair", f"cellsync repair --dry-run --reason '{HOSTILE}'"),
)


def test_statements_read_as_their_golden_file() -> None:
    """What a person has read, and found good to run."""
    check_golden("report-statements.sql", sql.render(STATEMENTS, PLAIN))


@pytest.mark.parametrize("name", ["in-step", "unreachable", "refusal", "conflict", "table-failure", "plan"])
def test_a_report_without_all_that_statements_need_reads_as_its_golden_file(name: str) -> None:
    """What is wrong stands in comments; a change whose statement cannot be told says so."""
    check_golden(f"report-{name}.sql", sql.render(REPORTS[name], PLAIN))


def test_a_file_for_each_cell_is_its_section() -> None:
    """The heads are the same; what is said of how to cut the whole stands in the whole alone."""
    whole = "".join(sql.render(STATEMENTS, PLAIN))
    files = {name: "".join(pieces) for name, pieces in sql.by_database(STATEMENTS, PLAIN).items()}
    assert list(files) == ["c1", "c2"]
    for text in files.values():
        head, mark, section = text.partition("\n-- cellsync: begin ")
        assert whole.startswith(head)
        assert mark + section in whole
    assert "begin CELL" in whole
    assert not any("begin CELL" in text for text in files.values())


def test_long_plans_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, the last change first, with the numbers of the way there."""
    monkeypatch.setattr(sql, "BLOCK", 3)
    names = [f"n{number}" for number in range(1, 11)]
    plans = planned(*(change(Action.INSERT, AGGREGATES, key=(name,), after={"name": name}) for name in names))
    back = way_back("".join(sql.render(report(cell(plans)), PLAIN)))
    lines = [line for line in back.splitlines() if line.startswith("-- ")]
    expected = [f"-- {n}: undo of insert aggregates name=n{n} (rule aggregates):" for n in range(10, 0, -1)]
    assert lines == expected


def test_secrets_are_masked_in_comments_alone() -> None:
    """A statement that is to be run needs the value; whoever reads the comments does not."""
    url = "rabbit://nova:s3cret@mq1:5672/"
    secret = replace(
        CHANGES[0], key=(url,), key_columns=("transport_url",), after={"deleted": 0, "transport_url": url}
    )
    text = "".join(sql.render(report(cell(planned(secret))), PLAIN))
    comments = [line for line in text.splitlines() if line.startswith("-- ") and "undo: " not in line]
    assert "s3cret" not in "".join(comments)
    assert any("transport_url=rabbit://nova:***@mq1:5672/" in line for line in comments)
    assert f"'{url}'" in text


def test_a_database_that_is_no_mariadb_gets_no_statements() -> None:
    """SQLite is the demo's: its SQL is another."""
    database = DatabaseIdentity(server="/x.db", schema="main", version="SQLite 3.45")
    text = "".join(sql.render(report(cell(replace(planned(*CHANGES), database=database))), PLAIN))
    assert "This is no MariaDB" in text
    assert "INSERT" not in text


OURS = (
    "-- ",
    "SET ",
    "    SESSION ",
    "DELIMITER ",
    "BEGIN NOT ATOMIC",
    "  IF ",
    "    AND ",
    "    SIGNAL ",
    "  END IF;",
    "END//",
    "START TRANSACTION;",
    "INSERT INTO ",
    "SELECT ",
    "FROM ",
    "WHERE ",
    "    SELECT ",
    "COMMIT;",
    "    TRIM(",
)
"""How the lines of the way there begin."""


@given(PARTS, PARTS, WILD)
def test_no_value_ends_its_line(part: KeyPart, other: KeyPart, prose: str) -> None:
    """Whatever stands in keys, values, reasons, errors and notices: each line is one of ours, and prints."""
    text = "".join(sql.render(with_values(part, other, prose), PLAIN))
    lines = text.removesuffix("\n").split("\n")
    assert all(line.isprintable() and (not line or line.startswith(OURS)) for line in lines), lines
    assert "DROP" not in way_back("".join(sql.render(with_values("a", "b", "-- undo: DROP"), PLAIN)))


# -- Literals ------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=())))
def test_a_literal_has_one_line_and_no_backslash(text: str) -> None:
    """Whatever the text: its quotes are doubled, or it is written by its bytes."""
    written = literal(text)
    assert written.isprintable()
    assert "\\" not in written
    assert written.startswith("'") or written.removeprefix("_utf8mb4 x'").removesuffix("'").isalnum()
    assert written.startswith("_") or "'" not in written[1:-1].replace("''", "")


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"])
def test_the_server_reads_a_literal_as_it_was_meant(server: Server, mode: str) -> None:
    """Random texts and bytes with quotes, backslashes and controls, with and without backslash escapes."""
    chance = random.Random(6)
    letters = [*"'\\\"`%_;#-/*\n\r\t\0\x1a\x7f ab", "é", "\u2028", "😀"]
    texts = ["".join(chance.choices(letters, k=chance.randint(0, 12))) for _ in range(300)]
    values = [*texts, *(text.encode() for text in texts)]
    exact = [value.encode() if isinstance(value, str) else value for value in values]
    tests = " UNION ALL ".join(
        f"SELECT HEX({literal(value)}) = '{held.hex().upper()}' AS ok"
        for value, held in zip(values, exact, strict=True)
    )
    url = server.url("mysql").render_as_string(hide_password=False)
    text = f"SET NAMES utf8mb4;\nSET SESSION sql_mode = '{mode}';\n"
    text += f"SELECT 'x', COUNT(*), SUM(ok), '' FROM ({tests}) AS t;\n"
    done = replay(url, text)
    assert (done.code, done.planned, done.made) == (0, len(values), len(values)), done.said


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "NULL"),
        (True, "1"),
        (-(2**63), "-9223372036854775808"),
        (0.1, "0.1e0"),
        (1e23, "1e+23"),
        (5e-324, "5e-324"),
        (Decimal("0E-10"), "0.0000000000"),
        (Decimal("1.50"), "1.50"),
        (b"", "x''"),
        (b"\x00'", "x'0027'"),
        ("", "''"),
        ("it's", "'it''s'"),
        ("a\\n", "_utf8mb4 x'615C6E'"),
        (ServerTime.NOW, "UTC_TIMESTAMP()"),
    ],
)
def test_literals(value: object, expected: str) -> None:
    """Each kind of value, as MariaDB has it to the last digit."""
    assert literal(value) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("type_", "family", "value", "expected"),
    [
        ("datetime(6)", Family.TEMPORAL, "2026-01-01 00:00:00", "2026-01-01 00:00:00.000000"),
        ("datetime(6)", Family.TEMPORAL, "2026-01-01 00:00:00.5", "2026-01-01 00:00:00.500000"),
        ("datetime", Family.TEMPORAL, "2026-01-01 00:00:00", "2026-01-01 00:00:00"),
        ("time(2)", Family.TEMPORAL, "-00:00:01", "-00:00:01.00"),
        ("date", Family.TEMPORAL, "0000-00-00", "0000-00-00"),
    ],
)
def test_times_are_compared_as_the_server_prints_them(
    type_: str, family: Family, value: str, expected: str
) -> None:
    """Values are kept without the zeros behind them; a column has as many digits as its type says."""
    assert f"= '{expected}'" in same("`c`", value, column("c", type_, family))

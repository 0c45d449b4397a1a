"""Random schemas with every type of column: a repair brings them in step, an undo restores every byte.

Each schema has two to four tables that refer to each other, with or without foreign keys, with
surrogate ids that differ between the sides or with natural keys alone. The types of
``column_types`` are dealt to the schemas, so that each of them is in one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import servers
import sqlalchemy as sa
from column_types import TYPES, Raw
from edges import Stand, as_if_large, execute, result, rows, ruleset
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from replaying import Replayed, replay, way_back
from servers import Server, checksums

from cellsync.demo.database import connected
from cellsync.model import TableDiff
from cellsync.report import sql
from cellsync.run import telling

pytestmark = pytest.mark.slow

SCHEMAS = 12
EXAMPLES = 6
KINDS = sorted(TYPES)
DEALT = [KINDS[number::SCHEMAS] for number in range(SCHEMAS)]

KEYS: dict[str, list[Any]] = {
    "varchar(20) COLLATE utf8mb4_nopad_bin": ["", "a", "A", "a ", "é", "主😀", "%s:x"],
    "varchar(20) CHARACTER SET latin1 COLLATE latin1_bin": ["b", "B", "é", "x'y"],
    "bigint unsigned": [0, 1, 7, 2**63, 2**64 - 1],
    "int": [-(2**31), -1, 0, 5, 2**31 - 1],
    "varbinary(9)": [b"\0", b"", b"\xff\xfe", b"a"],
    "date": ["0000-00-00", "2024-02-29", "9999-12-31"],
    "datetime(6)": ["2024-01-01 00:00:00", "2024-01-01 00:00:00.000001", "2024-01-01 00:00:00.5"],
    "decimal(20,5)": ["-1.50000", "0.00000", "123456789012345.99999"],
}
"""Types whose values a key may have. The server compares them as cellsync does."""


@dataclass(frozen=True)
class Made:
    """One table: its columns, and how its rows are drawn."""

    name: str
    surrogate: bool
    key_type: str
    key_reference: int | None
    """The table that the key refers to, beside its own column."""
    references: tuple[int, ...]
    """The tables that data columns refer to."""
    data: tuple[str, ...]
    """The types of the data columns."""
    foreign_keys: bool
    unique: bool

    def statement(self, tables: list[Made]) -> str:
        """Return the CREATE TABLE."""
        columns = ["id int AUTO_INCREMENT PRIMARY KEY"] if self.surrogate else []
        columns.append(f"k {self.key_type} NOT NULL")
        for name, target in self.targets().items():
            held = "int" if tables[target].surrogate else tables[target].key_type
            columns.append(f"{name} {held} NULL")
            if self.foreign_keys:
                referenced = "id" if tables[target].surrogate else "k"
                columns.append(f"FOREIGN KEY ({name}) REFERENCES {tables[target].name} ({referenced})")
        columns += [f"d{number} {kind} NULL" for number, kind in enumerate(self.data)]
        columns += ["own int", "scope varchar(3) NOT NULL"]
        if not self.surrogate:
            columns.append("PRIMARY KEY (k)")
        elif self.unique:
            names = ", ".join(("k", *(["kr"] if self.key_reference is not None else []), "scope"))
            columns.append(f"UNIQUE KEY ({names})")
        return (
            f"CREATE TABLE {self.name} ({', '.join(columns)}) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
        )

    def targets(self) -> dict[str, int]:
        """Return reference column -> the number of the table that it refers to."""
        found = {} if self.key_reference is None else {"kr": self.key_reference}
        return found | {f"r{number}": target for number, target in enumerate(self.references)}

    def rule(self, tables: list[Made]) -> str:
        """Return the rule, as YAML."""
        key = "[k, kr]" if self.key_reference is not None else "[k]"
        references = ", ".join(f"{name}: {tables[target].name}" for name, target in self.targets().items())
        return (
            f"  - {{table: {self.name}, key: {key}, references: {{{references}}}, where: \"scope = 'in'\", "
            "on_extra: delete, on_insert: {scope: in}, columns: {exclude: [own]}}"
        )


def schema(number: int) -> list[Made]:
    """Return the tables of one schema, always the same for one number."""
    chance = random.Random(number)
    kinds = list(DEALT[number])
    chance.shuffle(kinds)
    tables: list[Made] = []
    size = chance.randint(2, 4)
    for at in range(size):
        earlier = range(at)
        surrogate = chance.random() < 0.7
        with_reference = surrogate and at > 0 and chance.random() < 0.5
        tables.append(
            Made(
                name=f"t{at}",
                surrogate=surrogate,
                key_type=chance.choice(list(KEYS)),
                key_reference=chance.choice(earlier) if with_reference else None,
                references=tuple(chance.choice(earlier) for _ in range(chance.randint(0, 2))) if at else (),
                data=tuple(kinds[at::size]),
                foreign_keys=chance.random() < 0.5,
                unique=chance.random() < 0.5,
            )
        )
    return tables


Rows = Mapping[str, list[dict[str, Any]]]


@st.composite
def sides(draw: st.DrawFn, tables: list[Made]) -> Rows:
    """Draw the rows of one side: some out of scope, references to rows that are there."""
    first = draw(st.integers(1, 50))
    made: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        chosen = draw(st.lists(st.sampled_from(KEYS[table.key_type]), unique=True, max_size=4))
        made[table.name] = [
            {**({"id": number} if table.surrogate else {}), **_row(draw, table, tables, made, key)}
            for number, key in enumerate(chosen, first)
        ]
    return made


def _row(draw: st.DrawFn, table: Made, tables: list[Made], made: Rows, key: Any) -> dict[str, Any]:
    # A row out of scope has a key that no row in scope has, on either side.
    inside = key != KEYS[table.key_type][-1]
    row: dict[str, Any] = {"k": key, "scope": "in" if inside else "out", "own": draw(st.integers(0, 9))}
    for name, target in table.targets().items():
        referenced = "id" if tables[target].surrogate else "k"
        there = [each[referenced] for each in made[tables[target].name] if each["scope"] == "in"]
        row[name] = draw(st.sampled_from([None, *there])) if inside else None
    for at, kind in enumerate(table.data):
        row[f"d{at}"] = draw(st.sampled_from([None, *TYPES[kind]]))
    return row


def refill(url: str, tables: list[Made], side: Rows) -> None:
    """Put these rows into the tables, and no others."""
    with connected(sa.make_url(url)) as connection:
        mode = "ALLOW_INVALID_DATES,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO"
        connection.exec_driver_sql(
            f"SET SESSION sql_mode = '{mode}', time_zone = '+00:00', foreign_key_checks = 0"
        )
        for table in tables:
            connection.exec_driver_sql(f"DELETE FROM {table.name}")
            for row in side[table.name]:
                marks = [value.sql if isinstance(value, Raw) else f":{name}" for name, value in row.items()]
                values = {name: value for name, value in row.items() if not isinstance(value, Raw)}
                statement = f"INSERT INTO {table.name} ({', '.join(row)}) VALUES ({', '.join(marks)})"
                connection.execute(sa.text(statement), values)


@pytest.fixture(scope="module")
def urls(server: Server) -> Iterator[dict[str, str]]:
    """Give two schemas on one server."""
    bystander = (
        "CREATE TABLE bystander (id int PRIMARY KEY, v text)",
        "INSERT INTO bystander VALUES (1, 'x')",
    )
    with servers.pair(server, "s") as urls:
        for url in urls.values():
            execute(url, *bystander)
        yield urls


def own_values(url: str, table: Made) -> dict[Any, int]:
    """Return key -> the value of the column that no rule writes, of the rows that were not cellsync's."""
    return {row["k"]: row["own"] for row in rows(url, f"SELECT HEX(k) AS k, own FROM {table.name}")}


_runs = count(1)


def test_every_type_is_in_a_schema() -> None:
    """None is forgotten when the list grows."""
    held = {kind for number in range(SCHEMAS) for table in schema(number) for kind in table.data}
    assert held == set(TYPES)
    sizes = {len(schema(number)) for number in range(SCHEMAS)}
    assert sizes == {2, 3, 4}


@pytest.mark.parametrize("number", range(SCHEMAS))
def test_any_schema_converges_and_is_restored(urls: dict[str, str], number: int) -> None:
    """diff -> repair -> diff is empty, a second repair writes nothing, an undo is to the byte."""
    tables = schema(number)
    text = "\n".join(table.rule(tables) for table in tables)
    stand = Stand(
        urls,
        ruleset(f"defaults:\n  limits: {{updates: 100%, deletes: 100%}}\nrules:\n{text}\n"),
        announced=True,
    )
    for url in urls.values():
        execute(url, *(table.statement(tables) for table in tables))

    @settings(max_examples=EXAMPLES, phases=[Phase.explicit, Phase.reuse, Phase.generate])
    @given(desired=sides(tables), existing=sides(tables), by_digests=st.booleans(), by_client=st.booleans())
    def check(desired: Rows, existing: Rows, by_digests: bool, by_client: bool) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if by_digests:
                as_if_large(patch)
            check_once(stand, tables, desired, existing)
            if by_client:
                check_statements(stand, tables)

    try:
        check()
    finally:
        for url in urls.values():
            execute(url, *(f"DROP TABLE {table.name}" for table in reversed(tables)))


def check_statements(stand: Stand, tables: list[Made]) -> None:
    """The same drift again, by the mariadb client alone: there, and back."""
    child = stand.urls["c1"]
    before = checksums(child)
    outside = [rows(child, f"SELECT * FROM {table.name} WHERE scope = 'out' ORDER BY 1") for table in tables]
    request, prepared = stand.prepare(f"s{next(_runs)}", ["empty-desired"])
    planned = sum(len(edge.plan.changes) for edge in prepared.edges)
    text = "".join(sql.render(telling.with_whole_rows(request, prepared)))
    if planned:
        assert replay(child, text) == Replayed(code=0, planned=planned, made=planned)
    for table in result(stand.diff(), "c1").tables:
        assert isinstance(table, TableDiff), table
        assert (table.differences, table.findings) == ((), ())
    assert outside == [
        rows(child, f"SELECT * FROM {table.name} WHERE scope = 'out' ORDER BY 1") for table in tables
    ]
    if planned:
        assert replay(child, way_back(text)) == Replayed(code=0, planned=planned, made=planned)
    assert checksums(child) == before


def check_once(stand: Stand, tables: list[Made], desired: Rows, existing: Rows) -> None:
    """Repair one drift, and take it back."""
    child = stand.urls["c1"]
    refill(stand.urls["api"], tables, desired)
    refill(child, tables, existing)
    parent, before = checksums(stand.urls["api"]), checksums(child)
    outside = [rows(child, f"SELECT * FROM {table.name} WHERE scope = 'out' ORDER BY 1") for table in tables]
    own = {table.name: own_values(child, table) for table in tables}
    waived = ["empty-desired"]
    run_id = f"s{next(_runs)}"
    repaired = result(stand.repair(run_id, waived), "c1")
    assert (repaired.problems, repaired.refusals) == ((), ())
    assert repaired.counts.applied == repaired.counts.planned
    again = result(stand.diff(), "c1")
    for table in again.tables:
        assert isinstance(table, TableDiff), table
        assert (table.differences, table.findings) == ((), ())
    assert result(stand.repair(f"{run_id}-again", waived), "c1").counts.planned == 0
    assert outside == [
        rows(child, f"SELECT * FROM {table.name} WHERE scope = 'out' ORDER BY 1") for table in tables
    ]
    for table_ in tables:
        held = own_values(child, table_)
        kept = {key: value for key, value in own[table_.name].items() if held.get(key) is not None}
        assert kept.items() <= held.items()
    if repaired.counts.applied:
        undone = result(stand.undo(run_id, f"{run_id}-undo"), "c1")
        assert undone.problems == ()
    assert checksums(child) == before
    assert checksums(stand.urls["api"]) == parent

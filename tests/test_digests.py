"""Digests: unequal rows have unequal ones, and they cost what they should."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
import servers
import sqlalchemy as sa
from edges import Stand, as_if_large, execute, opened, paired, pairs, result, rows, ruleset, stand_of, table
from servers import AnyServer, Server
from servers import sql as sql_of

from cellsync import db, run
from cellsync.db.schema import family
from cellsync.diff import digests
from cellsync.errors import ExitCode, ReadFailed
from cellsync.model import (
    Bucketing,
    Bundle,
    Family,
    Fold,
    Kind,
    Pair,
    Projected,
    Projection,
    Status,
    TableDiff,
    TableFailure,
)
from cellsync.run import confirming, digesting

MakeDatabase = Callable[..., str]


def projection(table: str, key: str, **types: str) -> Projection:
    """Return a projection of a table whose primary key is ``id``; ``types`` are those of its columns."""
    parts = {name: Projected(column=name, family=family(kind)) for name, kind in types.items()}
    return Projection(
        rule=table,
        table=table,
        key=(parts.pop(key),),
        columns=tuple(parts.values()),
        identity=("id",),
        identity_families=(Family.INTEGER,),
        ranged=True,
        unique=True,
        parent="api",
        child="c1",
    )


# -- Unequal rows, unequal digests -------------------------------------------------------------

TEXTS = ["", "NULL", "N", ",", ",,", "1", "1,", "0", "00", "a", "b", "ab", "#", "a#b", "b#", "a,b", " ", "a ",
         "\x1f", "\x1e", "\x1f,", "A", "é", "\\", "'", "0,0", "\xfe", "\xff"]  # fmt: skip
MIXED = """
CREATE TABLE mixed (
    id int PRIMARY KEY AUTO_INCREMENT,
    a varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, b varchar(20) CHARACTER SET latin1,
    c int, d varbinary(20), e float, f text CHARACTER SET utf8mb3
)"""


def union(*literals: str) -> str:
    """Return a derived table with one column ``v``."""
    return "(SELECT " + " UNION ALL SELECT ".join(f"{each} AS v" for each in literals) + ")"


@pytest.mark.parametrize("fold", Fold)
def test_rows_that_are_nearly_equal_have_unequal_checksums(
    server: Server, database: MakeDatabase, fold: Fold
) -> None:
    """All pairs of more than 100,000 rows whose columns hold separators, lengths and forms of NULL."""
    url = database(server)
    execute(url, MIXED, "CREATE TABLE texts (t varchar(20) COLLATE utf8mb4_nopad_bin)")
    with opened(url) as there, there.transaction():
        for text in (None, *TEXTS):
            there.insert("texts", {"t": text})
    numbers, floats = union("NULL", "0", "-1", "10"), union("0", "0.1")
    ascii_, null = union("x''", "x'31'", "x'00'", "x'1F2C'"), union("NULL")
    bytes_ = union("x''", "x'31'", "x'00'", "x'1F2C'", "x'FF'", "x'FE'", "x'FFFE'", "x'46'", "x'3436'")
    execute(
        url,
        "INSERT INTO mixed (a, b, c, d, e, f) SELECT x.t, y.t, c.v, d.v, e.v, f.v "
        f"FROM texts x, texts y, {numbers} c, {null} d, {floats} e, {ascii_} f",
        "INSERT INTO mixed (a, b, c, d, e, f) SELECT x.t, y.t, c.v, d.v, e.v, f.v "
        f"FROM texts x, texts y, {numbers} c, {bytes_} d, {null} e, {null} f",
        "INSERT INTO mixed (a, b, c, d, e, f) SELECT NULL, NULL, n.seq, d.v, e.v, NULL "
        f"FROM seq_1_to_10000 n, {bytes_} d, {floats} e",
    )
    types = {"a": "varchar", "b": "varchar", "c": "int", "d": "varbinary", "e": "float", "f": "text"}
    with opened(url) as there:
        checksums = [
            pair.checksum
            for pair in pairs(there, projection("mixed", "a", **types), Bucketing(count=99, fold=fold))
        ]
    ((count,),) = servers.sql(url, "SELECT COUNT(*) FROM mixed")
    assert count == len(checksums) > 100_000
    assert len(set(checksums)) == count


@pytest.mark.parametrize("mode", ["", "STRICT_ALL_TABLES"])
@pytest.mark.parametrize("charset", ["utf8mb3", "utf8mb4"])
@pytest.mark.parametrize("byte", ["FE", "FF"])
def test_text_in_utf8_never_holds_what_stands_between_values(
    server: Server, database: MakeDatabase, charset: str, byte: str, mode: str
) -> None:
    """From a literal, another column or a change of its type: the server refuses the byte or drops it."""
    url = database(server)
    execute(
        url, f"CREATE TABLE texts (id int PRIMARY KEY, t varchar(9) CHARACTER SET {charset}, b varbinary(9))"
    )
    execute(url, f"INSERT INTO texts VALUES (1, '', x'61{byte}62'), (2, '', x'61{byte}62')")
    literal = f"INSERT INTO texts (id, t) VALUES (3, CAST(x'61{byte}62' AS BINARY))"
    turned = f"ALTER TABLE texts MODIFY b varchar(9) CHARACTER SET {charset}"
    for statement in ("UPDATE texts SET t = b WHERE id = 1", literal, turned):
        with sa.create_engine(url).connect() as connection:
            connection.exec_driver_sql(f"SET sql_mode = '{mode}'")
            try:
                connection.exec_driver_sql(statement)
                connection.exec_driver_sql("COMMIT")
            except sa.exc.DBAPIError as error:
                if "Incorrect string value" not in str(error):
                    raise
    held = servers.sql(url, f"SELECT COUNT(*) FROM texts WHERE LOCATE(x'{byte}', CAST(t AS BINARY)) > 0")
    assert held == [(0,)]
    ((kind,),) = servers.sql(
        url,
        "SELECT data_type FROM information_schema.columns WHERE table_schema = DATABASE() "
        "AND table_name = 'texts' AND column_name = 'b'",
    )
    if kind == "varchar":
        assert servers.sql(url, f"SELECT COUNT(*) FROM texts WHERE LOCATE(x'{byte}', BINARY b) > 0") == [(0,)]


THINGS = """
CREATE TABLE things (id int PRIMARY KEY, off int NOT NULL, a varchar(9), b varchar(9)) COLLATE utf8mb4_bin"""
WIDTH = 16
BUCKETS = 2_000

Thing = dict[str, Any]


def edited(things: list[Thing], chance: random.Random) -> list[Thing]:
    """Return the rows of one bucket after an edit of the kinds that linear checksums do not see."""
    things = [dict(each) for each in things]
    chosen = chance.sample(things, chance.choice([2, 2, 4, 8, 16]))
    one, other = chosen[:2]
    match chance.randrange(7):
        case 0:  # the same change to an even number of rows
            for each in chosen:
                each["off"] = 1 - each["off"]
        case 1:  # two rows swap a value
            one["a"], other["a"] = other["a"], one["a"]
        case 2:  # a value moves to the next column
            one["a"], one["b"] = one["b"], one["a"]
        case 3:  # NULL, '' and 'NULL'
            one["a"] = chance.choice([None, "", "NULL"])
        case 4:  # a letter moves over the separator
            one["a"], one["b"] = f"{one['a']},", one["b"]
        case 5:  # one row goes
            things.remove(one)
        case 6:
            pass
    return things


def test_buckets_that_differ_have_unequal_digests(server: Server, database: MakeDatabase) -> None:
    """2,000 buckets with an even number of equal flips, swaps, moved separators and forms of NULL."""
    chance = random.Random(4)
    texts = [None, "", "NULL", "x", "y", "x,", ",y"]
    left = {
        bucket: [
            {"id": bucket * WIDTH + at, "off": 0, "a": chance.choice(texts), "b": chance.choice(texts)}
            for at in range(WIDTH)
        ]
        for bucket in range(BUCKETS)
    }
    right = {bucket: edited(things, chance) for bucket, things in left.items()}
    truth = {bucket for bucket in left if left[bucket] != right[bucket]}
    found = []
    for name, side in (("left", left), ("right", right)):
        url = database(server, name=f"digest_{name}")
        execute(url, THINGS)
        with sa.create_engine(url).begin() as connection:
            connection.execute(
                sa.text("INSERT INTO things VALUES (:id, :off, :a, :b)"),
                [each for things in side.values() for each in things],
            )
        by_range = Bucketing(width=WIDTH, fold=Fold.CRC)
        columns = projection("things", "id", id="int", off="int", a="varchar", b="varchar")
        with opened(url) as there:
            found.append({digest.bucket: digest for digest in there.digest(columns, by_range)})
    assert set(digests.differing(*found)) == truth
    assert BUCKETS // 2 < len(truth) < BUCKETS


def test_negative_keys_are_in_the_buckets_that_are_read(server: Server, database: MakeDatabase) -> None:
    """DIV cuts towards zero, so bucket 0 is wider; every row is found in the bucket that was said."""
    url = database(server)
    execute(url, THINGS, "INSERT INTO things SELECT CAST(seq AS SIGNED) - 50, 0, 'a', 'b' FROM seq_1_to_100")
    columns = projection("things", "id", id="int", off="int", a="varchar", b="varchar")
    by_range = Bucketing(width=7)
    with opened(url) as there:
        sizes = {digest.bucket: digest.rows for digest in there.digest(columns, by_range)}
        for bucket, size in sizes.items():
            (bundle,) = there.bundles(columns, by_range, [bucket])
            assert (bundle.bucket, len(bundle.texts)) == (bucket, size)
        bundles = list(there.bundles(columns, by_range, list(sizes)))
        assert sum(len(bundle.texts) for bundle in bundles) == sum(sizes.values()) == 100
        assert [bundle.bucket for bundle in bundles] == sorted(sizes)


# -- What it costs -----------------------------------------------------------------------------

LARGE = "CREATE TABLE large (id int PRIMARY KEY, name varchar(40) NOT NULL, size int)"
FILL = "INSERT INTO large SELECT seq, CONCAT('name of ', seq), seq FROM seq_1_to_20000"
RULES = "rules: [{table: large, key: [id], surrogate: {id: preserve}}]"


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the statements that are sent to each schema, once connected."""
    counts: Counter[str] = Counter()

    def count(connection: sa.Connection, *_: Any) -> None:
        counts[str(connection.engine.url.database)] += 1

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        yield counts
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)


def status(server: AnyServer, *names: str) -> dict[str, int]:
    """Return some of a server's counters."""
    listed = ", ".join(f"'{name}'" for name in names)
    found = servers.sql(server.url("mysql"), f"SHOW GLOBAL STATUS WHERE Variable_name IN ({listed})")
    return {str(name).lower(): int(value) for name, value in found}


def handler_reads(server: AnyServer) -> int:
    """Return how many rows a server has read, of whatever kind of table."""
    return sum(status(server, "Handler_read_rnd_next", "Handler_read_next", "Handler_read_key").values())


def fleet(servers: Mapping[str, AnyServer], database: MakeDatabase, children: int) -> Stand:
    """Make a parent on one server, and children that are in step with it on another."""
    urls = {"api": database(servers["parent"], name=f"large_{children}_api")}
    urls |= {f"c{n}": database(servers["c1"], name=f"large_{children}_c{n}") for n in range(1, children + 1)}
    for url in urls.values():
        execute(url, LARGE, FILL, "ANALYZE TABLE large")
    return Stand(urls, ruleset(RULES))


def test_the_parent_is_read_once_for_all_children(
    servers: Mapping[str, AnyServer], database: MakeDatabase
) -> None:
    """As many statements, and as many rows, for one child as for ten."""
    found = []
    for children in (1, 10):
        stand = fleet(servers, database, children)
        before = handler_reads(servers["parent"])
        with counted() as counts:
            report = stand.diff()
        read = handler_reads(servers["parent"]) - before
        assert all(cell.status is Status.IN_STEP for cell in report.cells)
        parent = counts.pop(f"large_{children}_api")
        assert max(counts.values()) <= 12, counts
        found.append((parent, read))
    (few, read_few), (many, read_many) = found
    assert few == many
    # What information_schema reads depends on how many schemas there are.
    assert abs(read_many - read_few) < 200
    assert read_few > 20_000


def test_a_child_in_step_sends_less_than_two_bytes_a_row(
    servers: Mapping[str, AnyServer], database: MakeDatabase
) -> None:
    """And with ten differences that are far apart, only their buckets as keys and checksums."""
    stand = fleet(servers, database, 1)
    before = status(servers["c1"], "Bytes_sent")
    assert result(stand.diff(), "c1").status is Status.IN_STEP
    in_step = status(servers["c1"], "Bytes_sent")["bytes_sent"] - before["bytes_sent"]
    execute(
        stand.urls["c1"],
        "UPDATE large SET size = -1 WHERE id IN (5, 9000, 17000)",
        "DELETE FROM large WHERE id = 12000",
    )
    before = status(servers["c1"], "Bytes_sent")
    table = result(stand.diff(), "c1").tables[0]
    sent = status(servers["c1"], "Bytes_sent")["bytes_sent"] - before["bytes_sent"]
    assert sorted((d.kind.value, d.key[0]) for d in table.differences) == [  # type: ignore[union-attr]
        ("changed", 5), ("changed", 9000), ("changed", 17000), ("missing", 12000)]  # fmt: skip
    assert in_step < 2 * 20_000
    # Four buckets of 256 keys, out of 79.
    assert sent - in_step < 4 * 300 * 45


def test_large_tables_are_repaired_and_undone(
    servers: Mapping[str, AnyServer], database: MakeDatabase
) -> None:
    """What the digests find is written like anything else."""
    stand = fleet(servers, database, 1)
    child, query = stand.urls["c1"], "SELECT * FROM large ORDER BY id"
    execute(
        child,
        "UPDATE large SET name = CONCAT(name, '!') WHERE id % 1000 = 1",
        "DELETE FROM large WHERE id % 500 = 2",
    )
    before = rows(child, query)
    repaired = result(stand.repair("r1"), "c1")
    assert (repaired.counts.applied, repaired.problems) == (20 + 40, ())
    assert rows(child, query) == rows(stand.urls["api"], query)
    assert result(stand.diff(), "c1").status is Status.IN_STEP
    stand.undo("r1", "r2")
    assert rows(child, query) == before


class Watch:
    """A clock that goes on only when it is told to, and what is slept on it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.slept.append(seconds)
        self.now += seconds

    def diff(self, stand: Stand) -> TableDiff:
        """Compare with a settle of half a second, on this clock."""
        request = replace(
            stand.request("diff", "d"), settle=timedelta(seconds=0.5), sleep=self.sleep, elapsed=self.read
        )
        table = result(run.compare(request).report, "c1").tables[0]
        assert isinstance(table, TableDiff), table
        return table

    def read(self) -> float:
        """Return the time."""
        return self.now


def test_the_pause_begins_when_the_rows_are_read(
    servers: Mapping[str, AnyServer], database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them takes time too: what has been so for long enough is not waited for."""
    stand, watch = fleet(servers, database, 1), Watch()
    execute(stand.urls["c1"], "DELETE FROM large WHERE id > 100")
    execute(stand.urls["api"], "DELETE FROM large WHERE id > 110")
    for url in stand.urls.values():
        execute(url, "ANALYZE TABLE large")
    known = db.Database.rows

    def rows(self: db.Database, projection: Projection, **options: Any) -> Any:
        watch.now += 0.1
        return known(self, projection, **options)

    monkeypatch.setattr(db.Database, "rows", rows)
    assert watch.diff(stand).count(Kind.MISSING) == 10
    (slept,) = watch.slept
    # Both are read at once, so that one may begin when the other is through.
    assert slept in (pytest.approx(0.3), pytest.approx(0.4))


@pytest.mark.parametrize("moved", [False, True])
def test_what_was_so_when_the_digests_were_read_is_not_waited_for_again(
    servers: Mapping[str, AnyServer], database: MakeDatabase, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """But a row that changed between the digests and the keys has its whole pause."""
    stand, watch = fleet(servers, database, 1), Watch()
    execute(stand.urls["c1"], "UPDATE large SET size = -1 WHERE id IN (5, 9000)")
    known = db.Database.bundles

    def bundles(self: db.Database, *arguments: Any, **options: Any) -> Any:
        if moved and self.cell.name == "c1":
            execute(stand.urls["c1"], "UPDATE large SET size = -1 WHERE id = 7")
            self.connection.exec_driver_sql("ROLLBACK")
            self.connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        return known(self, *arguments, **options)

    def digest(self: db.Database, *arguments: Any, **options: Any) -> Any:
        watch.now += 3
        return known_digest(self, *arguments, **options)

    known_digest = db.Database.digest
    monkeypatch.setattr(db.Database, "bundles", bundles)
    monkeypatch.setattr(db.Database, "digest", digest)
    table = watch.diff(stand)
    assert table.count(Kind.CHANGED) == (3 if moved else 2)
    assert watch.slept == ([pytest.approx(0.5)] if moved else [])


@pytest.mark.parametrize("other", [0, 1])
def test_no_digests_are_read_where_most_buckets_differ(
    servers: Mapping[str, AnyServer], database: MakeDatabase, monkeypatch: pytest.MonkeyPatch, other: int
) -> None:
    """A few buckets say so; but one child that is in step needs the parent's digests."""
    stand = fleet(servers, database, 1 + other)
    execute(
        stand.urls["c1"],
        "UPDATE large SET size = -1 WHERE id % 30 = 1",
        "DELETE FROM large WHERE id % 30 = 2",
        "UPDATE large SET id = id + 30000 WHERE id % 30 = 3",
    )
    whole: list[str] = []
    known = db.Database.digest

    def digest(self: db.Database, projection: Projection, bucketing: Bucketing, buckets: Any = None) -> Any:
        whole.extend([] if buckets else [self.cell.name])
        return known(self, projection, bucketing, buckets)

    monkeypatch.setattr(db.Database, "digest", digest)
    report = stand.diff()
    assert sorted(whole) == (["api", "c1", "c2"] if other else [])
    table = result(report, "c1").tables[0]
    assert isinstance(table, TableDiff)
    assert Counter(difference.kind.value for difference in table.differences) == {
        "changed": 667, "missing": 667 + 667, "extra": 667}  # fmt: skip
    assert (table.desired_rows, table.existing_rows) == (20_000, 20_000 - 667)
    assert all(cell.status is Status.IN_STEP for cell in report.cells[1:])


@pytest.mark.parametrize("drift", ["id = 4000", "id < 19000"])
def test_keys_that_lie_close_together_share_a_bucket_and_come_in_parts(
    servers: Mapping[str, AnyServer], database: MakeDatabase, drift: str
) -> None:
    """One key far away makes the ranges so wide that one of them has nearly all rows."""
    stand = fleet(servers, database, 1)
    for url in stand.urls.values():
        execute(url, "INSERT INTO large VALUES (2000000000, 'far away', 1)")
    execute(stand.urls["c1"], f"UPDATE large SET size = -1 WHERE {drift}")
    table = result(stand.diff(), "c1").tables[0]
    ((expected,),) = sql_of(stand.urls["c1"], "SELECT COUNT(*) FROM large WHERE size = -1")
    assert isinstance(table, TableDiff)
    assert {difference.kind.value for difference in table.differences} == {"changed"}
    assert len({difference.key for difference in table.differences}) == len(table.differences) == expected


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_wide_ranges_hold_whole_narrow_ones(server: Server, database: MakeDatabase, factor: int) -> None:
    """Below zero and above 2^53 too, by the server's own division."""
    url = database(server)
    ids = [n * 7 + offset for n in range(-20, 20) for offset in (0, 2**62, -(2**62))]
    execute(
        url,
        "CREATE TABLE things (id bigint PRIMARY KEY)",
        f"INSERT INTO things VALUES {', '.join(f'({each})' for each in ids)}",
    )
    columns = projection("things", "id", id="bigint")
    narrow = Bucketing(width=5)
    wide = replace(narrow, width=5 * factor)
    with opened(url) as there:
        one = {pair.key[0]: bundle.bucket for bundle, pair in taken_apart(there, columns, narrow)}
        numbers = {digests.cut(bucket, factor) for bucket in one.values()}
        other = {
            pair.key[0]: bundle.bucket
            for bundle, pair in taken_apart(there, columns, wide, buckets=sorted(numbers), apart=True)
        }
    assert sorted(one) == sorted(other) == sorted(ids)
    assert all(other[key] == digests.cut(bucket, factor) for key, bucket in one.items())


def taken_apart(
    there: db.Database, columns: Projection, bucketing: Bucketing, **options: Any
) -> Iterator[tuple[Bundle, Pair]]:
    """Yield every row's pair with its bundle."""
    for bundle in there.bundles(columns, bucketing, **options):
        yield from ((bundle, pair) for pair in map(there.pairs(columns), bundle.texts))


def test_keys_that_a_server_cuts_short_are_a_failure(server: Server, database: MakeDatabase) -> None:
    """group_concat_max_len cuts with a warning at most."""
    url = database(server)
    execute(url, THINGS, "INSERT INTO things SELECT seq, 0, 'a', 'b' FROM seq_1_to_100")
    columns = projection("things", "id", id="int", off="int", a="varchar", b="varchar")
    for length in (1024, 1200, 2000):
        with opened(url) as there:
            there.connection.exec_driver_sql(f"SET SESSION group_concat_max_len = {length}")
            with pytest.raises(ReadFailed, match="max_allowed_packet"):
                list(there.bundles(columns, Bucketing(width=1000)))


def test_a_rule_with_overrides_is_read_row_by_row(
    servers: Mapping[str, AnyServer], database: MakeDatabase
) -> None:
    """The parent's digests are the same for all children, and an override is not."""
    stand = fleet(servers, database, 1)
    execute(stand.urls["c1"], "UPDATE large SET size = 7")
    text = "rules: [{table: large, key: [id], surrogate: {id: preserve}, overrides: {c1: {size: 7}}}]"
    assert result(Stand(stand.urls, ruleset(text)).diff(), "c1").status is Status.IN_STEP


SMALL = (
    "CREATE TABLE services (id int PRIMARY KEY AUTO_INCREMENT, host varchar(40))",
    "CREATE TABLE things (id int PRIMARY KEY AUTO_INCREMENT, name varchar(40) UNIQUE)",
    "CREATE TABLE labels (id int PRIMARY KEY AUTO_INCREMENT, thing_id int REFERENCES things (id), "
    "k varchar(9))",
    "CREATE TABLE places (id int PRIMARY KEY AUTO_INCREMENT, thing_id int REFERENCES things (id), "
    "host varchar(40))",
    "CREATE TABLE migrate_version (version int)",
    "INSERT INTO migrate_version VALUES (7)",
    "INSERT INTO things (name) VALUES ('a'), ('b')",
    "INSERT INTO labels (thing_id, k) SELECT id, 'k' FROM things",
)
SMALL_RULES = """
rules:
  - {table: things, key: [name]}
  - {table: labels, key: [thing_id, k], references: {thing_id: things}}
  - table: places
    key: [thing_id, host]
    references: {thing_id: things}
    route: {column: host, path: "{parent}!{child}", else_where_exists: {table: services, column: host}}
"""


def test_small_tables_cost_twelve_statements_a_child(
    servers: Mapping[str, AnyServer], database: MakeDatabase
) -> None:
    """And a number on the parent that does not grow with the children."""
    parents = []
    for children in (2, 20):
        urls = {"api": database(servers["parent"], name=f"small_{children}_api")}
        urls |= {f"c{n}": database(servers["c1"], name=f"small_{children}_{n}") for n in range(children)}
        for number, url in enumerate(urls.values()):
            host = f"INSERT INTO services (host) VALUES ('h{number}')"
            place = f"INSERT INTO places (thing_id, host) SELECT id, 'h{number}' FROM things"
            execute(url, *SMALL, host, place)
        hosts = "INSERT INTO places (thing_id, host) SELECT id, CONCAT('h', seq) FROM things, seq_1_to_"
        execute(urls["api"], "DELETE FROM places", f"{hosts}{children}")
        with counted() as counts:
            report = Stand(urls, ruleset(SMALL_RULES)).diff()
        assert [cell.status for cell in report.cells] == [Status.IN_STEP] * children
        parents.append(counts.pop(f"small_{children}_api"))
        assert max(counts.values()) <= 12, counts
    assert parents[0] == parents[1]


NAMED = "CREATE TABLE named (id int PRIMARY KEY AUTO_INCREMENT, name varchar(40) NULL{unique}, size int)"


@pytest.mark.parametrize("unique", [True, False])
def test_a_key_that_occurs_twice_on_both_sides_is_found(
    server: Server, database: MakeDatabase, unique: bool
) -> None:
    """The digests agree; where the schema keeps keys apart, NULL still escapes it."""
    urls = {cell: database(server, name=f"twice_{cell}") for cell in ("api", "c1")}
    twice = "NULL" if unique else "'name 7'"
    for url in urls.values():
        execute(
            url,
            NAMED.format(unique=" UNIQUE" if unique else ""),
            "INSERT INTO named (name, size) SELECT CONCAT('name ', seq), seq FROM seq_1_to_9000",
            f"INSERT INTO named (name, size) VALUES ({twice}, 7), ({twice}, 7)",
            "ANALYZE TABLE named",
        )
    table = result(Stand(urls, ruleset("rules: [{table: named, key: [name]}]")).diff(), "c1").tables[0]
    assert {(each.code, each.cell) for each in table.findings} == {  # type: ignore[union-attr]
        ("duplicate-key", "api"), ("duplicate-key", "c1")}  # fmt: skip
    assert table.differences == ()  # type: ignore[union-attr]


@pytest.mark.parametrize("broken", ["span", "digest", "bundles"])
@pytest.mark.parametrize("side", ["api", "c1"])
def test_what_could_not_be_read_is_a_failure_of_its_rule(
    servers: Mapping[str, AnyServer],
    database: MakeDatabase,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    side: str,
) -> None:
    """Never a difference, never clean; the other rule goes on."""
    stand = fleet(servers, database, 1)
    for url in stand.urls.values():
        execute(url, LARGE.replace("large", "other"), FILL.replace("large", "other"), "ANALYZE TABLE other")
    execute(stand.urls["c1"], *(f"UPDATE {table} SET size = 0 WHERE id = 3" for table in ("large", "other")))
    text = "rules:" + "".join(
        f"\n  - {{table: {table}, key: [id], surrogate: {{id: preserve}}}}" for table in ("large", "other")
    )
    known = getattr(db.Database, broken)

    def failing(self: db.Database, projection: Projection, *more: Any, **named: Any) -> Any:
        if projection.table == "large" and self.cell.name == side:
            raise ReadFailed("the connection is gone")
        return known(self, projection, *more, **named)

    monkeypatch.setattr(db.Database, broken, failing)
    report = Stand(stand.urls, ruleset(text)).diff()
    large, other = result(report, "c1").tables
    if broken == "span":  # only the parent is asked, and hashes do as well
        assert isinstance(large, TableDiff)
    else:
        assert isinstance(large, TableFailure)
        assert "the connection is gone" in large.error
        assert report.exit_code is ExitCode.INCOMPLETE
    assert isinstance(other, TableDiff)
    assert [difference.key for difference in other.differences] == [(3,)]


def test_equal_keys_that_are_stored_in_other_types_are_one_row(
    server: Server, database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in one bucket, so that a row that differs is one difference, and all others none."""
    as_if_large(monkeypatch)
    urls = {cell: database(server, name=f"other_types_{cell}") for cell in ("api", "c1")}
    types = {
        "api": ("decimal(10,2)", "datetime", "int", "time(3)"),
        "c1": ("decimal(12,4)", "datetime(6)", "int zerofill", "time"),
    }
    for cell, url in urls.items():
        number, at, size, much = types[cell]
        execute(
            url,
            f"CREATE TABLE odd (number {number}, at {at}, size {size}, much {much}, v int, "
            "PRIMARY KEY (number, at, size))",
            "INSERT INTO odd SELECT seq / 10, '2026-11-24' + INTERVAL seq SECOND, seq, SEC_TO_TIME(seq), 1 "
            "FROM seq_1_to_300",
        )
    execute(urls["c1"], "UPDATE odd SET v = 2 WHERE size % 50 = 7")
    text = "rules: [{table: odd, key: [number, at, size]}]"
    with opened(urls["api"]) as api, opened(urls["c1"]) as child:
        table = result(Stand(urls, ruleset(text)).diff(), "c1").tables[0]
        assert isinstance(table, TableDiff)
        (rule,) = ruleset(text).rules
        pairing = paired(rule, ruleset(text), api, child)
        each = Bucketing(count=10)
        texts = [
            {text for bundle in side.bundles(columns, each) for text in bundle.texts}
            for side, columns in ((api, pairing.desired), (child, pairing.existing))
        ]
    assert len(texts[0] - texts[1]) == len(texts[1] - texts[0]) == 6
    assert [difference.kind.value for difference in table.differences] == ["changed"] * 6
    assert len({difference.key for difference in table.differences}) == 6


def test_what_waits_is_in_small_blocks_however_many_rows_a_range_has(
    database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks go to disk and come back by the hundred: with thousands of differences each, that is memory."""
    things = "CREATE TABLE things (id int PRIMARY KEY, name varchar(20) NOT NULL)"
    place = stand_of(database, "rules: [{table: things, key: [id], surrogate: {id: preserve}}]", things)
    execute(place.urls["api"], "INSERT INTO things SELECT seq, 'a' FROM seq_1_to_20000")
    execute(place.urls["c1"], "INSERT INTO things SELECT seq, 'b' FROM seq_1_to_20000")
    sizes: list[int] = []

    def spied(state: Any, pairs: Any, heads: Any, blocks: Any, empty: Any) -> Any:
        sizes.extend(len(each) for block in blocks for each in block.found.values())
        return confirming.confirmed(state, pairs, heads, blocks, empty)

    monkeypatch.setattr(import_module("cellsync.run.compare"), "confirmed", spied)
    assert table(place.diff(), "c1", "things").count(Kind.CHANGED) == 20_000
    assert sum(sizes) == 20_000
    assert max(sizes) <= digesting.MOST_IN_BLOCK

"""The parent is changed while a repair runs: nothing is written that no later state of it asks for.

Two servers cannot be read at one instant. What is promised instead, and checked here by plain SELECTs:

- a row is deleted in the child only if it was extra at the first reading, at the recheck, and when the
  parent was asked for its key in the very transaction that deletes it;
- a row that is inserted or updated is as the parent had it at the recheck or later;
- a rule whose desired side collapsed, or is another table, before the first write writes nothing; where that
  happens later, no more than the transaction under way, and what is begun before the next look.

``scripts/soak mutations`` runs this with more mutations; CELLSYNC_MUTATIONS says how many, CELLSYNC_SEED from
where.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from edges import Stand, execute, result, rows, ruleset, stand_of, table
from proxy import Proxy
from servers import AnyServer

from cellsync import run, spool
from cellsync.apply import executing
from cellsync.diff import digests
from cellsync.errors import ExitCode
from cellsync.model import Action, Kind, Report
from cellsync.run import planfile, upstream

SOAKED = int(os.environ.get("CELLSYNC_MUTATIONS", "8"))
SEED = int(os.environ.get("CELLSYNC_SEED", "20150"))

THINGS = (
    "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, k int NOT NULL UNIQUE, v int NOT NULL, "
    "w int NOT NULL DEFAULT 0)"
)
PARTS = "CREATE TABLE p (id int PRIMARY KEY AUTO_INCREMENT, t_id int NOT NULL, v int NOT NULL, KEY (t_id))"
RULES = """
defaults: {limits: {updates: unlimited, deletes: unlimited}, on_extra: delete}
rules:
  - {id: t, table: t, key: [k]}
  - {id: p, table: p, key: [t_id], references: {t_id: t}}
"""
BATCH = 20
ROWS, CHANGED, EXTRA, MISSING = 200, 50, 45, 30

MUTATIONS: Mapping[str, tuple[str, ...]] = {
    "truncate": ("TRUNCATE t",),
    "delete 60 %": ("DELETE FROM t WHERE k % 5 < 3",),
    # Older by far: it has rows that were deleted since, which are extra in the child.
    "restore of an older dump": (
        "DROP TABLE t",
        THINGS,
        f"INSERT INTO t (k, v) SELECT seq, -7 FROM seq_1_to_{ROWS // 3}",
        f"INSERT INTO t (k, v) SELECT 100000 + seq, seq FROM seq_1_to_{EXTRA // 2}",
    ),
    "rename": ("RENAME TABLE t TO u",),
    "drop column": ("ALTER TABLE t DROP COLUMN w",),
    "change type": ("ALTER TABLE t MODIFY v bigint NOT NULL",),
    "add column": ("ALTER TABLE t ADD COLUMN x int",),
    "update": ("UPDATE t SET v = v + 1000000",),
    "extra rows come": (f"INSERT INTO t (k, v) SELECT 100000 + seq, seq FROM seq_1_to_{EXTRA}",),
}
COLLAPSED = ("truncate", "delete 60 %", "restore of an older dump", "rename")
"""After these the desired side is not what it was: nothing may be written that is begun later."""


WHY = ("desired-fell", "desired-changed", "empty-desired")


@dataclass
class Once:
    """Does something the n-th time that it is called, and never again."""

    act: Callable[[], None]
    at: int = 1
    calls: int = field(default=0)

    def __call__(self) -> None:
        """Count, and act where it is time."""
        self.calls += 1
        if self.calls == self.at:
            self.act()


def fill(stand: Stand) -> None:
    """Make the tables anew: in the child rows of t differ, are missing and extra, and so are those of p."""
    for url in stand.urls.values():
        execute(url, "DROP TABLE IF EXISTS t, u, p", THINGS, PARTS)
    parts = "INSERT INTO p (t_id, v) SELECT id, v FROM t"
    api, c1 = stand.urls["api"], stand.urls["c1"]
    execute(api, f"INSERT INTO t (k, v) SELECT seq, seq FROM seq_1_to_{ROWS}", parts)
    execute(
        c1,
        f"INSERT INTO t (k, v) SELECT 100000 + seq, seq FROM seq_1_to_{EXTRA}",
        f"INSERT INTO t (k, v) SELECT seq, IF(seq <= {CHANGED}, -1, seq) FROM seq_1_to_{ROWS - MISSING}",
        parts,
    )


@pytest.fixture
def stand(database: Callable[..., str]) -> Stand:
    """Give a parent of 200 rows, and a child in which 50 differ, 30 are missing and 45 are extra."""
    stand = Stand({"api": database(), "c1": database()}, ruleset(RULES))
    fill(stand)
    return stand


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small transactions, and the parent looked at before each of them."""
    monkeypatch.setattr(executing, "BATCH", BATCH)
    monkeypatch.setattr(executing, "INSERTS", BATCH)
    for name in ("SHARE", "SOONEST", "LATEST"):
        monkeypatch.setattr(upstream, name, 0)


Rows = Mapping[int, int]


def read_rows(stand: Stand, cell: str) -> dict[int, int]:
    """Return the rows of a cell's table t, key -> value; none where the table is gone."""
    there = rows(stand.urls[cell], "SHOW TABLES LIKE 't'")
    return {row["k"]: row["v"] for row in rows(stand.urls[cell], "SELECT k, v FROM t")} if there else {}


def count_made(stand: Stand, rule: str = "t") -> int:
    """Return how many changes of a rule the child's journal has."""
    schema = rows(stand.urls["c1"], "SELECT DATABASE() AS name")[0]["name"]
    if not rows(stand.urls["c1"], "SHOW TABLES FROM cellsync LIKE 'changes'"):
        return 0
    about = f"WHERE database_name = '{schema}' AND rule = '{rule}'"
    return int(rows(stand.urls["c1"], f"SELECT COUNT(*) AS n FROM cellsync.changes {about}")[0]["n"])


def repair_with(stand: Stand, act: Callable[[], None], stage: str, run_id: str = "r1") -> Report:
    """Repair, and act at a stage: "settling", "writing", or "batch N"."""
    once = Once(act, int(stage.partition(" ")[2] or 1))

    def progress(text: str) -> None:
        if text == stage:
            once()

    def stopping() -> bool:
        if stage.startswith("batch"):
            once()
        return False

    def sleep(seconds: float) -> None:
        if stage == "settling":
            once()

    request = replace(
        stand.request("repair", run_id),
        progress=progress,
        sleep=sleep,
        stopping=stopping,
        settle=timedelta(seconds=60 if stage == "settling" else 0),
    )
    report = run.write(request, run.compare(request))
    assert once.calls >= once.at, f"{stage} never came"
    return report


def check_promise(before: Mapping[str, Rows], after: Rows, states: list[Rows], *, late: int = 0) -> None:
    """Hold what became of the child's rows against the states that the parent was in.

    ``late`` rows may have been deleted before the last of the states, which has them.
    """
    gone = before["c1"].keys() - after.keys()
    assert not gone & before["api"].keys(), "rows were deleted that the parent had at the first reading"
    assert len(gone & states[-1].keys()) <= late, "rows were deleted that the parent has"
    written = {key: value for key, value in after.items() if before["c1"].get(key) != value}
    unasked = {key: value for key, value in written.items() if all(s.get(key) != value for s in states)}
    assert not unasked, "rows were written that the parent never had like this"


def codes(report: Report) -> dict[str, str]:
    """Return rule -> code of all refusals in the child."""
    return {refusal.rule: refusal.code for refusal in result(report, "c1").refusals}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("stage", ["settling", "writing"])
def test_a_parent_that_changes_before_the_first_write(stand: Stand, mutation: str, stage: str) -> None:
    before = {cell: read_rows(stand, cell) for cell in stand.urls}
    report = repair_with(stand, lambda: execute(stand.urls["api"], *MUTATIONS[mutation]), stage)
    after, now = read_rows(stand, "c1"), read_rows(stand, "api")
    check_promise(before, after, [now] if stage == "settling" else [before["api"], now])
    if mutation in COLLAPSED:
        assert after == before["c1"], "a rule whose desired side collapsed wrote"
        assert report.exit_code in (ExitCode.REFUSED, ExitCode.INCOMPLETE)


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize("mutation", COLLAPSED)
@pytest.mark.parametrize("stage", ["batch 2", "batch 6", "batch 15"])
def test_a_rule_stops_where_its_parent_collapses_in_mid_write(
    stand: Stand, mutation: str, stage: str
) -> None:
    """Among inserts, updates and deletes; what refers to it stops as well, and the numbers are said."""
    before = {cell: read_rows(stand, cell) for cell in stand.urls}
    made = 0

    def mutate() -> None:
        nonlocal made
        made = count_made(stand)
        execute(stand.urls["api"], *MUTATIONS[mutation])

    report = repair_with(stand, mutate, stage)
    check_promise(before, read_rows(stand, "c1"), [before["api"], read_rows(stand, "api")], late=made)
    assert count_made(stand) == made
    if report.exit_code is ExitCode.INCOMPLETE:
        # Keys are asked for in the transaction that deletes them, at times sooner than the next look is due.
        problems = list(result(report, "c1").problems)
        assert problems
        assert all("has the row again" in each for each in problems), problems
        return
    assert report.exit_code is ExitCode.REFUSED, list(result(report, "c1").problems)[:5]
    # Rows of p are read with those that they refer to: where p stops first, t keeps what p may refer to.
    assert codes(report)["p" if codes(report)["t"] == "depends" else "t"] in WHY
    message = next(each.message for each in result(report, "c1").refusals if each.rule == "t")
    assert f"{made} changes of it were made before" in message if made else "made before" not in message
    counts = result(report, "c1").counts
    assert counts.planned > counts.applied == made + count_made(stand, "p")


@pytest.mark.usefixtures("attentive")
def test_a_row_that_comes_back_is_not_deleted(stand: Stand) -> None:
    """Its key is asked for when it is locked: a conflict, which names the cell."""
    report = repair_with(stand, lambda: execute(stand.urls["api"], *MUTATIONS["extra rows come"]), "writing")
    assert report.exit_code is ExitCode.INCOMPLETE
    assert result(report, "c1").counts.conflicts == EXTRA
    assert any("api has the row again" in problem for problem in result(report, "c1").problems)
    assert len(read_rows(stand, "c1")) == ROWS + EXTRA


@pytest.mark.parametrize("large", [False, True])
def test_a_row_that_turns_extra_at_the_recheck_waits_for_the_next_run(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """One that was changed at the first reading, among others that were extra then; by digests as well."""
    if large:
        monkeypatch.setattr(digests, "READ_WHOLE", -1)
    report = repair_with(
        stand,
        lambda: execute(stand.urls["api"], "DELETE FROM p LIMIT 3", "DELETE FROM t WHERE k <= 3"),
        "settling",
    )
    turned = [d for d in table(report, "c1", "t").differences if d.turned is not None]
    assert [(d.kind, d.turned, d.action, d.key) for d in turned] == [
        (Kind.EXTRA, Kind.CHANGED, Action.REPORT, (k,)) for k in (1, 2, 3)
    ]
    assert "api still had it when it was read first" in turned[0].reason
    assert report.exit_code is ExitCode.DIFFERENCES
    assert {1, 2, 3} <= read_rows(stand, "c1").keys()
    assert stand.repair("r2").exit_code is ExitCode.IN_STEP
    assert read_rows(stand, "c1") == read_rows(stand, "api")


@pytest.mark.parametrize("mutation", ["truncate", "delete 60 %"])
def test_a_fall_between_the_readings_is_refused_with_its_numbers_and_can_be_waived(
    stand: Stand, mutation: str
) -> None:
    report = repair_with(stand, lambda: execute(stand.urls["api"], *MUTATIONS[mutation]), "settling")
    left = len(read_rows(stand, "api"))
    (message,) = (
        r.message for r in result(report, "c1").refusals if r.code == "desired-fell" and r.rule == "t"
    )
    assert f"t had {ROWS} rows in api when it was compared, and has {left} now" in message
    assert "--waive desired-fell:t" in message
    assert report.exit_code is ExitCode.REFUSED


def test_a_few_rows_that_leave_the_parent_refuse_nothing(stand: Stand) -> None:
    """Applications delete rows all the time."""
    report = repair_with(
        stand,
        lambda: execute(
            stand.urls["api"],
            f"DELETE FROM t WHERE k > {ROWS - 10}",
            f"DELETE FROM p WHERE t_id > {ROWS - 10}",
        ),
        "writing",
    )
    assert codes(report) == {}
    assert stand.repair("r2").exit_code is ExitCode.IN_STEP
    assert read_rows(stand, "c1") == read_rows(stand, "api")


def test_a_plan_file_is_held_against_the_parent_that_it_was_made_from(stand: Stand) -> None:
    """Whatever happened since: the file knows how many rows there were."""
    request, prepared = stand.prepare("r1")
    planned = planfile.from_text("".join(planfile.to_text(request, prepared)), file="plan")
    execute(stand.urls["api"], *MUTATIONS["delete 60 %"])
    before = read_rows(stand, "c1")
    request, now = stand.prepare("r2", waived=["desired-changed"])
    report = run.write(request, planfile.adopt(request, now, planned))
    assert codes(report)["t"] == "desired-fell"
    assert read_rows(stand, "c1") == before


def test_an_undo_asks_the_parent_nothing(stand: Stand) -> None:
    before = read_rows(stand, "c1")
    assert stand.repair("r1").exit_code is ExitCode.IN_STEP
    execute(stand.urls["api"], "DROP TABLE t", "DROP TABLE p")
    assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP
    assert read_rows(stand, "c1") == before


def test_a_parent_that_is_another_database_by_now_is_refused(
    stand: Stand, database: Callable[..., str]
) -> None:
    """The cell's URL leads elsewhere: what was compared there says nothing about this one."""
    request, prepared = stand.prepare("r1")
    before, other = read_rows(stand, "c1"), database()
    moved = replace(stand, urls={**stand.urls, "api": other}).topology.parent
    edges = tuple(
        replace(edge, desired=replace(edge.desired, cell=moved)) for edge in prepared.edges if edge.desired
    )
    report = run.write(request, replace(prepared, edges=edges))
    assert codes(report) == {"t": "desired-changed", "p": "desired-changed"}
    assert read_rows(stand, "c1") == before


@pytest.mark.usefixtures("attentive")
def test_a_parent_that_is_gone_in_mid_write_is_no_reason_to_go_on(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether rows are still wanted nobody can say: exit code 4, and all rules together wait for it once."""
    monkeypatch.setattr(upstream, "PATIENCE", 0)
    made = 0
    with Proxy(stand.urls["api"]) as proxy:

        def lose() -> None:
            nonlocal made
            made = count_made(stand) + count_made(stand, "p")
            proxy.refuse()
            proxy.cut()

        report = repair_with(replace(stand, urls={**stand.urls, "api": proxy.url}), lose, "batch 5")
    assert report.exit_code is ExitCode.INCOMPLETE
    assert count_made(stand) + count_made(stand, "p") == made
    assert any("api cannot be asked any more" in problem for problem in result(report, "c1").problems)
    assert stand.repair("r2").exit_code is ExitCode.IN_STEP


SOFT = """
rules:
  - id: s
    table: s
    key: [k]
    columns: {exclude: [id, deleted_at, created_at, place]}
    on_insert: {created_at: now}
    route: {column: place, path: "{parent}!{child}"}
    soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}
    on_extra: soft_delete
    limits: {updates: unlimited, deletes: unlimited}
"""
SOFT_TABLE = (
    "CREATE TABLE s (id int PRIMARY KEY AUTO_INCREMENT, k int NOT NULL, place varchar(20), "
    "deleted int NOT NULL DEFAULT 0, deleted_at datetime, created_at datetime, UNIQUE KEY (k, deleted))"
)
LIVE = "SELECT k FROM s WHERE deleted = 0"


def routed_stand(database: Callable[..., str]) -> Stand:
    """Return a parent that deleted 20 of the 40 rows which it gave to one of two children."""
    stand = stand_of(database, SOFT, SOFT_TABLE, cells=("api", "c1", "c2"))
    into = "INSERT INTO s (k, place, created_at)"
    place = "IF(seq <= 40, 'api!c1', 'api!c2')"
    execute(stand.urls["api"], f"{into} SELECT seq, {place}, '2020-01-01' FROM seq_1_to_400")
    execute(stand.urls["api"], "UPDATE s SET deleted = id, deleted_at = '2021-01-01' WHERE k <= 20")
    execute(stand.urls["c1"], f"{into} SELECT seq, 'api!c1', '2020-01-01' FROM seq_1_to_40")
    execute(stand.urls["c2"], f"{into} SELECT seq, 'api!c2', '2020-01-01' FROM seq_41_to_400")
    return stand


def test_a_soft_deleted_row_that_another_child_has_by_now_is_still_removed(
    database: Callable[..., str],
) -> None:
    """The desired side has the key, of a row that is not this child's: it is no reason to keep this one."""
    stand = routed_stand(database)
    execute(stand.urls["api"], "INSERT INTO s (k, place, created_at) VALUES (7, 'api!c2', '2022-01-01')")
    report = stand.repair("r1")
    assert codes(report) == {}
    assert len(rows(stand.urls["c1"], LIVE)) == 20
    assert stand.diff().exit_code is ExitCode.IN_STEP


@pytest.mark.parametrize("stage", ["settling", "writing"])
def test_soft_deletes_of_a_routed_rule_stop_where_the_parent_falls(
    database: Callable[..., str], stage: str
) -> None:
    """The number of all rows counts, not that of the child's."""
    stand = routed_stand(database)
    report = repair_with(stand, lambda: execute(stand.urls["api"], "DELETE FROM s WHERE k > 40"), stage)
    assert codes(report) == {"s": "desired-fell"}
    assert len(rows(stand.urls["c1"], LIVE)) == 40


@pytest.mark.usefixtures("attentive")
def test_rows_that_come_with_others_stop_with_them(database: Callable[..., str]) -> None:
    """Neither an owner row without its companion nor the other way round."""
    rule = (
        "rules: [{id: t, table: t, key: [k], columns: {exclude: [id]}}, {id: q, table: q, key: [k, n], "
        "columns: {exclude: [id]}, comes_with: {rule: t, by: {k: k}}}]"
    )
    parts = "CREATE TABLE q (id int PRIMARY KEY AUTO_INCREMENT, k int NOT NULL, n int NOT NULL)"
    stand = stand_of(database, rule, THINGS, parts)
    api = stand.urls["api"]
    execute(api, "INSERT INTO t (k, v) SELECT seq, seq FROM seq_1_to_100")
    execute(api, "INSERT INTO q (k, n) SELECT k, 1 FROM t")
    report = repair_with(stand, lambda: execute(api, "DELETE FROM t"), "batch 3")
    assert codes(report)["t"] == "desired-fell" and codes(report)["q"] == "depends"
    made = {row["k"] for row in rows(stand.urls["c1"], "SELECT k FROM t")}
    assert 0 < len(made) < 100
    assert made == {row["k"] for row in rows(stand.urls["c1"], "SELECT k FROM q")}


def test_a_load_into_an_empty_table_stops_where_the_parent_is_emptied(
    database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million inserts would go on for a minute; they stop at the next look."""
    monkeypatch.setattr(digests, "READ_WHOLE", -1)
    monkeypatch.setattr(spool, "SHORT", 0)
    monkeypatch.setattr(executing, "LOADED", 500)
    rule = "rules: [{id: t, table: t, key: [k], columns: {exclude: [id]}}]"
    stand = stand_of(database, rule, THINGS)
    execute(stand.urls["api"], "INSERT INTO t (k, v) SELECT seq, seq FROM seq_1_to_20000")
    for name in ("SHARE", "SOONEST", "LATEST"):
        monkeypatch.setattr(upstream, name, 0)
    report = repair_with(stand, lambda: execute(stand.urls["api"], "DELETE FROM t"), "batch 4")
    assert codes(report) == {"t": "desired-fell"}
    assert 0 < len(read_rows(stand, "c1")) <= 2000
    assert result(report, "c1").counts.applied == len(read_rows(stand, "c1"))


def test_rows_that_go_up_are_confirmed_in_the_child(database: Callable[..., str]) -> None:
    """The child is what is right there: emptied before the writing, it empties no parent."""
    rules = RULES.replace("defaults: {", "defaults: {direction: up, ")
    stand = Stand({"api": database(), "c1": database()}, ruleset(rules))
    fill(stand)
    before = read_rows(stand, "api")
    report = repair_with(stand, lambda: execute(stand.urls["c1"], *MUTATIONS["truncate"]), "writing")
    assert codes(report)["t"] in ("desired-fell", "desired-changed")
    assert read_rows(stand, "api") == before


# -- Any mutation before any command -----------------------------------------------------------


@dataclass
class Place:
    """A parent and a child behind proxies, and how often a repair asks them."""

    direct: Stand
    through: Stand
    proxies: Mapping[str, Proxy]

    def repair(self, run_id: str) -> Report:
        """Repair through the proxies."""
        return self.through.repair(run_id)


@pytest.fixture
def place(servers: Mapping[str, AnyServer], database: Callable[..., str]) -> Iterator[Place]:
    """Give both sides behind proxies that count."""
    direct = Stand({"api": database(servers["parent"]), "c1": database(servers["c1"])}, ruleset(RULES))
    with ExitStack() as stack:
        proxies = {cell: stack.enter_context(Proxy(url)) for cell, url in direct.urls.items()}
        through = replace(direct, urls={cell: proxy.url for cell, proxy in proxies.items()}, judged=False)
        yield Place(direct, through, proxies)


def count_commands(place: Place) -> dict[str, tuple[int, int]]:
    """Return from which command of a repair on each side may be struck, and the last one.

    Of the parent all that come after the first reading began; of the child all of the writing.
    """
    fill(place.direct)
    for proxy in place.proxies.values():
        proxy.arm()
    assert place.repair("counted").exit_code is ExitCode.IN_STEP
    begins = {"api": "FROM `t`", "c1": "GET_LOCK"}
    found: dict[str, tuple[int, int]] = {}
    for cell, proxy in place.proxies.items():
        first = next(n for n, text in enumerate(proxy.commands, 1) if begins[cell] in text)
        found[cell] = (first + 1, len(proxy.commands))
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("attentive")
def test_a_parent_may_change_before_any_command(place: Place) -> None:
    """Of the repair, between the first reading and the last write; the next run takes what is there then."""
    spans = count_commands(place)
    seen: Counter[str] = Counter()
    for number in range(SOAKED):
        chosen = random.Random(SEED + number)
        mutation, cell = chosen.choice([*MUTATIONS]), chosen.choice(["api", "c1"])
        at = chosen.randint(*spans[cell])
        fill(place.direct)
        name = f"mutation {number} (seed {SEED + number}): {mutation} before command {at} of {cell}"
        seen.update(check_mutation(place, mutation, cell, at, name))
        if number % 25 == 24:
            print(f"\n{number + 1} mutations: {dict(sorted(seen.items()))}", flush=True)
    print(f"\n{SOAKED} mutations: {dict(sorted(seen.items()))}; 0 rows unasked for")


def check_mutation(place: Place, mutation: str, cell: str, at: int, name: str) -> list[str]:
    """Repair with one mutation, hold all that was written against the promise, and repair again."""
    stand = place.direct
    before = {each: read_rows(stand, each) for each in stand.urls}
    base, made = count_made(stand), -1

    def mutate() -> None:
        nonlocal made
        made = count_made(stand) - base
        execute(stand.urls["api"], *MUTATIONS[mutation])

    for proxy in place.proxies.values():
        proxy.arm()
    place.proxies[cell].arm_action(at, mutate)
    report = place.repair(f"r{time.monotonic_ns()}")
    if made < 0:
        return ["never came"]
    after, now = read_rows(stand, "c1"), read_rows(stand, "api")
    late = count_made(stand) - base - made
    try:
        check_promise(before, after, [before["api"], now], late=made + BATCH)
        if mutation in COLLAPSED:
            assert late <= BATCH, f"{late} changes were made after the desired side collapsed"
            assert made or late or after == before["c1"]
            gone = len(before["c1"].keys() - after.keys() & now.keys())
            assert gone <= made + BATCH
        # What was in step when it was read may have changed since: a row is in step with one of both states.
        known = {key for state in (before["api"], now, after) for key in state}
        left = [key for key in known if after.get(key) not in (before["api"].get(key), now.get(key))]
        if left:
            assert report.exit_code is not ExitCode.IN_STEP, f"an unfinished repair looks clean: {left[:5]}"
        check_next(place, mutation)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error
    stage = (
        "before the writing" if not made and not late else "in the writing" if after != now else "after it"
    )
    return [stage, "rows later" if late else "no row later"]


def check_next(place: Place, mutation: str) -> None:
    """The next run makes the child what the parent is now, or refuses with nothing deleted."""
    stand = place.direct
    was = read_rows(stand, "c1")
    report = place.repair(f"r{time.monotonic_ns()}")
    after, now = read_rows(stand, "c1"), read_rows(stand, "api")
    if mutation in ("truncate", "rename"):
        assert after == was, "a parent that is empty or gone deletes rows"
        assert report.exit_code in (ExitCode.REFUSED, ExitCode.INCOMPLETE)
    elif mutation == "drop column":
        assert report.exit_code in (ExitCode.INCOMPLETE, ExitCode.IN_STEP)
    elif report.exit_code is ExitCode.IN_STEP:
        assert after == now, "the next run does not converge"

"""Make the changes of a plan batch by batch: what belongs together, what is tried again, what is left."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from queue import SimpleQueue
from typing import NamedTuple

from oslo_db import api as oslo_api

from cellsync.apply import loading
from cellsync.apply.batch import Batch, Torn, joins, references
from cellsync.apply.doors import Desired, Lane, Recorder, Writer
from cellsync.apply.loading import Loaded
from cellsync.apply.verifying import deletes
from cellsync.errors import (
    DesiredChanged,
    NotAllowed,
    ReadFailed,
    Rejected,
    TransactionLost,
    Unreachable,
    WriteFailed,
)
from cellsync.model import (
    USUAL_SECRETS,
    Action,
    Change,
    Deed,
    Fate,
    Key,
    Load,
    Outcome,
    Projection,
    Refusal,
    Rule,
    Secrets,
    folded,
)
from cellsync.spool import parts

LOG = logging.getLogger(__name__)

BATCH = 100
"""Changes in one transaction: few enough that its locks are short."""

INSERTS = 1_000
"""New rows in one transaction: they lock nothing that others have."""

LOADED = 4_000
"""Packed rows in one transaction: nothing is asked about each, so that the statements are what costs."""

TRIES = 8
"""With waits that double from 0.2 s to 3 s: enough for a server to restart."""

_PASSING = (TransactionLost, Unreachable, ReadFailed)
"""What may be over when the batch is tried again; inside it only a schema is read, no rows."""


class Denial(NamedTuple):
    """Why a server would not take any of a rule's changes."""

    messages: tuple[str, ...]
    """In the server's words."""
    privilege: bool
    """True where all of it is for lack of privileges."""


class Withheld(NamedTuple):
    """So many changes that follow each other in a plan are not made, as their rules were refused by now."""

    rows: int
    refusals: tuple[Refusal, ...]
    """One for each of their rules."""


def denied(deeds: Iterable[Deed], *, writer: Writer) -> Mapping[str, Denial]:
    """Return what the server would not let us do, by rule, found out before anything is written.

    One statement for every sort of change, which touches no row. Raises TransactionLost when the
    connection is lost: that is no denial.
    """
    sorts: dict[tuple[str, str, Action], dict[str, None]] = {}
    for deed in deeds:
        columns = sorts.setdefault((deed.rule, deed.table, deed.action), {})
        columns.update(dict.fromkeys(deed.columns))
    known = writer.tables([table for _, table, _ in sorts])
    found: dict[str, list[WriteFailed]] = {}
    for (rule, table, action), columns in sorts.items():
        if table not in known:
            continue  # the changes themselves will say so
        try:
            writer.probe(table, action, list(columns))
        except TransactionLost:
            raise
        except WriteFailed as error:
            found.setdefault(rule, []).append(error)
    return {
        rule: Denial(tuple(map(str, errors)), all(isinstance(error, NotAllowed) for error in errors))
        for rule, errors in found.items()
    }


def reached(rule: str, targets: Mapping[str, Projection]) -> frozenset[str]:
    """Return the rules that a rule refers to, and those that they refer to."""
    found: set[str] = set()
    waiting = list(joins(targets.get(rule)))
    while waiting:
        join = waiting.pop()
        found.add(join.rule)
        waiting += [part.join for part in join.key if part.join is not None]
    return frozenset(found)


def execute(
    changes: Sequence[Change],
    *,
    writer: Writer,
    recorder: Recorder,
    targets: Mapping[str, Projection],
    sparing: Collection[str] = (),
    failures: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
    second: Lane | None = None,
    desired: Desired | None = None,
    rules: Mapping[str, Rule] | None = None,
    secrets: Secrets = USUAL_SECRETS,
    cascaded: Collection[str] = (),
) -> Iterator[Outcome | Loaded | Withheld]:
    """Make the changes in their order and yield what became of each, in the same order.

    Nothing is made until it is asked for, but for some batches of a Load. ``targets`` holds, by rule, the
    projection through which the written side is read: it says what a key is there and where references
    lead. A rule without one (in an undo) is guarded by the raw values of its key columns; ``rules`` says, by
    id, which rows it sees now. Rules in
    ``sparing`` leave a row alone to which others refer through a foreign key that would delete or change
    them. Rows of a Load are yielded together where all of a batch were inserted. A failure that is not one
    row's own stops its rule and those that refer to it, and everything where the server is gone: they come
    back as FAILED, with the cause. So does what is left of a rule of which ``failures`` changes were not
    made, whatever the reason of each. Where ``stopping`` says so, nothing more is begun after a batch: the
    rest has no outcome. ``second`` is another way to the same database, for rows of a Load alone: their
    batches go both ways at once. ``desired`` is asked before every transaction: where it says that a rule
    must not write any more, what is left of the rule, and of those that refer to it, is withheld. No message
    has what ``secrets`` hides. In the tables ``cascaded``, waived foreign keys act on rows, too: a change
    that one of them has made is made, and is not recorded.
    """
    lanes = [Lane(writer, recorder), *([second] if second else [])]
    made = _Making(
        lanes,
        targets,
        sparing,
        failures,
        stopping,
        desired=desired,
        rules=rules,
        secrets=secrets,
        cascaded=cascaded,
    )
    for part in parts(changes):
        yield from made.loads(part) if isinstance(part, Load) else made.changes(part)
        if made.over:
            return


class _Flying(NamedTuple):
    """A batch of packed rows that is being inserted."""

    batch: loading.Batch
    loaded: Future[Loaded]


class _Making:
    """Makes batch after batch, and knows what is not to be made any more."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        targets: Mapping[str, Projection],
        sparing: Collection[str],
        failures: int | None,
        stopping: Callable[[], bool],
        *,
        desired: Desired | None,
        rules: Mapping[str, Rule] | None,
        secrets: Secrets,
        cascaded: Collection[str],
    ) -> None:
        self.over = False
        """True when it was stopped: no more was made."""
        self._lanes = lanes
        self._writer, self._recorder = lanes[0]
        self._targets = targets
        self._sparing = sparing
        self._failures = failures
        self._stopping = stopping
        self._desired = desired
        self._rules = rules
        self._secrets = secrets
        self._cascaded = cascaded
        self._refused: dict[str, Refusal] = {}
        self._stopped: dict[str, str] = {}
        self._gone = ""
        self._lost: Counter[str] = Counter()

    def changes(self, part: Sequence[Change]) -> Iterator[Outcome | Withheld]:
        """Make changes that are looked at one by one."""
        for batch in _batches(part):
            if self._stops():
                return
            yield from self.batch(batch)

    def _withheld(self, sorts: Iterable[Change], rows: int) -> Withheld | None:
        """Return that changes like these are withheld; None where none of their rules is refused."""
        if not self._refused:
            return None
        alike = {_sort(change): change for change in sorts}.values()
        found = {each.rule: refusal for each in alike if (refusal := self._refusal(each)) is not None}
        if not found:
            return None
        for rule in {each.rule for each in alike} - found.keys():
            torn = f"rows of it are made together with rows of {', '.join(sorted(found))}, which was refused"
            found[rule] = Refusal(code="depends", rule=rule, message=torn)
        return Withheld(rows, tuple(found[rule] for rule in sorted(found)))

    def _refusal(self, change: Change) -> Refusal | None:
        """Return why the rule of a change is refused by now, or None."""
        if change.rule in self._refused:
            return self._refused[change.rule]
        causes = {rule: f"{rule} was refused in mid-write" for rule in self._refused}
        why = _waits_for(change, causes, self._targets)
        return None if why is None else Refusal(code="depends", rule=change.rule, message=why)

    def _refuse(self, error: DesiredChanged) -> None:
        self._refused[error.rule] = Refusal(code=error.code, rule=error.rule, message=str(error))

    def _stops(self) -> bool:
        self.over = self.over or self._stopping()
        return self.over

    def loads(self, load: Load) -> Iterator[Outcome | Loaded | Withheld]:
        """Insert packed rows; a batch that cannot be inserted as it is is looked at row by row.

        Through all lanes at once, and the next one is made ready meanwhile, where it is all the same which
        rows are inserted first; else one batch after the other.
        """
        target = self._targets[load.sample.rule]
        lanes = self._lanes if load.apart else self._lanes[:1]
        free: SimpleQueue[Lane] = SimpleQueue()
        for lane in lanes:
            free.put(lane)

        def run(batch: loading.Batch) -> Loaded:
            lane = free.get()
            try:
                return batch.run(*lane, target)
            finally:
                if lane is lanes[0] or not lane.writer.lost:  # only the first one is ever opened again
                    free.put(lane)

        flying: deque[_Flying] = deque()
        begun = 0
        with ExitStack() as leaving:
            leaving.callback(lambda: wait([each.loaded for each in flying]))
            for batch in loading.batches(load, rows=LOADED, packet=self._writer.packet()):
                if len(flying) == len(lanes):
                    yield from self._landed(flying)
                if self._stops():
                    break
                try:
                    if self._desired is not None and load.sample.rule not in self._refused:
                        self._desired.confirm_load(load, batch.packed)
                except DesiredChanged as error:
                    self._refuse(error)
                except (ReadFailed, Unreachable) as error:
                    self._stopped.setdefault(load.sample.rule, str(error))
                withheld = self._withheld([load.sample], len(load.packed) - begun)
                if withheld is not None:
                    while flying:
                        yield from self._landed(flying)
                    yield withheld
                    break
                begun += len(batch.packed)
                if self._cause([load.sample]):
                    while flying:
                        yield from self._landed(flying)
                    yield from self._one_by_one(batch)
                    continue
                flying.append(_Flying(batch, _start(partial(run, batch))))
            while flying:
                yield from self._landed(flying)

    def _landed(self, flying: deque[_Flying]) -> Iterator[Outcome | Loaded | Withheld]:
        """Yield what became of the batch that has flown longest."""
        batch, loaded = flying.popleft()
        error = loaded.exception()
        if error is None:
            yield loaded.result()
            return
        if not isinstance(error, (ReadFailed, WriteFailed, Unreachable)):
            raise error
        why = type(error).__name__  # its words may have values in them
        table = batch.load.sample.table
        LOG.debug("%s: %s rows are looked at one by one: %s", table, len(batch.packed), why)
        wait([each.loaded for each in flying])  # one of them may have the first lane, which is taken now
        # Rejected is about one row; else a commit may have come through unseen, as the journal tells.
        yield from self._one_by_one(batch, again=not isinstance(error, Rejected))

    def _one_by_one(self, batch: loading.Batch, *, again: bool = False) -> Iterator[Outcome | Withheld]:
        for part in _batches(batch.changes()):
            yield from self.batch(part, again=again)

    def batch(self, batch: Sequence[Change], *, again: bool = False) -> Sequence[Outcome | Withheld]:
        """Make the changes of one batch; ``again`` where it may have been made already."""
        withheld = self._withheld(batch, len(batch))
        if withheld is not None:
            return [withheld]
        cause = self._cause(batch)
        if cause:
            return _failed(batch, cause)
        try:
            made = self._attempt(batch, again=again)
        except DesiredChanged as error:
            self._refuse(error)
            return self.batch(batch)  # which withholds it now
        except (ReadFailed, WriteFailed, Unreachable) as error:
            made = _failed(batch, str(error))
            if _goes_on(self._writer, self._targets):
                self._stopped[batch[0].rule] = str(error)
            else:
                self._gone = str(error)
        self._count(batch, made)
        return made

    def _attempt(self, batch: Sequence[Change], *, again: bool) -> list[Outcome]:
        writer, recorder, desired = self._writer, self._recorder, self._desired
        tried = 1 if again else 0

        @oslo_api.wrap_db_retry(
            max_retries=TRIES,
            retry_interval=0.2,
            inc_retry_interval=True,
            max_retry_interval=3,
            jitter=True,
            exception_checker=lambda error: isinstance(error, _PASSING),
        )  # type: ignore[untyped-decorator]
        def attempt() -> list[Outcome]:
            nonlocal tried
            tried += 1
            todo = list(batch)
            if tried > 1:
                writer.reconnect()
                done = recorder.recorded(batch)
                todo = [change for change, made in zip(batch, done, strict=True) if not made]
            if desired is not None and todo:
                desired.confirm(todo)
            outcomes: dict[int, Outcome] = {}
            alone = False
            while todo:
                try:
                    parts = [list(part) for _, part in groupby(todo, key=_sort)]
                    works = [
                        Batch(
                            part,
                            writer,
                            self._targets,
                            self._sparing,
                            desired=desired,
                            rules=self._rules,
                            alone=alone,
                            secrets=self._secrets,
                            cascaded=part[0].table in self._cascaded,
                        )
                        for part in parts
                    ]
                    made_now = _transaction(todo, writer, recorder, works)
                    outcomes.update(zip(map(id, todo), made_now, strict=True))
                    break
                except Torn as torn:
                    alone = alone or torn.alone
                    failed = {id(change): each for change in todo if (each := torn.find_outcome(change))}
                    outcomes.update(failed)
                    todo = [change for change in todo if id(change) not in failed]
            # What has no outcome by now was made by a try before, whose commit nobody saw.
            return [outcomes.get(id(each)) or Outcome(change=each, fate=Fate.APPLIED) for each in batch]

        result: list[Outcome] = attempt()
        return result

    def _cause(self, batch: Sequence[Change]) -> str | None:
        """Return why a batch is not to be made, or None."""
        sorts = {_sort(change): change for change in batch}.values()
        causes = (_waits_for(change, self._stopped, self._targets) for change in sorts)
        return self._gone or next(filter(None, causes), None)

    def _count(self, batch: Sequence[Change], made: Sequence[Outcome]) -> None:
        """Stop the rules of which too many changes were not made."""
        lost = self._lost
        lost.update(outcome.change.rule for outcome in made if outcome.fate is not Fate.APPLIED)
        for rule in {change.rule for change in batch} - self._stopped.keys():
            if self._failures is not None and lost[rule] >= self._failures:
                self._stopped[rule] = (
                    f"{lost[rule]} changes of {rule} were not made before (budget: failures)"
                )


def _start(task: Callable[[], Loaded]) -> Future[Loaded]:
    """Run a task in a new thread.

    OpenSSL keeps an error with the thread that had it, and Python 3.13 takes it for one of the connection
    that the thread uses next: what comes after a lost connection needs another thread.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="cellsync-load")
    future = pool.submit(task)
    pool.shutdown(wait=False)
    return future


def _failed(changes: Sequence[Change], message: str) -> list[Outcome]:
    return [Outcome(change=change, fate=Fate.FAILED, message=message) for change in changes]


def _goes_on(writer: Writer, targets: Mapping[str, Projection]) -> bool:
    """Say whether other rules can still be written; an undo does not know what belongs together."""
    try:
        writer.reconnect()
    except Unreachable:
        return False
    return bool(targets)


def _waits_for(change: Change, stopped: Mapping[str, str], targets: Mapping[str, Projection]) -> str | None:
    """Return why the rule of a change is not written any more, or None.

    Its own failure, or that of a rule that it refers to. Rows are not removed either where those
    that refer to them could not be.
    """
    target = targets.get(change.rule)
    removes = change.action is Action.DELETE or (target is not None and deletes(change, target))
    for rule, cause in stopped.items():
        if rule == change.rule:
            return cause
        one, other = (rule, change.rule) if removes else (change.rule, rule)
        if other in reached(one, targets):
            return f"{rule} could not be written: {cause}"
    return None


def _batches(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Yield runs of changes, each for one transaction: of one rule and one action, or one that has several.

    Changes that belong together are never parted. Inserts whose keys look alike never meet, so
    that each sees the rows of those before it.
    """
    batch: list[Change] = []
    alike: set[object] = set()
    own: set[Key] = set()
    sorts: set[tuple[str, str, Action]] = set()
    for group in _groups(changes):
        own_sorts = {_sort(change) for change in group}
        kin = len(sorts | own_sorts) == 1
        keys = {folded(change.key) for change in group if change.action is Action.INSERT}
        most = INSERTS if group[0].action is Action.INSERT else BATCH
        full = len(batch) + len(group) > most or keys & alike or _refers(group[0], own)
        if batch and (not kin or full):
            yield batch
            batch, alike, own, sorts = [], set(), set(), set()
        batch += group
        sorts |= own_sorts
        alike |= keys
        own.update(change.key for change in group)
    if batch:
        yield batch


def _sort(change: Change) -> tuple[str, str, Action]:
    return change.rule, change.table, change.action


def _groups(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Yield each change by itself, and those that belong together together."""
    for name, group in groupby(changes, key=lambda change: change.together):
        if name:
            yield list(group)
        else:
            yield from ([change] for change in group)


def _refers(change: Change, own: Collection[Key]) -> bool:
    """Say whether a row refers to another row of its own table, of which the batch has these keys."""
    return any(each.rule == change.rule and each.key in own for each in references((change,)))


def _transaction(
    todo: Sequence[Change], writer: Writer, recorder: Recorder, works: Sequence[Batch]
) -> list[Outcome]:
    with writer.transaction():
        return _make_inside(todo, recorder, works)


def _make_inside(todo: Sequence[Change], recorder: Recorder, works: Sequence[Batch]) -> list[Outcome]:
    recorder.mark_transaction()
    outcomes = [outcome for work in works for outcome in work.run()]
    for change, outcome in zip(todo, outcomes, strict=True):
        if change.together and outcome.fate is not Fate.APPLIED:
            raise Torn([Outcome(change=change, fate=outcome.fate, message=outcome.message)])
        applied = outcome.fate is Fate.APPLIED and outcome.written
        unfit = recorder.refuses(outcome.change) if applied else None
        if unfit is not None:
            raise Torn([Outcome(change=change, fate=Fate.FAILED, message=unfit)])
    recorder.record([each for each in outcomes if each.fate is Fate.APPLIED and each.written])
    return outcomes


def make_inside(
    changes: Sequence[Change], *, writer: Writer, recorder: Recorder, targets: Mapping[str, Projection]
) -> list[Outcome]:
    """Make a few changes inside the caller's transaction, which must not commit unless all are APPLIED.

    Raises what the writer raises; nothing is tried again here.
    """
    works = [Batch(list(part), writer, targets, ()) for _, part in groupby(changes, key=_sort)]
    try:
        return _make_inside(changes, recorder, works)
    except Torn as torn:
        left = "not made, as others of its transaction are not"
        return [
            torn.find_outcome(change) or Outcome(change=change, fate=Fate.FAILED, message=left)
            for change in changes
        ]

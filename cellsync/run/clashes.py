"""Preview a plan: find the rows that the server would not take, before anything is tried.

After the recheck, for the planned rows alone, and only of tables that have unique keys besides the rule's
own, foreign keys that are no reference of a rule, or rows to be deleted to which others may refer. What
would clash is a finding and is set aside; what the plan itself frees is made first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from cellsync import db, plan
from cellsync.model import (
    Action,
    Cascade,
    Change,
    Finding,
    ForeignKey,
    Identity,
    Index,
    Key,
    Projection,
    Reference,
    Secrets,
    Table,
    Value,
    shown,
)
from cellsync.plan import Claim, Compared, Move, Place, Planned
from cellsync.plan import clashes as rules
from cellsync.run.clearing import remove_clashes
from cellsync.run.fitting import read_held
from cellsync.run.waking import find_woken_rows

CHANGES_AT_ONCE = 4_000
"""So many planned rows are in memory, and in a query, at once."""


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What must be asked about the planned rows of one rule."""

    each: Compared
    indexes: tuple[Index, ...]
    keys: tuple[ForeignKey, ...]
    lacking: frozenset[str]
    """The referenced rules of which the written side may lack rows that are not planned."""
    doubles: tuple[tuple[Index, list[tuple[str, str | None, int | None]]], ...]
    referred: bool
    """Whether rows are planned to go to which others may refer."""

    linked: tuple[Cascade, ...] = ()
    """References of rules to ids that this rule moves, and which no foreign key holds together."""
    dangling: tuple[Key, ...] = ()
    """The keys of rows of the written side that refer to nothing in their key."""

    @property
    def needed(self) -> bool:
        """Say whether there is anything to ask."""
        return bool(
            self.indexes or self.keys or self.lacking or self.doubles or self.referred or self.dangling
        )

    @property
    def decisive(self) -> set[str]:
        """The columns that decide what a planned row claims."""
        table, rule = self.each.written, self.each.pairing.rule
        names = {name for index in self.indexes for name in table.base_columns(index)}
        names.update(name for key in self.keys for name in key.columns)
        names.update(name for name, other in rule.references.items() if other in self.lacking)
        return names

    @property
    def referenced(self) -> set[str]:
        """The columns to which foreign keys refer."""
        return {name for key in (*self.each.written.referrers, *self.linked) for name in key.references}


def find_clashes(
    databases: Mapping[str, db.Database],
    compared: Sequence[Compared],
    target: plan.Target,
    *,
    desired: Mapping[str, Table],
    failed: Sequence[str],
    refused: Collection[str],
    secrets: Secrets,
) -> list[Compared]:
    """Return the compared rules of one edge without the rows that would clash, which are findings then.

    ``desired`` are the tables of the desired side, by name, ``refused`` the rules that write nothing. Raises
    ReadFailed.
    """
    database = databases[target.written]
    if not database.makes_schemas:
        return list(compared)
    questions = [_ask(each, compared, desired) for each in compared]
    if not any(question.needed for question in questions):
        return list(compared)
    preview = _Preview(database, questions, target, failed, secrets)
    with database.snapshot():
        preview.read_claims()
        for question in questions:
            preview.read_doubles(question, databases)
        return preview.settle(refused)


def _ask(each: Compared, compared: Sequence[Compared], desired: Mapping[str, Table]) -> _Question:
    pairing, table, written = each.pairing, each.table, each.written
    writes = bool(written.identity and table.does(Action.INSERT, Action.UPDATE))
    empty = table.existing_rows == 0 and pairing.existing.where is None and not pairing.rule.soft_delete
    indexes = rules.find_checked_indexes(pairing, written) if writes and not empty else ()
    there = desired.get(pairing.desired.table)
    linked = tuple(rules.find_moving_links(each, compared))
    doubles = [
        (index, spec)
        for index in (written.unique_indexes if writes and there and there.identity else ())
        if there and (spec := rules.find_doubled_index(pairing, index, there, written)) is not None
    ]
    return _Question(
        each=each,
        indexes=tuple(indexes),
        keys=tuple(rules.find_checked_keys(pairing, written)) if writes else (),
        lacking=frozenset(rules.find_lacking(each, compared)) if writes else frozenset(),
        doubles=tuple(doubles),
        referred=bool(
            (written.referrers or linked) and written.identity and table.does(Action.DELETE, Action.UPDATE)
        ),
        linked=linked,
        dangling=tuple(
            finding.key
            for finding in (table.findings if writes else ())
            if finding.code == "dangling-reference" and finding.cell == pairing.existing_cell and finding.key
        ),
    )


def _name_key(key: Cascade) -> str:
    return f"foreign key {key.name}" if key.name else f"by {', '.join(key.columns)}"


@dataclass
class _Preview:
    """The claims of one edge's plan, as they are found."""

    database: db.Database
    questions: Sequence[_Question]
    target: plan.Target
    failed: Sequence[str]
    secrets: Secrets
    claims: list[Claim] = field(default_factory=list)
    referred: set[Planned] = field(default_factory=set)
    """Changes that take rows away to which others refer now."""
    doubled: set[Reference] = field(default_factory=set)
    """What planned rows refer to where more than one row of the written side has that key."""
    inserted: dict[str, set[Key]] = field(default_factory=dict)
    """Rule -> the keys of its new rows, where another row may have them already."""
    targets: dict[Place, str] = field(default_factory=dict)
    """Rows to which planned ones refer, where some of their table are to be deleted, and by which."""
    moved: dict[ForeignKey, set[tuple[object, ...]]] = field(default_factory=dict)
    """Foreign key -> the values to which it leads that updates change to others; found once."""

    def read_claims(self) -> None:
        """Ask the server about all planned rows, some thousands at a time."""
        for question in map(self._narrow, self.questions):
            if question.dangling:
                self._claim_keys(question)
            if question.indexes or question.keys or question.lacking:
                updates = rules.has_touching(question.each.table, question.decisive)
                for phase in (rules.INSERT, rules.UPDATE) if updates else (rules.INSERT,):
                    for part in self._parts(question.each, phase):
                        self._claim_values(question, phase, part)
            if question.referred:
                updates = rules.has_touching(question.each.table, question.referenced)
                for phase in (rules.UPDATE, rules.REMOVE) if updates else (rules.REMOVE,):
                    for part in self._parts(question.each, phase):
                        self._claim_freedom(question, phase, part)

    def _narrow(self, question: _Question) -> _Question:
        """Leave out what need not be asked of a table that has no row outside the rule's scope either."""
        table = question.each.written.name
        if not question.indexes or question.each.table.existing_rows or self.database.has_rows(table):
            return question
        return replace(question, indexes=())

    def _parts(self, each: Compared, phase: int) -> Iterator[list[Change]]:
        changes = iter(self._changes(each, phase))
        while part := list(islice(changes, CHANGES_AT_ONCE)):
            yield part

    def _changes(self, each: Compared, phase: int) -> Iterator[Change]:
        steps = plan.changes(each, rules.PHASES[phase], self.target, self.failed)
        return (step for step in steps if isinstance(step, Change))

    # -- Claims ----------------------------------------------------------------------------

    def _claim_values(self, question: _Question, phase: int, part: Sequence[Change]) -> None:
        """Claim unique values, and rows to refer to, for some planned rows."""
        table, pairing = question.each.written, question.each.pairing
        wanted = [(index, table.base_columns(index)) for index in question.indexes]
        columns = {name for _, names in wanted for name in names}
        columns.update(name for key in question.keys for name in key.columns)
        ids = self._resolve(pairing.existing, part, columns, question.lacking)
        touching = [change for change in part if phase == rules.UPDATE and rules.touches(change, columns)]
        held = read_held(self.database, question.each, touching, columns)

        def image(change: Change, names: Sequence[str]) -> tuple[Value, ...] | None:
            if not rules.touches(change, names):
                return None
            now = held.get(change.identity)
            return rules.image_row(change, names, table, ids=ids, held=now)

        for index, names in wanted:
            found = [(change, values) for change in part if (values := image(change, names)) is not None]
            self._claim_index(question.each, phase, index, names, found)
        for key in question.keys:
            found = [
                (change, values) for change in part if (values := image(change, key.columns)) is not None
            ]
            self._claim_key(question.each, phase, key, found)
        for change in part if question.lacking else ():
            for reference in dict.fromkeys(rules.find_references((change.after or {}).values())):
                if reference.rule not in question.lacking:
                    continue
                named = f"it refers to {shown(reference.key)} of {reference.rule}, which"
                comes = reference in ids and reference.key in self._find_inserted(reference.rule)
                if reference in self.doubled or comes:
                    how = "would have" if comes else "has"
                    why = f"{named} {self.target.written} {how} more than once: keep one of those rows"
                    self._add(
                        question.each, change, phase, self._find_foreign(question.each, change.key, why)
                    )
                elif reference not in ids:
                    why = f"{named} {self._lacks}: insert that row first, or correct the reference"
                    finding = self._find_foreign(question.each, change.key, why)
                    planned = Planned(reference.rule, reference.key)
                    self._add(question.each, change, phase, finding, coming=planned)

    def _find_inserted(self, rule: str) -> set[Key]:
        """Return the keys of the new rows of a rule; found once."""
        if rule not in self.inserted:
            tables = [q.each.table for q in self.questions if q.each.pairing.rule.id == rule]
            self.inserted[rule] = {row.key for table in tables for row in table.select({Action.INSERT})}
        return self.inserted[rule]

    def _claim_keys(self, question: _Question) -> None:
        """Claim the keys of new rows that rows get which refer to nothing until this plan is made."""
        each, others = question.each, [other.each for other in self.questions]
        for change, how in find_woken_rows(self.database, each, question.dangling, others, self._changes):
            finding = self._find_unique(each, change.key, f"{self.target.written} has that row, but {how}")
            self._add(each, change, rules.INSERT, finding)

    def _claim_index(
        self,
        each: Compared,
        phase: int,
        index: Index,
        names: Sequence[str],
        found: Sequence[tuple[Change, tuple[Value, ...]]],
    ) -> None:
        table = each.written
        if not found or not self.database.can_find_holders(table.name, index, len(found)):
            return
        columns = frozenset(name.lower() for name in names)
        for met in self.database.find_holders(table.name, index, names, [values for _, values in found]):
            change, values = found[met.place]
            if phase == rules.UPDATE and met.identity == change.identity:
                continue
            finding = self._find_unique(
                each,
                change.key,
                f"{self._row(table, met.identity)} has {self._values(table, names, values)} already "
                f"(unique key {index.name}): rename or remove one of the two",
            )
            place = Place(table.name, met.identity)
            self._add(each, change, phase, finding, leaving=place, columns=columns, index=index.name)

    def _claim_key(
        self, each: Compared, phase: int, key: ForeignKey, found: Sequence[tuple[Change, tuple[Value, ...]]]
    ) -> None:
        if not found:
            return
        deleting = any(
            other.each.written.name == key.table and other.each.table.does(Action.DELETE)
            for other in self.questions
        )
        there: set[int] = set()
        for met in self.database.find_referenced(key, [values for _, values in found]):
            there.add(met.place)
            if deleting:
                by = f"{each.pairing.rule.table} {each.pairing.rule.named(found[met.place][0].key)}"
                self.targets[Place(key.table, met.identity)] = f"{by}, which is written, will refer to it"
        moved = self._find_moved(key)
        for place, (change, values) in enumerate(found):
            if place in there and rules.fold(values) not in moved:
                continue
            how = "this plan gives another number" if place in there else self._lacks
            finding = self._find_foreign(
                each,
                change.key,
                f"it refers to {key.table} {self._values(each.written, key.columns, values)}, which {how} "
                f"(foreign key {key.name}): insert that row first, or correct the reference",
            )
            coming = rules.bring(key.table, key.references, values)
            self._add(each, change, phase, finding, coming=coming)

    def _find_moved(self, key: ForeignKey) -> set[tuple[object, ...]]:
        """Return the values, folded, that updates change to others, and to which a foreign key leads."""
        if key not in self.moved:
            found = self.moved[key] = set()
            for other in self.questions:
                each = other.each
                moving = each.written.name == key.table and rules.has_touching(each.table, key.references)
                for change in self._changes(each, rules.UPDATE) if moving else ():
                    if rules.touches(change, key.references):
                        known = plan.known_row(change)
                        found.add(rules.fold(known.get(name) for name in key.references))
        return self.moved[key]

    def _claim_freedom(self, question: _Question, phase: int, part: Sequence[Change]) -> None:
        """Claim that nothing refers to rows that are deleted, or that get another key."""
        each, table = question.each, question.each.written
        keys = (*table.referrers, *(question.linked if phase == rules.UPDATE else ()))
        known = self.database.tables([key.table for key in keys])
        for key in keys:
            acts = key.on_delete if phase == rules.REMOVE else key.on_update
            if acts or key.table not in known:
                continue
            going = [c for c in part if c.after is None or (c.before and rules.touches(c, key.references))]
            if phase == rules.REMOVE:
                going = [change for change in going if change.after is None]
            moving = any(
                other.each.written.name == key.table
                and other.each.table.does(Action.DELETE, Action.SOFT_DELETE, Action.UPDATE)
                for other in self.questions
            )
            identities = [change.identity for change in going]
            # A row can be deleted that refers to itself, but gets no other key meanwhile.
            itself = phase == rules.UPDATE
            for met in self.database.find_referrers(table.name, key, identities, every=moving, itself=itself):
                change = going[met.place]
                self.referred.add(Planned(change.rule, change.key))
                finding = self._find_referenced(
                    each,
                    change.key,
                    f"{self._row(known[key.table], met.identity)} still refers to it ({_name_key(key)}): "
                    f"remove that row, or let it refer to another one",
                )
                place = Place(key.table, met.identity)
                columns = frozenset(map(str.lower, key.columns))
                self._add(each, change, phase, finding, leaving=place, columns=columns)

    def read_doubles(self, question: _Question, databases: Mapping[str, db.Database]) -> None:
        """Find planned rows that clash with each other, where the desired side allows doubles."""
        each, pairing = question.each, question.each.pairing
        database = databases[pairing.desired_cell]
        for index, spec in question.doubles:
            with database.busy():
                groups = database.find_doubles(pairing.desired, spec)
            number = {identity: at for at, group in enumerate(groups) for identity in group}
            planned: dict[int, list[tuple[int, Change]]] = {}
            names = each.written.base_columns(index) or index.columns
            for phase in (rules.INSERT, rules.UPDATE) if number else ():
                for change in self._changes(each, phase):
                    if (at := number.get(change.origin)) is not None and rules.touches(change, names):
                        planned.setdefault(at, []).append((phase, change))
            for several in planned.values():
                for phase, change in several if len(several) > 1 else ():
                    others = [other for _, other in several if other is not change]
                    named = " and ".join(
                        f"{pairing.rule.table} {pairing.rule.named(other.key)}" for other in others[:3]
                    )
                    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
                    finding = self._find_unique(
                        each,
                        change.key,
                        f"{named}{more} of {pairing.desired_cell} would have the same in "
                        f"{', '.join(index.columns)} (unique key {index.name}): rename or remove one of them "
                        f"in {pairing.desired_cell}",
                    )
                    self._add(each, change, phase, finding)

    def _add(
        self,
        each: Compared,
        change: Change,
        phase: int,
        finding: Finding,
        *,
        leaving: Place | None = None,
        columns: frozenset[str] = frozenset(),
        coming: rules.Bringing | Planned | None = None,
        index: str = "",
    ) -> None:
        by = Planned(each.pairing.rule.id, change.key)
        made = Claim(
            by=by,
            phase=phase,
            finding=finding,
            leaving=leaving,
            columns=columns,
            coming=coming,
            index=index,
            brings_key=rules.touches(change, each.pairing.rule.key),
        )
        self.claims.append(made)

    # -- What answers them -----------------------------------------------------------------

    def settle(self, refused: Collection[str]) -> list[Compared]:
        """Return the compared rules without what must not be made, and with what must be made first."""
        places = {claim.leaving for claim in self.claims if claim.leaving is not None} | {*self.targets}
        coming = {claim.coming for claim in self.claims if claim.coming is not None}
        leaving = {place.table for place in places}
        keys = {(each.table, each.columns) for each in coming if isinstance(each, rules.Bringing)}
        brought = {each.rule for each in coming if isinstance(each, Planned)}
        movers: dict[Place, list[Move]] = {}
        bringers: dict[rules.Bringing | Planned, list[Move]] = {}
        lacking = {claim.by for claim in self.claims if claim.coming is not None}
        for question in self.questions:
            each, table = question.each, question.each.written
            own = [columns for name, columns in keys if name == table.name]
            for phase in rules.PHASES:
                if phase == rules.INSERT and not own and each.pairing.rule.id not in brought:
                    continue
                if not own and each.pairing.rule.id not in brought and table.name not in leaving:
                    continue
                for part in self._parts(each, phase):
                    moves = self._moves(each, phase, part, places, lacking)
                    for place, move in moves:
                        movers.setdefault(place, []).append(move)
                        if place in self.targets and phase == rules.REMOVE:
                            change = next(c for c in part if c.key == move.by.key)
                            finding = self._find_referenced(each, change.key, self.targets[place])
                            self._add(each, change, phase, finding)
                    if phase != rules.REMOVE:
                        for what, move in self._brings(each, phase, part, own, brought):
                            if what in coming:
                                bringers.setdefault(what, []).append(move)
        void = {
            Planned(question.each.pairing.rule.id, key)
            for question in self.questions
            for key in plan.find_aside(question.each)
        }
        staying: set[Planned] = set()
        every = [question.each for question in self.questions]
        sequenced = plan.find_moving_rules(every)
        while True:
            settled = rules.settle(
                self.claims, movers, bringers, refused=refused, void=void | staying, sequenced=sequenced
            )
            # A row that stays keeps those to which it refers, and those keep what they have.
            compared = [
                remove_clashes(each, settled, sequenced=each.pairing.rule.id in sequenced) for each in every
            ]
            kept = plan.find_kept_removals(compared, self.target, self.failed) if self.claims else ()
            found = staying, sequenced
            staying = {Planned(step.rule, step.key) for step in kept}
            sequenced |= plan.find_connected(settled.unordered, every)
            if (staying, sequenced) == found:
                return compared

    def _moves(
        self, each: Compared, phase: int, part: Sequence[Change], places: set[Place], lacking: set[Planned]
    ) -> list[tuple[Place, Move]]:
        """Return the changes that move or remove one of the rows that must give something up."""
        if phase == rules.INSERT:
            return []
        found = [
            (place, change)
            for change in part
            if (place := Place(each.written.name, change.identity)) in places
        ]
        ids = self._resolve(each.pairing.existing, [change for _, change in found], None, None)
        return [(place, self._move(each, phase, change, ids, lacking)) for place, change in found]

    def _move(
        self,
        each: Compared,
        phase: int,
        change: Change,
        ids: Mapping[Reference, Value],
        lacking: set[Planned],
    ) -> Move:
        by = Planned(each.pairing.rule.id, change.key)
        after = tuple(rules.find_references((change.after or {}).values()))
        writes = None if change.after is None else frozenset(map(str.lower, change.after))
        held = phase == rules.UPDATE and by in self.referred
        early = not held and by not in lacking and all(each in ids for each in after)
        known = frozenset(map(str.lower, {**plan.known_row(change), **(change.after or {})}))
        brings = rules.touches(change, each.pairing.rule.key)
        return Move(
            by=by,
            phase=phase,
            writes=writes,
            references=after,
            early=early,
            known=known,
            brings_key=brings,
        )

    def _brings(
        self,
        each: Compared,
        phase: int,
        part: Sequence[Change],
        keys: Sequence[tuple[str, ...]],
        brought: set[str],
    ) -> Iterator[tuple[rules.Bringing | Planned, Move]]:
        """Yield what rows bring to which others can refer."""
        table = each.written
        columns = {name for names in keys for name in names}
        ids = self._resolve(each.pairing.existing, part, columns, None) if columns else {}
        for change in part:
            after = tuple(rules.find_references((change.after or {}).values()))
            writes = frozenset(map(str.lower, change.after or {}))
            by = Planned(each.pairing.rule.id, change.key)
            brings = rules.touches(change, each.pairing.rule.key)
            move = Move(by=by, phase=phase, writes=writes, references=after, brings_key=brings)
            if by.rule in brought and brings:
                yield by, move
            for names in keys:
                values = rules.image_row(change, names, table, ids=ids, held=None)
                if values is not None and rules.touches(change, names):
                    yield rules.bring(table.name, names, values), move

    # -- Readings --------------------------------------------------------------------------

    def _resolve(
        self,
        projection: Projection,
        part: Sequence[Change],
        columns: set[str] | None,
        lacking: frozenset[str] | None,
    ) -> dict[Reference, Value]:
        """Return the ids of the rows to which the changes refer, in some columns or in all."""
        joins = {join.rule: join for join in projection.joins.values()}
        lower = None if columns is None else {name.lower() for name in columns}
        wanted: dict[str, dict[Key, None]] = {}
        for change in part if joins else ():
            for name, value in (change.after or {}).items():
                if isinstance(value, Reference) and (
                    lower is None or name.lower() in lower or value.rule in (lacking or ())
                ):
                    wanted.setdefault(value.rule, {})[value.key] = None
        ids: dict[Reference, Value] = {}
        for rule, keys in wanted.items():
            for row in self.database.rows(self.database.project_join(joins[rule]), keys=list(keys)):
                if not row.limbo and row.key in keys:
                    reference = Reference(rule=rule, key=row.key)
                    if ids.setdefault(reference, row.identity[0]) != row.identity[0]:
                        self.doubled.add(reference)
        return ids

    # -- Words -----------------------------------------------------------------------------

    def _find_unique(self, each: Compared, key: Key, why: str) -> Finding:
        message = self._say(each, key, why)
        return Finding(code="unique-clash", cell=self.target.written, message=message, key=key)

    def _find_foreign(self, each: Compared, key: Key, why: str) -> Finding:
        message = self._say(each, key, why)
        return Finding(code="foreign-key-clash", cell=self.target.written, message=message, key=key)

    def _find_referenced(self, each: Compared, key: Key, why: str) -> Finding:
        message = self._say(each, key, why)
        return Finding(code="still-referenced", cell=self.target.written, message=message, key=key)

    def _say(self, each: Compared, key: Key, why: str) -> str:
        rule = each.pairing.rule
        return f"{rule.table} {rule.named(key)} is not written to {self.target.written}: {why}"

    @property
    def _lacks(self) -> str:
        return f"{self.target.written} lacks and this plan does not insert"

    def _row(self, table: Table, identity: Identity) -> str:
        named = self._values(table, table.identity, identity) if table.identity else ""
        return f"{table.name} {named}" if named else f"a row of {table.name}"

    def _values(self, table: Table, names: Sequence[str], values: Sequence[Value]) -> str:
        pairs = zip(names, values, strict=True)
        return ", ".join(f"{n} {shown(self.secrets.safe(n, v, table=table.name))}" for n, v in pairs)

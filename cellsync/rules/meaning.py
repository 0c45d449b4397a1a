"""What the rules of a run must mean together: checks that no schema can express.

A check looks at one rule and names the rule keys that it needs; where one of those has a problem
of its own, the check is left out, because what it would say might not be true. A check of the
whole looks at the rules of all files. To add one: write a generator of (steps to the value,
message) and decorate it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from cellsync import transforms
from cellsync.errors import Problem
from cellsync.model import Action, Detector, Direction, Rule, Saying, Surrogate
from cellsync.rules import amendments, complaints, detectors, explains, grammar, replacing
from cellsync.rules.complaints import Complaint
from cellsync.rules.drafts import Draft, Sheet

Check = Callable[[Draft, Rule], Iterable[Complaint]]
CheckOfAll = Callable[[Sequence[Draft]], Iterable[Problem]]

_CHECKS: list[tuple[frozenset[str], Check]] = []
_CHECKS_OF_ALL: list[CheckOfAll] = []


def check(sheets: Sequence[Sheet], *, complete: bool) -> list[Problem]:
    """Return what is wrong with the rules of these files, one by one and together.

    ``complete`` tells whether these are all files: a rule that is missed may stand in another.
    """
    drafts = [draft for sheet in sheets for draft in sheet.drafts]
    identified = [draft for draft in drafts if draft.identified]
    problems = [problem for draft in drafts for problem in _check_rule(draft)]
    problems += [problem for sheet in sheets for problem in _undescribed_features(sheet)]
    problems += [problem for sheet in sheets for problem in _misdetected(sheet)]
    problems += [problem for sheet in sheets for problem in _unexplainable(sheet, sheets)]
    problems += _detector_given_twice(sheets)
    problems += [problem for check_of_all in _CHECKS_OF_ALL for problem in check_of_all(identified)]
    if complete and all(sheet.complete for sheet in sheets):
        problems += _unknown_references(drafts)
        problems += _unknown_leaders(drafts)
        problems += amendments.check(sheets, {draft.rule.id for draft in drafts})
        problems += _unknown_differing(sheets, {draft.rule.id for draft in drafts})
    return list(dict.fromkeys(problems))


def _check_rule(draft: Draft) -> Iterator[Problem]:
    for needs, check_rule in _CHECKS:
        if not needs & draft.broken:
            for steps, message in check_rule(draft, draft.rule):
                yield draft.problem(steps, message)


def _needs(*keys: str) -> Callable[[Check], Check]:
    def register(check_rule: Check) -> Check:
        _CHECKS.append((frozenset(keys), check_rule))
        return check_rule

    return register


def _of_all(check_of_all: CheckOfAll) -> CheckOfAll:
    _CHECKS_OF_ALL.append(check_of_all)
    return check_of_all


@_needs("replaces", "surrogate", "key", "on_missing", "comes_with")
def _nothing_to_replace_by(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    return replacing.find_complaints(rule)


def _folded(columns: Iterable[str]) -> set[str]:  # regardless of case, as the server compares names
    return {column.lower() for column in columns}


# -- One rule: the key -------------------------------------------------------------------------


@_needs("key")
def _key_given_twice(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for index, column in enumerate(rule.key):
        if column.lower() in _folded(rule.key[:index]):
            yield ("key", index), f"the key column {column!r} is given twice: remove one"


@_needs("key", "references", "id")
def _key_refers_to_itself(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for index, column in enumerate(rule.key):
        if rule.references.get(column) == rule.id:
            yield (
                ("key", index),
                f"the key column {column!r} refers to another row of this very rule, so the key would have "
                "no end: choose other columns",
            )


@_needs("key", "columns")
def _key_excluded(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    yield from _key_columns_in(rule, rule.exclude, "excluded by columns")


@_needs("key", "on_insert")
def _key_set_on_insert(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    yield from _key_columns_in(rule, rule.on_insert, "set by on_insert")


@_needs("key", "overrides")
def _key_overridden(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for cell, values in rule.overrides.items():
        yield from _key_columns_in(rule, values, f"set by overrides for {cell}")


@_needs("key", "soft_delete")
def _key_marks_deletion(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    yield from _key_columns_in(rule, _deletion_columns(rule), "a column of soft_delete")


@_needs("key", "surrogate")
def _key_remapped(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    remapped = [column for column, surrogate in rule.surrogate.items() if surrogate is Surrogate.REMAP]
    yield from _key_columns_in(rule, remapped, "remapped by surrogate")


@_needs("key", "tolerance")
def _key_tolerated(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    yield from _key_columns_in(rule, rule.tolerance, "given a tolerance")


def _key_columns_in(rule: Rule, columns: Iterable[str], what: str) -> Iterator[Complaint]:
    folded = _folded(columns)
    for index, column in enumerate(rule.key):
        if column.lower() in folded:
            yield (
                ("key", index),
                f"the key column {column!r} is also {what}: a key is the same in both databases; "
                "take it out of one",
            )


def _deletion_columns(rule: Rule) -> list[str]:
    soft_delete = rule.soft_delete
    return [column for column in (soft_delete.column, soft_delete.at) if column] if soft_delete else []


# -- One rule: the columns ---------------------------------------------------------------------


@_needs("columns")
def _included_and_excluded(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    if rule.include is None or not rule.exclude:
        return
    both = sorted(_folded(rule.include) & _folded(rule.exclude))
    if both:
        yield ("columns", "exclude"), f"{both[0]!r} is both in include and in exclude: take it out of one"
    else:
        yield ("columns", "exclude"), "include names the columns that are compared: remove exclude"


@_needs("columns", "soft_delete")
def _deletion_compared(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for column in _deletion_columns(rule):
        if column.lower() in _folded(rule.include or ()):
            yield (
                ("columns", "include"),
                f"{column!r} is a column of soft_delete, which is never compared as data: take it "
                "out of include",
            )


@_needs("columns", "surrogate")
def _preserved_excluded(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for column, surrogate in rule.surrogate.items():
        if surrogate is Surrogate.PRESERVE and column.lower() in _folded(rule.exclude):
            yield (
                ("surrogate", column),
                f"{column!r} is preserved, that is compared and copied, but columns excludes it: "
                "take it out of one",
            )


@_needs("key", "columns", "surrogate", "on_insert", "transforms", "tolerance", "overrides", "references")
def _not_compared(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for steps, column in _columns_to_compare(rule):
        # A default may name a column that this table has no use for.
        if steps[0] in draft.own and not _is_compared(rule, column):
            why = ("exclude or on_insert" if rule.include is None else "include") + " leaves it out"
            yield (
                steps,
                f"the column {column!r} is not compared ({why}), so this has no effect: "
                "compare it, or remove this",
            )


def _columns_to_compare(rule: Rule) -> Iterator[tuple[tuple[str, ...], str]]:
    mappings: Mapping[str, Iterable[str]] = {
        "transforms": rule.transforms,
        "tolerance": rule.tolerance,
        "references": rule.references,
    }
    for key, columns in mappings.items():
        yield from (((key, column), column) for column in columns)
    for cell, values in rule.overrides.items():
        yield from ((("overrides", cell, column), column) for column in values)


def _is_compared(rule: Rule, column: str) -> bool:
    folded = column.lower()
    if folded in _folded(rule.key):
        return True
    surrogate = {name.lower(): kind for name, kind in rule.surrogate.items()}.get(folded)
    if surrogate is not None and folded not in _folded(rule.references):
        return surrogate is Surrogate.PRESERVE
    if rule.include is not None:
        return folded in _folded(rule.include)
    return folded not in _folded(rule.exclude) | _folded(rule.on_insert)


@_needs("columns", "on_insert")
def _inserted_and_compared(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for column in rule.on_insert:
        if rule.include is not None and column.lower() in _folded(rule.include):
            yield (
                ("on_insert", column),
                f"the column {column!r} is compared too, so each new row would differ at once: "
                "take it out of include, or use overrides",
            )


@_needs("references", "transforms", "tolerance", "on_insert", "overrides", "surrogate")
def _reference_as_plain_column(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    references = _folded(rule.references)
    uses: list[tuple[tuple[str, ...], str]] = [
        ((key, column), column)
        for key, columns in (
            ("transforms", rule.transforms),
            ("tolerance", rule.tolerance),
            ("on_insert", rule.on_insert),
            ("surrogate", rule.surrogate),
        )
        for column in columns
    ]
    uses += [
        (("overrides", cell, column), column) for cell, values in rule.overrides.items() for column in values
    ]
    for steps, column in uses:
        if column.lower() in references:
            yield (
                steps,
                f"the column {column!r} is a reference, compared and written through the "
                "referenced row's key: remove one",
            )


@_needs("transforms")
def _unknown_transform(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for column, name in rule.transforms.items():
        if name not in transforms.REGISTRY:
            advice = complaints.suggest(name, transforms.REGISTRY)
            yield ("transforms", column), f"unknown transform {name!r}: {advice}"


# -- One rule: what comes along ----------------------------------------------------------------


@_needs("carries")
def _carried_and_not(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    if rule.carries is not None and rule.carries.include is not None and rule.carries.exclude:
        yield ("carries", "exclude"), "include names the columns that are taken along: remove exclude"


@_needs("carries", "key", "columns", "surrogate", "on_insert", "references", "soft_delete")
def _carried_and_compared(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for index, column in enumerate((rule.carries.include if rule.carries else None) or ()):
        if column.lower() in _folded(_deletion_columns(rule)):
            yield (
                ("carries", "include", index),
                f"{column!r} is a column of soft_delete, and a new row is live: take it out",
            )
        elif _is_compared(rule, column):
            yield (
                ("carries", "include", index),
                f"{column!r} is compared, so a new row has it anyway: take it out",
            )


@_needs("revives", "soft_delete")
def _nothing_to_revive(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    if not rule.revives and rule.soft_delete is None:
        yield (
            ("revives",),
            "which rows were deleted can be told only where the table marks them: add the rule key "
            "soft_delete, or remove revives",
        )


@_needs("comes_with", "key", "references", "route")
def _misled(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    if rule.comes_with is None:
        return
    for column in rule.comes_with.by:
        if column.lower() not in _folded(rule.key):
            yield ("comes_with", "by", column), f"{column!r} is not in this rule's key: {', '.join(rule.key)}"
    if rule.route is not None:
        yield ("route",), "the rows go where the rows that they come with go: remove route"
    if rule.references:
        yield (
            ("references",),
            "rows that come with others refer to nothing: leave the column out, or to comes_with",
        )


@_needs("comes_with", "on_changed", "on_extra")
def _more_than_coming(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    if rule.comes_with is None:
        return
    for key, action in (("on_changed", rule.on_changed), ("on_extra", rule.on_extra)):
        if action is not Action.REPORT and key in draft.own:
            yield (key,), "rows that come with others are only ever inserted: say report, or remove it"


# -- One rule: deletion ------------------------------------------------------------------------


@_needs("on_extra", "soft_delete")
def _nothing_to_soft_delete_by(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    if rule.on_extra is Action.SOFT_DELETE and rule.soft_delete is None:
        yield (
            ("on_extra",),
            "soft_delete needs to know how the table marks deleted rows: add the rule key "
            "soft_delete, or say delete",
        )


@_needs("on_insert", "soft_delete")
def _born_dead(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    soft_delete = rule.soft_delete
    for column, value in rule.on_insert.items():
        if soft_delete and column.lower() == soft_delete.column.lower() and value != soft_delete.live:
            yield (
                ("on_insert", column),
                "a new row would not be live: soft_delete says that a live row holds "
                f"{soft_delete.live!r} here",
            )


# -- One rule: sayings -------------------------------------------------------------------------


@_needs("says", "key", "columns", "surrogate", "on_insert", "soft_delete")
def _unknown_in_saying(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for index, saying in enumerate(rule.says):
        for word, names in _named(saying).items():
            for name in sorted(name for name in names if not _is_told(rule, name)):
                yield ("says", index, word), f"{name!r} is not among the rule's columns: {_told(rule, name)}"


def _named(saying: Saying) -> dict[str, frozenset[str]]:
    texts = {"missing": saying.missing, "changed": saying.changed, "extra": saying.extra}
    free = grammar.CELLS | grammar.CHANGED
    named = {word: grammar.fields(text) - free for word, text in texts.items() if text is not None}
    return {"rows": frozenset(saying.rows), **named}


def _is_told(rule: Rule, column: str) -> bool:
    return _is_compared(rule, column) and column.lower() not in _folded(_deletion_columns(rule))


def _told(rule: Rule, name: str) -> str:
    if rule.include is None:
        return "its row keys and the columns that it compares are known"
    return complaints.suggest(name, (*rule.key, *rule.include))


@_needs("says")
def _says_nothing(draft: Draft, rule: Rule) -> Iterator[Complaint]:
    for index, saying in enumerate(rule.says):
        if saying.missing is None and saying.changed is None and saying.extra is None:
            yield ("says", index), "a saying needs at least one of missing, changed and extra"


# -- Features ----------------------------------------------------------------------------------


def _undescribed_features(sheet: Sheet) -> Iterator[Problem]:
    data = sheet.document.data
    described = data.get("features") if isinstance(data, Mapping) else None
    if not isinstance(described, Mapping):
        return
    for draft in sheet.drafts:
        for index, name in enumerate(draft.rule.features):
            if name not in described:
                advice = complaints.suggest(name, described)
                message = f"{name!r} is not described in the file's features: {advice}"
                yield draft.problem(("features", index), message)


def _misdetected(sheet: Sheet) -> Iterator[Problem]:
    data = sheet.document.data
    described = data.get("features") if isinstance(data, Mapping) else None
    known = described if isinstance(described, Mapping) else None
    yield from detectors.check(sheet.detectors, described=known)


def _unknown_differing(sheets: Sequence[Sheet], known: Collection[str]) -> Iterator[Problem]:
    """Yield the questions for the differences of a rule that is not there."""
    for draft in (draft for sheet in sheets for draft in sheet.detectors):
        for ask in draft.detector.asks:
            if ask.differs and ask.differs not in known:
                message = f"no rule has the id {ask.differs!r}: {complaints.suggest(ask.differs, known)}"
                yield draft.problem(("asks", ask.name, "differs"), message)


def _detector_given_twice(sheets: Sequence[Sheet]) -> Iterator[Problem]:
    """Yield the detectors whose id another one has, or a rule: both go by --rule and accept."""
    taken = {draft.rule.id: draft.rule.position for sheet in sheets for draft in sheet.drafts}
    for draft in (draft for sheet in sheets for draft in sheet.detectors if draft.identified):
        detector = draft.detector
        earlier = taken.setdefault(detector.id, detector.position)
        if earlier is not detector.position:
            message = f"the id {detector.id!r} is taken by {earlier}: give this detector an id of its own"
            yield draft.problem(("id",), message)


def _unexplainable(sheet: Sheet, sheets: Sequence[Sheet]) -> Iterator[Problem]:
    """Yield what is wrong with the steps of features: the rules that they name may stand in other files."""
    found: list[Rule | Detector] = [draft.rule for each in sheets for draft in each.drafts]
    found += [draft.detector for each in sheets for draft in each.detectors]
    served = {name for each in found for name in each.features}
    yield from explains.check(sheet.document, served=served, known={each.id for each in found})


# -- All rules ---------------------------------------------------------------------------------


def _unknown_references(drafts: Sequence[Draft]) -> Iterator[Problem]:
    known = {draft.rule.id for draft in drafts}
    for draft in drafts:
        for column, target in draft.rule.references.items():
            if target not in known:
                advice = complaints.suggest(target, known)
                yield draft.problem(("references", column), f"no rule has the id {target!r}: {advice}")


def _unknown_leaders(drafts: Sequence[Draft]) -> Iterator[Problem]:
    known = {draft.rule.id: draft.rule for draft in drafts}
    for draft in drafts:
        rule, with_ = draft.rule, draft.rule.comes_with
        if with_ is None or "comes_with" in draft.broken:
            continue
        leader = known.get(with_.rule)
        if leader is None or leader is rule:
            advice = complaints.suggest(with_.rule, known.keys() - {rule.id})
            yield draft.problem(("comes_with", "rule"), f"no other rule has the id {with_.rule!r}: {advice}")
            continue
        if leader.comes_with is not None:
            message = f"{leader.id!r} comes with {leader.comes_with.rule!r} itself: name that"
            yield draft.problem(("comes_with", "rule"), message)
        if leader.direction is not rule.direction:
            message = f"{leader.id!r} goes {leader.direction.value}, and this rule {rule.direction.value}"
            yield draft.problem(("comes_with", "rule"), message)
        for column, other in with_.by.items():
            if other.lower() not in _folded(leader.key) or other.lower() in _folded(leader.references):
                message = f"{other!r} is no plain column of {leader.id!r}'s key: {', '.join(leader.key)}"
                yield draft.problem(("comes_with", "by", column), message)


@_of_all
def _id_given_twice(drafts: Sequence[Draft]) -> Iterator[Problem]:
    first: dict[str, Draft] = {}
    for draft in drafts:
        earlier = first.setdefault(draft.rule.id, draft)
        if earlier is not draft:
            yield draft.problem(
                ("id",) if "id" in draft.own else ("table",),
                f"the rule id {draft.rule.id!r} is taken by {earlier.rule.position}: give this "
                "rule an id of its own",
            )


@_of_all
def _referenced_in_a_circle(drafts: Sequence[Draft]) -> Iterator[Problem]:
    by_id = {draft.rule.id: draft for draft in drafts}
    left = {name: set(draft.rule.references.values()) - {name} for name, draft in by_id.items()}
    left = _without_ends({name: targets & by_id.keys() for name, targets in left.items()})
    while left:
        cycle = _cycle(left)
        draft = by_id[cycle[0]]
        column = next(column for column, target in draft.rule.references.items() if target == cycle[1])
        yield draft.problem(
            ("references", column),
            f"the rules {' -> '.join(cycle)} reference each other in a circle, so that none can "
            "be written first: remove one of the references",
        )
        staying = {name: targets - {*cycle} for name, targets in left.items() if name not in cycle}
        left = _without_ends(staying)


def _without_ends(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Take away, again and again, the rules that reference no other; what stays leads to a cycle."""
    referrers: dict[str, list[str]] = {name: [] for name in graph}
    for name, targets in graph.items():
        for target in targets:
            referrers[target].append(name)
    left = {name: set(targets) for name, targets in graph.items()}
    ends = [name for name, targets in left.items() if not targets]
    while ends:
        end = ends.pop()
        del left[end]
        for referrer in referrers[end]:
            left[referrer].discard(end)
            if not left[referrer]:
                ends.append(referrer)
    return left


def _cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return a cycle of a graph in which every node has a target, as (first, ..., first).

    The first node is that of the cycle's nodes which comes first in the graph's own order.
    """
    walked: dict[str, int] = {}
    step = next(iter(graph))
    while step not in walked:
        walked[step] = len(walked)
        step = min(graph[step])
    cycle = [name for name, place in walked.items() if place >= walked[step]]
    first = next(index for name in graph for index in range(len(cycle)) if cycle[index] == name)
    return [*cycle[first:], *cycle[:first], cycle[first]]


# -- Both directions ---------------------------------------------------------------------------

_WRITING = frozenset(
    {
        "table",
        "child_table",
        "direction",
        "key",
        "columns",
        "surrogate",
        "on_missing",
        "on_changed",
        "on_extra",
    }
)


@_of_all
def _written_both_ways(drafts: Sequence[Draft]) -> Iterator[Problem]:
    sound = [draft for draft in drafts if not draft.broken & _WRITING]
    downs = [draft.rule for draft in sound if draft.rule.direction is Direction.DOWN]
    for draft in sound:
        for down in downs if draft.rule.direction is Direction.UP else ():
            if _collide(down, draft.rule):
                message = (
                    f"{draft.rule.id!r} writes up what {down.id!r} ({down.position}) writes down: "
                    "let one of them only report, or let them include different columns"
                )
                yield draft.problem(("direction",), message)


def _collide(down: Rule, up: Rule) -> bool:
    if (down.table, down.child_table) != (up.table, up.child_table):
        return False
    if (_removes(down) and _adds(up)) or (_removes(up) and _adds(down)):
        return True
    return _writes(down) and _writes(up) and _overlap(down, up)


def _adds(rule: Rule) -> bool:
    return rule.on_missing is Action.INSERT


def _removes(rule: Rule) -> bool:
    return rule.on_extra in (Action.DELETE, Action.SOFT_DELETE)


def _writes(rule: Rule) -> bool:
    return _adds(rule) or _removes(rule) or rule.on_changed is Action.UPDATE


def _overlap(one: Rule, other: Rule) -> bool:
    # Where neither rule names its columns, both compare whatever the tables have.
    named = one.include if one.include is not None else other.include
    return named is None or any(_is_compared(one, column) and _is_compared(other, column) for column in named)

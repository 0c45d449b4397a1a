"""From the raw values of a rule file to typed rules, with the place of everything kept.

A file with mistakes is read as far as it goes: keys that are wrong in themselves are named in
``Draft.broken`` and left out of the rule, so that the other keys can still be checked and all
problems of a file come out at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cellsync import model
from cellsync.errors import Problem
from cellsync.model import Action, Direction, Rule, Surrogate
from cellsync.rules import complaints, explains, grammar, shape
from cellsync.rules import detectors as detecting
from cellsync.rules.replacing import read_replacing
from cellsync.yamlfile import Document, Path

Raw = Mapping[str, Any]
Parse = Callable[[Any], object]

EACH = "*"
"""A step of a pattern that stands for every key of a mapping, or every item of a list."""

_RULE_GRAMMAR: tuple[tuple[Path, Parse], ...] = (
    (("when",), grammar.gate),
    (("soft_delete", "live"), grammar.scalar),
    (("route", "path"), grammar.route_path),
    (("on_insert", EACH), grammar.inserted),
    (("overrides", EACH, EACH), grammar.scalar),
    (("limits", "inserts"), grammar.limit),
    (("limits", "updates"), grammar.limit),
    (("limits", "deletes"), grammar.limit),
    (("settle",), grammar.duration),
    (("tolerance", EACH), grammar.scalar),
    (("after", EACH, "when"), grammar.gate),
    (("after", EACH, "notice"), grammar.cells_template),
    (("says", EACH, "rows", EACH), grammar.scalar),
    (("says", EACH, "missing"), grammar.unchanging),
    (("says", EACH, "changed"), grammar.fields),
    (("says", EACH, "extra"), grammar.unchanging),
)
_PACK_GRAMMAR: tuple[tuple[Path, Parse], ...] = (
    (("requires", "parent_version"), grammar.version_range),
    (("services", EACH, "stale"), grammar.duration),
    (("explains", EACH, EACH, "when"), grammar.gate),
    (("explains", EACH, EACH, "says"), grammar.fields),
    (("explains", EACH, EACH, "do"), grammar.fields),
    (("detectors", EACH, "when"), grammar.gate),
    (("detectors", EACH, "says"), grammar.fields),
    (("detectors", EACH, "do"), detecting.advice),
)


@dataclass(frozen=True, kw_only=True)
class Amendment:
    """What one file changes in one rule, as far as it could be read."""

    document: Document
    rule: str
    own: Raw
    """The rule keys that it gives and may give."""
    broken: frozenset[str]
    """Those of them that have a problem of their own."""

    @property
    def position(self) -> model.Position:
        """Where the change stands."""
        line, column = self.document.places["changes", self.rule]
        return model.Position(file=self.document.file, line=line, column=column)

    def problem(self, steps: Path, message: str) -> Problem:
        """Return a problem of the value at ``steps``."""
        return self.document.problem(("changes", self.rule, *steps), message)


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One rule as far as it could be read, and where its values stand."""

    document: Document
    index: int
    own: Raw
    """The keys that the rule itself gives."""
    broken: frozenset[str]
    """The rule keys that have a problem of their own; ``rule`` holds defaults in their place."""
    rule: Rule
    raw: Raw
    """All keys that hold for the rule and have no problem of their own."""
    amendment: Amendment | None = None
    """What another file changes; ``own``, ``broken``, ``rule`` and ``raw`` have it already."""

    @property
    def identified(self) -> bool:
        """Tell whether the rule's id could be read."""
        return bool(self.rule.id) and "id" not in self.broken

    def problem(self, steps: Path, message: str) -> Problem:
        """Return a problem of the value at ``steps``, in the rule, its defaults, or what changes it."""
        if self.amendment is not None and steps and steps[0] in self.amendment.own:
            return self.amendment.problem(steps, message)
        return self.document.problem(self._place(steps), message)

    def amended(self, amendment: Amendment) -> Draft:
        """Return the rule as another file changes it."""
        sound = {key: value for key, value in amendment.own.items() if key not in amendment.broken}
        raw = _over(self.raw, sound)
        changed = _rule(raw, pack=self.rule.pack, position=self.rule.position)
        return replace(
            self,
            own={**self.own, **amendment.own},
            broken=(self.broken - sound.keys()) | amendment.broken,
            raw=raw,
            rule=replace(changed, changed=amendment.position),
            amendment=amendment,
        )

    def _place(self, steps: Path) -> Path:
        own: Path = ("rules", self.index, *steps)
        inherited: Path = ("defaults", *steps)
        replaced = not steps or (steps[0] in self.own and steps[0] != "limits")
        return (
            own
            if replaced or own in self.document.places or inherited not in self.document.places
            else inherited
        )


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One rule file as far as it could be read."""

    document: Document
    name: str
    problems: tuple[Problem, ...]
    drafts: tuple[Draft, ...]
    detectors: tuple[detecting.Draft, ...] = ()
    amendments: tuple[Amendment, ...] = ()

    @property
    def complete(self) -> bool:
        """Tell whether every rule of the file could be read as far as its id."""
        rules = self.document.data.get("rules", []) if isinstance(self.document.data, Mapping) else None
        identified = [draft for draft in self.drafts if draft.identified]
        return isinstance(rules, list) and len(rules) == len(identified)

    def pack(self) -> model.Pack:
        """Return the file as a pack; only for a sheet without problems."""
        data = self.document.data
        requires = data.get("requires", {})
        version = requires.get("parent_version")
        return model.Pack(
            name=self.name,
            file=self.document.file,
            why=data.get("why", ""),
            requires=model.Requirement(
                equal_versions=_listed(requires.get("equal_versions", ())),
                parent_version=grammar.version_range(version) if version else None,
                repository=requires.get("repository"),
                child_repository=requires.get("child_repository", requires.get("repository")),
                otherwise=requires.get("otherwise", ""),
            ),
            rules=tuple(draft.rule for draft in self.drafts),
            features=tuple(
                model.Feature(name=name, lost=lost) for name, lost in data.get("features", {}).items()
            ),
            services=tuple(map(_heartbeats, data.get("services", ()))),
            explains={
                name: tuple(map(explains.read, steps)) for name, steps in data.get("explains", {}).items()
            },
            detectors=tuple(draft.detector for draft in self.detectors),
            changes=tuple(each.rule for each in self.amendments),
            hides=tuple(data.get("secrets", {}).get("hide", ())),
        )


def _listed(given: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _heartbeats(raw: Raw) -> model.Heartbeats:
    return model.Heartbeats(
        database=raw.get("database", "nova"),
        table=raw["table"],
        name=raw["name"],
        host=raw["host"],
        beat=tuple(raw["beat"]),
        where=raw.get("where"),
        stale=grammar.duration(raw.get("stale", 60)),
        needed={role: dict(raw.get(role.value, {})) for role in model.Role},
        optional=frozenset(raw.get("optional", ())),
        through_broker=frozenset(raw.get("through_broker", ())),
    )


def read(document: Document, *, name: str) -> Sheet:
    """Read one rule file; ``name`` is the pack's name where the file gives none.

    Mistakes in single values come back in ``Sheet.problems``; what the rules mean together is
    for `meaning` to check.
    """
    problems = complaints.check(document)
    wrong = {path for path, _ in problems}
    problems.update(_grammar_problems(document, wrong))
    wrong = {path for path, _ in problems}
    data = document.data if isinstance(document.data, Mapping) else {}
    given = data.get("pack")
    pack = given if isinstance(given, str) else name
    return Sheet(
        document=document,
        name=pack,
        problems=tuple(dict.fromkeys(problems.values())),
        drafts=tuple(_drafts(document, data, pack, wrong)),
        detectors=tuple(detecting.read(document, data, pack=pack, wrong=wrong)),
        amendments=tuple(_amendments(document, data, wrong)),
    )


def _amendments(document: Document, data: Raw, wrong: set[Path]) -> Iterator[Amendment]:
    changes = data.get("changes")
    for rule, own in changes.items() if isinstance(changes, Mapping) else ():
        if isinstance(own, Mapping):
            may = {key: value for key, value in own.items() if key not in shape.UNCHANGED}
            at = ("changes", rule)
            broken = {str(path[2]) for path in wrong if path[:2] == at and len(path) > 2} & may.keys()
            yield Amendment(document=document, rule=rule, own=may, broken=frozenset(broken))


def amended(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Return the files with the rules as all files together change them; of two changes the first counts."""
    first: dict[str, Amendment] = {}
    for sheet in sheets:
        for amendment in sheet.amendments:
            first.setdefault(amendment.rule, amendment)
    return [
        replace(
            sheet,
            drafts=tuple(
                draft.amended(first[draft.rule.id]) if draft.identified and draft.rule.id in first else draft
                for draft in sheet.drafts
            ),
        )
        for sheet in sheets
    ]


def _grammar_problems(document: Document, wrong: set[Path]) -> dict[complaints.Complaint, Problem]:
    patterns = [
        *_PACK_GRAMMAR,
        *(
            ((*base, *path), parse)
            for base in (("defaults",), ("rules", EACH), ("changes", EACH))
            for path, parse in _RULE_GRAMMAR
        ),
    ]
    return {
        (path, message): document.problem(path, message)
        for pattern, parse in patterns
        for path, value in _find(document.data, pattern)
        if _is_sound(path, wrong)
        for message in _mistake(path, value, parse)
    }


def _is_sound(path: Path, wrong: set[Path]) -> bool:
    # A rule that lacks a key, or has one too many, is still checked in all its other keys.
    container = 2 if path[0] in ("rules", "detectors", "changes") else 1
    around = any(path[:length] in wrong for length in range(container + 1, len(path) + 1))
    return not around and not any(each[: len(path)] == path for each in wrong)


def _mistake(path: Path, value: Any, parse: Parse) -> Iterator[str]:
    try:
        parse(value)
    except ValueError as error:
        yield f"{next(step for step in reversed(path) if isinstance(step, str))}: {error}"


def _find(value: Any, pattern: Path, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if not pattern:
        yield path, value
        return
    step, *rest = pattern
    for key, item in _items(value):
        if step in (EACH, key):
            yield from _find(item, tuple(rest), (*path, key))


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


# -- Rules -------------------------------------------------------------------------------------


def _drafts(document: Document, data: Raw, pack: str, wrong: set[Path]) -> Iterator[Draft]:
    defaults = data.get("defaults")
    defaults = defaults if isinstance(defaults, Mapping) else {}
    rules = data.get("rules")
    for index, own in enumerate(rules if isinstance(rules, list) else ()):
        if not isinstance(own, Mapping):
            continue
        merged, broken = _merge(defaults, own, index, wrong)
        sound = {key: value for key, value in merged.items() if key not in broken}
        rule = _rule(sound, pack=pack, position=_position(document, index))
        yield Draft(document=document, index=index, own=own, broken=broken, rule=rule, raw=sound)


def _position(document: Document, index: int) -> model.Position:
    line, column = document.places[("rules", index)]
    return model.Position(file=document.file, line=line, column=column)


def _merge(defaults: Raw, own: Raw, index: int, wrong: set[Path]) -> tuple[dict[str, Any], frozenset[str]]:
    known = {key: value for key, value in defaults.items() if key not in shape.NO_DEFAULT}
    merged = _over(known, own)
    inherited = {key for key in known if key not in own or key == "limits"}
    broken = {str(path[2]) for path in wrong if path[:2] == ("rules", index) and len(path) > 2}
    broken |= {str(path[1]) for path in wrong if path[:1] == ("defaults",) and len(path) > 1} & inherited
    return merged, frozenset(broken | ({"table", "key"} - merged.keys()))


def _over(known: Raw, own: Raw) -> dict[str, Any]:
    """Return rule keys with others over them, which replace them as a whole; only limits merge."""
    merged = {**known, **own}
    if isinstance(known.get("limits"), Mapping) and isinstance(own.get("limits"), Mapping):
        merged["limits"] = {**known["limits"], **own["limits"]}
    return merged


def _rule(raw: Raw, *, pack: str, position: model.Position) -> Rule:
    table = raw.get("table", "")
    key = tuple(raw.get("key", ()))
    columns = raw.get("columns", {})
    where = raw.get("where")
    where = where if isinstance(where, Mapping) else {"desired": where, "existing": where}
    return Rule(
        id=raw.get("id", table),
        pack=pack,
        position=position,
        table=table,
        child_table=raw.get("child_table", table),
        direction=Direction(raw.get("direction", "down")),
        why=raw.get("why", ""),
        key=key,
        references=dict(raw.get("references", {})),
        surrogate={column: Surrogate(word) for column, word in raw.get("surrogate", {}).items()},
        include=_included(columns, key),
        exclude=tuple(columns.get("exclude", ())),
        transforms=dict(raw.get("transforms", {})),
        where_desired=where.get("desired"),
        where_existing=where.get("existing"),
        when=_gate(raw),
        soft_delete=_soft_delete(raw.get("soft_delete", False)),
        route=_route(raw.get("route")),
        on_insert={column: grammar.inserted(value) for column, value in raw.get("on_insert", {}).items()},
        carries=_carried(raw.get("carries")),
        comes_with=_leader(raw.get("comes_with")),
        revives=raw.get("revives", True),
        overrides={cell: _scalars(values) for cell, values in raw.get("overrides", {}).items()},
        on_missing=Action(raw.get("on_missing", "insert")),
        on_changed=Action(raw.get("on_changed", "update")),
        on_extra=Action(raw.get("on_extra", "report")),
        removes=model.Removes(raw.get("removes", "all")),
        replaces=read_replacing(raw.get("replaces")),
        limits=_limits(raw.get("limits", {})),
        settle=grammar.duration(raw["settle"]) if "settle" in raw else None,
        tolerance={column: float(number) for column, number in raw.get("tolerance", {}).items()},
        features=tuple(raw.get("features", ())),
        after=tuple(model.Notice(text=item["notice"], when=_gate(item)) for item in raw.get("after", ())),
        says=tuple(_saying(item) for item in raw.get("says", ())),
    )


def _included(columns: Raw, key: tuple[str, ...]) -> tuple[str, ...] | None:
    if "include" not in columns:
        return None
    folded = {column.lower() for column in key}
    return tuple(column for column in columns["include"] if column.lower() not in folded)


def _carried(raw: Any) -> model.Columns | None:
    if raw is None:
        return None
    include = tuple(raw["include"]) if "include" in raw else None
    return model.Columns(include=include, exclude=tuple(raw.get("exclude", ())))


def _leader(raw: Any) -> model.Leader | None:
    return None if raw is None else model.Leader(rule=raw["rule"], by=dict(raw["by"]))


def _gate(raw: Raw) -> model.Gate | None:
    return grammar.gate(raw["when"]) if "when" in raw else None


def _scalars(raw: Raw) -> dict[str, model.Value]:
    return {column: grammar.scalar(value) for column, value in raw.items()}


def _soft_delete(raw: Any) -> model.SoftDelete | None:
    if raw is False:
        return None
    live = grammar.scalar(raw["live"])
    return model.SoftDelete(column=raw["column"], live=live, tombstone=raw["tombstone"], at=raw.get("at"))


def _route(raw: Any) -> model.Route | None:
    if raw is None:
        return None
    elsewhere = raw.get("else_where_exists")
    look_up = model.LookUp(**elsewhere) if elsewhere else None
    return model.Route(column=raw["column"], path=raw["path"], else_where_exists=look_up)


def _limits(raw: Raw) -> model.Limits:
    given: dict[str, Any] = {key: grammar.limit(value) for key, value in raw.items() if key != "free"}
    if "free" in raw:
        given["free"] = int(raw["free"])
    return model.Limits(**given)


def _saying(raw: Raw) -> model.Saying:
    return model.Saying(
        rows=_scalars(raw.get("rows", {})),
        missing=raw.get("missing"),
        changed=raw.get("changed"),
        extra=raw.get("extra"),
    )

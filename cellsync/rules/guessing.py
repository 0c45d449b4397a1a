"""What a table's schema lets one guess about its rule, each guess with its reason.

Nothing here is certain: a schema says what is unique, not what tells a row in two databases. So every
guess says what it rests on and what to check, and where nothing speaks for an answer there is none
(``value`` is None): a person has to give it. `drafting` writes it all down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Union

from cellsync.model import Column, Family, ForeignKey, Survey, Table

Value = Union[str, int, "tuple[str, ...]", "Mapping[str, Union[str, int]]"]

_CREATED = re.compile(r"(date_)?(created?|inserted?|added|creation)(_?(at|on|date|time|ts))?|ctime")
_UPDATED = re.compile(
    r"(last_?)?(date_)?(updated?|modified|changed?|modification)(_?(at|on|date|time|ts))?|mtime"
)
_DELETED = re.compile(r"(is_)?(deleted|removed)(_?(at|on|date|time|flag))?")
_RENAMED = ("id", "name", "title", "label", "display_name", "description", "email", "position")
"""Columns that people change, or that each database may count: what else is unique is a better key."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """One value of a rule, and why; without a value it is a question that a person has to answer."""

    about: str
    """The column that it is about, or the rule key."""
    value: Value | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """All that is guessed about the rule of one table. Columns are in the table's order."""

    table: str
    key: Guess
    references: tuple[Guess, ...]
    """The value is the table that is referred to."""
    surrogate: tuple[Guess, ...]
    soft_delete: Guess | None
    exclude: tuple[Guess, ...]
    """The value is the column itself."""
    on_insert: tuple[Guess, ...]
    remarks: tuple[str, ...]
    """What is taken for plain data, though it may be something else."""
    notes: tuple[str, ...]
    """What no key of a rule changes."""


def guess(survey: Survey, names: Sequence[str]) -> list[Guesses]:
    """Guess the rules of these tables of the parent, every one after those that it refers to."""
    made = [_of_table(survey, survey.tables[name], tuple(names)) for name in dict.fromkeys(names)]
    return _ordered(made)


def _of_table(survey: Survey, table: Table, names: tuple[str, ...]) -> Guesses:
    absent = dict(_absent(survey, table))
    references = {each.about: each for each in _references(survey, table, names) if each.about not in absent}
    mark = _soft_delete(table, references)
    key = _key(table, mark, absent, references)
    taken = set(key.value) if isinstance(key.value, tuple) else set()
    surrogate = [each for each in _surrogate(table, references) if each.about not in taken]
    exclude = [*_excluded(table, {*taken, *references}, absent)]
    on_insert = [*_born(table, mark, {each.about for each in exclude})]
    return Guesses(
        table=table.name,
        key=key,
        references=tuple(references.values()),
        surrogate=tuple(surrogate),
        soft_delete=mark,
        exclude=tuple(exclude),
        on_insert=tuple(on_insert),
        remarks=tuple(_remarks(survey, table, mark, references)),
        notes=tuple(_notes(survey, table)),
    )


# -- The key -----------------------------------------------------------------------------------


def _key(
    table: Table, mark: Guess | None, absent: Mapping[str, str], references: Mapping[str, Guess]
) -> Guess:
    """Guess the natural key: the best of the unique keys that hold nothing a database counts for itself."""
    candidates = sorted(_candidates(table, mark), key=lambda each: _rank(table, each[1]))
    unfit = {columns: _unfit(table, columns, absent, references) for _, columns in candidates}
    sound = [(label, columns) for label, columns in candidates if not unfit[columns]]
    if not sound:
        reasons = [f"{label} ({', '.join(columns)}) {unfit[columns]}" for label, columns in candidates]
        return Guess(about="key", value=None, reason=_question(table, reasons))
    label, columns = sound[0]
    also = [f"({', '.join(other)}) by {name}" for name, other in sound[1:]]
    found = f"{label} says that it tells one row from another"
    found += f"; unique too: {', '.join(also)}" if also else ""
    check = "check that one row has it in all databases, and that nobody changes it"
    return Guess(about="key", value=columns, reason=f"{found}; {check}")


def _question(table: Table, reasons: Sequence[str]) -> str:
    others = "; ".join(reasons) or "there is no unique key but of what each database counts for itself"
    told = [column for column in table.columns if not (column.auto_increment or _tells_of_itself(column))]
    columns = ", ".join(column.name for column in told)
    return f"name the columns that tell a row of {table.name} in both databases, out of {columns}: {others}"


def _tells_of_itself(column: Column) -> bool:
    deletion = _DELETED.fullmatch(column.name.lower()) is not None
    return deletion or _is_time_of(column, _CREATED) or _is_time_of(column, _UPDATED)


def _candidates(table: Table, mark: Guess | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the unique keys, as (what it is called, columns), each set of columns once."""
    seen = set()
    deletion = str(mark.value["column"]) if mark and isinstance(mark.value, Mapping) else ""
    unique: list[tuple[str, tuple[str, ...]]] = [("the primary key", table.primary_key)]
    unique += [(f"the unique key {index.name}", index.columns) for index in table.indexes if index.unique]
    for label, columns in unique:
        kept = tuple(name for name in columns if name != deletion)
        if kept and frozenset(kept) not in seen and not _counted(table, kept):
            seen.add(frozenset(kept))
            yield label + (f" without {deletion}" if kept != columns else ""), kept


def _counted(table: Table, names: Iterable[str]) -> bool:
    columns = [table.column(name) for name in names]
    return any(column is None or column.auto_increment for column in columns)


def _rank(table: Table, names: tuple[str, ...]) -> tuple[object, ...]:
    """Return what to sort unique keys by: NOT NULL, short, and of columns that people do not change."""
    nullable = any(column.nullable for column in _columns(table, names))
    renamed = any(column.name.lower() in _RENAMED for column in _columns(table, names))
    return (nullable, len(names), renamed, names != table.primary_key, names)


def _columns(table: Table, names: Iterable[str]) -> list[Column]:
    return [column for name in names if (column := table.column(name)) is not None]


def _unfit(
    table: Table, names: tuple[str, ...], absent: Mapping[str, str], references: Mapping[str, Guess]
) -> str:
    """Return why a unique key cannot be the key of a rule, or ""."""
    for column in _columns(table, names):
        if column.name in absent:
            return f"is no key: {absent[column.name]}"
        if column.generated:
            return f"is no key: {column.name} is generated"
        if column.family is Family.FLOAT:
            return f"is no key: {column.name} is a floating-point number"
        if _DELETED.fullmatch(column.name.lower()):
            return f"is no key: {column.name} seems to mark deleted rows"
        if references.get(column.name) and references[column.name].value == table.name:
            return f"is no key: {column.name} refers to a row of {table.name} itself, so it would have no end"
    return ""


# -- References --------------------------------------------------------------------------------


def _references(survey: Survey, table: Table, names: tuple[str, ...]) -> Iterator[Guess]:
    for column in table.columns:
        found = _by_foreign_key(survey, table, column) or _by_name(survey, table, column)
        if found is None:
            continue
        targets, reason = found
        drafted = [name for name in targets if name in names]
        if column.auto_increment:
            yield Guess(about=column.name, value=None, reason=f"{reason}; but it is AUTO_INCREMENT, too")
        elif len(targets) == 1 and drafted:
            yield Guess(about=column.name, value=targets[0], reason=reason)
        else:
            yield Guess(about=column.name, value=None, reason=f"{reason}; {_advice(targets, names)}")


def _advice(targets: Sequence[str], names: Sequence[str]) -> str:
    if len(targets) > 1:
        return f"say which of {', '.join(targets)} it is, or exclude the column"
    return (
        f"{targets[0]} is not drafted here: draft both (rules init {' '.join([*names, targets[0]])}), write "
        "the id of its rule, or exclude the column"
    )


def _by_foreign_key(survey: Survey, table: Table, column: Column) -> tuple[list[str], str] | None:
    for key, referenced in _keys_of(table, column.name):
        if key.table in survey.tables and _is_local(survey, survey.tables[key.table], referenced):
            reason = f"the foreign key {key.name} leads to {key.table}.{referenced}"
            return [key.table], f"{reason}, which each database counts for itself"
    return None


def _keys_of(table: Table, column: str) -> Iterator[tuple[ForeignKey, str]]:
    for key in table.foreign_keys:
        for name, referenced in zip(key.columns, key.references, strict=True):
            if name == column and (key.table, referenced) != (table.name, column):
                yield key, referenced


def _is_local(
    survey: Survey, table: Table, name: str, seen: frozenset[tuple[str, str]] = frozenset()
) -> bool:
    """Say whether a column holds a number that each database counts for itself, its own or another's."""
    column = table.column(name)
    if column is None or (table.name, name) in seen:
        return False
    seen |= {(table.name, name)}
    return column.auto_increment or any(
        key.table in survey.tables and _is_local(survey, survey.tables[key.table], referenced, seen)
        for key, referenced in _keys_of(table, name)
    )


def _by_name(survey: Survey, table: Table, column: Column) -> tuple[list[str], str] | None:
    """Return the tables that an integer ``<table>_id`` is named after, and that count their rows."""
    stem = _stem(column)
    if stem is None or next(_keys_of(table, column.name), None) is not None:
        return None
    if stem == "parent":
        targets = [table.name] if _counter(table) else []
    else:
        targets = [each.name for each in survey.tables.values() if _named(each.name, stem) and _counter(each)]
    exact = [name for name in targets if name.lower() in _plurals(stem)]
    targets = exact if len(exact) == 1 else targets
    if not targets:
        return None
    return sorted(targets), f"no foreign key says so, but it is named after {' and '.join(sorted(targets))}"


def _stem(column: Column) -> str | None:
    name = column.name.lower()
    plain = column.family is Family.INTEGER and not column.auto_increment
    return name.removesuffix("_id") if plain and name.endswith("_id") and name != "_id" else None


def _plurals(stem: str) -> tuple[str, ...]:
    return (stem, f"{stem}s", f"{stem}es", f"{stem.removesuffix('y')}ies")


def _named(table: str, stem: str) -> bool:
    return any(table.lower() == name or table.lower().endswith(f"_{name}") for name in _plurals(stem))


def _counter(table: Table) -> Column | None:
    return next((column for column in table.columns if column.auto_increment), None)


# -- Ids, deletion, times ----------------------------------------------------------------------


def _surrogate(table: Table, references: Mapping[str, Guess]) -> Iterator[Guess]:
    for column in table.columns:
        if column.name in references:
            continue
        if column.auto_increment:
            reason = (
                "AUTO_INCREMENT: each database counts for itself, so it is neither compared nor copied; "
                "preserve would copy it, where rows must have one id everywhere"
            )
            yield Guess(about=column.name, value="remap", reason=reason)
        elif table.primary_key == (column.name,):
            reason = (
                "the primary key, and no database counts it: it is the same everywhere, compared and copied; "
                "another row under the same id is a finding"
            )
            yield Guess(about=column.name, value="preserve", reason=reason)


def _soft_delete(table: Table, references: Mapping[str, Guess]) -> Guess | None:
    """Guess that deleted rows are marked as Nova's are: by their own id in a number ``deleted``."""
    column, at = table.column("deleted"), table.column("deleted_at")
    counter = _counter(table)
    if column is None or counter is None or column.auto_increment or column.name in references:
        return None
    if column.family is not Family.INTEGER or _is_flag(column):
        return None
    value: dict[str, str | int] = {"column": column.name, "live": 0, "tombstone": counter.name}
    if at is not None and at.family is Family.TEMPORAL and at.name not in references:
        value["at"] = at.name
    reason = (
        f"{column.name} is a number that can hold an id: 0 in live rows, {counter.name} in deleted ones, as "
        "Nova does it; soft_delete: false would compare it as data"
    )
    return Guess(about="soft_delete", value=value, reason=reason)


def _is_flag(column: Column) -> bool:
    return column.type.startswith(("tinyint", "bit", "bool"))


def _excluded(table: Table, used: set[str], absent: Mapping[str, str]) -> Iterator[Guess]:
    for column in table.columns:
        if column.name in used or column.auto_increment:
            continue
        if column.name in absent:
            yield Guess(about=column.name, value=column.name, reason=absent[column.name])
        elif _is_time_of(column, _CREATED) or _is_time_of(column, _UPDATED):
            reason = "when the row was written here, which each database says for itself"
            yield Guess(about=column.name, value=column.name, reason=reason)


def _is_time_of(column: Column, names: re.Pattern[str]) -> bool:
    return column.family is Family.TEMPORAL and names.fullmatch(column.name.lower()) is not None


def _born(table: Table, mark: Guess | None, excluded: set[str]) -> Iterator[Guess]:
    """Guess what a new row gets in the columns that are not copied."""
    for column in table.columns:
        times = _is_time_of(column, _CREATED) or (not column.nullable and _is_time_of(column, _UPDATED))
        if mark and isinstance(mark.value, Mapping) and column.name == mark.value["column"]:
            yield Guess(about=column.name, value=0, reason="a new row is live")
        elif column.name in excluded and times and column.default is None:
            yield Guess(about=column.name, value="now", reason="the column has no default of its own")


# -- What else there is to say -----------------------------------------------------------------


def _absent(survey: Survey, table: Table) -> Iterator[tuple[str, str]]:
    """Yield (column, why it cannot be compared) for the columns that some child has not, or has otherwise."""
    for column in table.columns:
        for child, other in _children(survey, table.name):
            found = other.column(column.name)
            if found is None:
                yield column.name, f"{child} has no column {column.name}"
                break
            if found.family is not column.family:
                yield column.name, f"{column.name} is {column.type} here and {found.type} in {child}"
                break


def _children(survey: Survey, name: str) -> list[tuple[str, Table]]:
    answered = [(child, each) for child, each in survey.children.items() if not isinstance(each, str)]
    return [(child, tables[name]) for child, tables in answered if name in tables]


def _remarks(
    survey: Survey, table: Table, mark: Guess | None, references: Mapping[str, Guess]
) -> Iterator[str]:
    marks = set(mark.value.values()) if mark and isinstance(mark.value, Mapping) else set()
    for column in table.columns:
        known = column.name in references or column.name in marks
        if known or column.auto_increment or (column.name,) == table.primary_key:
            continue
        if _DELETED.fullmatch(column.name.lower()):
            yield (
                f"{column.name} is plain data: if it marks deleted rows, a row that is deleted in "
                f"{survey.parent} is marked below too; leave deleted rows out by where, if that is not wanted"
            )
        elif _stem(column) is not None and next(_keys_of(table, column.name), None) is None:
            yield (
                f"{column.name} is plain data, for no table that counts its rows is named after it: check "
                "that it means the same in all databases"
            )


def _notes(survey: Survey, table: Table) -> Iterator[str]:
    for child, tables in survey.children.items():
        if not isinstance(tables, str) and table.name not in tables:
            yield f"{child} has no table {table.name}: make it there first"
    for child, other in _children(survey, table.name):
        for column in other.columns:
            if table.column(column.name) is None and not _fills_itself(column):
                yield (
                    f"{child} has a column {column.name} that {survey.parent} lacks and a new row must fill: "
                    "say under on_insert with what"
                )
        if other.triggers:
            yield f"{table.name} in {child} has triggers ({', '.join(other.triggers)}): a repair refuses it"


def _fills_itself(column: Column) -> bool:
    return column.nullable or column.default is not None or column.auto_increment or column.generated


# -- Order -------------------------------------------------------------------------------------


def _ordered(made: Sequence[Guesses]) -> list[Guesses]:
    """Put every table after those that it refers to; a circle is broken by asking."""
    left = list(made)
    ordered: list[Guesses] = []
    while left:
        done = {each.table for each in ordered}
        free = [each for each in left if _targets(each) <= done]
        if free:
            ordered.append(free[0])
            left.remove(free[0])
        else:
            left = _without_a_reference(left)
    return ordered


def _targets(guesses: Guesses) -> set[str]:
    return {str(each.value) for each in guesses.references if each.value is not None} - {guesses.table}


def _without_a_reference(left: Sequence[Guesses]) -> list[Guesses]:
    """Turn one reference of a circle into a question: the first that is in no key, else the first of all."""
    circle = _circle({each.table: each for each in left})
    steps = list(zip(circle, [*circle[1:], circle[0]], strict=True))
    pairs = [
        (each, reference)
        for each, target in steps
        for reference in each.references
        if reference.value == target.table
    ]
    outside = [pair for pair in pairs if pair[1].about not in (pair[0].key.value or ())]  # type: ignore[operator]
    changed, reference = (outside or pairs)[0]
    names = " -> ".join(each.table for each in (*circle, circle[0]))
    question = replace(
        reference,
        value=None,
        reason=f"{reference.reason}; but {names} refer to each other in a circle, so that none can be "
        "written first: exclude this column, or the other one",
    )
    references = tuple(question if each is reference else each for each in changed.references)
    return [replace(each, references=references) if each is changed else each for each in left]


def _circle(left: Mapping[str, Guesses]) -> list[Guesses]:
    walked: list[str] = []
    step = next(iter(left))
    while step not in walked:
        walked.append(step)
        step = min(_targets(left[step]) & left.keys())
    return [left[name] for name in walked[walked.index(step) :]]

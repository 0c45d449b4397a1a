"""Explain what a repair wrote by what the oracle found before it; shares no code with cellsync."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from oracle import Edge, Judged, Key, Row, Rule, Table, read_part


@dataclass
class Written:
    """What became of a database between two snapshots, as the rules explain it."""

    inserted: int = 0
    updated: int = 0
    removed: int = 0
    wrong: list[str] = field(default_factory=list)
    """What no rule asked for."""

    @property
    def total(self) -> int:
        """The number of rows that were written."""
        return self.inserted + self.updated + self.removed


def explain_writes(before: Edge, after: Edge, judged: Mapping[str, Judged], *, of_parent: bool) -> Written:
    """Explain every difference between two snapshots of a written database by what the rules found before.

    ``judged`` is what was judged of ``before``.
    """
    written = Written()
    old, new = (edge.parent if of_parent else edge.child for edge in (before, after))
    for name in sorted({*old.tables, *new.tables}):
        one, other = old.tables.get(name), new.tables.get(name)
        if one is None or other is None:
            written.wrong.append(f"table {name} came or went")
            continue
        mine = [each for each in judged.values() if _is_written(each, name, of_parent)]
        _Explanation(written, before, after, one, other).explain(mine)
    return written


def _is_written(judged: Judged, table: str, of_parent: bool) -> bool:
    rule = judged.rule
    return rule.is_upward == of_parent and rule.tables[not of_parent].lower() == table.lower()


@dataclass
class _Explanation:
    """One table before and after; rows by primary key that are in neither or both are as they were."""

    written: Written
    before: Edge
    after: Edge
    old: Table
    new: Table
    lost: dict[Key, Row] = field(default_factory=dict)
    won: dict[Key, Row] = field(default_factory=dict)

    def explain(self, judged: Sequence[Judged]) -> None:
        names = [column.name for column in self.old.columns.values()]
        held = Counter(_freeze(row, names) for row in self.old.rows)
        kept = Counter(_freeze(row, names) for row in self.new.rows)
        gone, come = held - kept, kept - held
        self.lost = {self.old.identify(row): row for row in self.old.rows if gone[_freeze(row, names)]}
        self.won = {self.new.identify(row): row for row in self.new.rows if come[_freeze(row, names)]}
        for each in judged:
            if not each.broken:
                self._explain_by_rule(each)
        for row in self.lost.values():
            mate = self.won.pop(self.old.identify(row), None)
            what = f"changed ({show_changes(row, mate)})" if mate else "is gone"
            self.written.wrong.append(f"{self.old.name} {show_row(row)} {what}, which no rule asked for")
        for row in self.won.values():
            self.written.wrong.append(f"{self.old.name} {show_row(row)} came, which no rule asked for")

    def _explain_by_rule(self, judged: Judged) -> None:
        """Take out of ``lost`` and ``won`` what the rule explains, and note what is wrong with it."""
        rule, old, new = judged.rule, self.old, self.new
        scope = zip(old.rows, old.scope[rule.id], strict=True)
        scoped = {id(row) for row, inside in scope if inside}
        mine = {
            _find_key(self.before, rule, old, row): row for row in self.lost.values() if id(row) in scoped
        }
        theirs = {_find_key(self.after, rule, new, row): row for row in self.won.values()}
        for key, row in theirs.items():
            was = mine.get(key)
            if key in judged.extra:
                continue
            if was is None and key in judged.missing:
                renamed = self.lost.get(new.identify(row))
                if renamed is not None and _find_key(self.before, rule, old, renamed) in judged.extra:
                    was = renamed  # a row that cellsync once pushed keeps its id when it is renamed
                elif rule.action("missing") == "insert":
                    self.written.inserted += 1
                    self.won.pop(new.identify(row))
                    continue
            if was is not None and old.identify(was) in self.lost:
                self._explain_update(judged, key, was, row)
        for key, row in mine.items():
            self._explain_removal(judged, key, row)

    def _explain_update(self, judged: Judged, key: Key, was: Row, row: Row) -> None:
        rule, old, wrong = judged.rule, self.old, self.written.wrong
        names = {old.spell(name) for name in (*judged.columns, *rule.key)}
        changed = {name for name in was if was[name] != row[name]}
        self.written.updated += 1
        self.lost.pop(old.identify(was))
        self.won.pop(self.new.identify(row))
        if key not in judged.changed and key not in judged.missing:
            wrong.append(
                f"{old.name} {show_row(was)} changed ({show_changes(was, row)}): it was no difference"
            )
        elif rule.action("changed") != "update":
            wrong.append(
                f"{old.name} {show_row(was)} changed ({show_changes(was, row)}): only to be reported"
            )
        elif (left := changed - names - _list_computed(old)) and not self._may_replace(rule, key, was, names):
            wrong.append(f"{old.name} {show_row(was)}: {sorted(left)} changed, which the rule leaves out")

    def _may_replace(self, rule: Rule, key: Key, was: Row, names: Collection[str]) -> bool:
        """Say whether a row may be a new one, with the primary key of one that was removed.

        What the rule leaves out is then what the server fills in.
        """
        removes = rule.action("extra") == "delete" and rule.action("missing") == "insert"
        return removes and _find_key(self.before, rule, self.old, was) != key and names >= {*self.old.primary}

    def _explain_removal(self, judged: Judged, key: Key, row: Row) -> None:
        rule, old = judged.rule, self.old
        identity = old.identify(row)
        if identity not in self.lost or key not in judged.extra:
            return
        mate = self.won.get(identity)
        if mate is None and rule.action("extra") == "delete":
            self.lost.pop(identity)
            self.written.removed += 1
        elif mate is not None and rule.action("extra") == "soft_delete":
            soft = rule.soft_delete
            allowed = {old.spell(soft["column"]), old.spell(soft.get("at") or soft["column"])}
            if {name for name in row if row[name] != mate[name]} <= allowed | _list_computed(old):
                self.lost.pop(identity)
                self.won.pop(identity)
                self.written.updated += 1


def _list_computed(table: Table) -> set[str]:
    """Return the columns that the server computes: they follow others, or the time of the writing."""
    return {column.name for column in table.columns.values() if column.is_generated}


def _find_key(edge: Edge, rule: Rule, table: Table, row: Row) -> Key:
    return tuple(read_part(edge, rule, table, row, name, desired=False) for name in rule.key)


def _freeze(row: Row, names: Sequence[str]) -> Key:
    return tuple(row[name] for name in names)


def show_changes(one: Row, other: Row) -> str:
    """Return what differs between two rows, in words."""
    return ", ".join(
        f"{n} {str(v)[:40]!r} -> {str(other[n])[:40]!r}" for n, v in one.items() if v != other[n]
    )


def show_row(row: Row) -> str:
    """Return a row in words, long values cut."""
    return "(" + ", ".join(f"{name}={str(value)[:40]!r}" for name, value in row.items()) + ")"

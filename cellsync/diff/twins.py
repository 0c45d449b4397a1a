"""Keys that are two to the application and one to the database that is to be written.

Inserting a row whose key has a twin would clash, or make two rows of what the application takes for one.
Only a server knows its collations: what it takes a key for comes in as a value, its class.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, MutableMapping, Sequence

from cellsync.model import Difference, Family, Finding, Key, Kind, Pairing, Row, dangles, shown

Classify = Callable[[Sequence[Key]], Sequence[Hashable]]
"""Keys -> the class of each: equal for keys that are one to the written side."""

Seen = MutableMapping[Hashable, Key]
"""Class -> the missing key of it that was met first, in whatever batch."""


def find_twins(
    pairing: Pairing,
    differences: Iterable[Difference],
    held: Iterable[Row],
    classify: Classify,
    *,
    seen: Seen | None = None,
) -> Iterator[Finding]:
    """Yield a finding for each missing row whose key is another row's to the existing side.

    ``held`` are rows of the existing side, those that its collation takes for one with a missing key
    included. Two missing rows may be twins of each other where ``seen`` is given; it remembers the keys
    of earlier batches. Asks for no class where there is nothing to compare. The keys of both rows are in
    the finding (``Finding.twins``).
    """
    if not any(part.join or part.family is Family.TEXT for part in pairing.existing.key):
        return  # numbers and bytes have one spelling
    missing, there = _sort_keys(differences, held)
    if not missing or (seen is None and not there):
        return
    classes = classify([*missing, *there])
    holders: dict[Hashable, Key] = {}
    for key, known in zip(there, classes[len(missing) :], strict=True):
        holders.setdefault(known, key)
    for key, known in zip(missing, classes, strict=False):
        first = seen.setdefault(known, key) if seen is not None else key
        if known in holders:
            yield _describe_twin(pairing, key, holders[known])
        elif first != key:
            yield _describe_double(pairing, key, first)


def _sort_keys(differences: Iterable[Difference], held: Iterable[Row]) -> tuple[list[Key], list[Key]]:
    """Return the keys that are missing, and those of other rows that could be their twins."""
    missing = dict.fromkeys(each.key for each in differences if each.kind is Kind.MISSING)
    there = dict.fromkeys(row.key for row in held if not row.limbo and not dangles(row.key))
    return [*missing], [*there]


def _describe_twin(pairing: Pairing, key: Key, twin: Key) -> Finding:
    message = (
        f"{pairing.rule.table} has {pairing.rule.named(twin)} in {pairing.existing_cell}, but "
        f"{', '.join(map(shown, key))} in {pairing.desired_cell}: one key to the database, two "
        f"to the application; rename one of them"
    )
    return Finding(code="collation-twin", cell=pairing.existing_cell, message=message, key=key, twins=(twin,))


def _describe_double(pairing: Pairing, key: Key, first: Key) -> Finding:
    message = (
        f"{pairing.rule.table} has {pairing.rule.named(first)} and {', '.join(map(shown, key))} in "
        f"{pairing.desired_cell}: two keys there, one to the database of {pairing.existing_cell}; rename "
        f"one of them"
    )
    return Finding(code="collation-twin", cell=pairing.desired_cell, message=message, key=key, twins=(first,))


def set_aside(differences: Iterable[Difference], keys: Collection[Key]) -> Iterable[Difference]:
    """Return the differences without the missing rows of some keys, and with their extra rows set aside."""
    return _set_some_aside(differences, keys) if keys else differences


def _set_some_aside(differences: Iterable[Difference], keys: Collection[Key]) -> Iterator[Difference]:
    for difference in differences:
        if difference.key not in keys or difference.kind is Kind.CHANGED:
            yield difference  # a changed row is on both sides: it is clear which one it is
        elif difference.kind is Kind.EXTRA:
            yield difference.left()

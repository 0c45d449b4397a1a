"""Compare large tables by their digests: what is found is a suspicion, until the rows are read.

estimates       -> which rules, and how their rows are dealt into buckets
a few digests   -> whether looking for the buckets that differ is worth it
digests         -> which buckets differ, per child; the parent's are read once for all of them
bundles         -> which keys differ, bucket by bucket
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from cellsync.diff import Owners, digests
from cellsync.errors import ReadFailed
from cellsync.model import (
    Bucketing,
    Bundle,
    Difference,
    Digest,
    Direction,
    Fold,
    Kind,
    Pairing,
    Projection,
    TableDiff,
    TableResult,
)
from cellsync.run.look import State
from cellsync.run.planning import Paired
from cellsync.run.reading import Bundles, Digests, Got, Router, Sizes, Span, Want, failed, read

Edge = tuple[str, str]
"""Child and rule."""

Place = tuple[str, Projection]
"""A cell, and the projection through which it is read."""

Found = Mapping[Edge, Sequence[Difference]]
"""What was found of some keys, on all edges that they were found on: kinds and keys, and no rows."""


MOST_IN_BLOCK = 100
"""So many differences of one edge are in one block; what waits on disk goes by the number of blocks."""


class Block(NamedTuple):
    """What was found of some keys, and since when it is known, by ``Request.elapsed``."""

    found: Found
    since: float

    def packed(self) -> tuple[Any, ...]:
        """Return the block as plain values (see ``spool``): of each row its kind and key."""
        found = {edge: [(each.kind.value, each.key) for each in some] for edge, some in self.found.items()}
        return found, self.since

    @classmethod
    def unpacked(cls, plain: tuple[Any, ...]) -> Block:
        """Return what ``packed`` gave these values."""
        found, since = plain
        kinds = {kind.value: kind for kind in Kind}
        return cls(
            {
                edge: [Difference.found(kinds[kind], key) for kind, key in some]
                for edge, some in found.items()
            },
            since,
        )


def known_of(block: Block) -> tuple[tuple[Edge, ...], float]:
    """Return the edges of a block, and since when it is known what was found of them."""
    return tuple(block.found), block.since


def cut(found: Found, since: float) -> Iterator[Block]:
    """Yield what was found in blocks that are small enough for many of them to be held at once."""
    for start in range(0, max(map(len, found.values()), default=0), MOST_IN_BLOCK):
        some = {edge: each[start : start + MOST_IN_BLOCK] for edge, each in found.items()}
        yield Block({edge: part for edge, part in some.items() if part}, since)


@dataclass(frozen=True, kw_only=True)
class Large:
    """The tables that are too large to be read whole, and how they are compared instead."""

    edges: Mapping[Edge, Pairing]
    dealt: Mapping[str, Bucketing]
    """Rule -> how its rows are dealt, alike for all children."""
    direct: frozenset[str] = frozenset()
    """The rules of which most buckets differ: their keys are read without looking for buckets."""

    def counting(self, rule: str, projection: Projection) -> Want[Digest]:
        """Return the reading of one side from which it is known which buckets there are."""
        bucketing = self.dealt[rule]
        if rule in self.direct:
            return Sizes(projection=projection, bucketing=bucketing)
        return Digests(projection=projection, bucketing=bucketing)

    def wants(self) -> dict[str, list[Want[Any]]]:
        """Return the first reading of all cells."""
        return _wants(self.edges, self.counting)


# -- Which tables, and how ---------------------------------------------------------------------


def large(state: State, pairs: Mapping[str, Paired], router: Router) -> Large:
    """Return the large tables. The servers' own estimates say which are, so that it repeats."""
    by_rule: dict[str, dict[Edge, Pairing]] = {}
    for child, paired in pairs.items():
        for rule, pairing in paired.items():
            if isinstance(pairing, Pairing) and pairing.rule.comes_with is None:
                by_rule.setdefault(rule, {})[child, rule] = pairing
    rows = {rule: _estimate(state, mine.values()) for rule, mine in by_rule.items()}
    chosen = {rule: mine for rule, mine in by_rule.items() if _is_large(state, mine.values(), rows[rule])}
    if not chosen:
        return Large(edges={}, dealt={})
    first = {rule: next(iter(mine.values())) for rule, mine in chosen.items()}
    ranged = {rule for rule, mine in chosen.items() if all(map(digests.ranged, mine.values()))}
    wanted = {rule: Span(projection=_above(first[rule])) for rule in first if rule in ranged}
    got = read(state, {state.parent: list(wanted.values())})
    spans = {rule: span for rule, want in wanted.items() if (span := _span(state, got, want))}
    fold = Fold.CRC if all(state.databases[cell].fold is Fold.CRC for cell in state.looks) else Fold.CUT
    found = Large(
        edges={edge: pairing for mine in chosen.values() for edge, pairing in mine.items()},
        dealt={rule: digests.bucketing(first[rule], rows[rule], spans.get(rule), fold) for rule in chosen},
    )
    return Large(edges=found.edges, dealt=found.dealt, direct=_direct(state, found, spans, router))


def _span(state: State, got: Got, want: Span) -> tuple[int, int] | None:
    try:
        return next(iter(got.of(state.parent, want)), None)
    except ReadFailed:
        return None  # what stopped it stops the digests as well, and they fail by rule


def _is_large(state: State, pairings: Iterable[Pairing], rows: int) -> bool:
    every = list(pairings)
    cells = {state.parent, *(cell for each in every for cell in (each.desired_cell, each.existing_cell))}
    able = all(state.databases[cell].digests for cell in cells)
    # An override is another value for every child; the parent's digests are the same for all.
    return able and rows > digests.READ_WHOLE and not every[0].rule.overrides


def _estimate(state: State, pairings: Iterable[Pairing]) -> int:
    places = (place for pairing in pairings for place in _both(pairing))
    return max(state.looks[cell].tables[projection.table].estimate for cell, projection in places)


def _direct(
    state: State, found: Large, spans: Mapping[str, tuple[int, int]], router: Router
) -> frozenset[str]:
    """Return the rules of which most buckets differ in every child, by a few of them."""
    samples = {rule: digests.sample(span, found.dealt[rule]) for rule, span in spans.items()}
    edges = {edge: pairing for edge, pairing in found.edges.items() if samples.get(edge[1])}
    if not edges:
        return frozenset()

    def few(rule: str, projection: Projection) -> Want[Digest]:
        return Digests(projection=projection, bucketing=found.dealt[rule], buckets=samples[rule])

    sides, _ = _counted(state, edges, few, read(state, _wants(edges, few)), router)
    rules = {rule for _, rule in edges}
    for edge in edges:
        if edge not in sides or not digests.most_differ(sides[edge].desired, sides[edge].existing):
            rules.discard(edge[1])
    return frozenset(rules)


def _above(pairing: Pairing) -> Projection:
    """Return the projection through which the parent is read."""
    return pairing.desired if pairing.rule.direction is Direction.DOWN else pairing.existing


def _both(pairing: Pairing) -> tuple[Place, Place]:
    return (pairing.desired_cell, pairing.desired), (pairing.existing_cell, pairing.existing)


Reading = Callable[[str, Projection], Want[Digest]]
"""How one side of a rule is read."""


def _wants(edges: Mapping[Edge, Pairing], reading: Reading) -> dict[str, list[Want[Any]]]:
    wants: dict[str, list[Want[Any]]] = {}
    for (_, rule), pairing in edges.items():
        for cell, projection in _both(pairing):
            wants.setdefault(cell, []).append(reading(rule, projection))
    return wants


# -- Which buckets -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Sides:
    """The digests of both sides of one edge, by bucket."""

    desired: Mapping[int, Digest]
    existing: Mapping[int, Digest]
    stray: frozenset[int]
    """The buckets with rows of the parent that nobody owns."""


def _counted(
    state: State, edges: Mapping[Edge, Pairing], reading: Reading, got: Got, router: Router
) -> tuple[dict[Edge, Sides], dict[Edge, TableResult]]:
    """Return the digests of both sides of each edge; the parent's are added up once for all children."""
    summed: dict[Want[Digest], Mapping[str | None, Mapping[int, Digest]]] = {}
    sides: dict[Edge, Sides] = {}
    failures: dict[Edge, TableResult] = {}
    for (child, rule), pairing in edges.items():
        above, below = _both(pairing) if pairing.desired_cell == state.parent else _both(pairing)[::-1]
        want, other = reading(rule, above[1]), reading(rule, below[1])
        try:
            if want not in summed:
                dealt = digests.dealt(got.of(state.parent, want), router.owners(pairing.rule))
                summed[want] = {owner: digests.summed(each) for owner, each in dealt.items()}
            routed = pairing.rule.route is not None
            held = digests.summed(got.of(child, other))
            mine = summed[want].get(child if routed else None, {})
            stray = frozenset(summed[want].get(None, {})) if routed else frozenset()
            down = pairing.rule.direction is Direction.DOWN
            desired, existing = (mine, held) if down else (held, mine)
            sides[child, rule] = Sides(desired, existing, stray)
        except ReadFailed as error:
            failures[child, rule] = failed(pairing.rule, str(error))
    return sides, failures


# -- Which keys --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Search:
    """The buckets of one edge whose keys are compared, and the readings that hold their bundles."""

    pairing: Pairing
    buckets: frozenset[int]
    wants: tuple[tuple[str, Bundles], tuple[str, Bundles]]
    """Of the desired and of the existing cell; a reading may hold more, for other children."""
    known: bool
    """True where the digests of the same buckets were read before."""


@dataclass(frozen=True)
class Counted:
    """What is known of the large tables from their digests."""

    sides: Mapping[Edge, Sides]
    heads: Mapping[Edge, TableResult]
    """The tables without their differences."""
    since: float
    """When the digests were read, by ``Request.elapsed``."""


def counted(state: State, found: Large, got: Got, router: Router) -> Counted:
    """Return the digests of the large tables, from the reading that ``found.wants`` asked for."""
    sides, failures = _counted(state, found.edges, found.counting, got, router)
    heads = {edge: _head(found.edges[edge], each) for edge, each in sides.items()}
    return Counted(sides, {**failures, **heads}, got.since)


def suspected(
    state: State, found: Large, known: Counted, router: Router, *, leaving: Collection[Edge] = ()
) -> tuple[dict[Edge, TableResult], Iterator[Block]]:
    """Compare the large tables by their keys where their digests differ, but for edges in ``leaving``.

    Returns the tables without their differences, and what differs, block by block: kinds and keys,
    whose rows are not read yet.
    """
    sides = {edge: each for edge, each in known.sides.items() if edge not in leaving}
    heads = dict(known.heads)
    searches = _searches(found, sides)
    wants: dict[str, list[Want[Any]]] = {}
    for search in searches.values():
        for cell, want in search.wants:
            wants.setdefault(cell, []).append(want)
    bundles = read(state, wants)
    for edge in sides:
        try:
            for cell, want in searches[edge].wants if edge in searches else ():
                bundles.of(cell, want)
        except ReadFailed as error:
            heads[edge] = failed(found.edges[edge].rule, str(error))
            del searches[edge]
    mine = {edge: each for edge, each in sides.items() if edge in searches and searches[edge].known}
    return heads, _blocks(state, searches, bundles, router, _Known(mine, known.since, bundles.since))


def _searches(found: Large, sides: Mapping[Edge, Sides]) -> dict[Edge, _Search]:
    """Return where keys must be compared; what several children need of the parent is one reading."""
    differing = {edge: _differing(found, edge, each) for edge, each in sides.items()}
    searches: dict[Edge, _Search] = {}
    for rule in dict.fromkeys(rule for _, rule in sides):
        mine = {edge: buckets for edge, buckets in differing.items() if edge[1] == rule and buckets}
        if mine:
            make = _by_ranges if _most(found, mine, sides) else _by_buckets
            searches.update(make(found, mine, sides))
    return searches


def _most(found: Large, mine: Mapping[Edge, frozenset[int]], sides: Mapping[Edge, Sides]) -> bool:
    """Say whether all ranges of a rule's key are read: most of them differ, and they can be."""
    rule = next(iter(mine))[1]
    buckets: set[int] = set().union(*mine.values())
    sizes = _sizes(sides[edge] for edge in mine)
    able = (
        found.dealt[rule].width is not None
        and found.edges[next(iter(mine))].rule.route is None
        and max(sizes.values(), default=0) <= digests.ROWS_AT_ONCE
    )
    return able and len(buckets) * 2 >= len(sizes)


def _sizes(sides: Iterable[Sides]) -> dict[int, int]:
    """Return how many rows each bucket has at most, on any side."""
    sizes: dict[int, int] = {}
    for each in sides:
        for digest in (*each.desired.values(), *each.existing.values()):
            sizes[digest.bucket] = max(digest.rows, sizes.get(digest.bucket, 0))
    return sizes


def _by_ranges(
    found: Large, mine: Mapping[Edge, frozenset[int]], sides: Mapping[Edge, Sides]
) -> Iterator[tuple[Edge, _Search]]:
    """Yield the searches of a rule of which all keys are read, by wide ranges of them."""
    sizes = _sizes(sides[edge] for edge in mine)
    bucketing, factor = digests.wider(sizes, found.dealt[next(iter(mine))[1]])
    numbers = frozenset(digests.cut(bucket, factor) for bucket in sizes)
    some = tuple(sorted(numbers))

    def want(place: Place) -> tuple[str, Bundles]:
        return place[0], Bundles(projection=place[1], bucketing=bucketing, buckets=some, apart=True)

    for edge in mine:
        desired, existing = (want(place) for place in _both(found.edges[edge]))
        yield edge, _Search(found.edges[edge], numbers, (desired, existing), known=False)


def _by_buckets(
    found: Large, mine: Mapping[Edge, frozenset[int]], sides: Mapping[Edge, Sides]
) -> Iterator[tuple[Edge, _Search]]:
    """Yield the searches of a rule of which the keys of some buckets are read."""
    bucketing = found.dealt[next(iter(mine))[1]]
    numbers: dict[Place, set[int]] = {}
    known: dict[Place, int] = {}
    rows: list[int] = []
    for edge, buckets in mine.items():
        for place, side in zip(
            _both(found.edges[edge]), (sides[edge].desired, sides[edge].existing), strict=True
        ):
            numbers.setdefault(place, set()).update(buckets)
            known[place] = max(known.get(place, 0), len(side))
            rows += [side[at].rows for at in buckets if at in side]

    def want(place: Place) -> tuple[str, Bundles]:
        # Where most buckets differ, looking for them costs more than it saves.
        some = tuple(sorted(numbers[place])) if len(numbers[place]) * 2 < known[place] else None
        parts = digests.parts(rows)
        return place[0], Bundles(projection=place[1], bucketing=bucketing, buckets=some, parts=parts)

    for edge, buckets in mine.items():
        desired, existing = (want(place) for place in _both(found.edges[edge]))
        yield (
            edge,
            _Search(found.edges[edge], buckets, (desired, existing), known=edge[1] not in found.direct),
        )


def _differing(found: Large, edge: Edge, sides: Sides) -> frozenset[int]:
    if edge[1] in found.direct:
        return frozenset(sides.desired) | frozenset(sides.existing) | sides.stray
    return frozenset(digests.differing(sides.desired, sides.existing)) | sides.stray


@dataclass(frozen=True)
class _Known:
    """Since when it is known what a bucket holds.

    Where the keys of both sides still add up to the digests, which were read before them, nothing
    has changed in between: what differs now did so then.
    """

    _digests: Mapping[Edge, Sides]
    _first: float
    """When the digests were read."""
    _second: float
    """When the keys were read."""

    def since(self, edge: Edge, add_up: Callable[[], tuple[Digest, Digest]]) -> float:
        """Return since when one bucket of an edge is as its keys say; ``add_up`` adds these up.

        They are not where no digests were read of the same buckets.
        """
        sides = self._digests.get(edge)
        if sides is None:
            return self._second
        desired, existing = add_up()
        pairs = ((sides.desired, desired), (sides.existing, existing))
        same = all(_checksum(side.get(now.bucket)) == now.checksum for side, now in pairs)
        return self._first if same else self._second


def _checksum(digest: Digest | None) -> int:
    return digest.checksum if digest is not None else 0


def _blocks(
    state: State, searches: Mapping[Edge, _Search], got: Got, router: Router, known: _Known
) -> Iterator[Block]:
    """Yield what differs, bucket by bucket, of one rule after the other."""
    for rule in dict.fromkeys(rule for _, rule in searches):
        mine = {edge: search for edge, search in searches.items() if edge[1] == rule}
        owners = router.owners(next(iter(mine.values())).pairing.rule)
        readings = list(dict.fromkeys(reading for search in mine.values() for reading in search.wants))
        numbers = {reading: number for number, reading in enumerate(readings)}
        sides = {edge: [numbers[each] for each in search.wants] for edge, search in mine.items()}
        searchers = {edge: _Searcher(state, edge[0], each.pairing, owners) for edge, each in mine.items()}
        streams = [_numbered(number, got.of(*reading)) for number, reading in enumerate(readings)]
        for at, group in groupby(heapq.merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
            held: list[list[Bundle]] = [[] for _ in readings]
            for _, number, bundle in group:
                held[number].append(bundle)
            both = {
                edge: searchers[edge].sides(*(held[number] for number in sides[edge]))
                for edge, search in mine.items()
                if at[0] in search.buckets
            }
            found = {
                edge: differences
                for edge, each in both.items()
                if (differences := searchers[edge].suspects(*each))
            }
            if found:
                add_up = {edge: partial(searchers[edge].digests, at[0], *both[edge]) for edge in found}
                yield from cut(found, max(known.since(edge, add_up[edge]) for edge in found))


def _numbered(number: int, bundles: Iterable[Bundle]) -> Iterator[tuple[tuple[int, int], int, Bundle]]:
    return (((bundle.bucket, bundle.part), number, bundle) for bundle in bundles)


class _Searcher:
    """Compares the keys of one edge, bucket by bucket; other children's rows are left out."""

    def __init__(self, state: State, child: str, pairing: Pairing, owners: Owners | None) -> None:
        self._child = child
        self._down = pairing.rule.direction is Direction.DOWN
        self._owners = owners
        self._pairs = state.databases[pairing.existing_cell].pairs(pairing.existing)
        self._summed = state.databases[pairing.existing_cell].summed
        self._exact = all(p.unique and not p.nullable for p in (pairing.desired, pairing.existing))

    def sides(
        self, desired: Sequence[Bundle], existing: Sequence[Bundle]
    ) -> tuple[Sequence[Bundle], Sequence[Bundle], Sequence[Bundle]]:
        """Return the edge's own bundles of one bucket, and those of the parent that nobody owns."""
        if self._owners is None:
            return desired, existing, ()
        mine, stray = digests.owned(desired if self._down else existing, self._owners, self._child)
        return (mine, existing, stray) if self._down else (desired, mine, stray)

    def suspects(
        self, desired: Sequence[Bundle], existing: Sequence[Bundle], stray: Sequence[Bundle]
    ) -> tuple[Difference, ...]:
        """Return what differs in one bucket."""
        return digests.suspects(desired, existing, self._pairs, exact=self._exact, stray=stray)

    def digests(
        self, bucket: int, desired: Sequence[Bundle], existing: Sequence[Bundle], _: Sequence[Bundle]
    ) -> tuple[Digest, Digest]:
        """Return the digests that the keys of both sides of one bucket add up to."""
        return self._summed(bucket, desired), self._summed(bucket, existing)


def _head(pairing: Pairing, sides: Sides) -> TableDiff:
    return TableDiff(
        rule=pairing.rule.id,
        table=pairing.rule.table,
        direction=pairing.rule.direction,
        key=pairing.rule.key,
        columns=pairing.columns,
        desired_rows=sum(digest.rows for digest in sides.desired.values()),
        existing_rows=sum(digest.rows for digest in sides.existing.values()),
        schema=pairing.schema,
    )

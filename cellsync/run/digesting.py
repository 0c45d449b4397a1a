"""Compare large tables by their digests: what is found is a suspicion, until the rows are read.

estimates       -> which rules, and how their rows are dealt into buckets
digests         -> which buckets differ, per child; the parent's are read once for all of them
keys, checksums -> which keys differ, portion by portion
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellsync.diff import digests
from cellsync.errors import ReadFailed
from cellsync.model import (
    Bucketing,
    Difference,
    Digest,
    Direction,
    Fold,
    Pair,
    Pairing,
    Projection,
    Status,
    TableDiff,
    TableResult,
)
from cellsync.run.look import State
from cellsync.run.planning import Paired
from cellsync.run.reading import Digests, Got, Pairs, Router, Span, Want, failed, read

ROWS_AT_ONCE = 400_000
"""Keys and checksums that are held at once, of all cells together."""

Edges = Mapping[tuple[str, str], Pairing]
"""(child, rule) -> how it is compared."""


def bucketings(state: State, pairs: Mapping[str, Paired]) -> dict[str, Bucketing]:
    """Return how the rows of each large table are dealt, by rule: alike for all children.

    Which tables are large is said by the servers' estimates alone, so that it repeats.
    """
    by_rule: dict[str, list[Pairing]] = {}
    for paired in pairs.values():
        for rule, pairing in paired.items():
            if isinstance(pairing, Pairing):
                by_rule.setdefault(rule, []).append(pairing)
    rows = {rule: _estimate(state, pairings) for rule, pairings in by_rule.items()}
    large = {rule: by_rule[rule] for rule in by_rule if _is_large(state, by_rule[rule], rows[rule])}
    if not large:
        return {}
    ranged = {rule for rule, pairings in large.items() if all(map(digests.ranged, pairings))}
    spans = {rule: Span(projection=_above(large[rule][0])) for rule in sorted(ranged)}
    got = read(state, {state.parent: list(spans.values())})
    fold = Fold.CRC if all(state.databases[cell].fold is Fold.CRC for cell in state.looks) else Fold.CUT
    found = {}
    for rule, pairings in large.items():
        span = _span(state, got, spans[rule]) if rule in spans else None
        found[rule] = digests.bucketing(pairings[0], rows[rule], span, fold)
    return found


def _span(state: State, got: Got, want: Span) -> tuple[int, int] | None:
    try:
        return next(iter(got.of(state.parent, want)), None)
    except ReadFailed:
        return None  # what stopped it stops the digests as well, and they fail by rule


def _is_large(state: State, pairings: Sequence[Pairing], rows: int) -> bool:
    cells = {state.parent, *(cell for each in pairings for cell in (each.desired_cell, each.existing_cell))}
    able = all(state.databases[cell].digests for cell in cells)
    # An override is another value for every child; the parent's digests are the same for all.
    return able and rows > digests.READ_WHOLE and not pairings[0].rule.overrides


def _estimate(state: State, pairings: Sequence[Pairing]) -> int:
    return max(
        state.looks[cell].tables[projection.table].estimate
        for each in pairings
        for cell, projection in ((each.desired_cell, each.desired), (each.existing_cell, each.existing))
    )


def _above(pairing: Pairing) -> Projection:
    """Return the projection through which the parent is read."""
    return pairing.desired if pairing.rule.direction is Direction.DOWN else pairing.existing


@dataclass(frozen=True)
class _Sides:
    """The digests of both sides of one edge, by bucket, and the buckets that differ."""

    desired: Mapping[int, Digest]
    existing: Mapping[int, Digest]
    buckets: frozenset[int]


def suspected(
    state: State, pairs: Mapping[str, Paired], dealt: Mapping[str, Bucketing], router: Router
) -> dict[tuple[str, str], TableResult]:
    """Compare the large tables; the differences have kinds and keys, and no rows yet."""
    edges = {
        (child, rule): pairing
        for child, paired in pairs.items()
        for rule, pairing in paired.items()
        if rule in dealt and isinstance(pairing, Pairing)
    }
    if not edges:
        return {}
    wants: dict[str, list[Want[Any]]] = {}
    for (_, rule), pairing in edges.items():
        for cell, projection in _both(pairing):
            wants.setdefault(cell, []).append(Digests(projection=projection, bucketing=dealt[rule]))
    got = read(state, wants)
    results: dict[tuple[str, str], TableResult] = {}
    found: dict[tuple[str, str], _Sides] = {}
    parents = _Parents(state, dealt, got, router)
    for edge, pairing in edges.items():
        try:
            found[edge] = _sides(edge, pairing, dealt[edge[1]], got, parents)
        except ReadFailed as error:
            results[edge] = failed(pairing.rule, str(error))
    for rule, bucketing in dealt.items():
        mine = {edge: sides for edge, sides in found.items() if edge[1] == rule}
        results.update(_keys(state, {edge: edges[edge] for edge in mine}, mine, bucketing, router))
    return results


def _both(pairing: Pairing) -> tuple[tuple[str, Projection], tuple[str, Projection]]:
    return (pairing.desired_cell, pairing.desired), (pairing.existing_cell, pairing.existing)


class _Parents:
    """The parent's digests, added up once for all children that share them."""

    def __init__(self, state: State, dealt: Mapping[str, Bucketing], got: Got, router: Router) -> None:
        self._state, self._dealt, self._got, self._router = state, dealt, got, router
        self._summed: dict[Projection, Mapping[str | None, Mapping[int, Digest]]] = {}

    def of(self, child: str, pairing: Pairing) -> tuple[Mapping[int, Digest], frozenset[int]]:
        """Return the digests of a child's rows in the parent, and the buckets with rows of nobody."""
        projection = _above(pairing)
        if projection not in self._summed:
            want = Digests(projection=projection, bucketing=self._dealt[pairing.rule.id])
            read = self._got.of(self._state.parent, want)
            owners = self._router.owners(pairing.rule) if pairing.rule.route else None
            dealt = digests.dealt(read, owners)
            self._summed[projection] = {owner: digests.summed(each) for owner, each in dealt.items()}
        summed = self._summed[projection]
        if pairing.rule.route is None:
            return summed.get(None, {}), frozenset()
        return summed.get(child, {}), frozenset(summed.get(None, {}))


def _sides(
    edge: tuple[str, str], pairing: Pairing, bucketing: Bucketing, got: Got, parents: _Parents
) -> _Sides:
    child = edge[0]
    above, stray = parents.of(child, pairing)
    down = pairing.rule.direction is Direction.DOWN
    projection = pairing.existing if down else pairing.desired
    below = digests.summed(got.of(child, Digests(projection=projection, bucketing=bucketing)))
    desired, existing = (above, below) if down else (below, above)
    return _Sides(desired, existing, frozenset(digests.differing(desired, existing)) | stray)


def _keys(
    state: State,
    edges: Edges,
    found: Mapping[tuple[str, str], _Sides],
    bucketing: Bucketing,
    router: Router,
) -> Iterator[tuple[tuple[str, str], TableResult]]:
    """Yield the result of each edge of one rule, from the keys and checksums of its differing buckets."""
    suspicions: dict[tuple[str, str], list[Difference]] = {edge: [] for edge in edges}
    failures: dict[tuple[str, str], str] = {}
    sizes: dict[int, int] = {}
    for sides in found.values():
        for bucket in sides.buckets:
            held = [side[bucket].rows for side in (sides.desired, sides.existing) if bucket in side]
            sizes[bucket] = sizes.get(bucket, 0) + sum(held)
    for portion in digests.portions(sizes, sizes, ROWS_AT_ONCE):
        chosen = {edge: sides.buckets.intersection(portion) for edge, sides in found.items()}
        wants = _pairs_wanted(edges, found, chosen, bucketing)
        got = read(state, {cell: list(wanted.values()) for cell, wanted in wants.items()})
        for edge, pairing in edges.items():
            try:
                read_pairs = _chosen(pairing, chosen[edge], wants, got)
                suspicions[edge] += digests.suspects(*_owned(edge[0], pairing, read_pairs, router))
            except ReadFailed as error:
                failures[edge] = str(error)
    for edge, pairing in edges.items():
        if edge in failures:
            yield edge, failed(pairing.rule, failures[edge])
        else:
            yield edge, _result(pairing, found[edge], suspicions[edge])


_Wanted = Mapping[str, Mapping[Projection, Pairs]]
"""Cell -> projection -> the pairs that are read."""


def _pairs_wanted(
    edges: Edges,
    found: Mapping[tuple[str, str], _Sides],
    chosen: Mapping[tuple[str, str], frozenset[int]],
    bucketing: Bucketing,
) -> _Wanted:
    """Return what is read: of the parent, what any child needs."""
    buckets: dict[tuple[str, Projection], set[int]] = {}
    known: dict[tuple[str, Projection], int] = {}
    for edge, pairing in edges.items():
        sides = (found[edge].desired, found[edge].existing)
        for place, side in zip(_both(pairing), sides, strict=True):
            if chosen[edge]:
                buckets.setdefault(place, set()).update(chosen[edge])
                known[place] = max(known.get(place, 0), len(side))
    wants: dict[str, dict[Projection, Pairs]] = {}
    for (cell, projection), numbers in buckets.items():
        # Where most buckets differ, looking for them costs more than it saves.
        some = tuple(sorted(numbers)) if len(numbers) * 2 < known[cell, projection] else None
        wants.setdefault(cell, {})[projection] = Pairs(
            projection=projection, bucketing=bucketing, buckets=some
        )
    return wants


_Both = tuple[Sequence[Pair], Sequence[Pair]]
"""The pairs of the desired and of the existing side."""


def _chosen(pairing: Pairing, buckets: frozenset[int], wants: _Wanted, got: Got) -> _Both:
    """Return what was read of some buckets; more may have been, for other children."""

    def side(cell: str, projection: Projection) -> Sequence[Pair]:
        if not buckets:
            return ()
        return [pair for pair in got.of(cell, wants[cell][projection]) if pair.bucket in buckets]

    return side(pairing.desired_cell, pairing.desired), side(pairing.existing_cell, pairing.existing)


def _owned(child: str, pairing: Pairing, sides: _Both, router: Router) -> _Both:
    """Leave out the other children's rows."""
    if pairing.rule.route is None:
        return sides
    owners = router.owners(pairing.rule)
    desired, existing = sides
    if pairing.rule.direction is Direction.DOWN:
        return [*digests.owned(desired, owners, child)], existing
    return desired, [*digests.owned(existing, owners, child)]


def _result(pairing: Pairing, sides: _Sides, suspicions: Sequence[Difference]) -> TableDiff:
    return TableDiff(
        rule=pairing.rule.id,
        table=pairing.rule.table,
        direction=pairing.rule.direction,
        key=pairing.rule.key,
        columns=pairing.columns,
        desired_rows=sum(digest.rows for digest in sides.desired.values()),
        existing_rows=sum(digest.rows for digest in sides.existing.values()),
        differences=tuple({difference.key: difference for difference in suspicions}.values()),
        schema=pairing.schema,
        status=Status.DIFFERS if suspicions else Status.IN_STEP,
    )

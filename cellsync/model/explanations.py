"""What a feature needs to work in a cell, and what of it is there."""

from __future__ import annotations

from dataclasses import dataclass

from cellsync.model.registry import HopStatus


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing that a feature needs, and how it stands in one cell."""

    needs: str
    status: HopStatus
    """BROKEN where it is missing, WARN where the feature may do without it."""
    evidence: str
    do: str = ""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A feature in one cell, in the order in which its needs build on each other."""

    cell: str
    found: tuple[Found, ...]

    @property
    def first_missing(self) -> int | None:
        """The place of the first need that is not met, counted from 1; None when all are."""
        places = [place for place, each in enumerate(self.found, 1) if each.status is HopStatus.BROKEN]
        return places[0] if places else None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A feature in every child in scope."""

    feature: str
    lost: str
    """What people lose without it."""
    cells: tuple[Explained, ...]

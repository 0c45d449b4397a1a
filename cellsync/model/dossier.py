"""All that one report for people holds: the comparison, what answers, and what was done before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cellsync.model.cells import Accepted
from cellsync.model.drift import Triage
from cellsync.model.registry import CheckedCell, Vitals
from cellsync.model.results import JournaledRun, Report


@dataclass(frozen=True, kw_only=True)
class Dossier:
    """A comparison with its surroundings."""

    report: Report
    checked: tuple[CheckedCell, ...] = ()
    """What a check of the databases and brokers found; the parent first."""
    vitals: tuple[Vitals, ...] = ()
    """What the databases that answer say of themselves, in the same order."""
    runs: tuple[JournaledRun, ...] = ()
    """The last runs that wrote, newest first."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Cell -> why its journal could not be read."""
    unseen: tuple[str, ...] = ()
    """The cells whose journal, if there is one, the login may not see."""
    features: tuple[str, ...] = ()
    """The features of the rules in use, in their order."""
    triage: Triage | None = None
    """What drifted in the time that was asked about; None where none was."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What was used, for whoever reads the report elsewhere: versions, packs, settings."""
    accepts: tuple[Accepted, ...] = ()
    """What people have decided to live with, as cellsync.yaml has it."""

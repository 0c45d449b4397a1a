"""Every value that travels through cellsync: frozen, and made of the standard library.

In the order of the way of the data, each file importing only from those above it:

    making       copies of frozen values, and such values of their fields, in little time
    values       canonical column values, keys, and text that must not be shown
    cells        who takes part: cells, where their databases are, the topology
    schemas      what a database looks like: tables, columns, keys, versions
    rules        what a rule file says, checked and with its defaults filled in
    reading      how one side is read: projections, rows, buckets and their digests
    differences  what was found: differences, findings, and the tables that could not be compared
    plans        what is to be written: changes with their guards, and what was refused or skipped
    brokers      transport URLs, and what a login to a broker found
    releases     Nova's releases, as far as they differ here
    secrets      which columns no output shows
    registry     Nova's register of cells, and the path of a request
    explanations what a feature needs, and what of it is there
    dossier      all that a report for people holds
    results      what came of a run: outcomes, reports, and what the journal remembers
    drift        what runs saw over time, and what came of every row that drifted

Mappings are plain dicts that nobody changes; all values pickle, so that a run may be spread over
threads, processes or machines. Everything is imported from here: ``from cellsync.model import Row``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cellsync.model.brokers import (
    Broker,
    BrokerHost,
    BrokerProbe,
    Escaping,
    HostStatus,
    Queue,
    masked,
    starred,
)
from cellsync.model.cells import (
    Accepted,
    Budget,
    Cell,
    CellMapping,
    Endpoint,
    Mapped,
    NovaConf,
    Role,
    Topology,
)
from cellsync.model.differences import (
    ColumnDifference,
    Difference,
    Finding,
    Kind,
    Missing,
    Remedy,
    Sort,
    Status,
    TableDiff,
    TableFailure,
    TableResult,
    sort_of,
)
from cellsync.model.plans import (
    OUTCOMES,
    Change,
    Deed,
    Load,
    Plan,
    Reference,
    Refusal,
    Skipped,
    Spelled,
    Stored,
    deed_of,
    name_change,
)
from cellsync.model.reading import (
    Answer,
    Bucketing,
    Bundle,
    Digest,
    Fold,
    Join,
    Packed,
    Pair,
    Pairing,
    Projected,
    Projection,
    Row,
)
from cellsync.model.registry import (
    CellRow,
    CheckedCell,
    DatabaseProbe,
    Decision,
    Hanging,
    Hop,
    HopStatus,
    Listed,
    Registered,
    Service,
    Side,
    Trace,
    Vitals,
    answered_queues,
    unattended,
)
from cellsync.model.releases import RELEASES, NovaRelease, release_of_schema
from cellsync.model.results import (
    CellFailure,
    CellResult,
    Counts,
    Fate,
    JournaledChange,
    JournaledRun,
    Outcome,
    Repeated,
    Report,
    Run,
)
from cellsync.model.rules import (
    MOST_ROWS,
    Action,
    Advice,
    Ask,
    Columns,
    Comparison,
    Detector,
    Direction,
    Feature,
    Gate,
    Heartbeats,
    Leader,
    Limit,
    Limits,
    LookUp,
    Need,
    Notice,
    Pack,
    Position,
    Removes,
    Requirement,
    Route,
    Rule,
    RuleSet,
    Saying,
    ServerTime,
    SoftDelete,
    Source,
    Surrogate,
    Way,
)
from cellsync.model.schemas import (
    Cascade,
    Column,
    DatabaseIdentity,
    Family,
    ForeignKey,
    Health,
    Index,
    SchemaDifference,
    SchemaVersion,
    Survey,
    Table,
)
from cellsync.model.secrets import HIDDEN, Secrets, safe
from cellsync.model.tls import TLS_FILES, Tls, Verify, tls
from cellsync.model.values import (
    Dangling,
    Identity,
    Key,
    KeyPart,
    Secret,
    Value,
    dangles,
    folded,
    rank,
    shown,
)

if TYPE_CHECKING:
    from cellsync.model.dossier import Dossier
    from cellsync.model.drift import (
        Drifted,
        Level,
        Look,
        Repair,
        SeenCell,
        SeenRow,
        SeenRule,
        Sighting,
        Spell,
        Told,
        Triage,
    )
    from cellsync.model.explanations import Explained, Explanation, Found

__all__ = [
    "HIDDEN",
    "MOST_ROWS",
    "OUTCOMES",
    "RELEASES",
    "TLS_FILES",
    "Accepted",
    "Action",
    "Advice",
    "Answer",
    "Ask",
    "Broker",
    "BrokerHost",
    "BrokerProbe",
    "Bucketing",
    "Budget",
    "Bundle",
    "Cascade",
    "Cell",
    "CellFailure",
    "CellMapping",
    "CellResult",
    "CellRow",
    "Change",
    "CheckedCell",
    "Column",
    "ColumnDifference",
    "Columns",
    "Comparison",
    "Counts",
    "Dangling",
    "DatabaseIdentity",
    "DatabaseProbe",
    "Decision",
    "Deed",
    "Detector",
    "Difference",
    "Digest",
    "Direction",
    "Dossier",
    "Drifted",
    "Endpoint",
    "Escaping",
    "Explained",
    "Explanation",
    "Family",
    "Fate",
    "Feature",
    "Finding",
    "Fold",
    "ForeignKey",
    "Found",
    "Gate",
    "Hanging",
    "Health",
    "Heartbeats",
    "Hop",
    "HopStatus",
    "HostStatus",
    "Identity",
    "Index",
    "Join",
    "JournaledChange",
    "JournaledRun",
    "Key",
    "KeyPart",
    "Kind",
    "Leader",
    "Level",
    "Limit",
    "Limits",
    "Listed",
    "Load",
    "Look",
    "LookUp",
    "Mapped",
    "Missing",
    "Need",
    "Notice",
    "NovaConf",
    "NovaRelease",
    "Outcome",
    "Pack",
    "Packed",
    "Pair",
    "Pairing",
    "Plan",
    "Position",
    "Projected",
    "Projection",
    "Queue",
    "Reference",
    "Refusal",
    "Registered",
    "Remedy",
    "Removes",
    "Repair",
    "Repeated",
    "Report",
    "Requirement",
    "Role",
    "Route",
    "Row",
    "Rule",
    "RuleSet",
    "Run",
    "Saying",
    "SchemaDifference",
    "SchemaVersion",
    "Secret",
    "Secrets",
    "SeenCell",
    "SeenRow",
    "SeenRule",
    "ServerTime",
    "Service",
    "Side",
    "Sighting",
    "Skipped",
    "SoftDelete",
    "Sort",
    "Source",
    "Spell",
    "Spelled",
    "Status",
    "Stored",
    "Surrogate",
    "Survey",
    "Table",
    "TableDiff",
    "TableFailure",
    "TableResult",
    "Tls",
    "Told",
    "Topology",
    "Trace",
    "Triage",
    "Value",
    "Verify",
    "Vitals",
    "Way",
    "answered_queues",
    "dangles",
    "deed_of",
    "folded",
    "masked",
    "name_change",
    "rank",
    "release_of_schema",
    "safe",
    "shown",
    "sort_of",
    "starred",
    "tls",
    "unattended",
]

_OF_SOME_VERBS = ("drift", "explanations", "dossier")
"""Modules that a comparison does without; each dataclass takes Python half a millisecond to make."""


def __getattr__(name: str) -> object:
    """Return what stands in a module that only some verbs need; Python asks for it once."""
    for each in _OF_SOME_VERBS if name in __all__ else ():
        module = import_module(f"cellsync.model.{each}")
        if hasattr(module, name):
            globals()[name] = found = getattr(module, name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

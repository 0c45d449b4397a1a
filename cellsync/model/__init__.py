"""Every value that travels through cellsync: frozen, and made of the standard library.

In the order of the way of the data, each file importing only from those above it:

    values       canonical column values, keys, and text that must not be shown
    cells        who takes part: cells, where their databases are, the topology
    schemas      what a database looks like: tables, columns, keys, versions
    rules        what a rule file says, checked and with its defaults filled in
    reading      how one side is read: projections, rows, buckets and their digests
    differences  what was found: differences, findings, and the tables that could not be compared
    plans        what is to be written: changes with their guards, and what was refused or skipped
    results      what came of a run: outcomes, reports, and what the journal remembers

Mappings are plain dicts that nobody changes; all values pickle, so that a run may be spread over
threads, processes or machines. Everything is imported from here: ``from cellsync.model import Row``.
"""

from cellsync.model.cells import Accepted, Cell, Endpoint, Role, Topology
from cellsync.model.differences import (
    ColumnDifference,
    Difference,
    Finding,
    Kind,
    Sort,
    Status,
    TableDiff,
    TableFailure,
    TableResult,
)
from cellsync.model.plans import Change, Plan, Reference, Refusal, Skipped, Stored
from cellsync.model.reading import (
    Bucketing,
    Bundle,
    Digest,
    Fold,
    Join,
    Pair,
    Pairing,
    Projected,
    Projection,
    Row,
)
from cellsync.model.results import (
    CellFailure,
    CellResult,
    Counts,
    Fate,
    JournaledChange,
    JournaledRun,
    Outcome,
    Report,
    Run,
)
from cellsync.model.rules import (
    Action,
    Comparison,
    Direction,
    Feature,
    Gate,
    Limit,
    Limits,
    LookUp,
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
    Surrogate,
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
    Table,
)
from cellsync.model.tls import TLS_FILES, Tls, Verify, tls
from cellsync.model.values import Dangling, Identity, Key, KeyPart, Secret, Value, dangles, folded, shown

__all__ = [
    "TLS_FILES",
    "Accepted",
    "Action",
    "Bucketing",
    "Bundle",
    "Cascade",
    "Cell",
    "CellFailure",
    "CellResult",
    "Change",
    "Column",
    "ColumnDifference",
    "Comparison",
    "Counts",
    "Dangling",
    "DatabaseIdentity",
    "Difference",
    "Digest",
    "Direction",
    "Endpoint",
    "Family",
    "Fate",
    "Feature",
    "Finding",
    "Fold",
    "ForeignKey",
    "Gate",
    "Health",
    "Identity",
    "Index",
    "Join",
    "JournaledChange",
    "JournaledRun",
    "Key",
    "KeyPart",
    "Kind",
    "Limit",
    "Limits",
    "LookUp",
    "Notice",
    "Outcome",
    "Pack",
    "Pair",
    "Pairing",
    "Plan",
    "Position",
    "Projected",
    "Projection",
    "Reference",
    "Refusal",
    "Removes",
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
    "ServerTime",
    "Skipped",
    "SoftDelete",
    "Sort",
    "Status",
    "Stored",
    "Surrogate",
    "Table",
    "TableDiff",
    "TableFailure",
    "TableResult",
    "Tls",
    "Topology",
    "Value",
    "Verify",
    "dangles",
    "folded",
    "shown",
    "tls",
]

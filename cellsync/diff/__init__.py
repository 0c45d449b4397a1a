"""Compare the two sides of an edge: schemas, then rows, into differences and findings.

Pure: what is read comes in as rows, what is found goes out as values. The way through, for one
rule on one edge:

    pairing      rule + both schemas  -> Pairing (two projections), or a TableFailure
    routing      rows of the parent   -> the rows of each child, findings about the others
    rows         rows of both sides   -> TableDiff
    digests      digests, bundles     -> keys that may differ, where the table is large
    loading      all rows of a large table, packed, where one side has none -> TableDiff
    confirming   the same rows again  -> TableDiff of what still differs
    coming       rows that come with others, read by what they have in common -> rows of their own rule
    replacing    rows that refer to one that is replaced -> differences, in step or not
    following    what was pushed once -> TableDiff in which a renamed row is one row

`relating` is for detectors: the answers of several databases -> findings.

`schemas` compares the tables themselves, `reader` is the database as it is seen from here, and
`register` says what is wrong with Nova's table of cells.
"""

from cellsync.diff.coming import by_leader, narrow_key, rekeyed, restore_keys
from cellsync.diff.confirming import confirm, unsettled
from cellsync.diff.following import Renames, follow
from cellsync.diff.loading import loadable, missing
from cellsync.diff.pairing import compared, pair
from cellsync.diff.reader import Reader
from cellsync.diff.register import Register, Tables, foreign, is_isolated, last_removed, live
from cellsync.diff.relating import join_answers, keys, relate, together
from cellsync.diff.replacing import compare_replaced, index_rows
from cellsync.diff.routing import Owners, Routed, route
from cellsync.diff.rows import apply_overrides, changed, compare
from cellsync.diff.schemas import schema
from cellsync.model import Pairing

__all__ = [
    "Owners",
    "Pairing",
    "Reader",
    "Register",
    "Renames",
    "Routed",
    "Tables",
    "apply_overrides",
    "by_leader",
    "changed",
    "compare",
    "compare_replaced",
    "compared",
    "confirm",
    "follow",
    "foreign",
    "index_rows",
    "is_isolated",
    "join_answers",
    "keys",
    "last_removed",
    "live",
    "loadable",
    "missing",
    "narrow_key",
    "pair",
    "rekeyed",
    "relate",
    "restore_keys",
    "route",
    "schema",
    "together",
    "unsettled",
]

"""Values as they stand in a statement: what PyMySQL does one by one, done for many at once.

A written row of 24 columns is some hundred values, which took more than anything else that is done
for it. What is not plain here is left to PyMySQL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_PLAIN = frozenset({str, int, type(None)})
"""What nearly all values are. Equal ones have one literal, as 0.0 and -0.0 have not."""


def of(values: Sequence[object], escape: Callable[[object], str], *, backslashes: bool) -> Sequence[str]:
    """Return what ``escape`` does of each value; they are quickest where they are alike, as in a column.

    ``backslashes`` says whether the server takes them in text for more than they are.
    """
    kinds = {*map(type, values)}
    if not kinds <= _PLAIN:
        return [*map(escape, values)]
    if len(kinds) == 1 and values.count(values[0]) == len(values):
        return [escape(values[0])] * len(values)
    if kinds == {int}:
        return [*map(str, values)]
    texts = [value for value in values if type(value) is str]
    together = "\0".join(texts)
    if not backslashes or together.count("\0") >= len(texts):
        return [*map(escape, values)]
    quoted = together.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "'\0'")
    each = iter(f"'{quoted}'".split("\0"))
    if kinds == {str}:
        return [*each]
    return [next(each) if type(value) is str else "NULL" if value is None else str(value) for value in values]

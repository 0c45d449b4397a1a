"""What the shell is told of names in the middle of a word: cells, rules, features and packs.

Names come from the cell file and the rules alone. No database is asked, no password is needed, and
a file that is not right yet completes nothing, as nobody can read an error in the middle of a word.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from cellsync.errors import ConfigurationError

if TYPE_CHECKING:
    from cellsync.cells import Outline
    from cellsync.model import Detector, Rule


def cells(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the children that the cell file names, those on the command line left out."""
    given = context.params.get(parameter.name or "") or ()
    taken = set(given if isinstance(given, (tuple, list)) else ())
    return _beginning(incomplete, (name for name in _outline(context).children if name not in taken))


def rules(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of the rules in use, with why they propagate."""
    whys = {each.id: each.why for each in _named(context) if each.id.startswith(incomplete)}
    return [CompletionItem(id_, help=why or None) for id_, why in whys.items()]


def features(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the features of the rules in use."""
    names = (name for each in _named(context) for name in each.features)
    return _beginning(incomplete, dict.fromkeys(names))


def packs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the packs that came with cellsync; a word with a slash in it is a file."""
    from cellsync.rules import packs as shipped

    found = _beginning(incomplete, shipped())
    return found or [CompletionItem(incomplete, type="file")]


def shown(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return packs and the ids of rules: what `cellsync rules show` can show."""
    from cellsync.rules import packs as shipped

    return _beginning(incomplete, dict.fromkeys([*shipped(), *(each.id for each in _named(context))]))


def files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell to complete a path."""
    return [CompletionItem(incomplete, type="file")]


def _beginning(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _outline(context: click.Context) -> Outline:
    """Return the names in the cell file that the command line names, before the command or after it."""
    from cellsync import cells as cellfiles

    return cellfiles.outline(_given(context, "config") or "cellsync.yaml")


def _named(context: click.Context) -> list[Rule | Detector]:
    """Return the rules of -r, those of the cell file, or those of all packs; none where they are not right.

    Packs for different databases may use the same ids, so without a choice each is read by itself.
    """
    from cellsync import rules as rulefiles

    chosen = list(_given(context, "rules_") or _outline(context).rules)
    found: list[Rule | Detector] = []
    for sources in [chosen] if chosen else [[name] for name in rulefiles.packs()]:
        try:
            found += rulefiles.load(sources).named
        except ConfigurationError:
            continue
    return found


def _given(context: click.Context | None, name: str) -> Any:
    while context is not None:
        if value := context.params.get(name):
            return value
        context = context.parent
    return None

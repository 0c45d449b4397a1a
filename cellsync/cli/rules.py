"""`cellsync rules`: packs and rule files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cellsync.cli.options import Common, cellsync, command
from cellsync.cli.preparing import put, topology_of
from cellsync.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from cellsync.model import RuleSet


@cellsync.group("rules")
def rules_group() -> None:
    """Look at packs and rules, and check rule files."""


def _rulesets(common: Common, given: Sequence[str]) -> list[RuleSet]:
    """Return the packs and files to show: those named, those of the configuration, or each of all packs.

    What is in use together is one set. The packs that came with cellsync are a set each: they are for
    different databases, and have rules of the same names.
    """
    from cellsync import rules

    sources = [*common.rules, *given]
    if not sources and (common.config or Path("cellsync.yaml").exists()):
        sources = list(topology_of(common).rules)
    return [rules.load(sources)] if sources else [rules.load([name]) for name in rules.packs()]


@command(rules_group, "list")
def rules_list(common: Common) -> ExitCode:
    """List the packs and their rules: those in use, or all that came with cellsync."""
    from cellsync.report import catalog

    put([catalog.packs([pack for ruleset in _rulesets(common, ()) for pack in ruleset.packs])], None)
    return ExitCode.IN_STEP


@command(rules_group, "show")
@click.argument("name", metavar="PACK|RULE")
def rules_show(common: Common, name: str) -> ExitCode:
    """Show a pack's file, or everything that one rule says with its defaults.

    A rule of that name in several packs is shown from each.
    """
    from cellsync import rules
    from cellsync.report import catalog

    shipped = rules.packs().get(name)
    if shipped is not None:
        put([shipped.read_text(encoding="utf-8")], None)
        return ExitCode.IN_STEP
    known = [rule for ruleset in _rulesets(common, ()) for rule in ruleset.rules]
    found = [rule for rule in known if rule.id == name]
    if not found:
        names = ", ".join(dict.fromkeys([*rules.packs(), *(rule.id for rule in known)]))
        raise UsageError(f"there is no pack or rule {name!r}; there are: {names}")
    put(["\n".join(map(catalog.rule, found))], None)
    return ExitCode.IN_STEP


@command(rules_group, "validate")
@click.argument("files", nargs=-1, metavar="[PACK|FILE]...")
def rules_validate(common: Common, files: tuple[str, ...]) -> ExitCode:
    """Check rule files; every problem is named with its line and column."""
    packs = [pack for ruleset in _rulesets(common, files) for pack in ruleset.packs]
    if not common.quiet:
        put(["".join(f"{pack.name}: {len(pack.rules)} rules, no problems\n" for pack in packs)], None)
    return ExitCode.IN_STEP


@command(rules_group, "schema")
def rules_schema(common: Common) -> ExitCode:
    """Print the JSON Schema of rule files, for editors."""
    import json

    from cellsync import rules

    put([json.dumps(rules.schema(), indent=2) + "\n"], None)
    return ExitCode.IN_STEP

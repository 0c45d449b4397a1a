"""`cellsync rules`: packs and rule files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from cellsync.cli.options import Common, cellsync, command
from cellsync.cli.preparing import put, topology_of
from cellsync.errors import ExitCode, UsageError


@cellsync.group("rules")
def rules_group() -> None:
    """Look at packs and rules, and check rule files."""


def _sources(common: Common, given: Sequence[str]) -> list[str]:
    """Return the packs and files to show: those named, those of the configuration, or all packs."""
    from cellsync import rules

    if given or common.rules:
        return [*common.rules, *given]
    configured = bool(common.config) or Path("cellsync.yaml").exists()
    return (list(topology_of(common).rules) if configured else []) or list(rules.packs())


@command(rules_group, "list")
def rules_list(common: Common) -> ExitCode:
    """List the packs and their rules: those in use, or all that came with cellsync."""
    from cellsync import rules
    from cellsync.report import catalog

    put([catalog.packs(rules.load(_sources(common, ())).packs)], None)
    return ExitCode.IN_STEP


@command(rules_group, "show")
@click.argument("name", metavar="PACK|RULE")
def rules_show(common: Common, name: str) -> ExitCode:
    """Show a pack's file, or everything that one rule says with its defaults."""
    from cellsync import rules
    from cellsync.report import catalog

    shipped = rules.packs().get(name)
    if shipped is not None:
        put([shipped.read_text(encoding="utf-8")], None)
        return ExitCode.IN_STEP
    ruleset = rules.load(_sources(common, ()))
    rule = ruleset.rule(name)
    if rule is None:
        known = ", ".join([*rules.packs(), *(each.id for each in ruleset.rules)])
        raise UsageError(f"there is no pack or rule {name!r}; there are: {known}")
    put([catalog.rule(rule)], None)
    return ExitCode.IN_STEP


@command(rules_group, "validate")
@click.argument("files", nargs=-1, metavar="[PACK|FILE]...")
def rules_validate(common: Common, files: tuple[str, ...]) -> ExitCode:
    """Check rule files; every problem is named with its line and column."""
    from cellsync import rules

    ruleset = rules.load(_sources(common, files))
    if not common.quiet:
        put(["".join(f"{pack.name}: {len(pack.rules)} rules, no problems\n" for pack in ruleset.packs)], None)
    return ExitCode.IN_STEP


@command(rules_group, "schema")
def rules_schema(common: Common) -> ExitCode:
    """Print the JSON Schema of rule files, for editors."""
    import json

    from cellsync import rules

    put([json.dumps(rules.schema(), indent=2) + "\n"], None)
    return ExitCode.IN_STEP

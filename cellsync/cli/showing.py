"""`cellsync demo` and `cellsync completion`."""

from __future__ import annotations

import sys

import click

from cellsync.cli.options import Common, cellsync, command
from cellsync.errors import ExitCode


@command(cellsync)
@click.option(
    "--backend", type=click.Choice(["auto", "mariadb", "sqlite"]), default="auto", show_default=True
)
@click.option("--keep", is_flag=True, help="Leave the databases and the configuration in place.")
def demo(common: Common, backend: str, keep: bool) -> ExitCode:
    """Show a parent and two cells out of step, repaired, verified and taken back."""
    from cellsync import demo as show

    code = show.run(backend=backend, keep=keep, echo=click.echo, cellsync=[sys.executable, "-m", "cellsync"])
    return ExitCode(code)


@command(cellsync)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(common: Common, shell: str) -> ExitCode:
    """Print what makes a shell complete commands, options, cells, rules and features.

    For bash: cellsync completion bash > /etc/bash_completion.d/cellsync, or eval it in ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, shell
    click.echo(made(cellsync, {}, "cellsync", "_CELLSYNC_COMPLETE").source())
    return ExitCode.IN_STEP

"""The command line: parse, call run, render, exit. A contract: docs and scripts rely on it.

options     the options, and the command that the others hang on
preparing   from options to a request, from a report to the output
writing     diff, plan, repair, undo
looking     history, explain, schema
cells       cells list, create, delete, isolate, restore, check; trace
watching    watch; serving is what it shows over HTTP
rules       rules list, show, validate, init, schema
showing     demo, completion
completing  what the shell is told of names
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from cellsync.cli import cells, looking, rules, showing, watching, writing  # noqa: F401  (they register their commands)
from cellsync.cli.options import Common, cellsync, without_userinfo
from cellsync.errors import CellsyncError, ConfigurationError, ExitCode


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; the only place that turns errors into exit codes."""
    common = Common()
    try:
        code = cellsync.main(
            None if arguments is None else list(arguments),
            prog_name="cellsync",
            standalone_mode=False,
            obj=common,
        )
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("cellsync: interrupted", err=True)
        code = ExitCode.INTERRUPTED
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(_redacted(str(problem), common), err=True)
        code = error.exit_code
    except CellsyncError as error:
        click.echo(_redacted(f"cellsync: {error}", common), err=True)
        code = error.exit_code
    except BrokenPipeError:
        # The reader went away (`| head`); what was done is done. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.IN_STEP
    except Exception:
        click.echo(common.scrub(traceback.format_exc()), err=True)
        click.echo("cellsync: this is a bug in cellsync; please report it with the lines above", err=True)
        code = ExitCode.BUG
    sys.exit(int(code or 0))


def _redacted(text: str, common: Common) -> str:
    """Return an error's own text, which is ours and holds no password but in a whole URL."""
    for endpoint in common.endpoints:
        text = text.replace(endpoint.url.reveal(), endpoint.shown)
    return without_userinfo(text)

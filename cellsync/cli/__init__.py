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
logs        what is said on stderr
streams     stdout and stderr that may be full, closed, or without a reader
"""

from __future__ import annotations

import atexit
import gc
import io
import logging
import sys
import traceback
from collections.abc import Sequence

import click

from cellsync.cli import cells, logs, looking, rules, showing, streams, watching, writing  # noqa: F401  (they register their commands)
from cellsync.cli.options import Common, cellsync
from cellsync.errors import CellsyncError, ConfigurationError, ExitCode
from cellsync.masking import mask_urls

COLLECT_AT = 100_000
"""New objects after which Python looks for circles among them. What is found and planned are plain values
without any, hundreds of thousands of them: at its own 700, looking took a fifth of a diff's time."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; the only place that turns errors into exit codes."""
    gc.set_threshold(COLLECT_AT)
    atexit.register(gc.freeze)  # Python would look through all there is once more; it goes with the process
    given = list(sys.argv[1:] if arguments is None else arguments)
    common = Common(arguments=given, log_format=logs.asked_for(given))
    with streams.guarded() as (out, _):
        code = _ended(common, given)
        out.flush()
        if out.failure and not out.reader_left:
            logs.remark(common, f"cannot write to stdout: {out.failure}; the output is not complete")
            if code <= ExitCode.LOCKED and code != ExitCode.USAGE:
                code = max(code, int(ExitCode.INCOMPLETE))
    sys.exit(code)


def _ended(common: Common, given: list[str]) -> int:
    """Run the command line and return the exit code."""
    try:
        code = cellsync.main(
            given,
            prog_name="cellsync",
            standalone_mode=False,
            obj=common,
        )
    except click.ClickException as error:
        if common.log_format == logs.JSON:
            logs.remark(common, _redacted(error.format_message(), common))
        else:
            shown = io.StringIO()
            error.show(shown)
            for line in shown.getvalue().rstrip("\n").split("\n"):
                logs.plain(common, _redacted(line, common), level=logging.ERROR)
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        logs.remark(common, "interrupted")
        code = ExitCode.INTERRUPTED
    except ConfigurationError as error:
        for problem in error.problems:
            logs.plain(common, _redacted(str(problem), common), level=logging.ERROR)
        code = error.exit_code
    except CellsyncError as error:
        logs.remark(common, _redacted(str(error), common))
        code = error.exit_code
    except Exception:
        trace = common.scrub(traceback.format_exc())
        where = "trace" if common.log_format == logs.JSON else "lines above"
        said = f"this is a bug in cellsync; please report it with the {where}"
        logs.remark(common, said, level=logging.CRITICAL, trace=trace)
        code = ExitCode.BUG
    return int(code or 0)


def _redacted(text: str, common: Common) -> str:
    """Return an error's own text, which is ours and holds no password but in a whole URL."""
    for endpoint in common.endpoints:
        text = text.replace(endpoint.url.reveal(), endpoint.shown)
    return mask_urls(text)

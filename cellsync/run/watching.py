"""`watch`: compare, and repair if it is to, again and again until somebody says stop."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cellsync.errors import CellsyncError, ConfigurationError, ExitCode
from cellsync.model import Report
from cellsync.report.verdict import verdict
from cellsync.run.compare import compare
from cellsync.run.request import Request, utc_now
from cellsync.run.writing import write

JITTER = 0.1
"""The part of the interval by which a pause is longer or shorter: many watches shall not march in step."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round came to."""

    started: datetime
    finished: datetime
    exit_code: ExitCode
    said: str
    """The verdict, or the error that ended the round, in one line."""
    report: Report | None = None


class Stop:
    """Somebody's wish that the watch end: at once, or after the batch that is being written."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.writing = False
        """True while changes are being made, when nobody may cut the process off."""

    def ask(self) -> None:
        """End after the batch that is being written."""
        self._event.set()

    def asked(self) -> bool:
        """Say whether somebody asked."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until somebody asks; say whether somebody did."""
        return self._event.wait(seconds)


def rounds(make: Callable[[], Request], *, interval: float, repair: bool, stop: Stop) -> Iterator[Round]:
    """Yield one round after the other, with about ``interval`` seconds from end to beginning.

    ``make`` gives each round its request, so a change of the cell or rule files counts in the next one.
    What is wrong with them, or with a database, ends a round and not the watch.
    """
    while not stop.asked():
        yield _round(make, repair=repair, stop=stop)
        if stop.wait(interval * random.uniform(1 - JITTER, 1 + JITTER)):
            return


def _round(make: Callable[[], Request], *, repair: bool, stop: Stop) -> Round:
    started = utc_now()
    try:
        request = make()
        prepared = compare(request)
        report = prepared.report
        if repair and any(edge.plan.changes for edge in prepared.edges) and not stop.asked():
            stop.writing = True
            try:
                report = write(request, prepared)
            finally:
                stop.writing = False
    except CellsyncError as error:
        said = str(error.problems[0]) if isinstance(error, ConfigurationError) else str(error)
        return Round(started=started, finished=utc_now(), exit_code=error.exit_code, said=said.split("\n")[0])
    return Round(
        started=started,
        finished=utc_now(),
        exit_code=report.exit_code,
        said=verdict(report),
        report=report,
    )

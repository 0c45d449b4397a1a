"""The exceptions of cellsync and its exit codes: everything that can go wrong, in one tree.

    CellsyncError
    |-- ConfigurationError      problems of rule and cell files, all of them at once   (exit 2)
    |-- UsageError              the command line asks for something that is not there  (exit 2)
    |-- Unreachable             a database does not answer or does not let us in       (exit 4)
    |-- ReadFailed              a read ended early, was killed or made no sense        (exit 4)
    |   `-- Unsupported         ... of a table that is not what its name promises      (exit 4)
    |-- WriteFailed             a write that the server did not take                   (exit 4)
    |   |-- NotAllowed          ... for lack of a privilege                              (exit 4)
    |   |-- Rejected            ... because of this one row; its neighbours may pass   (exit 4)
    |   `-- TransactionLost     ... through no fault of the rows: it may be tried again (exit 4)
    |-- PlanRefused             a plan file that was changed, or is not signed             (exit 3)
    |-- OutputFailed            what was found or done cannot be printed, or written to a file (exit 4)
    |-- DesiredChanged          what a rule is written from is no longer what was compared (exit 3)
    |-- JournalUnavailable      the journal cannot be made, read or understood         (exit 3)
    |-- DriftLogUnavailable     the local record of what runs saw cannot be read or written (exit 4)
    |-- NoRoom                  the folder for temporary files takes no more           (exit 4)
    `-- Locked                  another run writes to this database                    (exit 5)

A cell or a table that could not be compared is not only an exception: the results that
`run` returns have types of their own for it (``model.CellFailure``, ``model.TableFailure``),
which carry no counts, so that nobody can add a failure up as zero differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """The one table of exit codes; where several apply, the highest of 0..5 wins.

    USAGE, BUG and INTERRUPTED stand alone: they end the command before results exist.
    """

    IN_STEP = 0
    DIFFERENCES = 1
    USAGE = 2
    REFUSED = 3
    INCOMPLETE = 4
    LOCKED = 5
    BUG = 70
    INTERRUPTED = 130


class CellsyncError(Exception):
    """Say what went wrong, where, and what to do next; never holds a password."""

    exit_code: ExitCode = ExitCode.INCOMPLETE


class UsageError(CellsyncError):
    """Name something that the configuration does not have (a cell, a rule, a run)."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Problem:
    """One problem of one file, at a place an editor can jump to.

    ``line`` and ``column`` count from 1; both are 0 when the problem is the file as a whole.
    """

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class ConfigurationError(CellsyncError):
    """Carry every problem that was found in the rule and cell files, in file order."""

    exit_code = ExitCode.USAGE

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Unreachable(CellsyncError):
    """A database does not answer, or refuses the login.

    ``reason`` is one word: "refused" (nothing listens), "auth", "schema", "timeout" or "error".
    """

    def __init__(self, message: str, *, reason: str = "error") -> None:
        super().__init__(message)
        self.reason = reason


class ReadFailed(CellsyncError):
    """A read did not come to its end; what was read so far counts for nothing."""


class Unsupported(ReadFailed):
    """A table is not what is known by its name, so it is neither read nor written."""


class WriteFailed(CellsyncError):
    """The server did not take a write, and the transaction with it."""


class NotAllowed(WriteFailed):
    """The login lacks a privilege for this."""


class Rejected(WriteFailed):
    """The server did not take this one row; the transaction goes on without it."""


class TransactionLost(WriteFailed):
    """The whole transaction is gone (a deadlock, a lock wait, a lost connection); try it again."""


class DesiredChanged(CellsyncError):
    """The desired side of a rule collapsed, or is another table, since it was compared: the rule stops.

    ``code`` is that of a refusal.
    """

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, *, rule: str, code: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.code = code


class JournalUnavailable(CellsyncError):
    """The journal cannot be made, read or understood, so nothing may be written."""

    exit_code = ExitCode.REFUSED


class DriftLogUnavailable(CellsyncError):
    """The drift log cannot be read or written; a run that only adds to it goes on and says so."""


class NoRoom(CellsyncError):
    """What was found cannot wait on disk: the folder for temporary files takes no more."""


class OutputFailed(CellsyncError):
    """What a command has found or done could not be printed, or written to a file.

    ``least`` is the exit code of what it has done: where that is higher, it stands.
    """

    def __init__(self, message: str, *, least: ExitCode = ExitCode.IN_STEP) -> None:
        super().__init__(message)
        self.exit_code = max(ExitCode.INCOMPLETE, least)


class PlanRefused(CellsyncError):
    """A plan file is not as it was written, or does not have the signature that is wanted."""

    exit_code = ExitCode.REFUSED


class Locked(CellsyncError):
    """Another run writes to this database; the message names it."""

    exit_code = ExitCode.LOCKED

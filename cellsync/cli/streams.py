"""stdout and stderr as they may be: full, closed, or with nobody who reads them.

A command goes to its end all the same, and its exit code says what it did. What could not be printed is a
failure of its own, which ``main`` adds to that code.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Guarded:
    """A stream that remembers the first error of writing to it, and takes no more after that."""

    def __init__(self, stream: Any, *, failure: str = "") -> None:
        """``stream`` is None where there is none; ``failure`` is why."""
        self._stream = stream
        self.failure = failure
        """Why something could not be written; empty as long as all was."""
        self.reader_left = False
        """True where that is because its reader has seen enough (``| head``)."""

    def write(self, text: Any) -> int:
        """Write, as far as it can be; what comes after an error is dropped."""
        if not self.failure:
            try:
                self._stream.write(text)
            except OSError as error:
                self._give_up(error)
            except UnicodeEncodeError as error:
                self.failure = f"{error.encoding} lacks a character: set PYTHONIOENCODING=utf-8"
        return len(text)

    def flush(self) -> None:
        """Send on what was written, as far as it can be."""
        if not self.failure:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.failure = error.strerror or type(error).__name__
        self.reader_left = isinstance(error, BrokenPipeError)
        # What waits in its buffer would be an error again when Python ends, and change the exit code.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    @property
    def buffer(self) -> Guarded:
        """The bytes below the text, for those who write these themselves."""
        return _Below(self, self._stream.buffer)

    def isatty(self) -> bool:
        """Say whether a person is looking."""
        return self._stream is not None and bool(self._stream.isatty())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Below(Guarded):
    """The bytes of a guarded stream: an error of theirs is an error of the stream."""

    def __init__(self, above: Guarded, stream: Any) -> None:
        super().__init__(stream)
        self._above = above

    def _give_up(self, error: OSError) -> None:
        super()._give_up(error)
        self._above.failure, self._above.reader_left = self.failure, self.reader_left


@contextlib.contextmanager
def guarded() -> Iterator[tuple[Guarded, Guarded]]:
    """Guard stdout and stderr, and give both."""
    _open_standard_files()
    given = sys.stdout, sys.stderr
    out, err = (Guarded(stream, failure="" if stream is not None else "it is closed") for stream in given)
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = given


def has_failed(stream: TextIO) -> bool:
    """Say whether something could not be written to a standard stream."""
    return bool(getattr(stream, "failure", ""))


def _open_standard_files() -> None:
    """Put something in the place of standard files that are closed.

    Else the next file or connection gets that number, and whatever prints there would write into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR if number == 0 else os.O_WRONLY)

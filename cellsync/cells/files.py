"""Text from a file, or why there is none."""

from __future__ import annotations

import os
from pathlib import Path

from cellsync.errors import UsageError
from cellsync.masking import is_url
from cellsync.textfiles import read_whole

_NO_PATH = "this is a URL, and a file is wanted: write a path"


def contents(file: Path) -> str:
    """Return the text of a UTF-8 file; raises UsageError, whose text holds no part of it.

    A URL is refused as ``check_path`` does.
    """
    check_path(str(file))
    try:
        return read_whole(file).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError:  # holds the bytes, and with them a password
        reason = "it is not UTF-8 text"
    except ValueError:  # a NUL in the path
        reason = "this is no path"
    raise UsageError(f"cannot read {file}: {reason}")


def check_path(text: str) -> None:
    """Raise UsageError for a URL in the place of a path, and for what no file can be named.

    The text is not repeated: it may have a password.
    """
    if is_url(text):
        raise UsageError(_NO_PATH)
    try:
        unnamed = b"\0" in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        unnamed = True
    if unnamed:
        raise UsageError("this is no path: it has a character that no file name has")

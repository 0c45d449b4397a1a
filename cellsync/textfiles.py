"""Read whole files that people name: a device, which may never end, is no such file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 16 << 20
"""Of a file that people write."""


def read_whole(file: Path, *, most: int | None = MOST_BYTES) -> bytes:
    """Return the bytes of a file; raises OSError, also for one that is larger than ``most`` bytes.

    Without ``most``, only a device is held to that: it may go on for ever, as /dev/zero does.
    """
    with file.open("rb") as source:
        mode = os.fstat(source.fileno()).st_mode
        if most is None and not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            return source.read()
        allowed = MOST_BYTES if most is None else most
        found = source.read(allowed + 1)
    if len(found) > allowed:
        raise OSError(errno.EFBIG, f"it is larger than {allowed >> 20} MiB")
    return found

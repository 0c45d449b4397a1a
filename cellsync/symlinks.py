"""Open files for writing where other users may have planted symbolic links."""

from __future__ import annotations

import errno
import os
import stat

_MOST_LINKS = 40
"""As many as Linux follows for one name."""


def open_trusted(path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
    """Open a file and return its descriptor; a symbolic link is followed only if its owner is trusted.

    That is this user, or root: another user's link in a directory such as /tmp would lead what is written
    into a file of this user. Only the last part of the path is looked at: whoever can change the
    directories above it can change everything in them. Raises OSError.
    """
    place = os.fspath(path)
    for _ in range(_MOST_LINKS):
        try:
            return os.open(place, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        # The link itself is held open, so that nobody can put another one there after the look at it.
        link = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(link)
            if not stat.S_ISLNK(found.st_mode):
                continue
            if found.st_uid not in (0, os.geteuid()):
                raise OSError(errno.ELOOP, "it is a symbolic link of another user")
            target = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        if _is_of_kernel(found):
            # /proc/self/fd/1, to which /dev/stdout leads: its target is no name.
            return os.open(place, flags | os.O_CLOEXEC, mode)
        place = os.path.join(os.path.dirname(place), target)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _is_of_kernel(link: os.stat_result) -> bool:
    try:
        return link.st_dev == os.stat("/proc/self/fd").st_dev
    except OSError:
        return False

"""Text from outside, made fit to be read on a terminal: no password of a URL, no control character."""

from __future__ import annotations

import re

_URL = re.compile(r"[A-Za-z0-9+.-]:(//|/[^/]*@)")
# Advice names the parts of a URL by what they are.
_USERINFO = re.compile(r"(:/+[^\s:]*):(?!PASSWORD@)\S*@")


def mask_urls(text: str) -> str:
    """Return a text with stars for the password of every URL in it, known or not.

    One slash is enough: a URL that was taken for a path has lost the other. Without an @ it has no password.
    """
    return _USERINFO.sub(r"\1:***@", text)


def is_url(text: str) -> bool:
    """Say whether a text that should be a path is a URL, or was one: a path folds its slashes to one.

    With one slash it must have an @, for a file may have a colon in its name.
    """
    return bool(_URL.search(text))


def escape_controls(text: str, keep: str = "") -> str:
    r"""Show every character that does not print as an escape: \n, \x1b, \u202e; but for ``keep``.

    Idempotent: the escapes themselves print. Controls, line and paragraph separators, reading
    directions, lone surrogates and every space but " " are what ``str.isprintable`` refuses.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def disarm(text: str) -> str:
    """Return a text as people may read it on a terminal: without passwords in URLs, and without controls."""
    return mask_urls(escape_controls(text))

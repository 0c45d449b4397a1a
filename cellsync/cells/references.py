"""What stands for ``${NAME}``, from the environment, and ``${file:PATH}``, from a file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cellsync import yamlfile
from cellsync.cells.files import check_path, contents
from cellsync.errors import UsageError

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[^{}]*)\})?")
_UNENCODABLE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class References:
    """Where the references of one file lead: its directory and the environment."""

    base: Path
    environ: Mapping[str, str]

    def file(self, text: str) -> Path:
        """Return a path that the file names, relative to its directory, with ``~`` expanded.

        Raises UsageError for a URL, and for what can be no path.
        """
        check_path(text)
        if text.startswith("~/") and "HOME" in self.environ:
            return Path(self.environ["HOME"], text[2:])
        return self.base / os.path.expanduser(text)

    def substitute(self, text: str, path: yamlfile.Path, reject: Callable[[str], None]) -> str | None:
        """Return the text with every reference replaced; None when one could not be, each rejected.

        In the user:password@ part of a database or broker URL the text is percent-encoded.
        """
        faults: list[str] = []

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            try:
                value = self._value(match["name"] or "")
            except UsageError as error:
                faults.append(str(error))
                return ""
            return quote(value, safe="") if _in_userinfo(match, path) else value

        result = _REFERENCE.sub(replace, text)
        for fault in faults:
            reject(fault)
        return None if faults else result

    def _value(self, name: str) -> str:
        if name.startswith("file:"):
            return re.sub(r"\r?\n\Z", "", contents(self.file(name[len("file:") :])))
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError("write ${NAME} or ${file:PATH}, or $${ for a plain ${")
        if name not in self.environ:
            raise UsageError(f"the environment variable {name} is not set: set it ($${{ is a plain ${{)")
        if _UNENCODABLE.search(self.environ[name]):
            raise UsageError(f"the environment variable {name} is not UTF-8 text")
        return self.environ[name]


def _in_userinfo(match: re.Match[str], path: yamlfile.Path) -> bool:
    """Tell whether a reference stands in the user:password@ part of a database or broker URL.

    Judged on the text as it was written: behind ``://``, with an ``@`` still to come. A broker
    URL has one such part for each host; commas divide them.
    """
    rest = _REFERENCE.sub("", match.string[match.end() :])
    key = "database" if "databases" in path else path[-1] if path else None
    if key == "broker":
        rest = rest.partition(",")[0]
    return key in ("database", "broker") and "://" in match.string[: match.start()] and "@" in rest

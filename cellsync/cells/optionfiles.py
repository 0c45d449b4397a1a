"""The files in which others keep URLs, users and passwords: nova.conf, and client option files."""

from __future__ import annotations

import re
from pathlib import Path

from cellsync.cells.files import contents
from cellsync.errors import UsageError


def nova_conf(file: Path) -> dict[str, tuple[str, str]]:
    """Return "database" and "broker", each with the option's name and its text, as far as set.

    Read with oslo.config, as Nova does: the last of several values counts, and ``$$`` is ``$``.
    Raises UsageError, whose text holds no part of any value.
    """
    from oslo_config import cfg

    contents(file)
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt("transport_url", secret=True), cfg.StrOpt("sql_connection", secret=True)])
    conf.register_opt(cfg.StrOpt("connection", secret=True), group="database")
    try:
        conf([], default_config_files=[str(file)], default_config_dirs=[], use_env=False)
        found = [
            ("database", "[DEFAULT] sql_connection", conf.sql_connection),
            ("database", "[database] connection", conf.database.connection),
            ("broker", "[DEFAULT] transport_url", conf.transport_url),
        ]
    except (cfg.NoSuchOptError, cfg.TemplateSubstitutionError, RecursionError):
        fault = "a URL refers to another option with $: write it out there ($$ is a plain $)"
    except cfg.ConfigFileParseError as error:  # its text repeats the line
        place = re.search(r"line (\d+)|:(\d+),", error.msg or "")
        fault = f"line {place[1] or place[2]} is not 'option = value'" if place else "it is not an INI file"
    else:
        return {key: (label, url) for key, label, url in found if url}
    raise UsageError(f"cannot read {file}: {fault}")


_SECTIONS = frozenset(["client", "client-mariadb", "cellsync"])
_BLANKS = " \t\r\v\f"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "s": " ", '"': '"', "'": "'", "\\": "\\"}


def client_options(text: str) -> dict[str, str]:
    """Return the options of the sections that count, names with underscores; the last one wins.

    A small part of MariaDB's mysys/my_default.c: no ``!include``, and no options without a value.
    """
    options: dict[str, str] = {}
    section = ""
    for line in (line.strip(_BLANKS) for line in text.split("\n")):
        if line.startswith("["):
            section = line[1:].partition("]")[0].strip(_BLANKS)
        elif section in _SECTIONS and not line.startswith(("#", ";", "!")):
            name, equals, value = _without_comment(line).partition("=")
            if equals:
                options[name.strip(_BLANKS).replace("-", "_")] = _unquoted(value.strip(_BLANKS))
    return options


def _without_comment(line: str) -> str:
    """Cut a ``#`` comment off; quotes protect it, as does a backslash in them a quote."""
    match = re.match(r"""(?:"(?:\\.?|[^"\\])*(?:"|$)|'(?:\\.?|[^'\\])*(?:'|$)|[^#"'])*""", line)
    return match[0] if match else line


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), value)

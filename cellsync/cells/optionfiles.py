"""The files in which others keep URLs, users and passwords: nova.conf, and client option files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellsync.cells.files import contents
from cellsync.errors import UsageError
from cellsync.model import NovaConf


def nova_conf(file: Path) -> dict[str, tuple[str, str]]:
    """Return "database", "api_database" and "broker": the option's name and its text, as far as set.

    Read with oslo.config, as Nova does: the last of several values counts, and ``$$`` is ``$``.
    Raises UsageError, whose text holds no part of any value.
    """
    with _read(file) as conf:
        found = [
            ("database", "[DEFAULT] sql_connection", conf.sql_connection),
            ("database", "[database] connection", conf.database.connection),
            ("api_database", "[api_database] connection", conf.api_database.connection),
            ("broker", "[DEFAULT] transport_url", conf.transport_url),
        ]
        return {key: (label, url) for key, label, url in found if url}


def nova_cells(file: Path) -> NovaConf:
    """Return what a nova.conf says of cells, with Nova's defaults. Raises UsageError as ``nova_conf``."""
    with _read(file) as conf:
        return NovaConf(
            file=str(file),
            cell_name=conf.cells.name,
            cells_config=conf.cells.cells_config or None,
            check_interval=conf.cells.db_check_interval,
        )


@contextmanager
def _read(file: Path) -> Iterator[Any]:
    from oslo_config import cfg

    contents(file)
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt("transport_url", secret=True), cfg.StrOpt("sql_connection", secret=True)])
    for group in ("database", "api_database"):
        conf.register_opt(cfg.StrOpt("connection", secret=True), group=group)
    cells = [cfg.StrOpt("name"), cfg.StrOpt("cells_config"), cfg.IntOpt("db_check_interval", default=60)]
    conf.register_opts(cells, group="cells")
    try:
        conf([], default_config_files=[str(file)], default_config_dirs=[], use_env=False)
        yield conf
        return
    except (cfg.NoSuchOptError, cfg.TemplateSubstitutionError, RecursionError):
        fault = "a URL refers to another option with $: write it out there ($$ is a plain $)"
    except cfg.ConfigFileValueError:
        fault = "[cells] db_check_interval is not a number"
    except cfg.ConfigFileParseError as error:  # its text repeats the line
        place = re.search(r"line (\d+)|:(\d+),", error.msg or "")
        fault = f"line {place[1] or place[2]} is not 'option = value'" if place else "it is not an INI file"
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

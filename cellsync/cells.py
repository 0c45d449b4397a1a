"""Read cellsync.yaml: which cells there are, and how their databases and brokers are reached.

    cellsync.yaml -> yamlfile.Document -> shape (JSON Schema) -> ${...} -> meaning -> Topology

All problems of the file are collected and raised once, each with file:line:column. No message
repeats a value that may hold a password: URLs are shown with stars, and what could not be read
is not shown at all.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from urllib.parse import quote

import jsonschema

from cellsync import yamlfile
from cellsync.errors import ConfigurationError, Problem, UsageError
from cellsync.model import Cell, Endpoint, Role, Secret, Topology

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

T = TypeVar("T")
_Places = dict[yamlfile.Path, T]


def _mapping(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


_STRING = {"type": "string"}
_NULLABLE = {"type": ["string", "null"]}
_TEXT = {"type": "string", "minLength": 1}
_DATE = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
_CELL = _mapping(
    ["name"], name=_STRING, database=_STRING, broker=_NULLABLE, nova_conf=_TEXT, defaults_file=_TEXT
)
_ACCEPTED = _mapping(
    ["cell", "rule", "why", "until"], cell=_TEXT, rule=_TEXT, key={"type": "object"}, why=_TEXT, until=_DATE
)

_SCHEMA = _mapping(
    ["parent", "children"],
    parent=_CELL,
    children={"type": "array", "minItems": 1, "items": _CELL},
    rules={"type": ["array", "string"], "items": _STRING},
    settle={"type": ["number", "string"]},
    accept={"type": "array", "items": _ACCEPTED},
)

_BROKEN = object()
"""Stands for a value whose problem is already known, so that nobody reports it twice."""

_SPOKEN = "cellsync speaks MariaDB: write mysql+pymysql://USER:PASSWORD@HOST/SCHEMA"
_NO_DATABASE = "write one (beside a defaults_file: mysql+pymysql:///SCHEMA), or a nova_conf that has one"
_ENCODE = "write special characters of a user or password percent-encoded (@ is %40, / is %2F, , is %2C)"

_EXAMPLE = """\
# cellsync.yaml: one parent and its children.
#
# ${NAME} is taken from the environment and ${file:PATH} from a file, in any text; $${ is a plain
# ${. In the user:password@ part of a database or broker URL the text is percent-encoded for you,
# so a password may hold any character. Paths are relative to this file.

parent:
  name: api
  database: "mysql+pymysql://cellsync:${CELLSYNC_PASSWORD}@10.0.0.1/nova"

children:
  - name: c1
    database: "mysql+pymysql://cellsync:${CELLSYNC_PASSWORD}@10.0.1.1/nova"
    # broker: "rabbit://nova:${RABBIT_PASSWORD}@10.0.1.1:5672/"    # default: the parent's cells row
  - name: c2
    database: "mysql+pymysql://cellsync:${CELLSYNC_PASSWORD}@10.0.2.1/nova"

  # Instead of the URLs, a nova.conf with [database] connection and [DEFAULT] transport_url:
  # - {name: c3, nova_conf: /etc/nova/c3.conf}
  # Or a MySQL client option file for what the URL does not say (user, password, host, TLS):
  # - {name: c4, defaults_file: ~/.my.cnf, database: "mysql+pymysql:///nova"}

rules: [nova-cells-v1]

# settle: 0.5s        # how long to wait before differences are read again; 0 does not wait
"""


def load(path: str | os.PathLike[str], *, environ: Mapping[str, str]) -> Topology:
    """Read the topology from a cellsync.yaml.

    Reads that file and those it names (``nova_conf``, ``defaults_file``, ``${file:PATH}``); opens
    no connection. Relative paths, those of rule files and SQLite databases too, are taken from
    the directory of the file. ``environ`` gives ``${NAME}``, and HOME for ``~/``.
    What stands for ``${...}`` between ``://`` and the last ``@`` of a database URL (of the host,
    in a broker URL with several) is percent-encoded; elsewhere it is inserted as it is.
    Raises ConfigurationError with every problem, in file order.
    """
    file = os.fspath(path)
    try:
        text = _contents(Path(file))
    except UsageError as error:
        advice = "write a cellsync.yaml that names a parent and its children, or name another file with -c"
        raise ConfigurationError([Problem(file, 0, 0, f"{error}: {advice}")]) from error
    document = yamlfile.load(text, file=file)
    reader = _Reader(document=document, base=Path(file).parent, environ=environ)
    topology = reader.topology()
    if topology is None:
        raise ConfigurationError(sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
    return topology


def example() -> str:
    """Return a commented cellsync.yaml; it loads with CELLSYNC_PASSWORD in the environment."""
    return _EXAMPLE


def endpoint(url: str) -> Endpoint:
    """Normalise a database URL: MariaDB as ``mysql+pymysql://`` with charset=utf8mb4, or SQLite.

    Other drivers for MySQL and other charsets are replaced: ``mariadb+pymysql://`` switches
    oslo.db's error mapping off, and without utf8mb4 4-byte characters are read as ``?``
    (facts/mariadb.md). ``shown`` leaves the charset out, as it is always the same.
    Raises UsageError, whose text holds no part of the URL.
    """
    return _database(url, {}, base=Path())


def broker_endpoint(url: str) -> Endpoint:
    """Check a transport_url and return it as it is; ``shown`` has stars for each password.

    Follows oslo.messaging's grammar, ``rabbit://u:p@h1:5672,u:p@h2:5672/vhost``: the hosts have
    either all a user or none. Raises UsageError, whose text holds no part of the URL.
    """
    match = re.fullmatch(r"([A-Za-z][\w+.-]*://)([^/?#]*)(.*)", url)
    if match is None or _UNPRINTABLE.search(url):
        raise UsageError("is not a broker URL: write rabbit://USER:PASSWORD@HOST:5672/VHOST")
    scheme, hosts, rest = match.groups()
    if "@" in rest:
        raise UsageError(f"the broker URL has an @ behind its hosts: {_ENCODE}")
    shown = [_shown_host(host) for host in hosts.split(",") if host]
    if len({"@" in host for host in shown}) > 1:
        raise UsageError(f"the broker URL names a user for some hosts only: give each its own, and {_ENCODE}")
    return Endpoint(url=Secret(url), shown=scheme + ",".join(shown) + _starred(rest))


# -- The file ----------------------------------------------------------------------------------


def _contents(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError:  # holds the bytes, and with them a password
        reason = "it is not UTF-8 text"
    except ValueError:  # a NUL in the path
        reason = "this is no path"
    raise UsageError(f"cannot read {file}: {reason}")


class _Source(NamedTuple):
    """A URL as somebody wrote it, where, and how a message names that place."""

    path: yamlfile.Path
    text: Any
    origin: str


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """One reading of one file; ``problems`` grows while it goes on."""

    document: yamlfile.Document
    base: Path
    environ: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)

    def reject(self, path: yamlfile.Path, message: str) -> None:
        self.problems.append(self.document.problem(path, message))

    def attempt(self, path: yamlfile.Path, call: Callable[[], T], *, origin: str = "") -> T | None:
        try:
            return call()
        except UsageError as error:
            self.reject(path, f"{origin}{error}")
            return None

    def topology(self) -> Topology | None:
        for path, message in _misshapen(self.document.data):
            self.reject(path, message)
        data = self.expand(self.document.data, ())
        if not isinstance(data, dict):
            return None
        given = _cells(data)
        names = {path: self.name((*path, "name"), cell.get("name")) for path, cell in given.items()}
        cells = {path: self.cell(path, cell, names[path]) for path, cell in given.items()}
        self.check_twins(names, cells)
        if data.get("accept"):
            self.reject(("accept",), "accept is not supported yet: remove it; what it names would be counted")
        rules, settle = self.rules(data.get("rules", [])), self.settle(data.get("settle", 0.5))
        if self.problems:
            return None
        parent, *children = (cell for cell in cells.values() if cell is not None)
        return Topology(parent=parent, children=tuple(children), rules=rules, settle=settle)

    def expand(self, value: Any, path: yamlfile.Path) -> Any:
        """Return the value with every ``${...}`` replaced, or _BROKEN in place of a bad text."""
        if isinstance(value, dict):
            return {key: self.expand(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, (*path, index)) for index, item in enumerate(value)]
        return self.substitute(value, path) if isinstance(value, str) else value

    def substitute(self, text: str, path: yamlfile.Path) -> Any:
        known = len(self.problems)

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            value = self.attempt(path, lambda: self.reference(match["name"] or "")) or ""
            return quote(value, safe="") if _in_userinfo(match, path) else value

        result = _REFERENCE.sub(replace, text)
        return result if len(self.problems) == known else _BROKEN

    def reference(self, name: str) -> str:
        if name.startswith("file:"):
            return re.sub(r"\r?\n\Z", "", _contents(self.file(name[len("file:") :])))
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError("write ${NAME} or ${file:PATH}, or $${ for a plain ${")
        if name not in self.environ:
            raise UsageError(f"the environment variable {name} is not set: set it ($${{ is a plain ${{)")
        if _UNENCODABLE.search(self.environ[name]):
            raise UsageError(f"the environment variable {name} is not UTF-8 text")
        return self.environ[name]

    def file(self, text: str) -> Path:
        """Return a path that the file names, relative to its directory, with ``~`` expanded."""
        if text.startswith("~/") and "HOME" in self.environ:
            return Path(self.environ["HOME"], text[2:])
        return self.base / os.path.expanduser(text)

    def name(self, path: yamlfile.Path, name: Any) -> str | None:
        fault = _fault_of_name(name) if isinstance(name, str) else None
        if fault:
            self.reject(path, f"the name of a cell {fault}: choose another")
        return name if isinstance(name, str) and not fault else None

    def cell(self, path: yamlfile.Path, given: Mapping[str, Any], name: str | None) -> Cell | None:
        sources = self.sources(path, given)
        if "database" not in sources:
            self.reject(path, f"database is missing: {_NO_DATABASE}")
        options = self.options((*path, "defaults_file"), given.get("defaults_file", ""))
        database = self.endpoint(sources.get("database"), lambda url: _database(url, options, base=self.base))
        broker = self.endpoint(sources.get("broker"), broker_endpoint)
        if name is None or database is None:
            return None
        role = Role.PARENT if path == ("parent",) else Role.CHILD
        return Cell(name=name, role=role, database=database, broker=broker)

    def sources(self, path: yamlfile.Path, given: Mapping[str, Any]) -> dict[str, _Source]:
        """Return "database" and "broker": what nova.conf says, unless the cell itself says it."""
        sources = self.nova_conf((*path, "nova_conf"), given["nova_conf"]) if "nova_conf" in given else {}
        keys = [key for key in ("database", "broker") if key in given]
        return {**sources, **{key: _Source((*path, key), given[key], f"{key}: ") for key in keys}}

    def nova_conf(self, path: yamlfile.Path, text: Any) -> dict[str, _Source]:
        file = self.file(text) if isinstance(text, str) else None
        found = self.attempt(path, lambda: _nova_conf(file)) if file else None
        if found is None:
            return {key: _Source(path, _BROKEN, "") for key in ("database", "broker")}
        return {key: _Source(path, url, f"{label} in {file}: ") for key, (label, url) in found.items()}

    def options(self, path: yamlfile.Path, text: Any) -> Mapping[str, str]:
        """Return the options of a client option file; none without one, or when it is broken."""
        if not text or not isinstance(text, str):
            return {}
        return self.attempt(path, lambda: _client_options(_contents(self.file(text)))) or {}

    def endpoint(self, source: _Source | None, read: Callable[[str], Endpoint]) -> Endpoint | None:
        if source is None or not isinstance(source.text, str):
            return None
        return self.attempt(source.path, lambda: read(source.text), origin=source.origin)

    def check_twins(self, names: _Places[str | None], cells: _Places[Cell | None]) -> None:
        for first, path in _twins({path: name.casefold() for path, name in names.items() if name}):
            place = self.document.problem((*first, "name"), f"is {names[first]!r}")
            self.reject((*path, "name"), f"two cells are named {names[path]!r} ({place}): choose another")
        known = {path: cell for path, cell in cells.items() if cell}
        for first, path in _twins({path: _location(cell.database) for path, cell in known.items()}):
            twins = f"{known[first].name} and {known[path].name} are the same database"
            self.reject((*path, "database"), f"{twins}, {known[path].database.shown}: give each its own")

    def rules(self, given: Any) -> tuple[str, ...]:
        """Return the names of packs as they are, and files as paths from the working directory."""
        listed = given if isinstance(given, list) else [given]
        entries = [entry for entry in listed if isinstance(entry, str)]
        if "" in entries:
            self.reject(("rules",), "rules has an empty entry: name a pack, or a file of rules")
        files = {entry for entry in entries if "/" in entry or entry.endswith((".yaml", ".yml"))}
        return tuple(str(self.file(entry)) if entry in files else entry for entry in entries)

    def settle(self, given: Any) -> timedelta:
        duration = _duration(given)
        if duration is None and isinstance(given, (int, float, str)):
            self.reject(("settle",), "settle must be 0 to 1 hour: 500ms, 0.5s, 1m, or seconds as a number")
        return duration or timedelta()


# -- Shape and values --------------------------------------------------------------------------


def _misshapen(data: Any) -> Iterable[tuple[yamlfile.Path, str]]:
    """Return what JSON Schema finds, in words of our own: jsonschema's repeat the values."""
    if data is None:
        return [((), "the file is empty: name a parent and its children")]
    errors = jsonschema.Draft202012Validator(_SCHEMA).iter_errors(data)
    return dict.fromkeys(fault for error in errors for fault in _faults(error))


def _faults(error: jsonschema.ValidationError) -> Iterator[tuple[yamlfile.Path, str]]:
    path: yamlfile.Path = tuple(error.absolute_path)
    value, wanted, schema = cast(Any, (error.instance, error.validator_value, error.schema))
    if error.validator == "type":
        yield path, _wrong_type(path, wanted, value)
    elif error.validator == "required":
        yield from ((path, f"{key} is missing") for key in wanted if key not in value)
    elif error.validator == "additionalProperties":
        known = list(schema["properties"])
        yield from (((*path, key), _unknown_key(key, known)) for key in value if key not in known)
    elif error.validator == "pattern":
        yield path, f"{_title(path)} must be a date: 2026-12-31"
    else:
        yield path, f"{_title(path)} is empty"


_KINDS = {"object": "a mapping", "array": "a list", "string": "text", "number": "a number", "null": "null"}


def _wrong_type(path: yamlfile.Path, wanted: str | list[str], value: Any) -> str:
    kinds = [wanted] if isinstance(wanted, str) else wanted
    message = f"{_title(path)} must be {' or '.join(_KINDS[kind] for kind in kinds)}"
    quotable = "string" in kinds and isinstance(value, (bool, int, float))
    return f"{message}: put it in quotes" if quotable else message


def _title(path: yamlfile.Path) -> str:
    if not path:
        return "the file"
    step = path[-1]
    return step if isinstance(step, str) else f"item {step + 1} of {_title(path[:-1])}"


def _unknown_key(key: str, known: list[str]) -> str:
    # {name: c1, mysql://u:p@h/nova} makes a key of the URL: only what looks like a key is shown.
    label = f"the key {key!r}" if re.fullmatch(r"[A-Za-z][\w-]{0,30}", key) else "this key"
    close = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
    return f"{label} is unknown: " + (f"did you mean {close[0]}?" if close else f"use {', '.join(known)}")


def _cells(data: dict[str, Any]) -> _Places[dict[str, Any]]:
    """Return the parent and the children by their paths, in that order, as far as they are mappings."""
    children = data.get("children")
    listed = enumerate(children if isinstance(children, list) else [])
    cells: _Places[Any] = {("parent",): data.get("parent")}
    cells.update({("children", index): cell for index, cell in listed})
    return {path: cell for path, cell in cells.items() if isinstance(cell, dict)}


def _twins(identities: _Places[Any]) -> Iterator[tuple[yamlfile.Path, yamlfile.Path]]:
    """Yield the paths of two values that are equal, the first one of its kind first."""
    first: dict[Hashable, yamlfile.Path] = {}
    for path, identity in identities.items():
        place = first.setdefault(identity, path)
        if place != path:
            yield place, path


def _fault_of_name(name: str) -> str | None:
    """Say what is wrong with a cell's name; never repeats it, as it may be a misplaced URL."""
    if not name or len(name) > 255:
        return "must have 1 to 255 characters"
    if name == "*" or name.startswith("-"):
        return "cannot be * or begin with -"
    for character in name:
        if character in "!@/:":
            return f"cannot hold {character}"
        if character.isspace() or unicodedata.category(character).startswith("C"):
            return "cannot hold blanks or control characters"
    return None


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}


def _duration(given: Any) -> timedelta | None:
    """Return "500ms", "0.5s", "1m" or a number of seconds as a time, None if it is not one."""
    if isinstance(given, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m)?\s*", given)
        given = float(match[1]) * _UNITS[match[2]] if match else None
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    return timedelta(seconds=given) if is_number and 0 <= given <= 3600 else None


_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[^{}]*)\})?")


def _in_userinfo(match: re.Match[str], path: yamlfile.Path) -> bool:
    """Tell whether a reference stands in the user:password@ part of a database or broker URL.

    Judged on the text as it was written: behind ``://``, with an ``@`` still to come. A broker
    URL has one such part for each host; commas divide them.
    """
    rest = _REFERENCE.sub("", match.string[match.end() :])
    key = path[-1] if path else None
    if key == "broker":
        rest = rest.partition(",")[0]
    return key in ("database", "broker") and "://" in match.string[: match.start()] and "@" in rest


# -- Database URLs -----------------------------------------------------------------------------

_MARIADB = frozenset(
    ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql", "mysql+mysqldb", "mysql+mysqlconnector"]
)

_UNENCODABLE = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_SECRET_ARGUMENT = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)


def _database(text: str, options: Mapping[str, str], *, base: Path) -> Endpoint:
    url = _parsed(text)
    if url.drivername == "sqlite" and options:
        raise UsageError("a defaults_file is for MariaDB: leave it out for SQLite")
    url = _sqlite(url, base) if url.drivername == "sqlite" else _mariadb(url, options)
    shown = url.difference_update_query(["charset"]).render_as_string(hide_password=True)
    head, mark, arguments = shown.partition("?")
    secret = Secret(url.render_as_string(hide_password=False))
    return Endpoint(url=secret, shown=head + _starred(mark + arguments))


def _parsed(text: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    url = None
    if not _UNPRINTABLE.search(text):
        # The ValueError of a bad port quotes it, and it may be a password: no exception is chained.
        with contextlib.suppress(ArgumentError, ValueError):
            url = make_url(text)
    if url is None:
        raise UsageError(f"is not a database URL ({_ENCODE}). {_SPOKEN}")
    return url


def _sqlite(url: URL, base: Path) -> URL:
    # Every connection to :memory: has a database of its own.
    if url.username or url.host or not url.database or url.database == ":memory:":
        raise UsageError("SQLite needs a file, and no user or host: write sqlite:////ABSOLUTE/PATH")
    return url if url.database.startswith("file:") else url.set(database=str(base / url.database))


def _mariadb(url: URL, options: Mapping[str, str]) -> URL:
    if url.drivername not in _MARIADB:
        raise UsageError(_SPOKEN)
    url = _completed(url.set(drivername="mysql+pymysql"), options)
    if not url.database:
        raise UsageError(f"the URL names no schema. {_SPOKEN}")
    # SQLAlchemy ends the password at the first @, and would take its rest for the host.
    if re.search(r"[@\s]", url.host or "") or "@" in url.database:
        raise UsageError(f"the URL has an @ or a blank in its host or schema: {_ENCODE}")
    if url.port is not None and not 0 < url.port < 65536:
        raise UsageError("the port must be from 1 to 65535")
    if url.password is not None and not url.username:
        raise UsageError("there is a password but no user: name the user too")
    return url.difference_update_query(["use_unicode"]).update_query_dict({"charset": "utf8mb4"})


def _completed(url: URL, options: Mapping[str, str]) -> URL:
    """Return the URL with what it does not say taken from a client option file."""
    found = {"unix_socket": options.get("socket") if _is_local(url, options) else None}
    found.update({key: options.get(key) for key in ("ssl_ca", "ssl_cert", "ssl_key")})
    arguments = {key: value for key, value in found.items() if value and key not in url.query}
    return url.set(
        username=url.username or options.get("user"),
        password=url.password if url.password is not None else options.get("password"),
        host=url.host or options.get("host"),
        port=url.port if url.port is not None else _port(options),
    ).update_query_dict(arguments)


def _is_local(url: URL, options: Mapping[str, str]) -> bool:
    """Tell whether the option file's socket counts: PyMySQL prefers it to a host, however remote."""
    return url.port is None and (url.host or options.get("host") or "localhost") == "localhost"


def _port(options: Mapping[str, str]) -> int | None:
    text = options.get("port")
    if text and not re.fullmatch(r"[0-9]{1,5}", text):
        raise UsageError("the port in the defaults_file is not a number")
    return int(text) if text else None


def _location(database: Endpoint) -> tuple[object, ...]:
    """Return what tells two databases apart, as far as their URLs show it."""
    url = _parsed(database.url.reveal())
    if url.drivername == "sqlite":
        return ("sqlite", os.path.abspath(url.database or ""))
    if "unix_socket" in url.query:
        return (url.query["unix_socket"], url.database)
    return ((url.host or "localhost").lower(), url.port or 3306, url.database)


def _starred(arguments: str) -> str:
    return _SECRET_ARGUMENT.sub(r"\1***", arguments)


def _shown_host(host: str) -> str:
    user, at, address = host.rpartition("@")
    if "@" in user or not re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[\w.-]+)(:[0-9]+)?", address):
        raise UsageError(f"the broker URL has a host that is not HOST or HOST:PORT: {_ENCODE}")
    name, colon, _ = user.partition(":")
    return f"{name}{':***' if colon else ''}{at}{address}"


# -- Files of others ---------------------------------------------------------------------------


def _nova_conf(file: Path) -> dict[str, tuple[str, str]]:
    """Return "database" and "broker", each with the option's name and its text, as far as set.

    Read with oslo.config, as Nova does: the last of several values counts, and ``$$`` is ``$``.
    """
    from oslo_config import cfg

    _contents(file)
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


def _client_options(text: str) -> dict[str, str]:
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

"""The cell file as a whole: its cells, what they may be named, and where their databases are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cellsync import yamlfile
from cellsync.cells import accepted, endpoints
from cellsync.cells.files import contents
from cellsync.cells.names import fault_of_name
from cellsync.cells.optionfiles import client_options, nova_cells, nova_conf
from cellsync.cells.references import References
from cellsync.cells.shape import misshapen
from cellsync.errors import ConfigurationError, Problem, UsageError
from cellsync.masking import is_url
from cellsync.model import (
    RELEASES,
    Budget,
    Cell,
    Endpoint,
    Mapped,
    NovaConf,
    Role,
    Secret,
    Secrets,
    Topology,
)

T = TypeVar("T")
_Places = dict[yamlfile.Path, T]

_BROKEN = object()
"""Stands for a value whose problem is already known, so that nobody reports it twice."""

_NO_DATABASE = "write one (beside a defaults_file: mysql+pymysql:///SCHEMA), or a nova_conf that has one"

_NO_API_DATABASE = "write that of nova_api, or a nova_conf that has [api_database] connection"

DATABASES = ("cinder", "neutron", "placement")
"""The services beside Nova whose databases `cellsync trace` and detectors can ask."""

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

    # What `cellsync trace` and detectors look at besides: other services' databases, and what answers HTTP.
    # databases: {cinder: "mysql+pymysql://...", neutron: "mysql+pymysql://..."}
    # endpoints: {keystone: "http://10.0.0.1:5000/v3"}

  # Instead of the URLs, a nova.conf with [database] connection and [DEFAULT] transport_url:
  # - {name: c3, nova_conf: /etc/nova/c3.conf}
  # Or a MySQL client option file for what the URL does not say (user, password, host, TLS):
  # - {name: c4, defaults_file: ~/.my.cnf, database: "mysql+pymysql:///nova"}

rules: [nova-cells-v1]

# release: liberty    # of Nova, where the version of its schema does not say it: how its URLs are read

# settle: 0.5s        # how long to wait before differences are read again; 0 does not wait

# What one cell may cost a run, here for all cells, or in a cell of its own: how long it may be read, and
# then written, and how many changes of a rule may fail before the rest of them is left.
# budget: {time: 1h, failures: 1000}

# What runs saw is kept in a file on this machine, a line for each: for `cellsync history --since 7d`,
# and for --changes-only. It holds keys, and no other values.
# drift_log: /var/lib/cellsync/drift.jsonl

# What people live with is shown and not counted, to the end of its date (UTC), or for good without
# one. A part of the key means every row that has it, and key: "*" every row of the rule.
# accept:
#   - {cell: c1, rule: aggregates, key: {name: lab}, why: the lab is c1's own, until: 2026-12-31}

# Passwords, tokens, keys and user data are not shown; hide more columns, or show some of them.
# secrets: {hide: ["instances.display_*"], show: [public_key]}
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
        text = contents(Path(file))
    except UsageError as error:
        advice = "write a cellsync.yaml that names a parent and its children, or name another file with -c"
        raise ConfigurationError([Problem(file, 0, 0, f"{error}: {advice}")]) from error
    document = yamlfile.load(text, file=file)
    reader = _Reader(document=document, references=References(base=Path(file).parent, environ=environ))
    topology = reader.topology()
    if topology is None:
        raise ConfigurationError(
            sorted(dict.fromkeys(reader.problems), key=lambda problem: (problem.line, problem.column))
        )
    return topology


def example() -> str:
    """Return a commented cellsync.yaml; it loads with CELLSYNC_PASSWORD in the environment."""
    return _EXAMPLE


class _Source(NamedTuple):
    """A URL as somebody wrote it, where, and how a message names that place."""

    path: yamlfile.Path
    text: Any
    origin: str


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """One reading of one file; ``problems`` grows while it goes on."""

    document: yamlfile.Document
    references: References
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
        for path, message in misshapen(self.document.data):
            self.reject(path, message)
        data = self.expand(self.document.data, ())
        if not isinstance(data, dict):
            return None
        given = _cells(data)
        names = {path: self.name((*path, "name"), cell.get("name")) for path, cell in given.items()}
        budget = self.budget(("budget",), data.get("budget"), Budget())
        cells = {path: self.cell(path, cell, names[path], budget) for path, cell in given.items()}
        self.check_twins(names, cells)
        known = [name for name in names.values() if name]
        listed = isinstance(data.get("children"), list)
        sure = known if listed and len(known) == len(names) and ("parent",) in names else []
        entries = accepted.read(data.get("accept"), cells=sure, reject=self.reject)
        secrets = self.secrets(data.get("secrets"))
        rules, settle = self.rules(data.get("rules", [])), self.settle(data.get("settle", 0.5))
        drift_log = self.drift_log(data.get("drift_log"))
        mapped, release = self.mapped(data), self.release(data.get("release"))
        if self.problems:
            return None
        parent, *children = (cell for cell in cells.values() if cell is not None)
        return Topology(
            parent=parent,
            children=tuple(children),
            rules=rules,
            settle=settle,
            budget=budget,
            accepted=entries,
            secrets=secrets,
            drift_log=drift_log,
            mapped=mapped,
            release=release,
        )

    @property
    def lists_by_mapping(self) -> bool:
        """True where the parent's database lists the children."""
        data = self.document.data
        return isinstance(data, dict) and isinstance(data.get("children"), dict)

    def mapped(self, data: Mapping[str, Any]) -> Mapped | None:
        """Return how the URLs of mapped children are completed; None where the file lists the children."""
        given = data.get("children")
        if not isinstance(given, dict):
            return None
        path: yamlfile.Path = ("children",)
        own = self.sources(path, given)
        parent = data.get("parent")
        named = parent.get("nova_conf") if isinstance(parent, dict) else None
        above = {} if named is None else self.nova_conf(("parent", "nova_conf"), named)
        sources = {**above, **own}
        if "password" in given and "username" not in given:
            self.reject((*path, "password"), "there is a password but no user: name the user too (username)")
        for key, read in (("database", endpoints.endpoint), ("broker", endpoints.broker_endpoint)):
            self.endpoint(own.get(key), read)
        password = given.get("password")
        return Mapped(
            database=_secret(sources.get("database")),
            broker=_secret(sources.get("broker")),
            username=given.get("username"),
            password=Secret(password) if isinstance(password, str) else None,
        )

    def expand(self, value: Any, path: yamlfile.Path) -> Any:
        """Return the value with every ``${...}`` replaced, or _BROKEN in place of a bad text."""
        if isinstance(value, dict):
            return {key: self.expand(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, (*path, index)) for index, item in enumerate(value)]
        return self.substitute(value, path) if isinstance(value, str) else value

    def substitute(self, text: str, path: yamlfile.Path) -> Any:
        def reject(message: str) -> None:
            self.reject(path, message)

        result = self.references.substitute(text, path, reject)
        return _BROKEN if result is None else result

    def name(self, path: yamlfile.Path, name: Any) -> str | None:
        fault = fault_of_name(name) if isinstance(name, str) else None
        if fault:
            self.reject(path, f"the name of a cell {fault}: choose another")
        return name if isinstance(name, str) and not fault else None

    def cell(
        self, path: yamlfile.Path, given: Mapping[str, Any], name: str | None, budget: Budget
    ) -> Cell | None:
        sources = self.sources(path, given)
        if path == ("parent",) and self.lists_by_mapping and "database" not in given:
            # Of the nova.conf of an API host: the cells stand in the API database.
            sources = {**sources, "database": sources["api_database"]} if "api_database" in sources else {}
        if "database" not in sources:
            api = path == ("parent",) and self.lists_by_mapping
            self.reject(path, f"database is missing: {_NO_API_DATABASE if api else _NO_DATABASE}")
        options = self.options((*path, "defaults_file"), given.get("defaults_file", ""))
        database = self.endpoint(
            sources.get("database"), lambda url: endpoints.database(url, options, base=self.references.base)
        )
        broker = self.endpoint(sources.get("broker"), endpoints.broker_endpoint)
        if broker is not None and sources["broker"].path[-1] == "nova_conf":
            broker = replace(broker, by_release=True)
        databases = self.databases((*path, "databases"), given.get("databases"))
        services = self.services((*path, "endpoints"), given.get("endpoints"))
        nova = self.nova((*path, "nova_conf"), given.get("nova_conf"))
        budget = self.budget((*path, "budget"), given.get("budget"), budget)
        if name is None or database is None:
            return None
        role = Role.PARENT if path == ("parent",) else Role.CHILD
        return Cell(
            name=name,
            role=role,
            database=database,
            broker=broker,
            nova=nova,
            databases=databases,
            endpoints=services,
            budget=budget,
        )

    def nova(self, path: yamlfile.Path, text: Any) -> NovaConf | None:
        file = self.file(path, text)
        return self.attempt(path, lambda: nova_cells(file)) if file else None

    def file(self, path: yamlfile.Path, text: Any) -> Path | None:
        """Return the file that a text names; what is wrong with it is reported."""
        return self.attempt(path, lambda: self.references.file(text)) if isinstance(text, str) else None

    def databases(self, path: yamlfile.Path, given: Any) -> dict[str, Endpoint]:
        """Return the databases of other services; what is wrong with one of them is reported."""
        found = {}
        for name, text in given.items() if isinstance(given, dict) else ():
            if name not in DATABASES:
                self.reject(
                    (*path, name), f"databases are those of {', '.join(DATABASES[:-1])} and {DATABASES[-1]}"
                )
            elif isinstance(text, str):
                source = _Source((*path, name), text, f"{name}: ")
                found[name] = self.endpoint(
                    source, lambda url: endpoints.database(url, {}, base=self.references.base)
                )
        return {name: made for name, made in found.items() if made is not None}

    def services(self, path: yamlfile.Path, given: Any) -> dict[str, str]:
        """Return where other services answer HTTP; what is wrong with one of them is reported."""
        found = {}
        for name, text in given.items() if isinstance(given, dict) else ():
            if isinstance(text, str):
                found[name] = self.attempt(
                    (*path, name), partial(endpoints.service, text), origin=f"{name}: "
                )
        return {name: url for name, url in found.items() if url is not None}

    def sources(self, path: yamlfile.Path, given: Mapping[str, Any]) -> dict[str, _Source]:
        """Return "database" and "broker": what nova.conf says, unless the cell itself says it."""
        sources = self.nova_conf((*path, "nova_conf"), given["nova_conf"]) if "nova_conf" in given else {}
        keys = [key for key in ("database", "broker") if key in given]
        return {**sources, **{key: _Source((*path, key), given[key], f"{key}: ") for key in keys}}

    def nova_conf(self, path: yamlfile.Path, text: Any) -> dict[str, _Source]:
        file = self.file(path, text)
        found = self.attempt(path, lambda: nova_conf(file)) if file else None
        if found is None:
            return {key: _Source(path, _BROKEN, "") for key in ("database", "api_database", "broker")}
        return {key: _Source(path, url, f"{label} in {file}: ") for key, (label, url) in found.items()}

    def options(self, path: yamlfile.Path, text: Any) -> Mapping[str, str]:
        """Return the options of a client option file; none without one, or when it is broken."""
        if not text or not isinstance(text, str):
            return {}
        return self.attempt(path, lambda: client_options(contents(self.references.file(text)))) or {}

    def endpoint(self, source: _Source | None, read: Callable[[str], Endpoint]) -> Endpoint | None:
        if source is None or not isinstance(source.text, str):
            return None
        return self.attempt(source.path, lambda: read(source.text), origin=source.origin)

    def check_twins(self, names: _Places[str | None], cells: _Places[Cell | None]) -> None:
        for first, path in _twins({path: name.casefold() for path, name in names.items() if name}):
            place = self.document.problem((*first, "name"), f"is {names[first]!r}")
            self.reject((*path, "name"), f"two cells are named {names[path]!r} ({place}): choose another")
        known = {path: cell for path, cell in cells.items() if cell}
        for first, path in _twins({path: endpoints.location(cell.database) for path, cell in known.items()}):
            twins = f"{known[first].name} and {known[path].name} are the same database"
            self.reject((*path, "database"), f"{twins}, {known[path].database.shown}: give each its own")

    def rules(self, given: Any) -> tuple[str, ...]:
        """Return the names of packs as they are, and files as paths from the working directory."""
        listed = given if isinstance(given, list) else [given]
        entries = [entry for entry in listed if isinstance(entry, str)]
        if "" in entries:
            self.reject(("rules",), "rules has an empty entry: name a pack, or a file of rules")
        files = {entry for entry in entries if "/" in entry or entry.endswith((".yaml", ".yml"))}
        if any(is_url(entry) for entry in entries):
            self.reject(("rules",), "rules has a URL: name a pack, or a file of rules")
            return ()
        named = {entry: self.file(("rules",), entry) for entry in files}
        return tuple(str(named[entry]) if entry in files else entry for entry in entries)

    def secrets(self, given: Any) -> Secrets:
        """Return the columns to be hidden and shown; a pattern that could match no column is reported."""
        patterns = {}
        for name in ("hide", "show"):
            found = given.get(name) if isinstance(given, dict) else None
            listed = [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
            for place, each in enumerate(listed):
                if each and not re.fullmatch(r"[^\s./]+(\.[^\s./]+)?", each):
                    path = ("secrets", name, place)
                    self.reject(path, "a pattern is COLUMN or TABLE.COLUMN; * stands for anything: '*token*'")
            patterns[name] = tuple(listed)
        return Secrets(**patterns)

    def release(self, given: Any) -> str | None:
        """Return the release of Nova by its name in lower case; None where it is not said."""
        if not isinstance(given, str):
            return None
        if given.lower() not in RELEASES:
            self.reject(("release",), f"release must be one of Nova with cells v1: {', '.join(RELEASES)}")
        return given.lower()

    def drift_log(self, given: Any) -> str | None:
        """Return the path of the drift log; a relative one is taken from the folder of the cell file."""
        if isinstance(given, str) and is_url(given):
            self.reject(("drift_log",), "drift_log is a URL: name a file on this machine")
            return None
        file = self.file(("drift_log",), given) if given else None
        return None if file is None else str(file)

    def budget(self, path: yamlfile.Path, given: Any, usual: Budget) -> Budget:
        """Return what a cell may cost; what is not given is as usual."""
        said = given if isinstance(given, dict) else {}
        return Budget(
            time=self.bound((*path, "time"), said, usual.time, _time, "up to 1 day (30s, 10m, 2h)"),
            failures=self.bound((*path, "failures"), said, usual.failures, _count, "a whole number from 1"),
        )

    def bound(
        self,
        path: yamlfile.Path,
        said: Mapping[str, Any],
        usual: T | None,
        read: Callable[[Any], T | None],
        wanted: str,
    ) -> T | None:
        """Return one bound of a budget, None where there is to be none."""
        given = said.get(str(path[-1]), usual)
        if given is usual or given is None or given == "none":
            return usual if given is usual else None
        found = read(given)
        if found is None and isinstance(given, (int, float, str)):
            self.reject(path, f"{path[-1]} must be {wanted}, or none for no bound")
        return found

    def settle(self, given: Any) -> timedelta:
        duration = _duration(given, most=3600)
        if duration is None and isinstance(given, (int, float, str)):
            self.reject(("settle",), "settle must be 0 to 1 hour: 500ms, 0.5s, 1m, or seconds as a number")
        return duration or timedelta()


def _secret(source: _Source | None) -> Secret | None:
    return Secret(source.text) if source is not None and isinstance(source.text, str) else None


# -- Cells and values --------------------------------------------------------------------------


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


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_DAY = 86_400


def _count(given: Any) -> int | None:
    """Return a whole number from 1, None if it is not one."""
    return given if isinstance(given, int) and not isinstance(given, bool) and given > 0 else None


def _time(given: Any) -> timedelta | None:
    """Return a time of which something can be done, up to a day; None if it is not one."""
    return _duration(given, most=_DAY) or None


def _duration(given: Any, *, most: float) -> timedelta | None:
    """Return "500ms", "0.5s", "1m" or a number of seconds as a time, None if it is not one, or longer."""
    if isinstance(given, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)?\s*", given)
        given = float(match[1]) * _UNITS[match[2]] if match else None
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    return timedelta(seconds=given) if is_number and 0 <= given <= most else None

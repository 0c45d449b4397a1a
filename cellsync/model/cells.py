"""Who takes part: cells, where their databases are, the topology, and what people accept in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from cellsync.model.secrets import Secrets
from cellsync.model.values import Secret


class Role(str, Enum):
    """What a cell is to the others."""

    PARENT = "parent"
    CHILD = "child"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a database or a broker is: the full URL for drivers, and one that may be shown."""

    url: Secret
    shown: str
    """The same URL with stars for the password: "mysql+pymysql://cellsync:***@10.0.0.1/nova"."""
    fault: str = ""
    """Why nobody can connect to it: where a database keeps the URL, and it is none; "" for a good one."""
    by_release: bool = False
    """True for the broker of a nova.conf, in which Nova's release says how a password stands."""

    def scrub(self, text: str) -> str:
        """Return a text with stars in place of the passwords, however they are spelled in it.

        For texts that somebody else wrote (a traceback, a driver's error). A password that is a
        common word takes innocent words with it.
        """
        if self.url.reveal():
            text = text.replace(self.url.reveal(), self.shown)
        for password in sorted(_spellings(self.url.reveal()), key=len, reverse=True):
            text = text.replace(password, "***")
        return text


def _spellings(url: str) -> set[str]:
    """Return the passwords in a URL, a broker's with several hosts too: plain, quoted and escaped."""
    hosts = re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0].split(",")
    encoded = {host.rpartition("@")[0].partition(":")[2] for host in hosts}
    plain = {unquote(each) for each in encoded} | {unquote_plus(each) for each in encoded}
    turned = {way(each) for each in plain for way in (_quoted, quote_plus, _literal, _in_json)}
    return (encoded | plain | turned) - {""}


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _literal(text: str) -> str:
    return repr(text)[1:-1]


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


@dataclass(frozen=True, kw_only=True)
class NovaConf:
    """What a cell's nova.conf says of cells; None where it does not say it."""

    file: str
    cell_name: str | None = None
    """``[cells] name``: what the cell calls itself."""
    cells_config: str | None = None
    """``[cells] cells_config``: a file that nova-cells reads instead of the table ``cells``."""
    check_interval: int = 60
    """``[cells] db_check_interval``, in seconds: how soon nova-cells sees what changed in the table."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one cell may cost a run, so that the others do not wait for it for ever."""

    time: timedelta | None = timedelta(hours=1)
    """How long it may be read, and then how long it may be written; None for as long as it takes."""
    failures: int | None = 1000
    """How many changes of one rule may fail or conflict before the rest of them is left; None for all."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A parent or a child, with a database and (optionally) a broker."""

    name: str
    role: Role
    database: Endpoint
    broker: Endpoint | None = None
    nova: NovaConf | None = None
    databases: Mapping[str, Endpoint] = field(default_factory=dict)
    """Databases of other services, by name: cinder, neutron."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Services that answer HTTP, by name: keystone, glance, ..."""
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, kw_only=True)
class CellMapping:
    """One row of ``cell_mappings`` in nova_api, as it stands there: templates are not filled."""

    uuid: str
    name: str
    """As Nova's people call the cell; "" where nobody named it."""
    transport_url: Secret
    database_connection: Secret
    disabled: bool = False


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """That the children are those of the parent's ``cell_mappings``, and how their URLs are completed."""

    database: Secret | None = None
    """A database URL: templates such as ``{scheme}://{username}:...`` are filled from its parts."""
    broker: Secret | None = None
    """The same for ``transport_url``."""
    username: str | None = None
    """With ``password``, the login to every child's database, in the place of Nova's own."""
    password: Secret | None = None


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Differences and findings that people have decided to live with."""

    cell: str
    """A child, the parent, or "*" for every cell."""
    rule: str
    key: Mapping[str, str | None]
    """Key column -> its value as ``shown`` has it, None for NULL; empty for every row of the rule."""
    why: str
    until: date | None = None
    """The last day, in UTC, on which they do not count; None for ever."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """One parent and its children, in configured order; names are unique."""

    parent: Cell
    children: tuple[Cell, ...]
    """Empty while only ``mapped`` says which they are: see ``run.located``."""
    rules: tuple[str, ...] = ()
    """The packs and rule files that the configuration names, in its order."""
    settle: timedelta = timedelta(seconds=0.5)
    """How long a run waits before differences are read again, where a rule does not say."""
    budget: Budget = field(default_factory=Budget)
    """That of the children that only the parent's database lists; the others have their own."""
    accepted: tuple[Accepted, ...] = ()
    """In the order of the configuration: the first one that applies says why."""
    secrets: Secrets = field(default_factory=Secrets)
    """The columns that no output shows."""
    release: str | None = None
    """Nova's release, where the configuration says it; else the schema's version tells."""
    drift_log: str | None = None
    """The file that is told what runs saw; None for no such file."""
    mapped: Mapped | None = None
    """Given where the parent's database lists the children, and not the configuration."""
    left_out: tuple[str, ...] = ()
    """Which cells the parent lists that are no children here, and why, a sentence each."""

    def cell(self, name: str) -> Cell | None:
        """Return the cell of that name, parent included, or None."""
        return next((cell for cell in (self.parent, *self.children) if cell.name == name), None)

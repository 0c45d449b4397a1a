"""URLs of databases and brokers: one normal form for drivers, and stars for people.

No message holds a part of a URL: it may be a password.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cellsync.cells.files import check_path
from cellsync.errors import UsageError
from cellsync.masking import is_url
from cellsync.model import TLS_FILES, Endpoint, Secret, starred, tls

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


_SPOKEN = "cellsync speaks MariaDB: write mysql+pymysql://USER:PASSWORD@HOST/SCHEMA"
_ENCODE = "write special characters of a user or password percent-encoded (@ is %40, / is %2F, , is %2C)"

_MARIADB = frozenset(
    ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql", "mysql+mysqldb", "mysql+mysqlconnector"]
)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_SECRET_ARGUMENT = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)


def endpoint(url: str) -> Endpoint:
    """Normalise a database URL: MariaDB as ``mysql+pymysql://`` with charset=utf8mb4, or SQLite.

    Other drivers for MySQL and other charsets are replaced: ``mariadb+pymysql://`` switches
    oslo.db's error mapping off, and without utf8mb4 4-byte characters are read as ``?``
    (facts/mariadb.md). ``shown`` leaves the charset out, as it is always the same.
    Raises UsageError, whose text holds no part of the URL.
    """
    return database(url, {}, base=Path())


def broker_endpoint(url: str) -> Endpoint:
    """Check a transport_url and return it as it is; ``shown`` has stars for each password.

    Follows oslo.messaging's grammar, ``rabbit://u:p@h1:5672,u:p@h2:5672/vhost``: the hosts have
    either all a user or none. Raises UsageError, whose text holds no part of the URL.
    """
    try:
        return Endpoint(url=Secret(url), shown=starred(url))
    except ValueError as error:
        raise UsageError(str(error)) from None


def logged_in(found: Endpoint, username: str | None, password: Secret | None) -> Endpoint:
    """Return a database with another login, as far as one is given."""
    if username is None:
        return found
    secret = None if password is None else password.reveal()
    url = _parsed(found.url.reveal()).set(username=username, password=secret)
    return database(url.render_as_string(hide_password=False), {}, base=Path())


def service(text: str) -> str:
    """Check the address of a service that answers HTTP. Raises UsageError, which does not hold it."""
    match = re.fullmatch(r"https?://(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:[0-9]{1,5})?(/[^\s?#]*)?", text)
    if match is None:
        raise UsageError("is not the address of a service: write http://HOST:PORT/PATH, without a user")
    return text


def database(text: str, options: Mapping[str, str], *, base: Path) -> Endpoint:
    """Normalise a database URL as ``endpoint`` does, completed from a client option file.

    ``options`` are that file's, by name with underscores. Files, of SQLite and of TLS, are relative to
    ``base``.
    """
    url = _parsed(text)
    if url.drivername == "sqlite" and options:
        raise UsageError("a defaults_file is for MariaDB: leave it out for SQLite")
    url = _sqlite(url, base) if url.drivername == "sqlite" else _mariadb(url, options, base)
    shown = url.difference_update_query(["charset"]).render_as_string(hide_password=True)
    head, mark, arguments = shown.partition("?")
    secret = Secret(url.render_as_string(hide_password=False))
    # What an option file says was no part of the text that was looked at.
    _parsed(secret.reveal())
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
    if is_url(url.database):  # it may have a password
        raise UsageError("the path of the SQLite file is a URL: write sqlite:////ABSOLUTE/PATH")
    return url if url.database.startswith("file:") else url.set(database=str(base / url.database))


def _mariadb(url: URL, options: Mapping[str, str], base: Path) -> URL:
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
    try:
        tls(url.query)
    except ValueError as error:
        raise UsageError(str(error)) from None
    files = {name: _file(base, url.query[name]) for name in TLS_FILES if name in url.query}
    return url.difference_update_query(["use_unicode"]).update_query_dict({"charset": "utf8mb4", **files})


def _file(base: Path, name: str | tuple[str, ...]) -> str:
    text = name if isinstance(name, str) else name[-1]
    check_path(text)
    return str(base / Path(text).expanduser())


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


def location(database: Endpoint) -> tuple[object, ...]:
    """Return what tells two databases apart, as far as their URLs show it."""
    url = _parsed(database.url.reveal())
    if url.drivername == "sqlite":
        return ("sqlite", os.path.abspath(url.database or ""))
    if "unix_socket" in url.query:
        return (url.query["unix_socket"], url.database)
    return ((url.host or "localhost").lower(), url.port or 3306, url.database)


def _starred(arguments: str) -> str:
    return _SECRET_ARGUMENT.sub(r"\1***", arguments)

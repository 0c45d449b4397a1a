"""How a connection to a database is encrypted, and whom it trusts: what a URL says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar, Union

from cellsync.model.values import Secret


class Verify(str, Enum):
    """What must be true of a server's certificate."""

    IDENTITY = "identity"
    """A trusted CA signed it, and it names the host that the URL names."""
    CA = "ca"
    """A trusted CA signed it, for whatever host."""
    NONE = "none"
    """Nothing: the connection is encrypted, and may lead to anybody."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """An encrypted connection; without ``ca`` the CAs of the system are trusted."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    key_password: Secret | None = None
    verify: Verify


T = TypeVar("T")

Query = Mapping[str, Union[str, Sequence[str]]]

_WORDS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
_MODES = {
    "disabled": False,
    "preferred": None,
    "required": Verify.NONE,
    "verify_ca": Verify.CA,
    "verify_identity": Verify.IDENTITY,
}
TLS_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
_TEXTS = {*TLS_FILES, "ssl_key_password"}
_SWITCHES = {"ssl", "ssl_disabled", "ssl_check_hostname", "ssl_verify_cert", "ssl_verify_identity"}


def tls(query: Query) -> Tls | bool | None:
    """Return what the arguments of a URL ask for; False for no TLS at all, None where they say nothing.

    cellsync's own are ssl_ca, ssl_cert, ssl_key, ssl_key_password and ssl_verify (identity, ca or
    none); those of PyMySQL, SQLAlchemy and mysqlclient (ssl_mode) mean the same here. Whoever names
    a CA and says no more wants the server's identity verified. Raises ValueError, whose text holds
    no value, for an argument that is not known: a misspelled one would leave the door open.
    """
    given = {name: _one(value) for name, value in query.items() if name.startswith("ssl")}
    unknown = sorted(set(given) - _TEXTS - _SWITCHES - {"ssl_verify", "ssl_mode"})
    if unknown:
        known = "ssl_ca, ssl_cert, ssl_key, ssl_key_password and ssl_verify"
        raise ValueError(f"{', '.join(unknown)} is not known: the arguments for TLS are {known}")
    switches = {name: _switch(name, given[name]) for name in given.keys() & _SWITCHES}
    mode = _word("ssl_mode", given["ssl_mode"], _MODES) if "ssl_mode" in given else None
    if switches.get("ssl_disabled") or switches.get("ssl") is False or mode is False:
        if given.keys() & {*_TEXTS, "ssl_verify"}:
            raise ValueError("TLS is switched off, and there are arguments for it too: leave one out")
        return False
    if not given.keys() - {"ssl_disabled", "ssl_mode"} and mode is None:
        return None
    if "ssl_key" in given and "ssl_cert" not in given:
        raise ValueError("ssl_key needs ssl_cert: the certificate that belongs to the key")
    return Tls(
        ca=given.get("ssl_ca"),
        cert=given.get("ssl_cert"),
        key=given.get("ssl_key"),
        key_password=Secret(given["ssl_key_password"]) if "ssl_key_password" in given else None,
        verify=_verify(given, switches, mode),
    )


def _verify(given: Mapping[str, str], switches: Mapping[str, bool], mode: Verify | bool | None) -> Verify:
    """Return what is to be verified; of two arguments that say it the stricter one counts."""
    if "ssl_verify" in given:
        return _word("ssl_verify", given["ssl_verify"], {each.value: each for each in Verify})
    if switches.get("ssl_verify_identity") or switches.get("ssl_check_hostname"):
        return Verify.IDENTITY
    if isinstance(mode, Verify):
        return mode
    if "ssl_ca" not in given:
        return Verify.CA if switches.get("ssl_verify_cert") else Verify.NONE
    if switches.get("ssl_verify_cert") is False:
        return Verify.NONE
    lax = False in (switches.get("ssl_verify_identity"), switches.get("ssl_check_hostname"))
    return Verify.CA if lax else Verify.IDENTITY


def _one(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else value[-1]


def _switch(name: str, value: str) -> bool:
    return _word(name, value, _WORDS)


def _word(name: str, value: str, words: Mapping[str, T]) -> T:
    try:
        return words[value.lower()]
    except KeyError:
        raise ValueError(f"{name} must be one of {', '.join(words)}") from None

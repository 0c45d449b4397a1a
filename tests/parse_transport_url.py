"""Parse transport URLs with the real oslo.messaging of one release, in a process of its own.

    python parse_transport_url.py [FOLDER]

FOLDER holds an unpacked source distribution; without it the installed package answers. Each line of the
input is a URL as JSON, each line of the output what ``TransportURL.parse`` made of it, or its exception.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from oslo_config import cfg


class Parser(NamedTuple):
    """TransportURL.parse of a release, and what it raises beside ValueError."""

    parse: Callable[[Any, str], Any]
    failure: type[Exception]


def load_parser(folder: str | None) -> Parser:
    """Return the parser; nothing in its module is replaced."""
    if folder is not None:
        # The __init__ of an old release imports drivers and servers, whose libraries are gone: its transport
        # module needs none of them.
        package = types.ModuleType("oslo_messaging")
        package.__path__ = [f"{folder}/oslo_messaging"]
        sys.modules["oslo_messaging"] = package
    failure = importlib.import_module("oslo_messaging.exceptions").MessagingException
    return Parser(importlib.import_module("oslo_messaging.transport").TransportURL.parse, failure)


def answer(parser: Parser, url: str) -> dict[str, Any]:
    """Return what the parser reads from a URL, or why it does not take it."""
    try:
        found = parser.parse(cfg.ConfigOpts(), url)
    except (ValueError, parser.failure) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    hosts = [[host.hostname, host.port, host.username, host.password] for host in found.hosts]
    return {"hosts": hosts, "virtual_host": found.virtual_host, "written": str(found)}


def main() -> None:
    """Answer line by line until the input ends."""
    parser = load_parser(sys.argv[1] if len(sys.argv) > 1 else None)
    for line in sys.stdin:
        print(json.dumps(answer(parser, json.loads(line))), flush=True)


main()

"""Serve placement's API on a free port of 127.0.0.1 and print it: ``serve_placement.py PLACEMENT.CONF``.

Runs under the Python of .venv-nova. Placement's own application, with its own authentication for tests:
the token is the user's name, and admin may do everything.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

os.environ["OS_PLACEMENT_CONFIG_DIR"] = str(Path(sys.argv[1]).parent)

from placement import wsgi


class Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


application = wsgi.init_application()
with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
    print(server.server_port, flush=True)
    server.serve_forever()

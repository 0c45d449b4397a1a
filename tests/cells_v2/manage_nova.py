"""Run nova-manage and placement-manage, each time in a process that has loaded them already.

Runs under the Python of .venv-nova, in the folder of the deployment. Loading Nova takes two seconds, which
is nearly all that most commands take. A line of standard input is a command as JSON, a list of words; a
line of standard output says how it ended, as JSON: ``code``, ``out``, ``err``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from tempfile import TemporaryFile

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

from nova.cmd import manage as nova_manage
from placement.cmd import manage as placement_manage

PROGRAMS = {"nova-manage": nova_manage.main, "placement-manage": placement_manage.main}


def carry_out(words: list[str], out: int, err: int) -> None:
    """Be that program; ``out`` and ``err`` are open files."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.argv = words
    sys.exit(PROGRAMS[words[0]]())


for line in sys.stdin:
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        given = (json.loads(line), out.fileno(), err.fileno())
        process = multiprocessing.get_context("fork").Process(target=carry_out, args=given)
        process.start()
        process.join()
        out.seek(0)
        err.seek(0)
        print(json.dumps({"code": process.exitcode, "out": out.read(), "err": err.read()}), flush=True)

"""A private RabbitMQ node for tests: on the loopback address, not as root, gone when it is left."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from cellsync.demo.server import find

PASSWORD = "a p:w%41+!$rd"
"""Awkward on purpose: cellsync.yaml has it percent-encoded, a row of Liberty as it is."""
STARTING = 90
"""Seconds that a node may take on a busy machine."""
_SBINS = ("bin", "lib/rabbitmq_server-*/sbin")
"""Where its programs may stand in its folder; those on the PATH want to be root. So looks scripts/setup."""
_ALL = {"configure": ".*", "write": ".*", "read": ".*"}


def _find_program(name: str) -> str:
    found = next((path for sbin in _SBINS for path in Path("/usr/lib/rabbitmq").glob(f"{sbin}/{name}")), None)
    assert found is not None, f"RabbitMQ's {name} is not installed: scripts/test does it"
    return str(found)


class RabbitMQ:
    """A node with the user "nova" and these virtual hosts; start it with ``with``."""

    def __init__(self, *, vhosts: Sequence[str] = ("c1", "c2")) -> None:
        """``vhosts`` are those that nova may use; it never may use "forbidden", which is there too."""
        # Not pytest's: its folders are their owner's alone, and each session that starts sees to that.
        self.folder = Path(tempfile.mkdtemp(prefix="cellsync-rabbitmq-"))
        self.port, self._distribution, self._epmd_port = _free_ports(3)
        self._vhosts = tuple(vhosts)
        self._node = f"cellsync-{secrets.token_hex(4)}@localhost"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._blocked = False

    @property
    def address(self) -> str:
        """Return where it listens, as people write it."""
        return f"127.0.0.1:{self.port}"

    def url(self, vhost: str = "c1", *, user: str = "nova", password: str = PASSWORD) -> str:
        """Return the URL of a virtual host as cellsync.yaml has it."""
        return f"rabbit://{user}:{quote(password, safe='')}@{self.address}/{vhost}"

    def __enter__(self) -> RabbitMQ:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start the node and wait until it lets people in; what it was left with is there again."""
        program = _find_program("rabbitmq-server")
        self._configure()
        epmd = find("epmd")
        assert epmd is not None, "Erlang's epmd is not there, which comes with RabbitMQ"
        self._spawn(epmd, "-address", "127.0.0.1", "-port", str(self._epmd_port))
        self.node = self._spawn(program)
        ended = time.monotonic() + STARTING
        while not self._answers():
            assert self.node.poll() is None and time.monotonic() < ended, self._log()
            time.sleep(0.1)

    def stop(self) -> None:
        """Kill the node and its name server; there is nothing to be kept."""
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the node: SIGSTOP makes it a broker that listens and does not answer."""
        os.killpg(self.node.pid, number)

    def kill(self) -> None:
        """Kill the node as a crash would, and wait until nobody listens."""
        self.signal(signal.SIGKILL)
        self.node.wait()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except ConnectionRefusedError:
                return
            except OSError:
                pass
            time.sleep(0.02)

    def block(self) -> None:
        """Raise the alarm of its memory."""
        self._blocked = True
        self.control("set_vm_memory_high_watermark", "0")

    def recover(self) -> None:
        """Make the node sound again, whatever befell it."""
        if self.node.poll() is not None:
            self.stop()
            self._blocked = False
            self.start()
            return
        self.signal(signal.SIGCONT)
        if self._blocked:
            self.control("set_vm_memory_high_watermark", "0.6")
            self._blocked = False

    def control(self, *arguments: str) -> None:
        """Run rabbitmqctl, which takes a second or two."""
        command = [_find_program("rabbitmqctl"), "-q", "-n", self._node, *arguments]
        subprocess.run(command, env=self._environment(), check=True, capture_output=True, **self._as_user())

    def _configure(self) -> None:
        vhosts = [{"name": name} for name in (*self._vhosts, "forbidden")]
        permissions = [{"user": "nova", "vhost": name, **_ALL} for name in self._vhosts]
        users = [{"name": "nova", "password": PASSWORD, "tags": ""}]
        definitions = {"users": users, "vhosts": vhosts, "permissions": permissions}
        self.folder.joinpath("definitions.json").write_text(json.dumps(definitions))
        self.folder.joinpath("rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {self.address}\n"
            f"load_definitions = {self.folder}/definitions.json\n"
            "disk_free_limit.absolute = 1MB\n"
        )
        self.folder.joinpath("plugins").write_text("[].\n")
        owner = self._as_user().get("user")
        if owner is not None:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, user=owner)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _as_user(self) -> dict[str, str]:
        """Return who is to run it: RabbitMQ's own user where we are root, as it does not run as root."""
        if os.geteuid() != 0:
            return {}
        with suppress(KeyError):
            return {"user": pwd.getpwnam("rabbitmq").pw_name}
        return {"user": "nobody"}

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{Path(command[0]).name}.log", "ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_user(),
            )
        self._processes.append(process)
        return process

    def _answers(self) -> bool:
        """Say whether it lets somebody in: it listens before its users are there."""
        import amqp

        connection = amqp.Connection(
            self.address, "nova", PASSWORD, virtual_host=self._vhosts[0], connect_timeout=2, read_timeout=2
        )
        try:
            connection.connect()
            connection.close()
        except (OSError, amqp.AMQPError):
            return False
        return True

    def _log(self) -> str:
        logs = [*self.folder.glob("*.log"), *self.folder.glob("log/*")]
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}" for log in logs)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def free_port() -> int:
    """Return a port on which nobody listens."""
    return _free_ports(1)[0]

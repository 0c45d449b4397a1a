"""A Galera cluster of three MariaDB servers on the loopback address, for tests.

Nodes two and three begin with a copy of the first one's data folder, so that nobody ever needs a full state
transfer. A node that was killed comes back with its own data and gets what it missed from the others
(IST). The script that Galera runs for a transfer therefore only passes on where the data stand: Debian has
the real ones in the package of the server with its service, which is not installed.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy as sa

from cellsync.demo.database import connected
from cellsync.demo.server import PrivateServer, ServerFailed

LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
"""Where a system may have libgalera_smm.so, in a folder of any name. scripts/setup looks there, too."""
STATE = "6a1e3f60-0000-4000-8000-0123456789ab"
"""The UUID of the cluster's state, of which every node has transaction 0 before the first start."""
SYNCED_SECONDS = 60
PROVIDER_OPTIONS = {
    "gcache.size": "32M",
    "pc.recovery": "false",  # a node that was killed asks the others, not its own memory of them
    # A killed node is missed after 2 s instead of 5; less would miss nodes on a busy machine.
    "evs.keepalive_period": "PT0.5S",
    "evs.inactive_check_period": "PT0.5S",
    "evs.suspect_timeout": "PT2S",
    "evs.inactive_timeout": "PT10S",
    "evs.install_timeout": "PT10S",
}
SCRIPT = """#!/bin/bash
# Pass a position from donor to joiner, through a file, where the joiner has its data already (IST).
while [ $# -gt 0 ]; do
    case $1 in
        --role) role=$2; shift ;;
        --address) address=$2; shift ;;
        --gtid) gtid=$2; shift ;;
        --parent) parent=$2; shift ;;
        --bypass) bypass=yes ;;
    esac
    shift
done
place="${0%/*}/transfer-${address//[^0-9]/_}"
if [ "$role" = donor ]; then
    [ -n "$bypass" ] || exit 22 # a full transfer: no test is to need one
    echo "$gtid" >"$place.new"
    mv "$place.new" "$place"
    echo "done $gtid"
    exit 0
fi
rm -f "$place"
echo "ready $address"
until [ -e "$place" ]; do
    kill -0 "$parent" 2>/dev/null || exit 32
    sleep 0.05
done
cat "$place"
rm -f "$place"
"""


def find_provider() -> str:
    """Return the path of Galera's library, or raise ServerFailed."""
    found = next((str(path) for root in LIBRARIES for path in Path(root).rglob("libgalera_smm.so")), None)
    if found is None:
        raise ServerFailed("libgalera_smm.so was not found: install Galera (Debian: galera-4)")
    return found


class Node(PrivateServer):
    """One server of the cluster: may be killed and started again."""

    group_port = 0
    transfer_port = 0

    def configure(self, peers: Sequence[Node], scripts: Path) -> None:
        """Make the server a node of a cluster with these."""
        self._scripts = scripts
        own = {
            **PROVIDER_OPTIONS,
            "base_host": self.host,
            "base_port": str(self.group_port),
            "gmcast.listen_addr": f"tcp://{self.host}:{self.group_port}",
            "ist.recv_addr": f"{self.host}:{self.transfer_port}",
        }
        others = ",".join(f"{self.host}:{peer.group_port}" for peer in peers if peer is not self)
        self._cluster = (
            "--wsrep-on=ON",
            f"--wsrep-provider={find_provider()}",
            f"--wsrep-provider-options={';'.join(f'{name}={value}' for name, value in own.items())}",
            "--wsrep-cluster-name=cellsync-tests",
            f"--wsrep-cluster-address=gcomm://{others}",
            f"--wsrep-node-address={self.host}:{self.group_port}",
            f"--wsrep-node-incoming-address={self.host}:{self.port}",
            f"--wsrep-sst-receive-address={self.host}:{self.transfer_port + 1}",
            "--wsrep-sst-method=position",
            "--wsrep-slave-threads=2",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
        )

    def join(self, *, first: bool = False) -> None:
        """Start the server, and wait until it has all that the others have."""
        self.options = ()
        position = self.find_position() if self.log.exists() else f"{STATE}:0"
        new = ("--wsrep-new-cluster",) if first else ()
        self.options = (*self._cluster, f"--wsrep-start-position={position}", *new)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{self._scripts}{os.pathsep}{before}"
        try:
            self.start()
        finally:
            os.environ["PATH"] = before
        self.wait_until("wsrep_local_state_comment", "Synced")

    def kill(self) -> None:
        """Kill the server as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def find_position(self) -> str:
        """Return the last transaction that a stopped or killed server has, as its tables say."""
        self.options = (*self._cluster, "--wsrep-recover", f"--log-error={self.directory / 'recover.log'}")
        recovered = self.directory / "recover.log"
        recovered.unlink(missing_ok=True)
        subprocess.run(
            self._command(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60
        )
        found = re.findall(r"Recovered position:\s*(\S+)", recovered.read_text(errors="replace"))
        return str(found[-1])

    def wait_until(self, status: str, wanted: str) -> None:
        """Wait until the server says this of itself."""
        deadline = time.monotonic() + SYNCED_SECONDS
        while (found := self.ask(status)) != wanted:
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{status} of a node is {found!r} after {SYNCED_SECONDS} s, not {wanted!r}"
                )
            time.sleep(0.05)

    def ask(self, status: str) -> str:
        """Return what the server says of itself, "" while it does not answer."""
        try:
            with connected(self.url()) as connection:
                row = connection.execute(sa.text(f"SHOW GLOBAL STATUS LIKE '{status}'")).first()
        except sa.exc.SQLAlchemyError:
            return ""
        return "" if row is None else str(row[1])


@contextmanager
def running_cluster(directory: Path) -> Iterator[Cluster]:
    """Start three nodes, which keep all in a folder of the caller, and stop them at the end."""
    cluster = Cluster(directory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Cluster:
    """Three nodes; they are stopped by their process ids."""

    def __init__(self, directory: Path) -> None:
        """Keep all that the nodes have in a folder, which belongs to the caller."""
        self._directory = directory
        self.nodes = [Node(directory / f"n{number}") for number in (1, 2, 3)]

    def start(self) -> None:
        """Make the data folders, and one cluster of the nodes."""
        self._prepare()
        for number, node in enumerate(self.nodes):
            node.join(first=number == 0)
        self.recover()

    def _prepare(self) -> None:
        """Make one data folder, with the user, and a copy of it for each of the others."""
        find_provider()
        scripts = self._directory / "scripts"
        scripts.mkdir(parents=True)
        script = scripts / "wsrep_sst_position"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        first, *others = self.nodes
        ports = iter(_free_ports(4 * len(self.nodes)))
        for node in self.nodes:
            node.port, node.group_port, node.transfer_port = next(ports), next(ports), next(ports)
            next(ports)
        for node in self.nodes:
            node.configure(self.nodes, scripts)
        first.initialise()
        (first.directory / "data" / "grastate.dat").write_text(
            f"# GALERA saved state\nversion: 2.1\nuuid:    {STATE}\nseqno:   0\nsafe_to_bootstrap: 1\n"
        )
        first.join(first=True)  # makes the user, and writes down in its tables where the cluster stands
        first.stop()
        (first.directory / "first.sql").write_text("")
        for node in others:
            shutil.copytree(first.directory, node.directory)
            node.password = first.password

    def recover(self) -> None:
        """Start the nodes that are down, and wait until all three are one cluster again."""
        for node in self.nodes:
            if node.process is None or node.process.poll() is not None:
                node.join()
        for node in self.nodes:
            node.wait_until("wsrep_cluster_size", str(len(self.nodes)))
            node.wait_until("wsrep_local_state_comment", "Synced")

    def settle(self) -> None:
        """Wait until every node has applied what any of them has committed by now."""
        for node in self.nodes:
            with connected(node.url()) as connection:
                connection.exec_driver_sql("SET SESSION wsrep_sync_wait = 1")
                connection.exec_driver_sql("SELECT 1").all()

    def stop(self) -> None:
        """Stop all nodes; the last one needs nobody to be stopped."""
        for node in reversed(self.nodes):
            node.stop()


def _free_ports(number: int) -> list[int]:
    """Return so many ports that are free, and different."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind((PrivateServer.host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]

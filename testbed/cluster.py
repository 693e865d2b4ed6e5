"""A running cluster: created from a topology, found again by name, reliably removed.

`Cluster.up` makes the namespaces, wires them, and starts on every node the agent (default
and strict mode) or a bare WireGuard (plain mode).  State lives in one folder per cluster
below `privileges.state_folder()`: topology, keys, configuration and logs of every node, and
`state.json`, so that another process can `Cluster.load` it.  A cluster that is `owned` dies
with the process that made it; others stay until `down`.

If a step of `up` fails, everything created so far is removed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from testbed import dataplane, discovery, impairment, namespaces, network
from testbed.classify import Classifier
from testbed.dataplane import Daemon, DataPlaneError
from testbed.discovery import View
from testbed.namespaces import Namespace, wait_until
from testbed.network import UNDERLAY
from testbed.privileges import complete_path, state_folder
from testbed.sniffer import SLOTS, Record, Sniffer, SnifferBlind
from testbed.topology import LISTEN_PORT, Topology, read_topology
from wgpy import typed
from wgpy.programs import python_module
from wgpy.protocol.keys import PrivateKey

AGENT, DATA_PLANE, LINKS = "agent", "dataplane", "links"


class ClusterError(Exception):
    """A cluster cannot be created, found or changed; the message says why."""


class Cluster:
    """Namespaces, processes and files of one topology.  A context manager that removes it."""

    def __init__(self, topology: Topology, name: str, folder: Path) -> None:
        self.topology = topology
        self.name = name
        self.folder = folder
        self.namespaces: dict[str, Namespace] = {}
        self.daemons: dict[tuple[str, str], Daemon] = {}
        self.views: dict[str, View] = {}
        self.keys: dict[str, PrivateKey] = {}
        self.owner: tuple[int, int] | None = None
        self._pinned: list[int] = []
        self._guarded: list[Namespace] = []
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    # Start and end.

    @classmethod
    def up(
        cls, topology: Topology, *, name: str = "", owned: bool = True, start: bool = True
    ) -> Cluster:
        """Create it and wait until every node is ready.  Raises `ClusterError`, leaving nothing."""
        complete_path()
        sweep()
        token = secrets.token_hex(3)
        name = name or (f"{topology.name}-{token}" if owned else topology.name)
        folder = state_folder() / name
        if (folder / "state.json").exists():
            raise ClusterError(f"{name} is already up: `{typed.wgpy('testbed', 'down', name)}`")
        folder.mkdir(parents=True, mode=0o755)
        cluster = cls(topology, name, folder)
        try:
            cluster._build(owned)
            if start:
                cluster.start()
            cluster.save()
        except (ClusterError, DataPlaneError, namespaces.NamespaceError, OSError) as error:
            cluster.down()
            raise ClusterError(str(error)) from error
        except BaseException:
            cluster.down()
            raise
        return cluster

    def _build(self, owned: bool) -> None:
        self.namespaces = namespaces.make(network.names(self.topology), self.folder)
        self._pinned = namespaces.pin(space.pid for space in self.namespaces.values())
        if owned:
            self._guarded = list(self.namespaces.values())
            namespaces.guard(self._guarded)
            self.owner = (os.getpid(), namespaces.start_time(os.getpid()) or 0)
        self.save()
        pids = {name: space.pid for name, space in self.namespaces.items()}
        for name, space in self.namespaces.items():
            space.sysctl(network.sysctls(self.topology, name))
        self.namespaces[UNDERLAY].ip(network.underlay_lines(self.topology, pids))
        for node in self.topology.nodes:
            self.namespaces[node.name].ip(network.node_lines(self.topology, node, pids))
        for pod in self.topology.pods:
            self.namespaces[pod.path].ip(network.pod_lines(pod))
        if self.topology.world:
            self.namespaces[network.WORLD].ip(network.world_lines(self.topology))
        self._start_forwarder()
        for node in self.topology.nodes:
            self._prepare(node.name)

    def _start_forwarder(self) -> None:
        """The process behind links with loss, delay or rate, if there are any."""
        links = {
            network.port(node, index): node.links[index]
            for node in self.topology.nodes
            for index in range(len(node.underlays))
            if network.impaired(node, index)
        }
        if not links:
            return
        impairment.ask(self.folder, links, self.topology.seed)
        command = python_module("testbed.impairment", str(self.folder))
        space, log = self.namespaces[UNDERLAY], self.folder / "links.log"
        daemon, process = dataplane.launch(space, LINKS, command, log)
        self._children.append(process)
        self.daemons[UNDERLAY, LINKS] = daemon
        if not wait_until(lambda: self.link_counts() or not daemon.alive(), 20) or (
            not daemon.alive()
        ):
            raise DataPlaneError(f"the forwarder of the links ended:\n{daemon.last_words()}")

    def _prepare(self, name: str) -> None:
        """A node's folder: its key and its discovery file."""
        folder = self.node_folder(name)
        folder.mkdir(exist_ok=True)
        self.keys[name] = dataplane.new_key()
        discovery.write(folder / f"{name}.key", self.keys[name].base64 + "\n", mode=0o600)

    def start(self) -> None:
        """Start agents or data planes everywhere, and wait for them."""
        public = {name: dataplane.public_key(key) for name, key in self.keys.items()}
        for node in self.topology.nodes:
            self.views[node.name] = discovery.view_of(self.topology, node.name, public)
            if self.topology.mode == "plain":
                self.start_data_plane(node.name)
            else:
                self.write_config(node.name)
                self.publish(node.name)
                self.start_agent(node.name)
        for node in self.topology.nodes:
            self.wait_ready(node.name)
            if self.topology.mode == "plain":
                self.configure_plain(node.name)
        self.save()

    def down(self) -> None:
        """End every process inside; the kernel removes the rest.  Idempotent."""
        namespaces.kill_inside(self._pinned)
        for fd in self._pinned:
            os.close(fd)
        self._pinned.clear()
        for process in self._children:
            process.wait()
        self._children.clear()
        if self._guarded:
            namespaces.unguard(self._guarded)
            self._guarded.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def alive(self) -> bool:
        """Whether all namespaces are still there."""
        return bool(self.namespaces) and all(n.alive() for n in self.namespaces.values())

    # The nodes' processes.

    def node_folder(self, node: str) -> Path:
        """Key, configuration and logs of a node."""
        return self.folder / node

    def write_config(self, node: str, *, mode: str | None = None) -> Path:
        """The agent's file; `mode` overrides the topology's."""
        path = self.node_folder(node) / "agent.toml"
        text = discovery.agent_config(self.topology, self.topology.node(node), mode=mode)
        discovery.write(path, text)
        return path

    def publish(self, *nodes: str) -> int:
        """Write the discovery files of these nodes (all, when none); returns the time in ns."""
        for node in nodes or tuple(self.views):
            text = self.views[node].render()
            discovery.write(self.node_folder(node) / "cluster.toml", text)
        return time.time_ns()

    def start_agent(self, node: str) -> Daemon:
        """`wgpy strict run` on a node; it starts the data plane."""
        config = self.node_folder(node) / "agent.toml"
        command = [dataplane.program("wgpy"), "strict", "run", "--config", str(config)]
        return self._launch(node, AGENT, command)

    def start_data_plane(self, node: str) -> Daemon:
        """The node's WireGuard without an agent."""
        command = dataplane.wireguard_command(self.topology.node(node))
        return self._launch(node, DATA_PLANE, command)

    def _launch(self, node: str, role: str, command: list[str]) -> Daemon:
        log = self.node_folder(node) / f"{role}.log"
        daemon, process = dataplane.launch(self.namespaces[node], role, command, log)
        self._children.append(process)
        self.daemons[node, role] = daemon
        return daemon

    def wait_ready(self, node: str) -> None:
        """Until the node's data plane answers and the agent, if there is one, has joined."""
        role = DATA_PLANE if self.topology.mode == "plain" else AGENT
        dataplane.wait_ready(self.namespaces[node], self.daemons[node, role])
        if role == DATA_PLANE:
            return
        daemon = self.daemons[node, AGENT]

        def up() -> bool:
            if not daemon.alive():
                raise DataPlaneError(f"the agent of {node} ended:\n{daemon.last_words()}")
            return self._strict_ready(node)

        if not wait_until(up, 30):
            raise DataPlaneError(f"the agent of {node} is not ready:\n{daemon.last_words()}")

    def _strict_ready(self, node: str) -> bool:
        status = self.agent_status(node)
        return bool(status.get("joined")) and status.get("pid") == self.daemons[node, AGENT].pid

    def agent_status(self, node: str) -> dict[str, Any]:
        """The agent's last recorded state; empty before the first."""
        path = self.run_folder(node) / f"{dataplane.DEVICE}.agent"
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def run_folder(self, node: str) -> Path:
        """The node's own /run/wireguard, as seen from outside."""
        return dataplane.socket_path(self.namespaces[node]).parent

    def configure_plain(self, node: str, family: int = 4) -> None:
        """Plain mode: keys, peers, addresses and routes of one node."""
        space = self.namespaces[node]
        described = self.topology.node(node)
        change = dataplane.plain_change(self.topology, described, self.keys, family)
        dataplane.configure(space, change)
        space.ip(dataplane.plain_lines(self.topology, described))

    def pid(self, node: str, role: str) -> int | None:
        """The process of a node's agent or data plane, however started; None if none runs."""
        marks = (b"wireguard-", b"wireguard_py") if role == DATA_PLANE else (b"strict\0run",)
        for pid in namespaces.inside([self.namespaces[node].inode]):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if any(mark in words for mark in marks) and namespaces.start_time(pid) is not None:
                return pid
        return None

    def kill(self, node: str, role: str, number: int = signal.SIGKILL) -> int:
        """Signal a node's agent or data plane; returns its pid.  Raises `ClusterError`."""
        pid = self.pid(node, role)
        if pid is None:
            raise ClusterError(f"no {role} runs on {node}")
        os.kill(pid, number)
        if number == signal.SIGKILL:
            wait_until(lambda: namespaces.start_time(pid) is None, 5)
        return pid

    # Observation.

    def sniffer(
        self, *, slots: int = SLOTS, on_record: Callable[[Record], None] | None = None
    ) -> Sniffer:
        """A new eavesdropper on all underlays."""
        classifier = Classifier(self.topology.pod_cidrs, (LISTEN_PORT,))
        space = self.namespaces[UNDERLAY]
        return Sniffer(space, self.ports(), classifier, slots=slots, on_record=on_record)

    def ports(self) -> dict[int, str]:
        """The bridge ports that lead to nodes: ifindex to name."""
        names = {
            network.tap(node, index): network.port(node, index)
            for node in self.topology.nodes
            for index in range(len(node.underlays))
        }
        listed = json.loads(self.namespaces[UNDERLAY].run("ip", "-j", "link").stdout)
        return {row["ifindex"]: names[row["ifname"]] for row in listed if row["ifname"] in names}

    def link_counts(self) -> list[dict[str, Any]]:
        """Frames of each impaired link: `link`, `frames`, `lost`, `overflowed`."""
        return impairment.counts(self.folder)

    def settle(self, sniffer: Sniffer) -> None:
        """Until the sniffer has seen everything that nodes sent so far."""
        sniffer.settle(self.senders())

    def senders(self) -> Iterator[tuple[Namespace, str]]:
        """The nodes' underlay devices that are up.  Raises `SnifferBlind` if a port is down."""
        wire = self.namespaces[UNDERLAY]
        listed = json.loads(wire.run("ip", "-j", "link").stdout)
        ports = {row["ifname"]: row["flags"] for row in listed}
        for node in self.topology.nodes:
            space = self.namespaces[node.name]
            for row in json.loads(space.run("ip", "-j", "link").stdout):
                device = str(row["ifname"])
                if not device.startswith("eth") or "UP" not in row["flags"]:
                    continue
                port = network.tap(node, int(device.removeprefix("eth")))
                if "UP" not in ports.get(port, ()):
                    raise SnifferBlind(f"{port}, where it listens to {node.name}, is down")
                yield space, device

    # State on disk.

    def save(self) -> None:
        """Write `state.json` and a copy of the topology file."""
        discovery.write(self.folder / "topology.yaml", self.topology.source)
        state = {
            "schema": 1,
            "name": self.name,
            "owner": self.owner,
            "namespaces": {name: asdict(space) for name, space in self.namespaces.items()},
            "daemons": [
                {**asdict(daemon), "log": str(daemon.log)} for daemon in self.daemons.values()
            ],
            "views": {name: view.to_json() for name, view in self.views.items()},
        }
        discovery.write(self.folder / "state.json", json.dumps(state, indent=1))

    @classmethod
    def load(cls, name: str) -> Cluster:
        """A cluster that some process brought up.  Raises `ClusterError`."""
        complete_path()
        folder = state_folder() / name
        try:
            state = json.loads((folder / "state.json").read_text())
        except OSError:
            running = ", ".join(registered()) or "none"
            raise ClusterError(f"no cluster {name!r} (running: {running})") from None
        topology = read_topology(folder / "topology.yaml")
        cluster = cls(topology, name, folder)
        cluster._restore(state)
        return cluster

    def _restore(self, state: dict[str, Any]) -> None:
        self.owner = tuple(state["owner"]) if state["owner"] else None
        for name, row in state["namespaces"].items():
            self.namespaces[name] = Namespace(**row)
        for row in state["daemons"]:
            daemon = Daemon(**{**row, "log": Path(row["log"])})
            self.daemons[daemon.node, daemon.role] = daemon
        known: list[Namespace | Daemon] = [*self.namespaces.values(), *self.daemons.values()]
        self._pinned = namespaces.pin(process.pid for process in known if process.alive())
        self.views = {name: View.from_json(view) for name, view in state["views"].items()}
        for node in self.topology.nodes:
            key = self.node_folder(node.name) / f"{node.name}.key"
            if key.exists():
                self.keys[node.name] = PrivateKey.from_base64(key.read_text().strip())


def registered() -> list[str]:
    """The names of all clusters in the state folder."""
    return sorted(path.parent.name for path in state_folder().glob("*/state.json"))


def sweep() -> None:
    """Remove what killed programs left: clusters whose owner or holders are gone."""
    for name in registered():
        try:
            cluster = Cluster.load(name)
        except (ClusterError, ValueError, KeyError):
            continue
        owner = cluster.owner
        orphaned = owner is not None and namespaces.start_time(owner[0]) != owner[1]
        if orphaned or not any(space.alive() for space in cluster.namespaces.values()):
            cluster.down()

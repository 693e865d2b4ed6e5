"""The node agent: learns the cluster and keeps kernel and data plane in the desired state.

    1. the backstop (nftables), then unreachable routes, then forwarding: packets are never
       forwarded without the backstop
    2. the data plane: attach to a running one, or start it
    3. learn from the sources; install peers, table, routes into the tunnel
    4. once every source has synced: remove stale state, then publish its own node
    5. watch: sources, files, kernel, data plane; repair and report

Traffic does not need the agent.  When it is killed everything continues, and the next agent
adopts it.  When the data plane dies, the backstop and the unreachable routes stay in force, and
the agent starts it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from strict.config import AgentConfig, read_config
from strict.dataplane import DataPlane, DataPlaneError, start
from strict.desired import PeerPlan
from strict.devices import Devices, DeviceWatch
from strict.discovery import Discovery
from strict.document import DocumentRefused
from strict.firewall import Firewall, FirewallChanged, FirewallError
from strict.host import (
    backstop_of,
    encrypts_node_traffic,
    local_pods,
    needs_ipv6,
    routes_of,
)
from strict.ipcache import Entry
from strict.keyfile import read_key, read_or_make_key
from strict.mtu import device_mtu, route_mtu
from strict.nodes import Node
from strict.notice import Notice
from strict.routes import (
    Routing,
    RoutingError,
    bring_up,
    link_mtus,
    local_addresses,
    prepare_host,
)
from strict.ruleset import Backstop
from strict.single import AlreadyRuns, hold
from strict.state import Changes, ClusterState
from strict.watch import KernelWatch, drain
from wgpy import secret_files
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.keys import PublicKey
from wgpy.sockets import SOCKET_FOLDER

TICK: Final = 0.25
"""Seconds between polls of files and sources that have no descriptor."""
FULL_CHECK: Final = 10.0
"""Seconds between checks of the kernel without a notification."""
RETRY: Final = 1.0
LAGS_KEPT: Final = 10_000


class AgentError(Exception):
    """The agent cannot work on this host as configured."""


class Agent:
    """One node's agent.  `run` works until `stop` and leaves everything in place."""

    def __init__(
        self,
        config: AgentConfig,
        sources: Sequence[Discovery],
        *,
        say: Callable[[str], None],
        folder: Path = SOCKET_FOLDER,
    ) -> None:
        """Installs the backstop; raises `AgentError`, `FirewallError`, `RoutingError`."""
        self.config = config
        self.sources = list(sources)
        self.lags: deque[float] = deque(maxlen=LAGS_KEPT)
        self.lag_count = 0
        self.lag_sum = 0.0
        self._say = say
        self._folder = folder
        self._problems: dict[str, str] = {}
        self._stopped = False
        self._dataplane: DataPlane | None = None
        self._joined = False
        self._reload = False
        self._retry_at = 0.0
        self._check_at = 0.0
        self._status = ""
        self._published: tuple[Node, list[Entry]] | None = None
        self.last_tick = time.monotonic()
        """When the loop last went round, for whoever watches over it."""
        self._local_pods: set[Prefix] = set()
        self._backstop: Backstop | None = None
        self._in_kernel = ""
        """What the kernel's rules were last seen to do with pods' plaintext."""
        try:
            self._alone = hold(config.node.interface)
        except AlreadyRuns as error:
            raise AgentError(str(error)) from error
        self._stamp = self._look_at_files()
        _check_underlay(config)
        self._key = read_or_make_key(config.node.private_key_file)
        public = PublicKey(backend().public_key(self._key))
        self.state = ClusterState(config.table, public)
        self.plan = PeerPlan(self.state.table, config.node.listen_port)
        self._firewall = Firewall(config.node.interface)
        node, routing = config.node, config.routing
        self._routing = Routing(node.interface, node.fwmark, routing.table, routing.priority)
        self._watch = DeviceWatch(node.interface, node.underlay)
        self._devices = Devices()
        self._prepared = False
        say(f"node {node.name}: key {public.base64}, {config.table.mode.value} mode")
        if exposed := secret_files.exposure(node.private_key_file):
            say(f"warning: {exposed}")
        # The previous agent knew nodes and pods that this one does not know yet.
        self._old_sets = self._firewall.sets()
        self._old_encryption = self._firewall.encrypts_nodes()
        self._adopting = bool(self._old_sets)
        try:
            self._check_firewall()
        except FirewallChanged as error:
            self._problem("backstop", str(error))
        self._route()

    @property
    def joined(self) -> bool:
        """Whether every source has synced and its peers are installed."""
        return self._joined

    @property
    def drives(self) -> bool:
        """Whether the data plane is there and has taken all that is known."""
        return self._dataplane is not None and not self._reload

    @property
    def in_kernel(self) -> str:
        """What the kernel's rules do with pods' plaintext: `drop`, `count`, or "" for nothing."""
        return self._in_kernel

    @property
    def problems(self) -> dict[str, str]:
        """What is not in order now, by what it is about."""
        return dict(self._problems)

    @property
    def carries(self) -> bool:
        """Whether the data plane is there."""
        return self._dataplane is not None

    @property
    def in_force(self) -> bool:
        """Whether all that the sources said before this tick is in data plane and kernel."""
        troubles = self._problems.keys() & {"backstop", "routes", "data plane"}
        return self._joined and self.carries and not self._reload and not troubles

    def stop(self) -> None:
        """`run` returns soon; may be called from a signal handler."""
        self._stopped = True

    def run(self, beat: Callable[[Agent], None] = lambda _: None) -> None:
        """Work until `stop`; `beat` is called after each round."""
        watch = KernelWatch()
        selector = selectors.DefaultSelector()
        for bell in watch:
            selector.register(bell, selectors.EVENT_READ)
        try:
            while not self._stopped:
                self.tick(nftables=drain(watch.nftables), routing=drain(watch.routing))
                beat(self)
                self._wait(selector)
        finally:
            selector.close()
            watch.close()
            for source in self.sources:
                source.close()
            if self._dataplane is not None:
                self._dataplane.close()
            self._status_path.unlink(missing_ok=True)
            self._alone.close()

    def tick(self, *, nftables: bool = False, routing: bool = False) -> None:
        """One round: check once everything that may have changed."""
        now = time.monotonic()
        full = now >= self._check_at
        if full:
            self._check_at = now + FULL_CHECK
            nftables = routing = True
        self._read_config_again()
        changes = [self.state.take(s.name, s.poll(), s.shared) for s in self.sources]
        for source in self.sources:
            self._problem(source.name, source.problem)
        synced = self.state.synced(source.name for source in self.sources)
        if synced and self._adopting:
            self._adopting, nftables, routing = False, True, True
        nodes_changed = any(change.nodes for change in changes)
        changed = nodes_changed or self.state.local_pods != self._local_pods
        self._local_pods = set(self.state.local_pods)
        if changed or nftables or routing:
            self._guard("backstop", self._check_firewall)
        if nodes_changed:
            self.plan.refresh()
        self._drive(changes, full)
        if changed or routing:
            self._guard("routes", lambda: self._check_routes(changed))
        if self._joined and self.drives:
            self._publish()
        self._write_status()
        self.last_tick = time.monotonic()

    # The data plane.

    def _drive(self, changes: Sequence[Changes], look: bool) -> None:
        """Keep the data plane in the desired state; `look`: query whether it is."""
        try:
            if self._dataplane is not None and not self._is_alive(self._dataplane):
                self._say("the data plane is gone: pod traffic is blocked until it is back")
                self._dataplane.close()
                self._dataplane = None
            fresh = self._dataplane is None
            if fresh and not self._attach():
                return
            if self._dataplane is None:
                return
            synced = self.state.synced(source.name for source in self.sources)
            if look and not fresh and not self._dataplane.obeys(self.config.table):
                self._say("the data plane had different settings: reloaded")
                self._reload = True
            if fresh or self._reload or (synced and not self._joined):
                if not fresh and time.monotonic() < self._retry_at:
                    return
                self._dataplane.load(self.state.table, self.plan, prune=synced)
                self._reload = False
            else:
                for change in changes:
                    if change:
                        self._dataplane.update(change, self.plan)
                        self._note_lag(change)
            if fresh:
                self._guard("routes", self._check_routes)
            if synced and not self._joined:
                self._join()
            self._problem("data plane", "")
        except DataPlaneError as error:
            self._problem("data plane", str(error))
            self._reload = True
            self._retry_at = time.monotonic() + RETRY

    def _is_alive(self, dataplane: DataPlane) -> bool:
        """The control connection is readable only when it ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(dataplane, selectors.EVENT_READ)
            return not selector.select(0) or dataplane.alive()

    def _attach(self) -> bool:
        """Attach to a running data plane, or start one; at most once in `RETRY` seconds."""
        now = time.monotonic()
        if now < self._retry_at:
            return False
        self._retry_at = now + RETRY
        node = self.config.node
        try:
            dataplane = DataPlane(node.interface, self._folder)
            self._say(f"attached to the running data plane of {node.interface}")
        except DataPlaneError:
            if not self.config.start:
                raise
            start(node.interface, self.config.arguments)
            dataplane = DataPlane(node.interface, self._folder)
            self._say(f"started the data plane of {node.interface}")
        self._set_device(dataplane)
        self._dataplane = dataplane
        return True

    def _set_device(self, dataplane: DataPlane) -> None:
        node = self.config.node
        dataplane.set_device(self._key, node.listen_port, node.fwmark)
        try:
            bring_up(node.interface, self._mtu(device_mtu))
        except RoutingError as error:
            raise DataPlaneError(str(error)) from error

    def _join(self) -> None:
        """All peers are installed: now the others may encrypt to this node."""
        self._joined = True
        table = self.state.table
        self._say(f"joined: {len(table.nodes)} nodes, {len(table.ipcache)} entries")

    def _publish(self) -> None:
        """All that is known is in the data plane: say so, and what this node has to say."""
        local = (self.state.local(), self.state.local_entries())
        for source in self.sources:
            if local != self._published:
                source.publish(*local)
            source.applied()
        self._published = local

    def _note_lag(self, changes: Changes) -> None:
        now = time.time_ns()
        for published in changes.published:
            if published:
                lag = max(now - published, 0) / 1e9
                self.lags.append(lag)
                self.lag_count += 1
                self.lag_sum += lag

    # The kernel.

    def _check_firewall(self) -> None:
        """Follow the devices, repair, and verify it in the kernel; then enable forwarding."""
        local = self.state.local()
        pods = set(local_pods(self.state))
        if self._adopting:
            # Which devices are pods' is found by them, and their sources are checked there.
            pods |= set(self._old_sets.get("local", ()))
        self._devices = self._watch.look(local.addresses, pods)
        self._problem("underlay", self._devices.problem)
        nat = self._firewall.foreign_nat()
        backstop = replace(
            backstop_of(self.config, self.state, self._devices), foreign_nat=nat
        )
        if self._adopting:
            backstop = backstop.with_nodes_of(self._old_sets, self._old_encryption)
        before, self._in_kernel = self._in_kernel, ""
        if backstop == self._backstop:
            if self._firewall.restore():
                self._say("the backstop's nftables were removed or changed: restored")
        else:
            self._firewall.apply(backstop)
            self._backstop = backstop
        self._in_kernel = self._firewall.verdict()
        if self._in_kernel != ("drop" if backstop.drop else "count"):
            raise FirewallChanged(f"the kernel's rules {self._in_kernel}, which was not meant")
        if self._in_kernel != before:
            what = "dropped" if backstop.drop else "counted, not dropped"
            self._say(f"the backstop is in place: pods' plaintext is {what}")

    def _prepare_host(self) -> None:
        """Enable forwarding once the backstop is in place; save its old state for `down`."""
        if self._prepared or not self._in_kernel:
            return
        before = prepare_host(self._devices.underlay)
        self._prepared = True
        path = forwarding_path(self.config.node.interface, self._folder)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(before))

    def _check_routes(self, updated: bool = True) -> None:
        """Repair; before the data plane is loaded there are only unreachable routes."""
        repaired = self._route()
        if repaired and self._joined:
            what = "brought up to date" if updated else "were removed or changed: restored"
            self._say(f"routes {what}: {', '.join(repaired)}")

    def _route(self) -> list[str]:
        """Nothing is removed while adopting: the previous agent knew more."""
        plan = routes_of(self.state, local_addresses(), self._mtu(route_mtu))
        done = self._routing.apply(plan, prune=not self._adopting)
        self._prepare_host()
        return done

    def _mtu(self, rule: Callable[[int, bool], int]) -> int:
        mtus = link_mtus(self._devices.underlay).values()
        return rule(min(mtus, default=1500), needs_ipv6(self.state))

    def _guard(self, name: str, action: Callable[[], None]) -> None:
        """A failure becomes a problem in `status` and is retried."""
        try:
            action()
            self._problem(name, "")
        except (FirewallError, RoutingError) as error:
            self._problem(name, str(error))

    # The files.

    def _look_at_files(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in (self.config.path, self.config.node.private_key_file)]

    def _read_config_again(self) -> None:
        stamp = self._look_at_files()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            config = read_config(self.config.path)
            key = read_key(self.config.node.private_key_file)
        except (DocumentRefused, ValueError, OSError) as error:
            # The current settings stay, even if the key's file is missing for a moment.
            self._problem("configuration", str(error))
            return
        fixed = replace(config, table=self.config.table)
        if fixed != self.config:
            self._problem(
                "configuration",
                f"{config.path}: only section `strict` can change while the agent runs (without "
                "masquerade, routing_table and rule_priority): restart it to use the other changes",
            )
            return
        self._problem("configuration", "")
        if key != self._key:
            self._key = key
            self.state.set_key(PublicKey(backend().public_key(key)))
            self._use_again("the private key has changed")
        if config.table != self.config.table:
            self._use_settings(config)

    def _use_settings(self, config: AgentConfig) -> None:
        try:
            self.state.configure(config.table)
        except ValueError as error:
            self._problem("configuration", f"{config.path}: {error}")
            return
        self.config = config
        self._use_again(f"new settings: {config.table.mode.value} mode")

    def _use_again(self, why: str) -> None:
        """Backstop first, then the whole data plane."""
        self._say(f"{why}: taken over")
        self._guard("backstop", self._check_firewall)
        self.plan.refresh()
        self._reload = True
        if self._dataplane is not None:
            try:
                self._set_device(self._dataplane)
            except DataPlaneError as error:
                self._problem("data plane", str(error))
        self._guard("routes", self._check_routes)

    # What people see.

    def _problem(self, name: str, text: str) -> None:
        """Report a problem once, and once that it is resolved."""
        if text == self._problems.get(name, ""):
            return
        if text:
            self._problems[name] = text
            self._say(Notice(f"{name}: {text}", "problem", name))
        else:
            del self._problems[name]
            self._say(Notice(f"{name}: resolved", "resolved", name))

    @property
    def _status_path(self) -> Path:
        return self._folder / f"{self.config.node.interface}.agent"

    def status(self) -> dict[str, Any]:
        """What the agent knows beyond the data plane."""
        table = self.state.table
        local = self.state.local()
        encryption = "Enabled" if encrypts_node_traffic(table) else "Disabled"
        if self.config.table.node_encryption and table.opted_out(local):
            encryption = "OptedOut"
        return {
            "pid": os.getpid(),
            "node": self.config.node.name,
            "joined": self._joined,
            "node_encryption": encryption,
            "backstop": self._in_kernel,
            "underlay": list(self._devices.underlay),
            "sources": [source.name for source in self.sources],
            "problems": dict(self._problems),
            "refused": dict(self.state.refused),
            "refusals": dict(self.state.refusals),
            "discovery_lag": {"count": self.lag_count, "sum": round(self.lag_sum, 6)},
        }

    def _write_status(self) -> None:
        for name, reason in self.state.refused.items():
            self._problem(f"refused {name}", reason)
        for name in [n for n in self._problems if n.startswith("refused ")]:
            if name.removeprefix("refused ") not in self.state.refused:
                self._problem(name, "")
        text = json.dumps(self.status())
        if text != self._status:
            self._status = text
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                partial = self._status_path.with_suffix(f".{os.getpid()}")
                partial.write_text(text)
                partial.replace(self._status_path)

    def _wait(self, selector: selectors.BaseSelector) -> None:
        """Wait for a notification, the end of the data plane, a source, or the next tick."""
        extra: list[DataPlane | int] = [s.fileno() for s in self.sources if s.fileno() >= 0]
        if self._dataplane is not None:
            extra.append(self._dataplane)
        for item in extra:
            selector.register(item, selectors.EVENT_READ)
        try:
            selector.select(TICK)
        finally:
            for item in extra:
                selector.unregister(item)


def _check_underlay(config: AgentConfig) -> None:
    """Raises `AgentError` naming the missing devices."""
    there = link_mtus(config.node.underlay)
    missing = [device for device in config.node.underlay if device not in there]
    if missing:
        raise AgentError(
            f"no such underlay device: {', '.join(missing)}: correct `underlay` in {config.path}"
        )


def forwarding_path(interface: str, folder: Path = SOCKET_FOLDER) -> Path:
    """Where the agent saves the state of forwarding before its start."""
    return folder / f"{interface}.forwarding"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns

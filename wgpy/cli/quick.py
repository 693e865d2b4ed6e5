"""Setting a tunnel up and taking it down, with the semantics of wg-quick(8).

The order of `bring_up` is that of the man page: PreUp, interface, keys and peers,
addresses, MTU, routes, PostUp.  Every step prints the shell command it stands for and
is entered in the `Ledger`, so that any failure (an interrupt as well) undoes all.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from wgpy import typed
from wgpy.cli.common import note
from wgpy.cli.full_tunnel import route_everything
from wgpy.cli.undo import Ledger, network_namespace
from wgpy.config import Config, HostPort
from wgpy.linux import uapi_client
from wgpy.linux.netlink import MAIN_TABLE, Network, NetworkError
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.settings import DeviceChange
from wgpy.sockets import InterfaceError, socket_path
from wgpy.uapi import UapiError

DEFAULT_IMPLEMENTATION: Final = "wireguard-py"
IMPLEMENTATION_VARIABLE: Final = "WG_QUICK_USERSPACE_IMPLEMENTATION"
START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 10.0
TUNNEL_OVERHEAD: Final = 80
"""Bytes that the outer IPv6, UDP and transport headers and the tag take."""
FALLBACK_MTU: Final = 1500


class QuickError(click.ClickException):
    """The tunnel could not be set up or taken down; nothing of it is left."""


@dataclass(slots=True)
class Tunnel:
    """One interface on its way up or down; `say` prints the commands."""

    interface: str
    ledger: Ledger
    quiet: bool = False
    summary: dict[str, Any] = field(default_factory=dict)

    def say(self, command: str) -> None:
        """Show the shell command that the next step stands for."""
        if not self.quiet:
            click.echo(f"[#] {command}", err=True)

    def run_hooks(self, kind: str, commands: Iterable[str]) -> None:
        """Run a phase's shell commands, ``%i`` being the interface; stdout goes to stderr."""
        shell = shutil.which("bash") or "sh"
        for command in commands:
            command = command.replace("%i", self.interface)
            self.say(command)
            code = subprocess.run([shell, "-c", command], stdout=2, check=False).returncode
            if code:
                raise QuickError(f"{kind} ended with exit code {code}: {command}")

    def try_hooks(self, kind: str, commands: Iterable[str]) -> list[str]:
        """Run all of a phase's commands; returns what failed."""
        failures = []
        for command in commands:
            try:
                self.run_hooks(kind, [command])
            except QuickError as error:
                failures.append(error.message)
        return failures


def bring_up(config: Config, interface: str, file: Path, quiet: bool = False) -> dict[str, Any]:
    """Set the tunnel up and return a summary; on any failure all is undone.

    Then PostDown runs as well, and PreDown once PostUp was begun.  Raises `QuickError`.
    """
    _refuse_existing(interface)
    ledger = Ledger(interface, str(file.absolute()), post_down=config.post_down)
    tunnel = Tunnel(interface, ledger, quiet)
    with _rolled_back(tunnel):
        ledger.save()
        tunnel.run_hooks("PreUp", config.pre_up)
        change = config.change(resolve)
        _start(tunnel)
        _configure(tunnel, change)
        with Network() as network:
            _add_addresses(tunnel, network, config)
            _set_up(tunnel, network, config, change)
            _add_routes(tunnel, network, config)
        ledger.pre_down = config.pre_down
        ledger.save()
        tunnel.run_hooks("PostUp", config.post_up)
    return {"interface": interface, "config": ledger.config} | tunnel.summary


def _refuse_existing(interface: str) -> None:
    with Network() as network:
        if network.index(interface) is not None:
            raise QuickError(f"interface {interface} exists already (wgpy down {interface})")
    if interface in uapi_client.interfaces():
        raise QuickError(f"interface {interface} is running in another network namespace")
    left = Ledger.load(interface)
    if left is not None and left.namespace == network_namespace():
        note(f"{interface} went away without `wgpy down`: undoing what was left of it")
        for failure in left.undo():
            note(failure)


@contextmanager
def _rolled_back(tunnel: Tunnel) -> Iterator[None]:
    """Undo everything when the block fails; interrupts count."""
    try:
        yield
    except BaseException as error:
        if not tunnel.quiet:
            note(f"failed: undoing everything that was done for {tunnel.interface}")
        for failure in _undo(tunnel):
            note(failure)
        if isinstance(error, NetworkError | InterfaceError | UapiError | OSError):
            raise QuickError(f"{tunnel.interface}: {error}") from error
        raise


def _undo(tunnel: Tunnel) -> list[str]:
    """Undo what the ledger holds, hooks around it; returns what failed, and goes on."""
    with _uninterrupted():
        failures = tunnel.try_hooks("PreDown", tunnel.ledger.pre_down)
        if tunnel.ledger.steps:
            tunnel.say(f"ip link delete dev {tunnel.interface}")
        failures += tunnel.ledger.undo()
        failures += _wait_gone(tunnel.interface)
        return failures + tunnel.try_hooks("PostDown", tunnel.ledger.post_down)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """An impatient second Ctrl-C must not stop the undoing half-way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)


def resolve(endpoint: HostPort) -> Endpoint:
    """The address behind an endpoint's name; asks again while the resolver says "later".

    Raises `QuickError`.
    """
    for attempt in range(4):
        try:
            found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN and attempt < 3:
                time.sleep(1 + attempt)
                continue
            raise QuickError(f"endpoint {endpoint}: {error.strerror}") from error
        family, _, _, _, address = found[0]
        host = str(address[0]).partition("%")[0]
        scope = int(address[3]) if len(address) == 4 else 0
        return Endpoint(socket.inet_pton(family, host), endpoint.port, scope)
    raise AssertionError("unreachable")


def implementation() -> str:
    """The program that makes interfaces; wireguard-py is also found beside this program."""
    wanted = os.environ.get(IMPLEMENTATION_VARIABLE) or DEFAULT_IMPLEMENTATION
    beside = Path(sys.executable).parent / wanted
    found = shutil.which(wanted) or (str(beside) if os.access(beside, os.X_OK) else None)
    if found is None:
        raise QuickError(f"{wanted} not found (set {IMPLEMENTATION_VARIABLE}, or fix PATH)")
    return found


def _start(tunnel: Tunnel) -> None:
    program = implementation()
    tunnel.say(typed.line(program, tunnel.interface))
    tunnel.ledger.record("link", tunnel.interface)
    try:
        done = subprocess.run(
            [program, tunnel.interface],
            stdin=subprocess.DEVNULL,
            stdout=2,
            timeout=START_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise QuickError(f"{program} did not become ready in {START_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise QuickError(f"{program} ended with exit code {done.returncode}")


def _configure(tunnel: Tunnel, change: DeviceChange) -> None:
    settings = typed.line("wg-quick", "strip", tunnel.ledger.config)
    tunnel.say(f"{typed.line('wg', 'setconf', tunnel.interface)} <({settings})")
    uapi_client.apply(tunnel.interface, change)


def _add_addresses(tunnel: Tunnel, network: Network, config: Config) -> None:
    for address in config.addresses:
        tunnel.say(f"ip address add {address} dev {tunnel.interface}")
        network.add_address(tunnel.interface, *address)
    tunnel.summary["addresses"] = [str(address) for address in config.addresses]


def _set_up(tunnel: Tunnel, network: Network, config: Config, change: DeviceChange) -> None:
    mtu = config.mtu or choose_mtu(network, change)
    tunnel.say(f"ip link set mtu {mtu} up dev {tunnel.interface}")
    network.set_up(tunnel.interface, mtu)
    tunnel.summary["mtu"] = mtu


def choose_mtu(network: Network, change: DeviceChange) -> int:
    """80 bytes less than the largest MTU on the ways to the endpoints.

    Without endpoints the default route counts, without one 1500 bytes.
    """
    endpoints = [peer.endpoint.ip for peer in change.peers if peer.endpoint]
    found = [mtu for mtu in map(network.mtu_towards, endpoints) if mtu]
    return max(found, default=network.default_mtu() or FALLBACK_MTU) - TUNNEL_OVERHEAD


def _add_routes(tunnel: Tunnel, network: Network, config: Config) -> None:
    """Routes to all allowed IPs, the most specific first."""
    tunnel.summary["routes"] = routes = []
    if config.table == "off":
        return
    table = MAIN_TABLE if config.table == "auto" else config.table
    prefixes = {prefix for peer in config.peers for prefix in peer.allowed_ips}
    everything = []
    for prefix in sorted(prefixes, key=lambda p: (-p.length, len(p.ip), p.ip)):
        if config.table == "auto" and prefix.length == 0:
            everything.append(prefix)
        elif config.table != "auto" or not network.covered(tunnel.interface, prefix):
            _add_route(tunnel, network, prefix, table)
            routes.append(str(prefix))
    if everything:
        mark = config.fwmark or network.free_table(51820)
        if not config.fwmark:
            tunnel.say(f"wg set {tunnel.interface} fwmark {mark}")
            uapi_client.apply(tunnel.interface, DeviceChange(fwmark=mark))
        for prefix in everything:
            _add_route(tunnel, network, prefix, mark)
            routes.append(str(prefix))
            addresses = [a.ip for a in config.addresses if len(a.ip) == len(prefix.ip)]
            route_everything(tunnel.ledger, tunnel.say, network, prefix, mark, addresses)
        tunnel.summary["fwmark"] = mark


def _add_route(tunnel: Tunnel, network: Network, prefix: Prefix, table: int) -> None:
    where = "" if table == MAIN_TABLE else f" table {table}"
    tunnel.say(f"ip route add {prefix} dev {tunnel.interface} proto static{where}")
    network.add_route(tunnel.interface, prefix, table)


def take_down(tunnel: Tunnel) -> None:
    """Undo all that `bring_up` did, going on when a step fails; raises `QuickError` then."""
    if tunnel.ledger.namespace != network_namespace():
        message = f"{tunnel.interface} was set up in another network namespace: take it down there"
        raise QuickError(message)
    failures = _undo(tunnel)
    if failures:
        raise QuickError("\n".join([f"{tunnel.interface} is down, but:", *failures]))


def _wait_gone(interface: str) -> list[str]:
    """Wait until the data plane has noticed that its device is gone."""
    path = socket_path(interface)
    end = time.monotonic() + STOP_TIMEOUT
    while path.exists():
        if time.monotonic() > end:
            return [f"{path} is still there: the data plane did not end"]
        time.sleep(0.02)
    return []

"""Setting a tunnel up and taking it down, with the semantics of wg-quick(8).

The order of `bring_up` is that of the man page: PreUp, interface, keys and peers,
addresses, MTU, routes, PostUp.  Every step prints the equivalent shell command and
is entered in the `Ledger`, so that any failure (also an interrupt) undoes everything.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from wgpy import typed
from wgpy.cli.common import note
from wgpy.cli.dns import set_dns
from wgpy.cli.full_tunnel import route_everything
from wgpy.cli.loops import loop_warnings
from wgpy.cli.resolve import resolve
from wgpy.cli.undo import Ledger, is_here, network_namespace
from wgpy.config import Config
from wgpy.config.checks import IPV6_MIN_MTU, has_ipv6
from wgpy.linux import uapi_client
from wgpy.linux.netlink import MAIN_TABLE, Network, NetworkError
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.settings import DeviceChange
from wgpy.sockets import InterfaceError, socket_path
from wgpy.uapi import UapiError

DEFAULT_IMPLEMENTATION: Final = "wireguard-py"
IMPLEMENTATION_VARIABLE: Final = "WG_QUICK_USERSPACE_IMPLEMENTATION"
START_TIMEOUT: Final = 30.0
TUNNEL_OVERHEAD: Final = 80
"""Bytes that the outer IPv6, UDP and transport headers and the tag take."""
FALLBACK_MTU: Final = 1500
HOOK: Final = """set -e -o pipefail; shopt -s extglob
INTERFACE=$1 CONFIG_FILE=$2 hook=$3; set --
(eval "$hook")"""


class QuickError(click.ClickException):
    """The tunnel could not be set up or taken down; every step was undone."""


@dataclass(slots=True)
class Tunnel:
    """One interface on its way up or down; `say` prints the commands."""

    interface: str
    ledger: Ledger
    quiet: bool = False
    summary: dict[str, Any] = field(default_factory=dict)

    def say(self, command: str) -> None:
        """Show the shell command that is equivalent to the next step."""
        if not self.quiet:
            click.echo(f"[#] {command}", err=True)

    def run_hooks(self, kind: str, commands: Iterable[str]) -> None:
        """Run a phase's shell commands as wg-quick does, ``%i`` being the interface.

        In bash with ``set -e -o pipefail``: a command that fails anywhere fails the hook.
        Their stdout goes to stderr.
        """
        for command in commands:
            command = command.replace("%i", self.interface)
            self.say(command)
            shell = ["bash", "-c", HOOK, "wg-quick", self.interface, self.ledger.config, command]
            environment = os.environ | {"LC_ALL": "C"}
            try:
                done = subprocess.run(shell, stdout=2, check=False, env=environment)
            except FileNotFoundError:
                raise QuickError(f"{kind}: hooks need bash, which was not found") from None
            if done.returncode:
                raise QuickError(f"{kind} ended with exit code {done.returncode}: {command}")

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

    Then PostDown also runs, and PreDown if PostUp had started.  Raises `QuickError`.
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
            if config.dns:
                tunnel.summary["dns"] = set_dns(ledger, tunnel.say, config.dns)
            _add_routes(tunnel, network, config)
            _read_back(tunnel, network)
        ledger.pre_down = config.pre_down
        ledger.save()
        tunnel.run_hooks("PostUp", config.post_up)
        # A hook may have removed everything again, which is allowed.
        with suppress(uapi_client.DeviceUnreachable):
            for warning in loop_warnings(interface, uapi_client.get(interface)):
                note(warning)
    return {"interface": interface, "config": ledger.config} | tunnel.summary


def _refuse_existing(interface: str) -> None:
    with Network() as network:
        if network.index(interface) is not None:
            fix = typed.wgpy("down", interface)
            raise QuickError(f"interface {interface} exists already (try `{fix}`)")
    if interface in uapi_client.interfaces():
        raise QuickError(f"interface {interface} is running in another network namespace")
    left = Ledger.load(interface)
    if left is not None and left.namespace == network_namespace():
        note(f"{interface} ended without `wgpy down`: undoing its remaining steps")
        for failure in left.undo():
            note(failure)
        left.forget()


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
        for kind, *arguments in reversed(tunnel.ledger.steps):
            tunnel.say(_undoing(kind, arguments))
        failures += tunnel.ledger.undo()
        failures += tunnel.try_hooks("PostDown", tunnel.ledger.post_down)
        tunnel.ledger.forget()
        return failures


def _undoing(kind: str, arguments: list[Any]) -> str:
    """The shell command that undoes a step."""
    match kind, *arguments:
        case "link", name, *known:
            if is_here(name, *known[:1]) or not known:
                return f"ip link delete dev {name}"
            return f"rm {socket_path(name)}"
        case "rule", family, priority, *_:
            return f"ip {'-4' if family == socket.AF_INET else '-6'} rule delete pref {priority}"
        case "sysctl", path, value:
            return f"echo {value} > {path}"
        case "nft", family, table:
            return f"nft delete table {family} {table}"
        case "iptables", program, rules:
            escaped = shlex.quote(rules.replace("\n", "\\n"))
            return f"printf %b {escaped} | {program}-restore -n"
        case "resolvconf", name:
            return f"resolvconf -d {name} -f"
    return f"resolvectl revert {arguments[0]}"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not interrupt the undoing."""
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


def implementation() -> str:
    """The program that creates interfaces; wireguard-py is also found next to this program."""
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
    tunnel.ledger.data_plane_started()


def _configure(tunnel: Tunnel, change: DeviceChange) -> None:
    settings = typed.line("wg-quick", "strip", tunnel.ledger.config)
    tunnel.say(f"{typed.line('wg', 'setconf', tunnel.interface)} <({settings})")
    uapi_client.apply(tunnel.interface, change)


def _add_addresses(tunnel: Tunnel, network: Network, config: Config) -> None:
    for address in config.addresses:
        tunnel.say(f"ip address add {address} dev {tunnel.interface}")
        network.add_address(tunnel.interface, *address)


def _set_up(tunnel: Tunnel, network: Network, config: Config, change: DeviceChange) -> None:
    mtu = config.mtu or choose_mtu(network, change)
    if mtu < IPV6_MIN_MTU and has_ipv6(config):
        note(
            f"MTU {IPV6_MIN_MTU} instead of {mtu}: IPv6 needs that much.  Full packets leave as"
            f" datagrams of {IPV6_MIN_MTU + TUNNEL_OVERHEAD} bytes, which are fragmented on the"
            " way: slower, and lost where fragments are dropped (leave IPv6 out to avoid it)"
        )
        mtu = IPV6_MIN_MTU
    tunnel.say(f"ip link set mtu {mtu} up dev {tunnel.interface}")
    network.set_up(tunnel.interface, mtu)


def _read_back(tunnel: Tunnel, network: Network) -> None:
    """The summary shows the kernel's values, not the requested ones."""
    tunnel.summary["addresses"] = network.addresses(tunnel.interface)
    tunnel.summary["mtu"] = network.mtu(tunnel.interface)
    tunnel.summary["routes"] = network.routes_into(tunnel.interface)


def choose_mtu(network: Network, change: DeviceChange) -> int:
    """80 bytes less than the largest MTU of the routes to the endpoints.

    Without endpoints the default route counts, without one 1500 bytes.
    """
    endpoints = [peer.endpoint.ip for peer in change.peers if peer.endpoint]
    found = [mtu for mtu in map(network.mtu_towards, endpoints) if mtu]
    return max(found, default=network.default_mtu() or FALLBACK_MTU) - TUNNEL_OVERHEAD


def _add_routes(tunnel: Tunnel, network: Network, config: Config) -> None:
    """Routes to all allowed IPs, the most specific first."""
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
    if everything:
        mark = config.fwmark or network.free_table(51820)
        if not config.fwmark:
            tunnel.say(f"wg set {tunnel.interface} fwmark {mark}")
            uapi_client.apply(tunnel.interface, DeviceChange(fwmark=mark))
        for prefix in everything:
            _add_route(tunnel, network, prefix, mark)
            addresses = [a.ip for a in config.addresses if len(a.ip) == len(prefix.ip)]
            route_everything(tunnel.ledger, tunnel.say, network, prefix, mark, addresses)
        tunnel.summary["fwmark"] = mark


def _add_route(tunnel: Tunnel, network: Network, prefix: Prefix, table: int) -> None:
    where = "" if table == MAIN_TABLE else f" table {table}"
    tunnel.say(f"ip route add {prefix} dev {tunnel.interface} proto static{where}")
    network.add_route(tunnel.interface, prefix, table)


def take_down(tunnel: Tunnel) -> None:
    """Undo what `bring_up` did, continuing when a step fails; raises `QuickError` then."""
    if tunnel.ledger.namespace != network_namespace():
        message = f"{tunnel.interface} was set up in another network namespace: take it down there"
        raise QuickError(message)
    failures = _undo(tunnel)
    if failures:
        state = "not down" if tunnel.ledger.steps else "down, but"
        raise QuickError("\n".join([f"{tunnel.interface} is {state}:", *failures]))

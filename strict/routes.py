"""Routes and policy rules: what goes into the tunnel, and never past it.

    priority      fwmark MARK    → main       the tunnel's own UDP never re-enters it
    priority + 1  iif INTERFACE  → TABLE + 1  via NODE: pods of known nodes, in plaintext
    priority + 2  iif INTERFACE  → main       what came out of the tunnel, or may leave as it is
    priority + 3  everything     → TABLE      throw          this node's own pods: on to main
                                              dev INTERFACE  pods (node encryption: nodes)
                                              unreachable    the same, behind it

What comes from INTERFACE was decrypted, or given back by the data plane because it may
leave in plaintext: only such packets ever see the routes of TABLE + 1.

When the device vanishes its routes do, and the unreachable ones stay: nothing falls back
to the underlay.  In main, an unreachable route behind this node's own pod ranges keeps a
packet for a pod that is gone from taking the default route.

`Routing.apply` compares with what the kernel has and repairs the difference; it touches
only its own table, rules and routes of its own protocol number.  Works in the network
namespace of the calling process.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from strict.mtu import advertised_mss
from wgpy.protocol.endpoint import AddressBytes, Prefix, format_address, parse_address

PROTOCOL: Final = 171
"""Marks routes as ours (rtnetlink's numbers above 4 are free for programs)."""
LAST_RESORT: Final = 4278198272
"""The metric the kernel gives its own fallback routes."""
_MAIN: Final = 254
_UNICAST, _UNREACHABLE, _THROW = 1, 7, 9
_METRICS: Final = {_THROW: 5, _UNICAST: 10, _UNREACHABLE: LAST_RESORT}
_TYPES: Final = {_UNICAST: "unicast", _UNREACHABLE: "unreachable", _THROW: "throw"}
_PROC: Final = Path("/proc/sys/net")
_FAMILIES: Final = {4: socket.AF_INET, 16: socket.AF_INET6}


class RoutingError(Exception):
    """The kernel refused, or a device is missing."""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """The desired routes.  `mtu` is the routes', 0 for the device's."""

    tunnel: tuple[Prefix, ...] = ()
    local: tuple[Prefix, ...] = ()
    mtu: int = 0
    sources: Mapping[int, AddressBytes] = field(default_factory=lambda: MappingProxyType({}))
    """By address size: this node's address, the source of its own packets."""
    direct: Mapping[Prefix, AddressBytes] = field(default_factory=lambda: MappingProxyType({}))
    """Pod ranges of other nodes and the neighbour that plaintext for them goes to."""


class _Route(NamedTuple):
    table: int
    prefix: Prefix
    kind: int
    device: int = 0
    mtu: int = 0
    source: AddressBytes = b""
    gateway: AddressBytes = b""

    def arguments(self) -> dict[str, Any]:
        """For pyroute2."""
        found: dict[str, Any] = {
            "family": _FAMILIES[len(self.prefix.ip)],
            "dst": str(self.prefix),
            "table": self.table,
            "type": _TYPES[self.kind],
            "priority": _METRICS[self.kind],
            "proto": PROTOCOL,
        }
        if self.device:
            found["oif"] = self.device
        if self.gateway:
            found["gateway"] = format_address(self.gateway)
        if self.source:
            found["prefsrc"] = format_address(self.source)
        if self.mtu:
            mss = advertised_mss(self.mtu, len(self.prefix.ip))
            found["metrics"] = {"mtu": self.mtu, "advmss": mss}
        return found


class Routing:
    """Rules and routes of one interface."""

    def __init__(self, interface: str, mark: int, table: int, priority: int) -> None:
        self._interface = interface
        self._mark = mark
        self._table = table
        self._direct = table + 1
        self._priority = priority

    def apply(self, plan: RoutePlan, *, prune: bool = True) -> list[str]:
        """Make rules and routes match; returns descriptions of what was added or removed.

        Without `prune` existing ones stay, and only missing ones are added.
        Without the device its routes are left out.  Raises `RoutingError`.
        """
        try:
            with IPRoute() as ip:
                return [*self._apply_rules(ip), *self._apply_routes(ip, plan, prune)]
        except (NetlinkError, OSError) as error:
            raise RoutingError(f"the kernel refused a route or rule: {error}") from error

    def remove(self) -> None:
        """Take everything away that `apply` made."""
        try:
            with IPRoute() as ip:
                for route in self._present(ip):
                    ip.route("del", **route.arguments())
                for family, rule in self._rules():
                    with contextlib.suppress(NetlinkError):
                        ip.rule("del", family=family, **rule)
        except (NetlinkError, OSError) as error:
            raise RoutingError(f"the kernel refused to remove a route or rule: {error}") from error

    def _rules(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for family in families():
            first = self._priority
            yield family, {"priority": first, "fwmark": self._mark, "table": _MAIN}
            for at, table in ((first + 1, self._direct), (first + 2, _MAIN)):
                yield family, {"priority": at, "iifname": self._interface, "table": table}
            yield family, {"priority": first + 3, "table": self._table}

    def _apply_rules(self, ip: IPRoute) -> list[str]:
        missing = []
        for family, rule in self._rules():
            if not _has_rule(ip, family, rule):
                ip.rule("add", family=family, **rule)
                missing.append(f"rule {rule['priority']}")
        return missing

    def _apply_routes(self, ip: IPRoute, plan: RoutePlan, prune: bool) -> list[str]:
        """Add before removing: a prefix is never without a route."""
        device = next(iter(ip.link_lookup(ifname=self._interface)), 0)
        wanted = set(self._wanted(plan, device))
        present = set(self._present(ip))
        if not prune:
            taken = {(route.table, route.prefix, route.kind) for route in present}
            missing = {r for r in wanted if (r.table, r.prefix, r.kind) not in taken}
            wanted = present | missing
        for route in sorted(wanted - present, key=lambda route: -_METRICS[route.kind]):
            self._add(ip, route)
        kept = {(route.table, route.prefix, route.kind) for route in wanted}
        for route in present - wanted:
            if (route.table, route.prefix, route.kind) not in kept:
                ip.route("del", **route.arguments())
        return [f"route {_TYPES[r.kind]} {r.prefix}" for r in sorted(wanted ^ present)]

    def _add(self, ip: IPRoute, route: _Route) -> None:
        arguments = route.arguments()
        if route.gateway:
            # Said to be on the link: with node encryption the kernel would look the
            # gateway up in the tunnel's table, and refuse it.
            arguments |= {"oif": _link_of(ip, route.gateway), "flags": ["onlink"]}
        try:
            ip.route("replace", **arguments)
        except NetlinkError as error:
            if not route.source:
                raise
            where = format_address(route.source)
            raise RoutingError(
                f"route to {route.prefix} from {where}: {error}: "
                f"is {where} really an address of this node?"
            ) from error

    def _wanted(self, plan: RoutePlan, device: int) -> Iterator[_Route]:
        for prefix in plan.local:
            yield _Route(self._table, prefix, _THROW)
            if prefix.length < len(prefix.ip) * 8:
                yield _Route(_MAIN, prefix, _UNREACHABLE)
        for prefix, gateway in plan.direct.items():
            yield _Route(self._direct, prefix, _UNICAST, gateway=gateway)
        for prefix in plan.tunnel:
            yield _Route(self._table, prefix, _UNREACHABLE)
            if device:
                source = plan.sources.get(len(prefix.ip), b"")
                yield _Route(self._table, prefix, _UNICAST, device, plan.mtu, source)

    def _present(self, ip: IPRoute) -> Iterator[_Route]:
        """Our routes as the kernel has them."""
        for family in families():
            for table in (self._table, self._direct, _MAIN):
                for found in ip.get_routes(family=family, table=table):
                    if found["proto"] == PROTOCOL and found["type"] in _METRICS:
                        yield _from_kernel(found, table)


def families() -> list[int]:
    """Those this kernel has: IPv6 may be switched off for good."""
    return [f for f in _FAMILIES.values() if f == socket.AF_INET or (_PROC / "ipv6").exists()]


def _from_kernel(found: Any, table: int) -> _Route:
    size = 4 if found["family"] == socket.AF_INET else 16
    destination, source = found.get_attr("RTA_DST"), found.get_attr("RTA_PREFSRC")
    prefix = Prefix(parse_address(destination) if destination else bytes(size), found["dst_len"])
    metrics, gateway = found.get_attr("RTA_METRICS"), found.get_attr("RTA_GATEWAY")
    unicast = found["type"] == _UNICAST and gateway is None
    return _Route(
        table,
        prefix,
        found["type"],
        (found.get_attr("RTA_OIF") or 0) if unicast else 0,
        (metrics.get_attr("RTAX_MTU") or 0) if metrics and unicast else 0,
        parse_address(source) if source and unicast else b"",
        parse_address(gateway) if gateway else b"",
    )


def _link_of(ip: IPRoute, neighbour: AddressBytes) -> int:
    """The device whose network the neighbour is in, 0 for none."""
    for found in ip.get_addr(family=_FAMILIES[len(neighbour)]):
        address = parse_address(found.get_attr("IFA_ADDRESS"))
        if neighbour in Prefix.masked(address, found["prefixlen"]):
            return int(found["index"])
    return 0


def _has_rule(ip: IPRoute, family: int, rule: Mapping[str, Any]) -> bool:
    for found in ip.get_rules(family=family):
        if (
            found.get_attr("FRA_PRIORITY") == rule["priority"]
            and found.get_attr("FRA_TABLE") == rule["table"]
            and found.get_attr("FRA_FWMARK") == rule.get("fwmark")
            and found.get_attr("FRA_IIFNAME") == rule.get("iifname")
        ):
            return True
    return False


def local_addresses() -> dict[AddressBytes, Prefix]:
    """Every address of this network namespace, packed, and the network it is on."""
    with IPRoute() as ip:
        found = [(a.get_attr("IFA_ADDRESS"), a["prefixlen"]) for a in ip.get_addr()]
    packed = [(parse_address(address), length) for address, length in found if address]
    return {address: Prefix.masked(address, length) for address, length in packed}


def link_mtus(devices: tuple[str, ...]) -> dict[str, int]:
    """MTU in bytes of those devices that exist."""
    with IPRoute() as ip:
        found = {link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_MTU") for link in ip.get_links()}
    return {device: found[device] for device in devices if device in found}


def bring_up(interface: str, mtu: int) -> None:
    """Set the tunnel device's MTU and sysctls, and take it up; raises `RoutingError`.

    Packets that may go in plaintext come back out of the tunnel device with this node's
    own or its pods' addresses as their source: reverse-path filtering must let them.
    """
    _no_reverse_path_filter(interface)
    _sysctl(f"ipv4/conf/{interface}/accept_local", "1")
    _sysctl(f"ipv4/conf/{interface}/send_redirects", "0")
    _sysctl(f"ipv6/conf/{interface}/accept_ra", "0")
    # No link-local address: neighbour discovery is useless on this device.
    _sysctl(f"ipv6/conf/{interface}/addr_gen_mode", "1")
    try:
        with IPRoute() as ip:
            found = ip.link_lookup(ifname=interface)
            if not found:
                raise RoutingError(f"{interface}: no such device")
            ip.link("set", index=found[0], mtu=mtu, state="up")
    except (NetlinkError, OSError) as error:
        raise RoutingError(f"{interface}: cannot be brought up: {error}") from error


FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


def prepare_host(underlay: tuple[str, ...]) -> dict[str, str]:
    """Forwarding on, and no strict reverse-path filter where answers may take the tunnel.

    Returns what forwarding was before, for `forwarding_back`.  Only for a host whose backstop
    is in place: without forwarding pods' packets stay where they are.
    """
    before = {name: _read(name) for name in FORWARDING}
    for name in FORWARDING:
        _sysctl(name, "1")
    for device in underlay:
        name = f"ipv4/conf/{device}/rp_filter"
        if "1" in (_read(name), _read("ipv4/conf/all/rp_filter")):
            _sysctl(name, "2")
    return before


def forwarding_back(before: Mapping[str, str]) -> None:
    """Forwarding as `prepare_host` found it, before the backstop is removed."""
    for name in FORWARDING:
        if before.get(name) == "0":
            _sysctl(name, "0")


def _no_reverse_path_filter(interface: str) -> None:
    """A device without addresses passes no filter, not even the loose one.

    The kernel takes the stricter of ``all`` and the device's own; so where ``all`` is on,
    every other device gets it as its own before ``all`` goes off.
    """
    everywhere = _read("ipv4/conf/all/rp_filter")
    if everywhere not in ("", "0"):
        for path in (_PROC / "ipv4/conf").iterdir():
            name = f"ipv4/conf/{path.name}/rp_filter"
            if path.name not in ("all", interface) and _read(name) < everywhere:
                _sysctl(name, everywhere)
        _sysctl("ipv4/conf/all/rp_filter", "0")
    _sysctl(f"ipv4/conf/{interface}/rp_filter", "0")


def _read(name: str) -> str:
    with contextlib.suppress(OSError):
        return (_PROC / name).read_text().strip()
    return ""


def _sysctl(name: str, value: str) -> None:
    """IPv6 may be switched off, and then has nothing to set."""
    if _read(name) == value or (name.startswith("ipv6") and not (_PROC / "ipv6").exists()):
        return
    try:
        (_PROC / name).write_text(value)
    except OSError as error:
        raise RoutingError(
            f"cannot set net.{name.replace('/', '.')}={value}: {error.strerror}"
        ) from error

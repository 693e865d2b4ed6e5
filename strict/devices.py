"""Which devices lead to other nodes and which to this node's pods, checked repeatedly.

The configuration names the underlay, but names move: a device is renamed, replaced or
added while the agent runs.  A named device is followed by its index; one that carries an
address of this node, or the default route, is underlay as well until pods are behind it.
A difference from the configuration is a problem in `status`.

Works in the network namespace of the calling process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from strict.routes import RoutingError, families
from wgpy.protocol.endpoint import AddressBytes, Prefix, parse_address

_MAIN: Final = 254
_UNICAST: Final = 1


@dataclass(frozen=True, slots=True)
class Devices:
    """Names of existing devices, and differences from the configuration."""

    underlay: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    problem: str = ""


class DeviceWatch:
    """Follows the devices of one interface's underlay."""

    def __init__(self, interface: str, underlay: tuple[str, ...]) -> None:
        self._never = {"lo", interface}
        self._named = underlay
        self._indexes: dict[str, int] = {}
        """Configured name to its last known index."""

    def look(self, addresses: Iterable[AddressBytes], local: Iterable[Prefix]) -> Devices:
        """`addresses` are this node's, `local` its pods'.  Raises `RoutingError`."""
        try:
            with IPRoute() as ip:
                names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
                carrying = set(_carrying(ip, frozenset(addresses)))
                default, pods = set(_behind(ip, ())), set(_behind(ip, tuple(local)))
        except (NetlinkError, OSError) as error:
            raise RoutingError(f"the kernel does not list its devices: {error}") from error
        problems = list(self._follow(names))
        named = set(self._indexes.values()) & names.keys()
        found = [index for index in names if index in (carrying - pods) | default]
        for index in found:
            if index not in named and names[index] not in self._never:
                what = "the default route" if index in default else "an address of this node"
                problems.append(f"{names[index]} has {what} and is not named: treated as underlay")
        underlay = {names[index] for index in (*named, *found)} - self._never
        behind = {names[index] for index in pods if index in names} - underlay - self._never
        return Devices(tuple(sorted(underlay)), tuple(sorted(behind)), "; ".join(problems))

    def _follow(self, names: dict[int, str]) -> Iterator[str]:
        there = {name: index for index, name in names.items()}
        for name in self._named:
            if name in there:
                self._indexes[name] = there[name]
                continue
            now = names.get(self._indexes.get(name, 0))
            yield f"{name} is gone" if now is None else f"{name} is called {now} now"


def _carrying(ip: IPRoute, addresses: frozenset[AddressBytes]) -> Iterator[int]:
    """Devices with one of these addresses."""
    for found in ip.get_addr():
        text = found.get_attr("IFA_LOCAL") or found.get_attr("IFA_ADDRESS")
        if text and parse_address(text) in addresses:
            yield int(found["index"])


def _behind(ip: IPRoute, prefixes: tuple[Prefix, ...]) -> Iterator[int]:
    """Devices of main's routes to parts of `prefixes`; without any, of its default routes."""
    for family in families():
        for route in ip.get_routes(family=family, table=_MAIN):
            destination = route.get_attr("RTA_DST")
            if route["type"] != _UNICAST or bool(destination) != bool(prefixes):
                continue
            if destination:
                address, length = parse_address(destination), route["dst_len"]
                if not any(address in p and p.length <= length for p in prefixes):
                    continue
            yield from _ways(route)


def _ways(route: Any) -> Iterator[int]:
    """The device of a route, or all of several."""
    if device := route.get_attr("RTA_OIF"):
        yield int(device)
    for hop in route.get_attr("RTA_MULTIPATH") or ():
        yield int(hop["oif"])

"""A pod's device: a veth pair with host routes on both ends.

    pod   IFNAME ── DEVICE   node

The pod has /32 and /128 addresses, so that everything else, its neighbours included, goes
through the node and its table.  Its gateway is an address that nobody has (169.254.1.1,
fe80::1); both ends know each other's hardware address for good, so there is no ARP and no
neighbour discovery that a pod could answer for another.  The device has the underlay's MTU;
the routes have the tunnel's, with the MSS to advertise, so that TCP never meets the limit.

The route to the pod is the node's own record of which device an address is behind.
"""

from __future__ import annotations

import contextlib
import os
import socket
from contextlib import ExitStack
from typing import Final, NamedTuple

from strict.cni import errors
from strict.cni.errors import CniError
from strict.cni.netlink import Link, Netlink, Route, hosts
from strict.mtu import advertised_mss
from wgpy.linux.namespace import inside

GATEWAYS: Final = {
    4: socket.inet_pton(socket.AF_INET, "169.254.1.1"),
    16: socket.inet_pton(socket.AF_INET6, "fe80::1"),
}
"""By the size of a packed address."""


class Plan(NamedTuple):
    """What shall be there.  Addresses are packed."""

    device: str
    ifname: str
    ips: tuple[bytes, ...]
    destinations: tuple[tuple[bytes, int], ...]
    """Prefixes that the pod reaches through the node."""
    mtu: int
    route_mtu: int
    alias: str = ""

    @property
    def routes(self) -> tuple[Route, ...]:
        """The pod's routes through its gateways, of the families that it has."""
        own = {len(ip): ip for ip in reversed(self.ips)}
        return tuple(
            Route(destination, length, GATEWAYS[size], own[size], self.route_mtu,
                  advertised_mss(self.route_mtu, size))
            for destination, length in self.destinations
            if (size := len(destination)) in own
        )  # fmt: skip


def device_name(network: str, container: str, ifname: str) -> str:
    """The node's end of an attachment: the same name in each call about it.

    FNV-1a, 48 bits of 64: hashlib takes 5 ms to import.  Should two attachments ever get
    the same name, the second is refused.
    """
    value = 0xCBF29CE484222325
    for byte in "\0".join((network, container, ifname)).encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"wgp{value % 2**48:012x}"


def open_namespace(path: str) -> int:
    """A descriptor of the container's network namespace; raises `CniError`."""
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        text = f"CNI_NETNS: {path}: {error.strerror}"
        raise CniError(errors.UNKNOWN_CONTAINER, text) from None
    own, other = os.stat("/proc/thread-self/ns/net"), os.fstat(namespace)  # noqa: PTH116
    if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino):
        os.close(namespace)
        text = f"CNI_NETNS: {path} is the node's own network namespace"
        raise CniError(errors.INVALID_ENVIRONMENT, text)
    return namespace


def refuse_existing(namespace: int, ifname: str, device: str) -> None:
    """Raises `CniError` where an interface of either name is there already."""
    with Netlink() as here:
        if here.link(device) is not None:
            raise CniError(errors.INTERFACE_EXISTS, f"the container is attached already: {device}")
    with inside(namespace), Netlink() as there:
        if there.link(ifname) is not None:
            text = f"CNI_IFNAME: the container has an interface {ifname} already"
            raise CniError(errors.INTERFACE_EXISTS, text)


def attach(namespace: int, plan: Plan, undo: ExitStack) -> tuple[Link, Link]:
    """Make it so; returns the node's and the pod's end.  Raises OSError."""
    with Netlink() as here:
        undo.callback(detach, plan.device)
        here.add_veth(plan.device, plan.ifname, namespace, plan.mtu)
        host = _found(here, plan.device)
        here.set_up(host.number, plan.alias)
        with inside(namespace):
            pod = _configure(plan, host.mac)
        for route in hosts(plan.ips):
            _add_route(here, host, route, "the node", "is it the address of another pod?")
        for ip in plan.ips:
            here.add_neighbour(host.number, ip, pod.mac)
    return host, pod


def _configure(plan: Plan, gateway_mac: bytes) -> Link:
    """The pod's end, from inside of its namespace."""
    with Netlink() as there:
        link = _found(there, plan.ifname)
        families = {len(ip) for ip in plan.ips}
        if 16 in families:
            _allow_ipv6(plan.ifname)
        there.set_up(link.number)
        for ip in plan.ips:
            there.add_address(link.number, ip)
        for size in sorted(families):
            there.add_neighbour(link.number, GATEWAYS[size], gateway_mac)
        for route in plan.routes:
            _add_route(there, link, route, "the container", "name other `routes` in `ipam`")
        return link


def _add_route(netlink: Netlink, link: Link, route: Route, whose: str, hint: str) -> None:
    try:
        netlink.add_route(link.number, route)
    except FileExistsError:
        shown = f"{format_ip(route.destination)}/{route.length}"
        text = f"{whose} has another route to {shown} already"
        raise CniError(errors.INVALID_CONFIG, text, hint) from None


def _allow_ipv6(ifname: str) -> None:
    """Some runtimes switch it off in new namespaces."""
    path = f"/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6"
    with contextlib.suppress(FileNotFoundError), open(path, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("0")


def detach(device: str) -> bool:
    """Remove both ends with all their routes; False when they were gone."""
    with Netlink() as here:
        return here.delete_link(device)


def shrink(namespace: int, ifname: str, mtu: int) -> tuple[Link, str]:
    """Lower the MTU of somebody else's interface; its link, and the device it is behind.

    Raises `CniError` where it is missing.
    """
    with inside(namespace), Netlink() as there:
        link = there.link(ifname)
        if link is None:
            text = f"CNI_IFNAME: the plugin before this one left no interface {ifname}"
            raise CniError(errors.INVALID_CONFIG, text)
        if link.mtu > mtu:
            there.set_mtu(link.number, mtu)
            link = link._replace(mtu=mtu)
    with contextlib.suppress(OSError):
        return link, socket.if_indextoname(link.peer)
    return link, ""


def check(namespace: int, plan: Plan, mac: str) -> None:
    """Raises `CniError` saying what is not as `plan` says; `mac` is the pod's, in text."""
    with inside(namespace), Netlink() as there:
        pod = there.link(plan.ifname)
        _expect(pod is not None, f"interface {plan.ifname} is missing in the container")
        assert pod is not None
        _expect(pod.up, f"interface {plan.ifname} is down")
        _expect(not mac or format_mac(pod.mac) == mac.lower(), f"{plan.ifname} has another MAC")
        missing = set(plan.ips) - there.addresses(pod.number)
        _expect(not missing, f"{plan.ifname} has lost addresses: {_shown(missing)}")
        lost = set(plan.destinations) - there.routes(pod.number)
        gone = _shown(destination for destination, _ in lost)
        _expect(not lost, f"{plan.ifname} has lost routes: {gone}")
    with Netlink() as here:
        host = here.link(plan.device)
        _expect(host is not None, f"device {plan.device} is missing on the node")
        assert host is not None
        _expect(host.up, f"device {plan.device} is down")
        _expect(host.peer == pod.number, f"{plan.device} does not lead to {plan.ifname}")
        behind = {destination for destination, _ in here.routes(host.number)}
        astray = set(plan.ips) - behind
        _expect(not astray, f"no route to {_shown(astray)} by {plan.device}")


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise CniError(errors.CHECK_FAILED, otherwise)


def _found(netlink: Netlink, name: str) -> Link:
    link = netlink.link(name)
    if link is None:
        raise CniError(errors.KERNEL_REFUSED, f"{name} vanished while it was set up")
    return link


def _shown(ips: object) -> str:
    return ", ".join(sorted(map(format_ip, ips)))  # type: ignore[call-overload]


def format_mac(mac: bytes) -> str:
    return mac.hex(":")


def format_ip(ip: bytes) -> str:
    """A packed address as text."""
    return socket.inet_ntop(socket.AF_INET if len(ip) == 4 else socket.AF_INET6, ip)


def parse_prefix(text: str) -> tuple[bytes, int]:
    """Packed address and length of ``10.0.0.1/24``; raises ValueError."""
    address, slash, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        packed = socket.inet_pton(family, address)
    except OSError:
        raise ValueError(f"{text!r} is not an IP address") from None
    if not slash:
        return packed, len(packed) * 8
    if not length.isdecimal() or int(length) > len(packed) * 8:
        raise ValueError(f"{text!r} has no valid prefix length")
    return packed, int(length)

"""Just enough rtnetlink to attach a pod, by hand.

pyroute2 knows all of it, and takes 300 ms of processor time to import: the plugin starts
once for every pod.  Here are the eight messages that it needs, packed as <linux/rtnetlink.h>
says.  A socket belongs to the network namespace in which it was made.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, GETADDR = 20, 22
NEWROUTE, GETROUTE = 24, 26
NEWNEIGH: Final = 28

_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _EXCL, _CREATE, _DUMP = 1, 4, 0x200, 0x400, 0x300
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_NESTED: Final = 0x8000
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 18, 20, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFF_UP: Final = 1
_IFA_ADDRESS, _IFA_LOCAL, _NODAD = 1, 2, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_METRICS = 1, 4, 5, 7, 8
_RTAX_MTU, _RTAX_ADVMSS = 2, 8
_MAIN, _STATIC, _UNICAST = 254, 4, 1
_UNIVERSE, _ON_LINK = 0, 253
_GATEWAY_ON_LINK: Final = 4
_NDA_DST, _NDA_LLADDR, _PERMANENT = 1, 2, 0x80


class Link(NamedTuple):
    """A device.  `peer` is the number of a veth's other end, in that one's namespace."""

    number: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    peer: int
    alias: str


class Route(NamedTuple):
    """A route into a device; `gateway` empty: the destination is on the link.

    A gateway is taken to be on the link, whatever other routes say.
    """

    destination: bytes
    length: int
    gateway: bytes = b""
    source: bytes = b""
    mtu: int = 0
    advmss: int = 0


class Netlink:
    """A route socket in the calling thread's network namespace.  Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.bind((0, 0))
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._number = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    # Devices.

    def add_veth(self, name: str, peer: str, namespace: int, mtu: int) -> None:
        """A pair: `name` here, `peer` in the network namespace behind a descriptor."""
        size = _u32(_IFLA_MTU, mtu)
        other = _link() + _text(_IFLA_IFNAME, peer) + size + _u32(_IFLA_NET_NS_FD, namespace)
        data = _attribute(_INFO_DATA | _NESTED, _attribute(_VETH_PEER | _NESTED, other))
        info = _attribute(_IFLA_LINKINFO | _NESTED, _text(_INFO_KIND, "veth") + data)
        self._do(NEWLINK, _CREATE | _EXCL, _link() + _text(_IFLA_IFNAME, name) + size + info)

    def set_up(self, index: int, alias: str = "") -> None:
        """Bring a device up; `alias` is what `ip link` shows people about it."""
        more = _text(_IFLA_IFALIAS, alias[:255]) if alias else b""
        self._do(NEWLINK, 0, _link(index, _IFF_UP) + more)

    def set_mtu(self, index: int, mtu: int) -> None:
        self._do(NEWLINK, 0, _link(index) + _u32(_IFLA_MTU, mtu))

    def delete_link(self, name: str) -> bool:
        """False when there is no such device."""
        try:
            self._do(DELLINK, 0, _link() + _text(_IFLA_IFNAME, name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    def link(self, name: str) -> Link | None:
        """The device of that name, None when there is none."""
        try:
            (body,) = self._ask(GETLINK, 0, _link() + _text(_IFLA_IFNAME, name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return None
        return _to_link(body)

    def links(self) -> list[Link]:
        """All devices."""
        return [_to_link(body) for body in self._ask(GETLINK, _DUMP, _link())]

    # Addresses, routes, neighbours.

    def add_address(self, index: int, ip: bytes) -> None:
        """A host address, usable at once (no duplicate address detection)."""
        head = _ADDRESS.pack(_family(ip), len(ip) * 8, _NODAD, _UNIVERSE, index)
        both = _attribute(_IFA_LOCAL, ip) + _attribute(_IFA_ADDRESS, ip)
        self._do(NEWADDR, _CREATE | _EXCL, head + both)

    def addresses(self, index: int) -> set[bytes]:
        """The device's addresses, packed."""
        found = set()
        for body in self._ask(GETADDR, _DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
            if _ADDRESS.unpack_from(body)[4] == index:
                values = _attributes(body[_ADDRESS.size :])
                found.add(values.get(_IFA_LOCAL) or values[_IFA_ADDRESS])
        return found

    def add_route(self, index: int, route: Route) -> None:
        """A route of the main table into a device; refused where there is one already."""
        on_link = len(route.destination) == 4 and not route.gateway
        scope = _ON_LINK if on_link else _UNIVERSE
        body = _ROUTE.pack(_family(route.destination), route.length, 0, 0, _MAIN, _STATIC, scope,
                           _UNICAST, _GATEWAY_ON_LINK if route.gateway else 0)  # fmt: skip
        if route.length:
            body += _attribute(_RTA_DST, route.destination)
        body += _u32(_RTA_OIF, index)
        for kind, value in ((_RTA_GATEWAY, route.gateway), (_RTA_PREFSRC, route.source)):
            body += _attribute(kind, value) if value else b""
        metrics = b"".join(
            _u32(kind, value)
            for kind, value in ((_RTAX_MTU, route.mtu), (_RTAX_ADVMSS, route.advmss))
            if value
        )
        if metrics:
            body += _attribute(_RTA_METRICS | _NESTED, metrics)
        self._do(NEWROUTE, _CREATE | _EXCL, body)

    def routes(self, index: int) -> set[tuple[bytes, int]]:
        """Destinations of the main table's routes into a device, with their lengths."""
        found = set()
        for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
            for body in self._ask(GETROUTE, _DUMP, _ROUTE.pack(family, *([0] * 8))):
                head, values = _ROUTE.unpack_from(body), _attributes(body[_ROUTE.size :])
                if head[4] == _MAIN and _number(values.get(_RTA_OIF, b"")) == index:
                    found.add((values.get(_RTA_DST, bytes(size)), head[1]))
        return found

    def add_neighbour(self, index: int, ip: bytes, mac: bytes) -> None:
        """A neighbour whose hardware address never has to be asked for."""
        head = _NEIGHBOUR.pack(_family(ip), index, _PERMANENT, 0, _UNICAST)
        body = head + _attribute(_NDA_DST, ip) + _attribute(_NDA_LLADDR, mac)
        self._do(NEWNEIGH, _CREATE | _EXCL, body)

    # Messages.

    def _do(self, kind: int, flags: int, body: bytes) -> None:
        self._ask(kind, flags | _ACK, body)

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """The bodies of the answers."""
        self._number += 1
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, _REQUEST | flags, self._number, 0) + body)
        found: list[bytes] = []
        while True:
            for answer, number, content in _messages(self._socket.recv(1 << 17)):
                if number != self._number:
                    continue
                if answer == _ERROR:
                    _raise(content)
                if answer in (_ERROR, _DONE):
                    return found
                found.append(content)
                if not flags & (_ACK | _DUMP):
                    return found


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at < len(data):
        size, kind, _flags, number, _port = _HEADER.unpack_from(data, at)
        yield kind, number, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def _raise(content: bytes) -> None:
    """The kernel's refusal, with its own words where it has some (extended ack)."""
    number, *_ = struct.unpack_from("=i", content)
    if number == 0:
        return
    said = _attributes(content[4 + _HEADER.size :]).get(1, b"").rstrip(b"\0").decode()
    text = os.strerror(-number)
    raise OSError(-number, f"{text}: {said}" if said else text)


def _link(index: int = 0, flags: int = 0) -> bytes:
    """The head of a link message; the flags given are set, others stay."""
    return _LINK.pack(0, 0, index, flags, flags)


def _to_link(body: bytes) -> Link:
    head, values = _LINK.unpack_from(body), _attributes(body[_LINK.size :])
    return Link(
        head[2],
        _string(values[_IFLA_IFNAME]),
        values.get(_IFLA_ADDRESS, b""),
        _number(values[_IFLA_MTU]),
        bool(head[3] & _IFF_UP),
        _number(values.get(_IFLA_LINK, bytes(4))),
        _string(values.get(_IFLA_IFALIAS, b"")),
    )


def _family(ip: bytes) -> int:
    return socket.AF_INET if len(ip) == 4 else socket.AF_INET6


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def hosts(ips: Iterable[bytes]) -> Iterator[Route]:
    """A route for each single address."""
    return (Route(ip, len(ip) * 8) for ip in ips)

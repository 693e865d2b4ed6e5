"""UDP on one port for IPv4 and IPv6, as a `UdpPort`.

Sticky sources: every datagram arrives with the local address it was sent to
(IP_PKTINFO, IPV6_RECVPKTINFO) in its `Endpoint`, and what is sent to that endpoint
leaves from the same address, as long as that fits the route (`wgpy.linux.routes`).  The
answer is remembered with the socket to use, as a `Way`, until somebody says that routes
changed.  A source that the kernel refuses meanwhile is left out, and the datagram sent again.

Receiving never blocks.  Sending waits, but not long: a full socket buffer holds the
sender back for `SEND_PATIENCE` and is a refusal after that.

Handshake messages have a socket of their own on the same port, and with them everything
that is not a transport message: the kernel sorts by the first bytes (`_SORT`).  So a flood of
them fills its own bounded queue and not that of the data, and whoever reads may take data
first.  A kernel that cannot sort gives everything to the one socket of the family.

Reads and sends one datagram per system call: `wgpy.linux.gso` handles trains.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from wgpy.linux.routes import Routes, is_link_local
from wgpy.protocol.constants import TRANSPORT_OVERHEAD, TYPE_TRANSPORT
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint

# Linux numbers that Python 3.11's `socket` does not name.
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DONT: Final = 0
SO_RCVBUFFORCE: Final = 33
SO_SNDBUFFORCE: Final = 32
SO_ATTACH_REUSEPORT_CBPF: Final = 51
SO_MEMINFO: Final = 55

BUFFER_SIZE: Final = 7 << 20
"""Bytes asked for in each direction: rides out a scheduling pause at gigabits per second."""

HANDSHAKE_BUFFER_SIZE: Final = 1 << 20
"""Bytes for what is no transport message: room for about 2,700 handshakes (the kernel's
WireGuard lets 4,096 wait, wireguard-go 1,024), and for nothing that is stale at its turn."""

SEND_PATIENCE: Final = struct.pack("ll", 0, 20_000)
"""SO_SNDTIMEO: 20 ms."""

MAX_DATAGRAM: Final = 65535
ANCILLARY_SIZE: Final = 128
PORT_ATTEMPTS: Final = 10

_IN_PKTINFO = struct.Struct("=I4s4s")  # interface, local address, destination of the header
_IN6_PKTINFO = struct.Struct("=16sI")  # address, interface
_NUMBERS = struct.Struct("=9I")
_SOURCE_LOST = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENETUNREACH})

WAYS: Final = 8192
"""Endpoints remembered; when there are more, all are found anew."""

# Classic BPF (struct sock_filter: code, jump if true, jump if false, value) over the
# payload of UDP; what it returns is the number of the socket, in the order of binding.
_SORT: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x80, 0, 0, 0),  # A = length
        (0x35, 0, 3, TRANSPORT_OVERHEAD),  # too short for a transport message: other
        (0x20, 0, 0, 0),  # A = the first four bytes, as a big-endian number
        (0x15, 0, 1, TYPE_TRANSPORT << 24),  # not type 4 with reserved zeros: other
        (0x06, 0, 0, 0),  # data
        (0x06, 0, 0, 1),  # other
    )
)

AncillaryItem = tuple[int, int, bytes]
Address = tuple[str, int] | tuple[str, int, int, int]


class Way(NamedTuple):
    """What `sendmsg` wants to know about an endpoint; `source` may be empty."""

    socket: socket.socket
    address: Address
    source: tuple[AncillaryItem, ...]


class MemoryInfo(NamedTuple):
    """Of a socket's receive queue: bytes in it, bytes it may hold, datagrams lost so far."""

    allocated: int
    limit: int
    drops: int


def memory_info(s: socket.socket) -> MemoryInfo:
    """Ask the kernel; zeros where it does not say."""
    try:
        numbers = _NUMBERS.unpack(s.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _NUMBERS.size))
    except (OSError, struct.error):
        return MemoryInfo(0, 0, 0)
    return MemoryInfo(numbers[0], numbers[1], numbers[8])


class Sockets(NamedTuple):
    """Those of one port number: `data`, from which is sent too, and `handshakes`."""

    data: tuple[socket.socket, ...] = ()
    handshakes: tuple[socket.socket, ...] = ()

    def close(self) -> None:
        """Close them all."""
        for s in (*self.data, *self.handshakes):
            s.close()


class LinuxUdp:
    """Sockets on one port number, for each family; closed until the first `rebind`.

    `port` stays what it was while closed, so ``rebind(udp.port)`` opens again.
    """

    def __init__(self) -> None:
        self.port = 0
        self.mark = 0
        self._sockets = Sockets()
        self._sockets_in_turn: tuple[socket.socket, ...] = ()
        self._ways: dict[Endpoint, Way] = {}
        self._routes: Routes | None = None
        self._buffer = bytearray(MAX_DATAGRAM)

    def filenos(self) -> Sequence[int]:
        """Readable when datagrams wait; empty while closed, new after each `rebind`."""
        return [s.fileno() for s in (*self._sockets.data, *self._sockets.handshakes)]

    def handshake_filenos(self) -> Sequence[int]:
        """Those of `filenos` that get no transport messages."""
        return [s.fileno() for s in self._sockets.handshakes]

    def rebind(self, port: int) -> None:
        """Listen on `port` (0: the kernel chooses) or raise OSError and stay as before."""
        if port and port == self.port and self._sockets.data:
            return
        opened = _open_all(port, self.mark)
        self.close()
        self._sockets = opened
        self._sockets_in_turn = opened.data + opened.handshakes
        with contextlib.suppress(OSError):  # Then sources are dropped when they are refused.
            self._routes = Routes()
        self.port = opened.data[0].getsockname()[1]

    def probe(self, port: int) -> None:
        """Raise the OSError that `rebind` would, and change nothing but the remembered port."""
        if port:
            _open_all(port, self.mark).close()
        self.port = port

    def set_mark(self, mark: int) -> None:
        """SO_MARK on everything sent; 0 is none.  Raises OSError without CAP_NET_ADMIN."""
        for s in self._sockets.data:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        self.mark = mark
        self.routes_changed()

    def routes_changed(self) -> None:
        """Addresses, routes or rules of this host changed: ask again whether sources fit."""
        self._ways.clear()

    def handshake_backlog(self) -> float:
        """How full the fullest of their queues is, 0 to 1."""
        memory = map(memory_info, self._sockets.handshakes)
        return max((used.allocated / max(1, used.limit) for used in memory), default=0.0)

    def receive(self, limit: int) -> list[Datagram]:
        """Up to `limit` datagrams that are ready now; the sockets take turns in coming first."""
        received: list[Datagram] = []
        self._sockets_in_turn = self._sockets_in_turn[::-1]
        for index, s in enumerate(self._sockets_in_turn):
            share = -(-(limit - len(received)) // (len(self._sockets_in_turn) - index))
            self._receive_from(s, share, received)
        return received

    def send(self, datagrams: Iterable[Datagram]) -> int:
        """Send; returns how many the socket refused (unreachable, full, no such family)."""
        return sum(not self._send_one(data, endpoint) for data, endpoint in datagrams)

    def close(self) -> None:
        """Stop listening; `rebind` opens again."""
        self._sockets.close()
        self._sockets, self._sockets_in_turn = Sockets(), ()
        self._ways.clear()
        if self._routes is not None:
            self._routes.close()
            self._routes = None

    def _receive_from(self, s: socket.socket, limit: int, received: list[Datagram]) -> None:
        buffer = (self._buffer,)
        try:
            for _ in range(limit):
                size, ancillary, _flags, sender = s.recvmsg_into(
                    buffer, ANCILLARY_SIZE, socket.MSG_DONTWAIT
                )
                endpoint = read_endpoint(s.family, sender, ancillary)
                received.append(Datagram(bytes(self._buffer[:size]), endpoint))
        except BlockingIOError:
            return
        except OSError:
            # A pending error of an earlier send (an ICMP answer): the socket is fine.
            return

    def _send_one(self, data: bytes | bytearray | memoryview, endpoint: Endpoint) -> bool:
        way = self._ways.get(endpoint) or self._find_way(endpoint)
        if way is None:
            return False
        try:
            way.socket.sendmsg((data,), way.source, 0, way.address)
            return True
        except OSError as error:
            if error.errno not in _SOURCE_LOST or not way.source:
                return False
        way = self._without_source(endpoint, way)
        try:
            way.socket.sendmsg((data,), (), 0, way.address)
        except OSError:
            return False
        return True

    def _find_way(self, endpoint: Endpoint) -> Way | None:
        """Socket, address and, if it fits, source for an endpoint; None: no such family here."""
        family = socket.AF_INET if len(endpoint.ip) == 4 else socket.AF_INET6
        found = next((s for s in self._sockets.data if s.family == family), None)
        if found is None:
            return None
        source: tuple[AncillaryItem, ...] = ()
        if endpoint.local_ip and (
            self._routes is None or self._routes.fits(endpoint, self.port, self.mark)
        ):
            source = source_item(endpoint)
        if len(self._ways) >= WAYS:
            self._ways.clear()
        way = self._ways[endpoint] = Way(found, socket_address(endpoint), source)
        return way

    def _without_source(self, endpoint: Endpoint, way: Way) -> Way:
        """The kernel refused the source: routing chooses, until something changes."""
        way = self._ways[endpoint] = way._replace(source=())
        return way


def _open_all(port: int, mark: int) -> Sockets:
    """IPv4 and IPv6 sockets on the same port; only of one family where the other is off."""
    data = _open_pair(port, mark)
    handshakes: list[socket.socket] = []
    try:
        for s in data:
            handshakes += _share_port(s)
    except BaseException:
        Sockets(data, tuple(handshakes)).close()
        raise
    return Sockets(data, tuple(handshakes))


def _share_port(data: socket.socket) -> list[socket.socket]:
    """A second socket on the port of `data`, for all that is no transport message.

    Empty where the kernel cannot sort.  `data` was bound without SO_REUSEPORT, so nobody
    else had the port, and sets it only now.
    """
    second = socket.socket(data.family, socket.SOCK_DGRAM)
    program = ctypes.create_string_buffer(_SORT)
    where = struct.pack("@HP", len(_SORT) // 8, ctypes.addressof(program))
    try:
        for s in (data, second):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _prepare(second, HANDSHAKE_BUFFER_SIZE)
        second.bind(data.getsockname()[:2])
        data.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, where)
    except OSError:
        second.close()
        data.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        return []
    return [second]


def _open_pair(port: int, mark: int) -> tuple[socket.socket, ...]:
    """IPv4 and IPv6 sockets on the same port; only one where the other family is off."""
    for attempt in range(PORT_ATTEMPTS):
        opened: list[socket.socket] = []
        try:
            wanted = port
            for family in (socket.AF_INET, socket.AF_INET6):
                s = _open(family, wanted, mark)
                if s is not None:
                    opened.append(s)
                    wanted = s.getsockname()[1]
            if not opened:
                raise OSError(errno.EAFNOSUPPORT, "this host has neither IPv4 nor IPv6")
            return tuple(opened)
        except OSError as error:
            for s in opened:
                s.close()
            # The kernel chose a port that is free for IPv4 only: let it choose again.
            if error.errno != errno.EADDRINUSE or port or attempt == PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _open(family: socket.AddressFamily, port: int, mark: int) -> socket.socket | None:
    """A bound socket; None where the kernel does not have the family."""
    try:
        s = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_PATIENCE)
        if mark:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        _prepare(s, BUFFER_SIZE)
        s.bind(("" if family == socket.AF_INET else "::", port))
    except OSError as error:
        s.close()
        if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
            return None  # disable_ipv6=1
        raise
    return s


def _prepare(s: socket.socket, buffer_size: int) -> None:
    """Buffers of so many bytes, and the local address with each datagram."""
    _set_buffers(s, buffer_size)
    if s.family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        # As the kernel's WireGuard: routers on the way may fragment.
        s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def _set_buffers(s: socket.socket, size: int) -> None:
    """As large as we may: the FORCE options need CAP_NET_ADMIN, the plain ones are capped."""
    pairs = ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF))
    for force, plain in pairs:
        try:
            s.setsockopt(socket.SOL_SOCKET, force, size)
        except OSError:
            with contextlib.suppress(OSError):
                s.setsockopt(socket.SOL_SOCKET, plain, size)


def read_endpoint(family: int, sender: Address, items: list[AncillaryItem]) -> Endpoint:
    """The sender, and the local address the ancillary data names."""
    local_ip, interface = b"", 0
    for level, kind, value in items:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            interface, local_ip, _ = _IN_PKTINFO.unpack(value)
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            local_ip, interface = _IN6_PKTINFO.unpack(value)
    if family == socket.AF_INET:
        return Endpoint(socket.inet_aton(sender[0]), sender[1], 0, local_ip, interface)
    host = sender[0].partition("%")[0]
    scope = sender[3] if len(sender) == 4 else 0
    return Endpoint(socket.inet_pton(family, host), sender[1], scope, local_ip, interface)


def socket_address(endpoint: Endpoint) -> Address:
    """The remote address as `sendmsg` takes it."""
    if len(endpoint.ip) == 4:
        return socket.inet_ntoa(endpoint.ip), endpoint.port
    host = socket.inet_ntop(socket.AF_INET6, endpoint.ip)
    return host, endpoint.port, 0, endpoint.scope_id


def source_item(endpoint: Endpoint) -> tuple[AncillaryItem]:
    """Leave from the endpoint's local address; routing still chooses the interface.

    Only an IPv6 link-local source needs its interface named.
    """
    source = endpoint.local_ip
    if len(source) == 4:
        return ((socket.IPPROTO_IP, IP_PKTINFO, _IN_PKTINFO.pack(0, source, bytes(4))),)
    interface = endpoint.local_ifindex if is_link_local(source) else 0
    return ((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IN6_PKTINFO.pack(source, interface)),)

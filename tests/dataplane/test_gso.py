"""UDP in trains on loopback, and what happens when the kernel refuses one."""

from __future__ import annotations

import errno
import functools
import os
import socket
from contextlib import closing
from dataclasses import replace

import pytest

from tests.dataplane.oracle import Packet
from tests.linux.edges import LinuxTunEdge
from wgpy.dataplane import offload
from wgpy.linux import edges, gso, vnet
from wgpy.linux import udp as linux_udp
from wgpy.linux.gso import DETOUR, GsoUdp
from wgpy.linux.refusals import FEW
from wgpy.linux.udp import LinuxUdp
from wgpy.linux.vnet import VnetTun
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint


@pytest.fixture
def udp():
    reports: list[str] = []
    made = GsoUdp(report=reports.append)
    made.reports = reports
    made.rebind(0)
    yield made
    made.close()


def here(udp: GsoUdp, host: str = "127.0.0.1") -> Endpoint:
    return Endpoint.parse(f"[{host}]:{udp.port}" if ":" in host else f"{host}:{udp.port}")


def arrived(udp: GsoUdp, count: int) -> list[bytes]:
    """At least `count` datagrams, from whichever socket."""
    buffer, found = bytearray(1 << 16), []
    for _ in range(1000):
        for fd in udp.filenos():
            train = udp.receive_train(fd, buffer)
            if train is not None:
                found += [
                    bytes(buffer[i : min(i + train.stride, train.size)])
                    for i in range(0, train.size, train.stride)
                ]
        if len(found) >= count:
            return found
    raise AssertionError(f"only {len(found)} of {count} came")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(("size", "stride"), [(1000, 100), (950, 100), (100, 100), (64, 1)])
def test_a_train_arrives_as_its_datagrams(udp, host, size, stride):
    data = os.urandom(size)
    assert udp.send_train(memoryview(data), stride, here(udp, host)) == 0
    pieces = [data[i : i + stride] for i in range(0, size, stride)]
    assert arrived(udp, len(pieces)) == pieces


class Refusing:
    """A socket that refuses trains, as kernels and devices do."""

    def __init__(self, real: socket.socket, number: int) -> None:
        self._real, self._number = real, number
        self.tried = 0

    def fileno(self) -> int:
        return self._real.fileno()

    def sendmsg(self, parts, items, *rest):
        if any(kind == gso.UDP_SEGMENT for _, kind, _ in items):
            self.tried += 1
            raise OSError(self._number, os.strerror(self._number))
        return self._real.sendmsg(parts, items, *rest)


def refuse(udp: GsoUdp, endpoint: Endpoint, number: int) -> Refusing:
    """Trains to `endpoint` fail from now on."""
    find = udp._find_way
    way = find(endpoint)
    socket_ = Refusing(way.socket, number)
    udp._find_way = lambda e: find(e)._replace(socket=socket_)
    udp._ways = {}
    return socket_


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
def test_a_refused_train_goes_out_one_by_one_and_is_reported_once(udp, number):
    data = os.urandom(500)
    refusing = refuse(udp, here(udp), number)
    for _ in range(3):
        assert udp.send_train(memoryview(data), 100, here(udp)) == 0
        udp._ways = {}
    assert arrived(udp, 15) == [data[i : i + 100] for i in range(0, 500, 100)] * 3
    assert refusing.tried == 1
    assert len(udp.reports) == 1


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_a_train_that_the_kernel_itself_refuses_arrives(lab, family):
    """Datagrams larger than the MTU: EINVAL for the train, fragments for its datagrams."""
    left, right = lab.namespace("left"), lab.namespace("right")
    ours, theirs = (f"192.0.2.{n}/24 2001:db8::{n}/64" for n in (1, 2))
    device, far = lab.veth(left, right, ours, theirs)
    for namespace, name in ((left, device), (right, far)):
        namespace.ip(f"link set {name} mtu 1280")
    reports: list[str] = []
    there = Endpoint.parse("192.0.2.2:7" if family == 4 else "[2001:db8::2]:7")
    with right.entered():
        receiver = GsoUdp()
        receiver.rebind(there.port)
    with left.entered():
        sender = GsoUdp(report=reports.append)
        sender.rebind(0)
    data = os.urandom(5 * 1400)
    for _ in range(2):
        assert sender.send_train(memoryview(data), 1400, there) == 0
    assert arrived(receiver, 10) == [data[i : i + 1400] for i in range(0, 7000, 1400)] * 2
    assert len(reports) == 1 and "UDP segmentation offload refused" in reports[0]
    sender.close()
    receiver.close()


def test_a_socket_that_cannot_receive_because_of_gro_goes_on_without(udp):
    class Failing(Refusing):
        def recvmsg_into(self, *_):
            if self._real.getsockopt(gso.SOL_UDP, gso.UDP_GRO):
                self.tried += 1
                raise OSError(self._number, os.strerror(self._number))
            return self._real.recvmsg_into(*_)

        def __getattr__(self, name):
            return getattr(self._real, name)

    kinds = [tuple(Failing(s, errno.EINVAL) for s in kind) for kind in udp._sockets]
    udp._sockets, udp._sockets_in_turn = linux_udp.Sockets(*kinds), kinds[0] + kinds[1]
    udp._by_fd = {s.fileno(): s for s in udp._sockets_in_turn}
    assert udp.send_train(memoryview(bytes(100)), 100, here(udp)) == 0
    assert arrived(udp, 1) == [bytes(100)]
    assert sum(s.tried for s in udp._sockets_in_turn) == FEW
    assert udp.reports == [
        "UDP receive offload refused (Invalid argument): receiving datagrams one by one"
    ]
    udp.rebind(0)
    assert not any(s.getsockopt(gso.SOL_UDP, gso.UDP_GRO) for s in udp._sockets_in_turn)


MERGED = Packet(payload=bytes(range(250)) * 20)


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
def test_a_merged_packet_that_the_device_refuses_is_delivered_cut(
    lab, monkeypatch, version, protocol
):
    """A kernel that took the offload when the device was opened, and says EINVAL ever after."""
    real, tried, reports = os.write, [], []

    def write(fd, view):
        if view[1] != offload.GSO_NONE:
            tried.append(view[1])
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, view)

    edge = LinuxTunEdge(lab, functools.partial(VnetTun, report=reports.append))
    monkeypatch.setattr(vnet.os, "write", write)
    addresses = {4: (b"\x0a\0\0\1", b"\x0a\0\0\2"), 6: (b"\xfd" + bytes(14) + b"\1",) * 2}
    source, destination = addresses[version]
    whole = replace(
        MERGED, version=version, protocol=protocol, source=source, destination=destination
    )
    kind = offload.GSO_UDP_L4 if protocol == 17 else {4: 1, 6: 4}[version]
    header, data = whole.offloaded(kind, 1000)
    with closing(edge):
        for number in range(1, FEW + 1):
            assert edge.tun.write_from(memoryview(offload.VNET.pack(*header) + data))
            assert edge.delivered(5) == [p.build() for p in whole.segments(1000)]
            assert (protocol in edge.tun.given_up) == (number == FEW)
        assert len(tried) == FEW and len(reports) == 1
        assert f"merged {'UDP' if protocol == 17 else 'TCP'} packets refused" in reports[0]
        edge.down()
        for _ in range(FEW):
            assert not edge.tun.write_from(memoryview(offload.VNET.pack(*header) + data))
        assert edge.tun.given_up == {protocol}
    edge.tun.close()


@pytest.mark.root
def test_a_device_that_is_down_has_refused_no_offload(lab):
    edge = LinuxTunEdge(lab, VnetTun)
    header, data = MERGED.offloaded(1, 1000)
    with closing(edge):
        edge.down()
        for _ in range(2 * FEW):
            assert not edge.tun.write_from(memoryview(offload.VNET.pack(*header) + data))
        assert edge.tun.given_up == set()
    edge.tun.close()


def test_after_a_while_it_is_tried_again_unless_the_device_cannot(udp):
    for number, again in ((errno.EINVAL, 1), (errno.EIO, 0)):
        refusing = refuse(udp, here(udp), number)
        udp._apart.clear()
        for _ in range(DETOUR + 2):
            udp.send_train(memoryview(bytes(2)), 1, here(udp))
            udp._ways = {}
        assert refusing.tried == 1 + again


def test_a_full_socket_is_a_refusal_and_nothing_is_sent_twice(udp):
    find = udp._find_way
    real = find(here(udp)).socket

    class Full(Refusing):
        def sendmsg(self, *_):
            raise BlockingIOError(errno.EAGAIN, "full")

    udp._find_way = lambda e: find(e)._replace(socket=Full(real, errno.EAGAIN))
    udp._ways = {}
    assert udp.send_train(memoryview(bytes(250)), 100, here(udp)) == 3
    assert udp.reports == []


def test_no_socket_of_that_family_refuses_every_datagram(udp):
    data = tuple(s for s in udp._sockets.data if s.family == socket.AF_INET)
    udp._sockets = udp._sockets._replace(data=data)
    assert udp.send_train(memoryview(bytes(250)), 100, here(udp, "::1")) == 3


def test_what_the_socket_lost_is_counted_once(udp):
    for s in (*udp._sockets.data, *udp._sockets.handshakes):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    transport, other = bytes([4]) + bytes(999), bytes(1000)
    for first, lost, untouched in (
        (transport, udp.overflowed, udp.handshakes_overflowed),
        (other, udp.handshakes_overflowed, udp.overflowed),
    ):
        before = udp.overflows
        for _ in range(40):
            udp.send_train(memoryview(3 * first), 1000, here(udp))
        assert (udp.handshake_backlog() > 0.5) == (first is other)
        count = lost()
        assert count > 0
        assert (lost(), untouched(), udp.overflows) == (0, 0, before + count)


@pytest.mark.root
@pytest.mark.parametrize(
    ("unknown", "missing", "udp_offload"),
    [
        (0, "", True),
        (vnet.TUN_F_USO4, "no USO", False),
        (vnet.TUN_F_TSO4, "no TSO", False),
        (vnet.TUN_F_CSUM, "no offloads", False),
    ],
)
def test_a_kernel_without_an_offload_still_gives_a_device(
    lab, monkeypatch, unknown, missing, udp_offload
):
    real = vnet.fcntl.ioctl

    def ioctl(fd, request, *words):
        if request == vnet.TUNSETOFFLOAD and words[0] & unknown:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, request, *words)

    monkeypatch.setattr(vnet.fcntl, "ioctl", ioctl)
    reports: list[str] = []
    with lab.namespace("tun").entered():
        opened = edges.open_edges(lab.interface(), offload=True, report=reports.append)
        opened.tun.close()
    assert opened.tun.udp_offload is udp_offload
    assert len(reports) == bool(missing) and all(missing in text for text in reports)


@pytest.mark.root
def test_super_packets_are_capped_to_one_send(lab):
    namespace = lab.namespace("tun")
    with namespace.entered():
        tun = vnet.VnetTun(lab.interface())

        def cap() -> int:
            shown = namespace.ip(f"-d link show {tun.name}")
            return int(shown.split("gso_max_size ")[1].split()[0])

        size = cap()
        assert 45 * 1368 <= size <= 45 * 1368 + 321
        caps = []
        for tun.mtu in (1280, 9000):
            tun.cap_super_packets()
            caps.append(cap())
        tun.close()
    assert caps[0] == size < caps[1], "it never shrinks under those who are connected"


# Handshakes and data have sockets of their own.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("made", [LinuxUdp, GsoUdp])
def test_only_transport_messages_come_where_the_data_comes(made, host):
    data = [bytes([4, 0, 0, 0]) + bytes(28), bytes([4, 0, 0, 0]) + bytes(1400)]
    other = [bytes([1, 0, 0, 0]) + bytes(144), bytes([4, 0, 0, 0]) + bytes(27), b"\4", b"x",
             bytes([4, 0, 1, 0]) + bytes(60), bytes(60)]  # fmt: skip
    with closing(made()) as udp:
        udp.rebind(0)
        assert set(udp.handshake_filenos()) < set(udp.filenos())
        for datagram in (*data, *other):
            assert udp.send([Datagram(datagram, here(udp, host))]) == 0
        assert [
            sorted(bytes(s.recv(2000)) for _ in expected)
            for s, expected in zip(of_host(udp, host), (data, other), strict=True)
        ] == [sorted(data), sorted(other)]


def of_host(udp: LinuxUdp, host: str) -> list[socket.socket]:
    """The sockets of a family: data, handshakes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    data, handshakes = udp._sockets
    return [s for s in (*data, *handshakes) if s.family == family]


@pytest.mark.parametrize("made", [LinuxUdp, GsoUdp])
def test_sharing_a_port_with_oneself_is_not_sharing_it_with_others(made):
    with closing(made()) as udp, closing(made()) as late:
        udp.rebind(0)
        for attempt in (late.rebind, late.probe):
            with pytest.raises(OSError, match="in use"):
                attempt(udp.port)


def test_a_kernel_that_cannot_sort_gives_all_to_one_socket(monkeypatch):
    monkeypatch.setattr(linux_udp, "SO_ATTACH_REUSEPORT_CBPF", 12345)
    with closing(GsoUdp()) as udp:
        udp.rebind(0)
        assert (len(udp.filenos()), len(udp.handshake_filenos())) == (2, 0)
        for datagram in (bytes([4]) + bytes(40), bytes(40)):
            udp.send_train(memoryview(datagram), 41, here(udp))
        assert len(arrived(udp, 2)) == 2

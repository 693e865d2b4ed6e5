"""One contract: everything here runs on Linux, plain and with offloads, and in memory."""

from __future__ import annotations

import errno
import select
from contextlib import closing

import pytest

from tests.linux.edges import (
    LinuxTunEdge,
    LinuxUdpEdge,
    MemoryTunEdge,
    MemoryUdpEdge,
    ready,
)
from wgpy.dataplane.ports import DeviceGone
from wgpy.linux.gso import GsoUdp
from wgpy.linux.tun import LinuxTun
from wgpy.linux.udp import LinuxUdp
from wgpy.linux.vnet import VnetTun
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint, parse_address


def any_ready(fds) -> bool:
    """Whether one of `fds` is readable within some seconds."""
    return bool(select.select(list(fds), [], [], 5)[0])


TWINS = [
    pytest.param("linux", marks=pytest.mark.root),
    pytest.param("offload", marks=pytest.mark.root),
    "memory",
]

IPV4 = bytes.fromhex("45000020000100004011f6c8c0000201c000020204d204d3000c0000") + b"wgpy"
IPV6 = bytes.fromhex("6000000000083b40") + parse_address("fd00::1") + parse_address("fd00::2")
IPV6 += bytes(8)


@pytest.fixture(params=TWINS)
def tun_edge(request):
    if request.param == "memory":
        edge = MemoryTunEdge()
        yield edge
    else:
        device = LinuxTun if request.param == "linux" else VnetTun
        edge = LinuxTunEdge(request.getfixturevalue("lab"), device)
        with closing(edge):
            yield edge
    edge.tun.close()


@pytest.fixture(params=TWINS)
def udp_edge(request):
    if request.param == "memory":
        return MemoryUdpEdge()
    port = LinuxUdp if request.param == "linux" else GsoUdp
    return LinuxUdpEdge(request.getfixturevalue("lab"), port)


def large(size: int) -> bytes:
    return IPV4[:2] + size.to_bytes(2) + IPV4[4:] + bytes(size - len(IPV4))


class TestTun:
    def test_nothing_waits(self, tun_edge):
        assert tun_edge.tun.read(10) == []
        assert not ready(tun_edge.tun.fileno(), 0)

    def test_packets_of_the_host_are_read_whole(self, tun_edge):
        packets = [IPV4, IPV6, large(1420), large(9000)]
        tun_edge.inject(*packets)
        assert ready(tun_edge.tun.fileno())
        assert tun_edge.tun.read(10) == packets

    def test_read_is_bounded_and_the_rest_stays_ready(self, tun_edge):
        tun_edge.inject(*[IPV4] * 5)
        assert len(tun_edge.tun.read(3)) == 3
        assert ready(tun_edge.tun.fileno())
        assert len(tun_edge.tun.read(3)) == 2
        assert not ready(tun_edge.tun.fileno(), 0)

    def test_packets_of_the_tunnel_are_delivered(self, tun_edge):
        packets = [IPV4, IPV6, large(9000)]
        assert tun_edge.tun.write(map(memoryview, packets)) == 0
        assert tun_edge.delivered(3) == packets

    def test_what_the_device_refuses_is_counted_and_the_rest_delivered(self, tun_edge):
        assert tun_edge.tun.write([b"\x00garbage", IPV4, b""]) == 2
        assert tun_edge.delivered(1) == [IPV4]

    def test_a_device_that_is_down_refuses(self, tun_edge):
        tun_edge.down()
        assert tun_edge.tun.write([IPV4]) == 1
        assert tun_edge.tun.read(1) == []

    def test_a_deleted_device_is_gone(self, tun_edge):
        tun_edge.delete()
        assert ready(tun_edge.tun.fileno())
        with pytest.raises(DeviceGone):
            tun_edge.tun.read(1)
        assert tun_edge.tun.write([IPV4]) == 1

    def test_close_may_be_repeated(self, tun_edge):
        tun_edge.tun.close()
        tun_edge.tun.close()


def receive(port, count):
    """`count` datagrams, waiting for them."""
    received = []
    for _ in range(100):
        received += port.receive(count - len(received))
        if len(received) == count:
            return received
        select.select(port.filenos(), [], [], 0.1)
    raise AssertionError(f"only {received} arrived")


@pytest.fixture
def ports(udp_edge):
    left, right = udp_edge.left(), udp_edge.right()
    left.rebind(51820)
    right.rebind(0)
    with closing(left), closing(right):
        yield left, right


class TestUdp:
    def test_closed_until_bound(self, udp_edge):
        port = udp_edge.left()
        assert not port.filenos()
        assert port.receive(1) == []
        assert port.send([Datagram(b"x", Endpoint.parse("192.0.2.2:1"))]) == 1

    @pytest.mark.parametrize("address", ["192.0.2.1", "192.0.2.11", "2001:db8::1", "2001:db8::11"])
    def test_datagrams_carry_both_addresses(self, ports, address):
        left, right = ports
        to = Endpoint(parse_address(address), left.port)
        assert right.send([Datagram(b"hello", to), Datagram(memoryview(b""), to)]) == 0
        first, second = receive(left, 2)
        assert (first.data, second.data) == (b"hello", b"")
        own = "2001:db8::2" if ":" in address else "192.0.2.2"
        assert first.endpoint[:2] == (parse_address(own), right.port)
        assert first.endpoint.local_ip == parse_address(address)
        assert first.endpoint.local_ifindex > 0

    @pytest.mark.parametrize("address", ["192.0.2.11", "2001:db8::11"])
    def test_an_answer_leaves_from_the_address_that_was_written_to(self, ports, address):
        left, right = ports
        right.send([Datagram(b"ask", Endpoint(parse_address(address), left.port))])
        [asked] = receive(left, 1)
        assert left.send([Datagram(b"answer", asked.endpoint)]) == 0
        [answer] = receive(right, 1)
        assert answer.endpoint[:2] == (parse_address(address), left.port)

    @pytest.mark.parametrize("address", ["192.0.2.11", "2001:db8::11"])
    def test_a_source_that_is_no_longer_local_is_forgotten(self, udp_edge, ports, address):
        left, right = ports
        right.send([Datagram(b"ask", Endpoint(parse_address(address), left.port))])
        [asked] = receive(left, 1)
        udp_edge.lose(address)
        assert left.send([Datagram(b"answer", asked.endpoint)] * 2) == 0
        main = "2001:db8::1" if ":" in address else "192.0.2.1"
        assert {a.endpoint.ip for a in receive(right, 2)} == {parse_address(main)}

    def test_without_a_known_source_the_host_chooses(self, ports):
        left, right = ports
        assert left.send([Datagram(b"x", Endpoint.parse(f"192.0.2.2:{right.port}"))]) == 0
        [datagram] = receive(right, 1)
        assert datagram.endpoint.ip == parse_address("192.0.2.1")

    def test_receive_is_bounded(self, ports):
        left, right = ports
        right.send([Datagram(b"%d" % i, Endpoint.parse("192.0.2.1:51820")) for i in range(9)])
        assert any_ready(left.filenos())
        assert len(left.receive(4)) <= 4

    def test_too_large_is_refused_and_counted(self, ports):
        left, right = ports
        to = Endpoint.parse("192.0.2.1:51820")
        assert right.send([Datagram(bytes(65508), to), Datagram(b"fits", to)]) == 1
        assert receive(left, 1)[0].data == b"fits"

    def test_a_port_in_use_is_an_error_and_changes_nothing(self, udp_edge, ports):
        left, right = ports
        other = udp_edge.left()
        other.rebind(0)
        with closing(other):
            before = other.port
            for bind in (other.rebind, udp_edge.left().probe):
                with pytest.raises(OSError, match="in use") as caught:
                    bind(left.port)
                assert caught.value.errno == errno.EADDRINUSE
            assert other.port == before
            right.send([Datagram(b"still", Endpoint.parse(f"192.0.2.1:{before}"))])
            assert receive(other, 1)[0].data == b"still"

    def test_probe_remembers_the_port_and_binds_nothing(self, udp_edge):
        first, second = udp_edge.left(), udp_edge.left()
        first.probe(7000)
        assert (first.port, list(first.filenos())) == (7000, [])
        second.rebind(7000)
        second.close()

    def test_rebind_moves_and_close_lets_reopen(self, ports):
        left, right = ports
        left.rebind(6000)
        left.close()
        assert (left.port, list(left.filenos())) == (6000, [])
        left.rebind(left.port)
        right.send([Datagram(b"x", Endpoint.parse("[2001:db8::1]:6000"))])
        assert receive(left, 1)[0].data == b"x"

    def test_the_mark_is_kept_over_a_rebind(self, ports):
        left, _ = ports
        left.set_mark(0x51)
        left.rebind(0)
        assert left.mark == 0x51

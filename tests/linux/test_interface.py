"""A whole interface over the twins in memory: what joins engine, ports, link and clock."""

from __future__ import annotations

import errno
import random
from contextlib import closing

import pytest

from wgpy.dataplane.interface import BATCH, Interface
from wgpy.dataplane.loop import Loop
from wgpy.dataplane.ports import DeviceGone
from wgpy.memory.ports import ManualClock, MemoryTun, Network
from wgpy.protocol.constants import NS
from wgpy.protocol.crypto import backend
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import SessionEstablished
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.policy import PLAINTEXT, EncryptAll
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

CRYPTO = backend("openssl")


def packet(source: str, destination: str, payload: bytes = b"") -> bytes:
    """An IPv4 packet (the data path does not look at its checksum)."""
    ends = Prefix.parse(source).ip + Prefix.parse(destination).ip
    return b"\x45\0" + (20 + len(payload)).to_bytes(2) + bytes(5) + b"\x11\0\0" + ends + payload


class Node:
    """An interface with its ports, driven by the test."""

    def __init__(self, network: Network, number: int, clock: ManualClock, loop: Loop) -> None:
        self.private = PrivateKey.clamp(bytes([number]) * 32)
        self.public = PublicKey(CRYPTO.public_key(self.private))
        self.inner = f"10.0.0.{number}"
        self.host = network.host(f"192.0.2.{number}", f"2001:db8::{number}")
        self.tun = MemoryTun(f"wg{number}")
        self.warnings = []
        engine = Engine(
            crypto=CRYPTO,
            entropy=random.Random(number).randbytes,
            now=clock.monotonic(),
            wall=clock.wall(),
        )
        self.interface = Interface(
            engine, self.tun, self.host.udp(), clock, loop, warn=self.warnings.append
        )

    def peer_with(self, other: Node, endpoint: bool) -> DeviceChange:
        where = Endpoint.parse(f"192.0.2.{other.inner[-1]}:51820") if endpoint else None
        allowed = (AllowedIp(Prefix.parse(other.inner)),)
        peer = PeerChange(other.public, endpoint=where, allowed_ips=allowed)
        return DeviceChange(private_key=self.private, listen_port=51820, peers=(peer,))

    @property
    def drops(self) -> dict[DropReason, int]:
        return dict(self.interface.engine.drops)


class World:
    def __init__(self) -> None:
        self.clock = ManualClock(monotonic=5 * NS)
        self.loop = Loop(self.clock)
        network = Network()
        self.left, self.right = (Node(network, n, self.clock, self.loop) for n in (1, 2))

    def configured(self) -> World:
        self.left.interface.configure(self.left.peer_with(self.right, endpoint=True))
        self.right.interface.configure(self.right.peer_with(self.left, endpoint=False))
        for node in (self.left, self.right):
            node.interface.set_link(up=True, mtu=1420)
        return self

    def settle(self) -> None:
        """Turn until nothing is ready any more."""
        for _ in range(50):
            self.loop.turn(0)


@pytest.fixture
def world():
    made = World()
    yield made
    for node in (made.left, made.right):
        node.interface.close()
    made.loop.close()


def test_a_packet_goes_through_and_back(world):
    world.configured()
    there, back = packet("10.0.0.1", "10.0.0.2", b"ping"), packet("10.0.0.2", "10.0.0.1", b"pong")
    world.left.tun.inject(there)
    world.settle()
    world.right.tun.inject(back)
    world.settle()
    assert (world.right.tun.delivered, world.left.tun.delivered) == ([there], [back])


def test_many_more_packets_than_a_batch(world):
    world.configured()
    packets = [packet("10.0.0.1", "10.0.0.2", n.to_bytes(4)) for n in range(3 * BATCH + 1)]
    world.left.tun.inject(packets[0])
    world.settle()
    world.left.tun.inject(*packets[1:])
    world.settle()
    assert world.right.tun.delivered == packets


def test_events_go_to_listeners(world):
    seen = []
    world.left.interface.listen(seen.append)
    world.configured()
    world.left.tun.inject(packet("10.0.0.1", "10.0.0.2"))
    world.settle()
    assert any(isinstance(event, SessionEstablished) for event in seen)


def test_the_snapshot_has_the_real_port_and_mark(world):
    world.left.interface.configure(DeviceChange(fwmark=7))
    world.left.interface.set_link(up=True, mtu=1420)
    snapshot = world.left.interface.snapshot()
    assert snapshot.listen_port == world.left.interface.udp.port > 0
    assert snapshot.fwmark == 7


@pytest.mark.parametrize("up", [True, False])
def test_a_port_in_use_changes_nothing(world, up):
    other = world.left.host.udp()
    other.rebind(7)
    with closing(other):
        interface = world.left.interface
        interface.set_link(up=up, mtu=1420)
        before = interface.snapshot()
        with pytest.raises(OSError, match="in use") as caught:
            interface.configure(
                DeviceChange(private_key=world.left.private, listen_port=7, fwmark=9)
            )
        assert caught.value.errno == errno.EADDRINUSE
        assert interface.snapshot() == before


def test_a_port_that_is_taken_while_the_link_was_down_is_told(world):
    interface = world.left.interface
    interface.configure(DeviceChange(listen_port=7))
    other = world.left.host.udp()
    other.rebind(7)
    with closing(other):
        interface.set_link(up=True, mtu=1420)
        assert world.left.warnings == ["cannot listen on UDP port 7: Address already in use"]
    interface.configure(DeviceChange(listen_port=8))
    assert list(interface.udp.filenos())


def test_a_link_that_goes_down_closes_the_port_and_comes_up_again(world):
    world.configured()
    world.right.interface.set_link(up=False, mtu=1420)
    assert not world.right.interface.udp.filenos()
    world.left.tun.inject(packet("10.0.0.1", "10.0.0.2", b"lost"))
    world.settle()
    assert world.right.tun.delivered == []
    world.right.interface.set_link(up=True, mtu=1420)
    world.clock.advance(6 * NS)
    world.settle()
    assert world.right.tun.delivered == [packet("10.0.0.1", "10.0.0.2", b"lost")]


def test_the_mtu_reaches_the_engine(world):
    world.configured()
    world.left.interface.set_link(up=True, mtu=1280)
    assert world.left.interface.engine.mtu == 1280 == world.left.tun.mtu


def test_what_the_edges_refuse_has_a_name(world):
    world.configured()
    world.left.tun.inject(packet("10.0.0.1", "10.0.0.2"))
    world.right.tun.up = False
    world.settle()
    assert world.right.drops == {DropReason.TUN_WRITE_FAILED: 1}
    world.left.host.remove_address("192.0.2.1")
    world.left.tun.inject(packet("10.0.0.1", "10.0.0.2"))
    world.settle()
    assert world.left.drops == {DropReason.UDP_SEND_FAILED: 1}


def test_plaintext_goes_back_to_the_host(world):
    class Plain(EncryptAll):
        def egress(self, source, destination, packet):  # noqa: ARG002
            return PLAINTEXT

    world.configured()
    world.left.interface.engine.policy = Plain()
    sent = packet("10.0.0.1", "203.0.113.1", b"in the clear")
    world.left.tun.inject(sent)
    world.settle()
    assert world.left.tun.delivered == [sent]


def test_a_deleted_device_ends_the_loop(world):
    world.configured()
    world.left.tun.delete()
    with pytest.raises(DeviceGone):
        world.loop.run()


def test_the_wall_clock_is_taken_again(world):
    """A clock set right between two handshakes: the second one's timestamp tells."""
    world.configured()
    world.left.tun.inject(packet("10.0.0.1", "10.0.0.2"))
    world.settle()
    world.clock.step_wall(3600 * NS)
    world.clock.advance(200 * NS)
    world.left.tun.inject(packet("10.0.0.1", "10.0.0.2"))
    world.settle()
    latest = world.left.interface.snapshot().peers[0].latest_handshake
    assert latest == world.clock.wall()

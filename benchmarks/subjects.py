"""The packet paths that can be measured without a kernel, behind one small interface.

``wgpy`` is the path that the program uses, ``wgpy --turbo`` the same compiled (where numba
is installed), ``readable`` the engine itself, one packet at a time.  Work is handed over
first, untimed (`offer`, `offer_super`, `arrive`), then done, timed (`send`, `receive`), and
then counted (`came_out`), so that a path that drops packets is not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from benchmarks.harness import Hub
from benchmarks.implementations import TURBO, turbo_installed
from benchmarks.packets import SuperPacket
from wgpy.dataplane.egress import Egress
from wgpy.dataplane.ingress import Ingress
from wgpy.dataplane.interpreted import INTERPRETED
from wgpy.dataplane.offload import GSO_NONE, VNET, VNET_SIZE, describe
from wgpy.memory.batch import BatchTun, BatchUdp
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.datagram import Datagram

BATCH = "wgpy"
READABLE = "readable"


class Subject(Protocol):
    """A packet path on the engine of a hub."""

    name: str

    def offer(self, packets: list[bytes]) -> int:
        """Inner packets that the host sends; how many."""

    def offer_super(self, packet: SuperPacket) -> int:
        """A TCP super-packet that the host sends; how many segments it has."""

    def send(self) -> None:
        """Send what was offered."""

    def arrive(self, datagrams: list[Datagram]) -> int:
        """Datagrams from the network; how many."""

    def receive(self) -> None:
        """Take what arrived."""

    def came_out(self) -> int:
        """Datagrams and inner packets that came out since the last call."""


class Readable:
    """The engine, called as the plain data path calls it."""

    name = READABLE

    def __init__(self, hub: Hub) -> None:
        self._engine = hub.engine
        self._clock = hub.clock
        self._packets: list[bytes] = []
        self._datagrams: list[Datagram] = []

    def offer(self, packets: list[bytes]) -> int:
        self._packets = packets
        return len(packets)

    def offer_super(self, packet: SuperPacket) -> int:
        return self.offer(packet.segments)

    def send(self) -> None:
        self._engine.send(self._packets, now=self._clock.now)

    def arrive(self, datagrams: list[Datagram]) -> int:
        self._datagrams = datagrams
        return len(datagrams)

    def receive(self) -> None:
        self._engine.receive(self._datagrams, now=self._clock.now)

    def came_out(self) -> int:
        return len(self._engine.pull_datagrams()) + len(self._engine.pull_packets())


class Batch:
    """The batch path's two directions, on ports in memory."""

    def __init__(self, hub: Hub, name: str = BATCH) -> None:
        """The hub of a ``wgpy --turbo`` comes from `subjects_hub`."""
        self._hub, self.name = hub, name
        self._tun, self._udp = BatchTun(), BatchUdp()
        tools = INTERPRETED
        if name == TURBO:
            from wgpy.turbo import TURBO as tools
        self._out = Egress(hub.engine, self._tun, self._udp, self._carry_out, tools)
        self._in = Ingress(hub.engine, self._tun, self._udp, self._carry_out, tools)
        self._readable = 0

    def _carry_out(self) -> None:
        """What the batch path left to the readable one counts, too."""
        self._readable += len(self._hub.engine.pull_datagrams())
        self._readable += len(self._hub.engine.pull_packets())

    def offer(self, packets: list[bytes]) -> int:
        self._tun.offer(packets)
        return len(packets)

    def offer_super(self, packet: SuperPacket) -> int:
        self._tun.waiting.append(packet.whole)
        return len(packet.segments)

    def send(self) -> None:
        now = self._hub.clock.now
        while self._tun.waiting:
            self._out.turn(now)

    def arrive(self, datagrams: list[Datagram]) -> int:
        self._udp.arrive(datagrams)
        return len(datagrams)

    def receive(self) -> None:
        now = self._hub.clock.now
        while self._udp.waiting:
            self._in.turn(0, now)

    def flow_lookup(self) -> Callable[[bytes], object]:
        """What the send path asks for each packet: the answer of policy and table, by flow."""
        return self._out.flows.get

    def came_out(self) -> int:
        readable, self._readable = self._readable, 0
        sent = len(self._udp.take_sent())
        return sent + sum(map(_segments, self._tun.take_written())) + readable


def _segments(written: bytes) -> int:
    """How many packets a write stands for: a super-packet counts for all its segments."""
    vnet = VNET.unpack_from(written)
    if vnet[1] == GSO_NONE:
        return 1
    whole = describe(written[VNET_SIZE:], vnet)
    return 1 if whole is None else whole.segments


def subjects_hub() -> Hub:
    """A hub with one member, established, that every subject can work on."""
    hub = Hub(1, _turbo_crypto())
    hub.establish()
    return hub


def subjects(hub: Hub) -> list[Subject]:
    """Every path that works on this hub."""
    turbo = _turbo_crypto()
    compiled = [Batch(hub, TURBO)] if turbo and type(hub.crypto) is type(turbo) else []
    return [Batch(hub), *compiled, Readable(hub)]


def _turbo_crypto() -> Crypto | None:
    """What the compiled path needs, where it can be had."""
    if not turbo_installed():
        return None
    from wgpy.turbo import TurboCrypto

    return TurboCrypto()

"""The batch path: how packets pass at speed.  `BatchPath` takes the place of `PlainPath`.

Send path, `Egress` (`egress`)
  1. Read what is ready from the TUN device: single packets, at most one turn's worth, or
     one super-packet of up to 64 KiB.
  2. Policy and allowed IPs, cached per flow (source, destination) until either changes.
  3. The peer's current session; without a usable one the packets take the readable path,
     which stages them and shakes hands.
  4. Cut the super-packet into the rows of a train, or gather a run of equal-sized packets
     into one; headers, checksums and padding by array operations.
  5. Counters for the whole train from the session, then seal each message in place.
  6. One UDP GSO send.  A lone packet is sealed and sent in place.
  7. Timers and byte counts, once per peer and turn.

Receive path, `Ingress` (`ingress`)
  1. Receive one UDP GRO train: datagrams of one source, equal sizes.  Transport data that
     comes singly is received into the rows of a train until none is ready or one differs.
  2. Type and index of all; anything but transport data takes the readable path from here.
  3. The session of the index, its age, the counters.
  4. Open each message in place.
  5. The replay window, once if the counters ascend; then endpoint, timers and byte counts.
  6. Inner source against allowed IPs, and the policy, cached per flow.
  7. Merge consecutive segments of one flow, exactly or not at all, into one TUN write.

The batch path and the readable path share the engine's state and its accounting.  The
batch path only repeats decisions for known flows; every new decision is made by the
engine's readable code.

Fair: one turn takes at most a few super-packets or `TURN` packets from one side, then the
loop serves everything else; after a turn of the receive path, the loop yields the CPU to the
programs that have something to read.  Bounded: all buffers are allocated once.  In overload
the *newest* packets are lost, where they would queue: in the TUN device's queue
(the interface's TX drops) and in the UDP sockets' (`DropReason.UDP_OVERFLOW`, and
`HANDSHAKE_QUEUE_FULL` where handshakes wait, which are read in a share of the time); packets
that wait for a handshake lose the *oldest* (`DropReason.QUEUE_FULL`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final, Protocol, TypeGuard

from wgpy.dataplane.egress import Egress, TrainSink
from wgpy.dataplane.ingress import Ingress, TrainSource
from wgpy.dataplane.interface import Interface
from wgpy.dataplane.interpreted import INTERPRETED
from wgpy.dataplane.ports import TunPort, UdpPort
from wgpy.dataplane.train_tools import Tools
from wgpy.protocol.constants import NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.events import Direction

OVERFLOW_CHECK: Final = 1 * NS
"""How often the sockets are asked for their drop counters."""


class SuperTun(TunPort, Protocol):
    """A TUN port that carries super-packets, each preceded by its virtio header."""

    udp_offload: bool
    given_up: set[int]

    def read_into(self, views: Sequence[memoryview], large: int) -> list[int]:
        """Packets with their headers, one into each view; their sizes in bytes.

        Ends when none is ready, and after one of more than `large` bytes.
        """

    def write_from(self, view: memoryview) -> bool:
        """One packet with its header; False when the device refused it."""

    def cap_super_packets(self) -> None:
        """Adapt the size of super-packets to the MTU."""


class TrainUdp(UdpPort, TrainSource, TrainSink, Protocol):
    """A UDP port that sends and receives trains."""

    def overflowed(self) -> int:
        """Datagrams lost for want of room since the last call."""

    def handshakes_overflowed(self) -> int:
        """As `overflowed`, at the sockets where no transport message comes."""


def batch_path(interface: Interface, tools: Tools) -> BatchPath:
    """The batch path between the interface's own ports; TypeError if these are plain ones."""
    tun, udp = interface.tun, interface.udp
    if not _is_super_tun(tun) or not _is_train_udp(udp):
        raise TypeError("the batch path needs ports that carry super-packets and trains")
    return BatchPath(interface, tun, udp, tools)


# By attribute, because a recorder forwards these without declaring them.


def _is_super_tun(port: TunPort) -> TypeGuard[SuperTun]:
    return hasattr(port, "read_into") and hasattr(port, "write_from")


def _is_train_udp(port: UdpPort) -> TypeGuard[TrainUdp]:
    return hasattr(port, "receive_train") and hasattr(port, "send_train")


class BatchPath:
    """See the module; a `wgpy.dataplane.interface.Path`."""

    def __init__(
        self, interface: Interface, tun: SuperTun, udp: TrainUdp, tools: Tools = INTERPRETED
    ) -> None:
        """`tun` and `udp` are the interface's own, seen with their faster methods."""
        self._interface = interface
        self._tun = tun
        self._udp = udp
        self._device = interface.engine.device
        self._out = Egress(interface.engine, tun, udp, self._carry_out, tools)
        self._in = Ingress(interface.engine, tun, udp, self._carry_out, tools)
        self._checked = 0

    def tun_ready(self) -> None:
        """One turn of the send path."""
        now = self._interface.now()
        self._out.turn(now)
        self._carry_out()

    def udp_ready(self, fd: int) -> None:
        """One turn of the receive path, at one socket."""
        now = self._interface.now()
        delivered = self._device.delivered.packets
        self._in.turn(fd, now)
        self._carry_out()
        if self._device.delivered.packets != delivered:
            # Yield the CPU: the receiver may wait for it, and its socket may be small.
            os.sched_yield()
        if now - self._checked >= OVERFLOW_CHECK:
            self._checked = now
            udp, ingress = self._udp, Direction.INGRESS
            self._count(udp.overflowed(), DropReason.UDP_OVERFLOW, ingress)
            self._count(udp.handshakes_overflowed(), DropReason.HANDSHAKE_QUEUE_FULL, ingress)

    def flush(self) -> None:
        """Send and deliver what the engine queued at a deadline or a configuration change."""
        self._tun.cap_super_packets()
        self._carry_out()

    def _carry_out(self) -> None:
        device, engine = self._device, self._interface.engine
        if device.outbox:
            refused = self._udp.send(engine.pull_datagrams())
            self._count(refused, DropReason.UDP_SEND_FAILED, Direction.EGRESS)
        if device.inbox:
            self._write(engine.pull_packets(), Direction.INGRESS)
        if device.plaintext:
            self._write(engine.pull_plaintext(), Direction.EGRESS)
        if device.events and self._interface.listeners:
            while (event := engine.next_event()) is not None:
                for listener in self._interface.listeners:
                    listener(event)

    def _write(self, packets: Iterable[bytes], direction: Direction) -> None:
        refused = self._tun.write(packets)
        self._count(refused, DropReason.TUN_WRITE_FAILED, direction)

    def _count(self, number: int, reason: DropReason, direction: Direction) -> None:
        if number:
            now = self._interface.clock.monotonic()
            for _ in range(number):
                self._interface.engine.record_drop(reason, now=now, direction=direction)

"""The way in of the batch path; the numbers are those of `pipeline`'s list.

Messages are opened where they were received.  The sixteen bytes of a message's header
are room enough for the virtio header that the TUN device wants before a packet, so a
packet that goes out alone is written from where it lies.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, cast

import numpy as np

from wgpy.dataplane.batch import ARANGE, Rows, Slab
from wgpy.dataplane.offload import NO_OFFLOAD, VNET_SIZE
from wgpy.dataplane.offload_coalesce import Merger
from wgpy.protocol import inbound
from wgpy.protocol.constants import TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD, TYPE_TRANSPORT
from wgpy.protocol.crypto.openssl import OpenSslAead, TagMismatch
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import Direction, KeepaliveReceived
from wgpy.protocol.packet import read_addresses
from wgpy.protocol.peer import Peer
from wgpy.protocol.policy import Action
from wgpy.protocol.session import Session

MAX_FLOWS: Final = 8192
"""Flows remembered; when there are more, all are forgotten and learnt anew."""

BODY: Final = TRANSPORT_HEADER_SIZE


class Train(Protocol):
    """`size` bytes of datagrams of `stride` bytes, the last perhaps shorter."""

    @property
    def size(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def endpoint(self) -> Endpoint: ...


class TrainSource(Protocol):
    """Gives datagrams of one source in trains."""

    def receive_train(self, fd: int, buffer: bytearray, /) -> Train | None: ...


class PacketSink(Protocol):
    """A TUN device with virtio headers."""

    udp_offload: bool

    def write_from(self, view: memoryview) -> bool: ...


class Messages(NamedTuple):
    """A run of messages of one session within a train: `number` of them from `first`.

    `last` is the plaintext size of the last of them.
    """

    rows: Rows
    first: int
    number: int
    last: int

    def size(self, index: int) -> int:
        """Plaintext bytes of message `index` of the train."""
        return self.last if index == self.first + self.number - 1 else self.rows.plain


class Ingress:
    """Datagrams of the peers, in to the host."""

    def __init__(
        self, engine: Engine, tun: PacketSink, udp: TrainSource, carry_out: Callable[[], None]
    ) -> None:
        """`carry_out` delivers what the engine's readable path has made, at once."""
        self._engine = engine
        self._device = engine.device
        self._udp = udp
        self._write = tun.write_from
        self._carry_out = carry_out
        self._slab = Slab()
        self._merger = Merger(udp=tun.udp_offload)
        self._flows: dict[bytes, Peer] = {}
        self._known: tuple[object, int, int] = (None, 0, 0)

    # 1. Receive.

    def turn(self, fd: int, now: int) -> None:
        """One train."""
        train = self._udp.receive_train(fd, self._slab.buffer)
        if train is None:
            return
        size, stride, endpoint = train.size, train.stride, train.endpoint
        if stride < TRANSPORT_OVERHEAD or size > stride * self._slab.rows(stride).room:
            self._readable(0, size, max(stride, 1), endpoint, now)
            return
        self._check_flows()
        rows = self._slab.rows(stride)
        count = -(-size // stride)
        last = size - (count - 1) * stride - TRANSPORT_OVERHEAD
        if last < 0:  # Too short for a transport message.
            count -= 1
            self._readable(count * stride, size, stride, endpoint, now)
            last = rows.plain
        self._split(rows, count, last, endpoint, now)

    def _readable(self, start: int, end: int, stride: int, source: Endpoint, now: int) -> None:
        """The engine's own path, datagram by datagram."""
        view = self._slab.view
        self._engine.receive(
            [
                Datagram(bytes(view[at : min(at + stride, end)]), source)
                for at in range(start, end, stride)
            ],
            now=now,
        )
        self._carry_out()

    # 2. Type and index.

    def _split(self, rows: Rows, count: int, last: int, source: Endpoint, now: int) -> None:
        """Runs of messages with the same type and index."""
        heads = rows.heads[:count]
        bounds = [0, count]
        if count > 1 and (heads != heads[0]).any():
            bounds[1:1] = (np.flatnonzero(heads[1:] != heads[:-1]) + 1).tolist()
        for first, end in itertools.pairwise(bounds):
            size = last if end == count else rows.plain
            self._run(Messages(rows, first, end - first, size), int(heads[first]), source, now)

    # 3. Session, age, counters.

    def _run(self, run: Messages, head: int, source: Endpoint, now: int) -> None:
        device, rows, first = self._device, run.rows, run.first
        end = first + run.number
        session = device.indices.get(head >> 32) if head & 0xFFFFFFFF == TYPE_TRANSPORT else None
        counters = rows.counters[first:end]
        if (
            not isinstance(session, Session)
            or not device.up
            or session.expired(now, device.parameters)
            or int(counters.max()) >= device.parameters.reject_after_messages
        ):
            stop = (end - 1) * rows.stride + run.last + TRANSPORT_OVERHEAD
            self._readable(first * rows.stride, stop, rows.stride, source, now)
            return
        # 4. Open.
        decrypt_into = cast(OpenSslAead, session.receiver).cipher.decrypt_into
        wrong = rows.open(decrypt_into, first, run.number, run.last, TagMismatch)
        # 5. The replay window.
        start = int(counters[0])
        ascending = (
            not wrong
            and int(counters[-1]) - start == run.number - 1
            and bool((counters == ARANGE[: run.number] + np.uint64(start)).all())
        )
        if ascending and session.window.accept_run(start, run.number):
            self._accepted(session, run, source, now)
        else:
            self._one_by_one(session, run, frozenset(wrong), source, now)

    def _one_by_one(
        self,
        session: Session,
        run: Messages,
        wrong: frozenset[int],
        source: Endpoint,
        now: int,
    ) -> None:
        """Each counter by itself; what is left of the run in pieces."""
        counters = run.rows.counters
        begin = run.first
        end = run.first + run.number
        for index in range(begin, end):
            reason = (
                DropReason.TAG_INVALID
                if index in wrong
                else session.window.accept(int(counters[index]))
            )
            if reason is not None:
                size = run.size(index) + TRANSPORT_OVERHEAD
                self._device.drop(reason, now, peer=session.peer, endpoint=source, size=size)
                if index > begin:
                    piece = Messages(run.rows, begin, index - begin, run.rows.plain)
                    self._accepted(session, piece, source, now)
                begin = index + 1
        if begin < end:
            piece = Messages(run.rows, begin, end - begin, run.last)
            self._accepted(session, piece, source, now)

    def _accepted(self, session: Session, run: Messages, source: Endpoint, now: int) -> None:
        """The books of authentic, fresh messages; then deliver them."""
        device, peer, rows = self._device, session.peer, run.rows
        total = (run.number - 1) * rows.stride + run.last + TRANSPORT_OVERHEAD
        inbound.authenticated(device, session, source, total, now)
        count, last = run.number, run.last
        if last == 0:  # A keepalive; if rows.plain is 0, all of them are.
            keepalives = count if rows.plain == 0 else 1
            device.events.extend([KeepaliveReceived(now, peer.public_key)] * keepalives)
            count, last = count - keepalives, rows.plain
            if count == 0:
                return
        peer.timers.data_received(now)
        device.reschedule(peer)
        self._deliver(peer, Messages(rows, run.first, count, last), now)

    # 6. Inner source and policy, per flow.

    def _check_flows(self) -> None:
        """Forget what was learnt before the policy or the allowed IPs changed."""
        device = self._device
        known = (device.policy, device.policy.generation, device.allowed_ips.generation)
        if known != self._known:
            self._known = known
            self._flows.clear()

    def _allowed(self, packet: memoryview, peer: Peer) -> int:
        """Total length of a well-formed packet that may pass; 0: ask the readable path."""
        size = len(packet)
        first = packet[0]
        if first >> 4 == 4 and size >= 20:
            total = packet[2] << 8 | packet[3]
            if not 20 <= (first & 15) * 4 <= total <= size:
                return 0
            key = bytes(packet[12:20])
        elif first >> 4 == 6 and size >= 40:
            total = 40 + (packet[4] << 8 | packet[5])
            if total > size:
                return 0
            key = bytes(packet[8:40])
        else:
            return 0
        if self._flows.get(key) is peer or self._learn(key, packet, total, peer):
            return total
        return 0

    def _learn(self, key: bytes, packet: memoryview, total: int, peer: Peer) -> bool:
        """Ask allowed IPs and policy; False: refused, or not to be remembered."""
        device = self._device
        addresses = read_addresses(packet)
        if addresses is None or device.allowed_ips.lookup(addresses.source) is not peer:
            return False
        verdict = device.policy.ingress(
            addresses.source, addresses.destination, peer.public_key, packet[:total]
        )
        if verdict.action is not Action.ACCEPT or verdict.per_packet:
            return False
        if len(self._flows) >= MAX_FLOWS:
            self._flows.clear()
        self._flows[key] = peer
        return True

    # 7. Merge and write.

    def _deliver(self, peer: Peer, run: Messages, now: int) -> None:
        """Write the packets to the TUN device, merged where that is exact."""
        rows, at, end = run.rows, run.first, run.first + run.number
        while at < end:
            used = 1
            merged: memoryview | None = None
            if end - at > 1 and self._allowed(rows.plaintexts[at], peer):
                used, merged = self._merger.merge(rows, at, end - at, run.last)
            if merged is not None:
                self._device.delivered.add(used, len(merged) - VNET_SIZE)
                if not self._write(merged):
                    self._refused(used, now)
            else:
                for index in range(at, at + used):
                    self._deliver_alone(peer, rows, index, run.size(index), now)
            at += used

    def _deliver_alone(self, peer: Peer, rows: Rows, index: int, size: int, now: int) -> None:
        slab, start = self._slab, index * rows.stride + BODY
        packet = slab.view[start : start + size]
        total = self._allowed(packet, peer)
        if not total:
            inbound.deliver(self._device, peer, bytes(packet), now)
            self._carry_out()
            return
        self._device.delivered.add(1, total)
        slab.buffer[start - VNET_SIZE : start] = NO_OFFLOAD
        if not self._write(slab.view[start - VNET_SIZE : start + total]):
            self._refused(1, now)

    def _refused(self, count: int, now: int) -> None:
        for _ in range(count):
            self._device.drop(DropReason.TUN_WRITE_FAILED, now, direction=Direction.INGRESS)

"""The send path in batches; the numbers are those of `pipeline`'s list.

Packets are read into consecutive slots.  Each slot leaves room before the packet for its
transport header (where the virtio header was) and behind it for padding and tag, so a
lone packet is sealed and sent in place.  A super-packet extends over the slots behind it,
and reading stops there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from wgpy.dataplane.flows import Flows
from wgpy.dataplane.interpreted import INTERPRETED
from wgpy.dataplane.offload import (
    GSO_NONE,
    MAX_PACKET,
    NEEDS_CSUM,
    NO_OFFLOAD,
    VNET,
    VNET_SIZE,
    SuperPacket,
    complete_checksum,
    describe,
)
from wgpy.dataplane.offload_segment import Splitter, all_equal, cuts
from wgpy.dataplane.train_tools import Cut, Rows, Tools
from wgpy.protocol import outbound
from wgpy.protocol.constants import (
    TAG_SIZE,
    TRANSPORT_HEADER_SIZE,
    TRANSPORT_OVERHEAD,
    TYPE_TRANSPORT,
)
from wgpy.protocol.crypto.openssl import OpenSslAead
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import Direction
from wgpy.protocol.messages import TRANSPORT_HEADER
from wgpy.protocol.packet import padded_size, read_addresses
from wgpy.protocol.peer import Peer
from wgpy.protocol.policy import ENCRYPT, Action, Verdict
from wgpy.protocol.session import Session

TURN: Final = 64
"""Packets read in one turn."""
MAX_SUPERS: Final = 8
"""Super-packets sent in one turn, while they follow each other."""
MIN_RUN: Final = 4
"""Array operations are cheaper from this many equal packets on."""
MAX_PLANS: Final = 256
"""Segmentation plans that are cached."""

_pack_header: Final = TRANSPORT_HEADER.pack_into
_pack_nonce: Final = struct.Struct("<4xQ").pack


class PacketSource(Protocol):
    """A TUN device with virtio headers."""

    mtu: int

    def read_into(self, views: Sequence[memoryview], large: int) -> list[int]: ...


class TrainSink(Protocol):
    """Takes datagrams of equal size; returns how many were refused."""

    def send_train(self, train: memoryview, stride: int, endpoint: Endpoint) -> int: ...


class _Slots:
    """Where packets are read to: packet i begins at ``HEAD + i * stride``."""

    HEAD: Final = TRANSPORT_HEADER_SIZE

    def __init__(self, mtu: int) -> None:
        # A small super-packet fits a slot, and cutting it needs one more segment.
        room = self.HEAD + 2 * mtu + TAG_SIZE
        self.mtu = mtu
        self.stride = room + 63 & ~63
        # A super-packet in the last slot, and one more segment (see `segment`).
        self.buffer = bytearray(TURN * self.stride + 2 * MAX_PACKET + 64)
        self.view = memoryview(self.buffer)
        self.starts = range(self.HEAD, self.HEAD + TURN * self.stride, self.stride)
        self.targets = [self.view[s - VNET_SIZE : s + MAX_PACKET] for s in self.starts]


class Target(NamedTuple):
    """A peer that can be sent to now, and what to seal with."""

    peer: Peer
    session: Session
    endpoint: Endpoint
    aead: OpenSslAead


class Plan(NamedTuple):
    """A super-packet, where its segments go, and its trains: cut and last plaintext size."""

    whole: SuperPacket
    rows: Rows
    trains: list[tuple[Cut, int]]


class Egress:
    """The send path: inner packets of the host leave through the tunnel."""

    def __init__(
        self,
        engine: Engine,
        tun: PacketSource,
        udp: TrainSink,
        carry_out: Callable[[], None],
        tools: Tools = INTERPRETED,
    ) -> None:
        """`carry_out` sends what the engine's readable path has made, at once."""
        self._engine = engine
        self._device = engine.device
        self._tun = tun
        self._udp = udp
        self._carry_out = carry_out
        self._slots = _Slots(tun.mtu)
        self._slab = tools.slab()
        self._segmenter = tools.segmenter()
        self._splitter = Splitter()
        self._plans: dict[tuple[object, ...], Plan] = {}
        self.flows = Flows(engine.device)
        self._sent: dict[Peer, int] = {}
        self._refused = 0
        self._lone = True

    def turn(self, now: int) -> None:
        """Read what is ready (1), send it, update timers and counters (7)."""
        self.flows.refresh()
        large, count = self._tun.mtu + VNET_SIZE, 0
        for number in range(MAX_SUPERS):
            # Where packets come singly, the first is sent before a second is read.
            lone = self._lone and number == 0
            sizes = self._read(lone)
            count += len(sizes)
            at = 0
            while at < len(sizes):
                at = self._dispatch(at, sizes, now)
            if not sizes or (sizes[-1] <= large and not lone):
                break
        self._lone = count == 1
        if self._sent:
            self._account(now)

    # 1. Read.

    def _read(self, lone: bool) -> list[int]:
        """Read packets (only one if `lone`) into the slots; their sizes, with virtio header."""
        slots = self._slots
        if slots.mtu != self._tun.mtu:
            slots = self._slots = _Slots(self._tun.mtu)
        targets = slots.targets[:1] if lone else slots.targets
        return self._tun.read_into(targets, slots.mtu + VNET_SIZE)

    # 2. Policy and allowed IPs, per flow.

    def _key(self, start: int, size: int) -> bytes | None:
        """Source and destination of a well-formed packet, joined."""
        buffer = self._slots.buffer
        first = buffer[start]
        if first >> 4 == 4:
            total = buffer[start + 2] << 8 | buffer[start + 3]
            if size >= 20 and 20 <= (first & 15) * 4 <= total <= size:
                return bytes(buffer[start + 12 : start + 20])
        elif first >> 4 == 6 and size >= 40:
            total = 40 + (buffer[start + 4] << 8 | buffer[start + 5])
            if total <= size:
                return bytes(buffer[start + 8 : start + 40])
        return None

    def _learn(self, key: bytes, start: int, size: int) -> tuple[Peer | None, Verdict | None]:
        """Ask policy and allowed IPs for a new flow.

        Returns the peer if the flow is encrypted from now on without asking again, and the
        verdict, which travels with the packet so that the policy is asked once.
        """
        packet = self._slots.view[start : start + size]
        addresses = read_addresses(packet)
        if addresses is None:
            return None, None
        verdict = self._device.policy.egress(addresses.source, addresses.destination, packet)
        peer = self._device.allowed_ips.lookup(addresses.destination)
        if verdict.action is Action.PLAINTEXT or verdict.per_packet:
            return None, verdict
        if verdict.action is not Action.ENCRYPT:
            self.flows.refuse(key, verdict.reason or DropReason.POLICY_DENIED)
            return None, verdict
        if peer is None:
            self.flows.refuse(key, DropReason.NO_PEER)
            return None, verdict
        if self._device.is_endpoint(addresses.destination):
            # It may be our own datagram: the readable path checks each one.
            return None, verdict
        self.flows.remember(key, peer)
        return peer, verdict

    # 3. The session.

    def _target(self, peer: Peer, now: int) -> Target | None:
        """What is needed to send now; None: the readable path must stage or shake hands."""
        session, device = peer.current, self._device
        if session is None or peer.endpoint is None or peer.staged or not device.up:
            return None
        parameters = device.parameters
        if not session.can_send(now, parameters):
            return None
        # A super-packet may need this many counters; at the end, one packet at a time.
        if session.next_counter + MAX_PACKET > parameters.reject_after_messages:
            return None
        aead = session.sender
        if not isinstance(aead, OpenSslAead):  # The other backends cannot seal in place.
            return None
        return Target(peer, session, peer.endpoint, aead)

    def _dispatch(self, at: int, sizes: list[int], now: int) -> int:
        """Send the packet in slot `at`, and those after it that go with it; the next slot."""
        slots = self._slots
        start, size = slots.starts[at], sizes[at] - VNET_SIZE
        key = self._key(start, size)
        target, verdict = None, None
        if key is not None:
            peer = self.flows.get(key)
            if peer is None:
                reason = self.flows.refused.get(key)
                if reason is not None:
                    self._refuse(reason, start, size, now)
                    return at + 1
                peer, verdict = self._learn(key, start, size)
            else:
                verdict = ENCRYPT
            target = None if peer is None else self._target(peer, now)
        if target is None:
            self._readable(start, size, verdict, now)
            return at + 1
        vnet = slots.buffer[start - VNET_SIZE : start]
        if vnet[1] != GSO_NONE:
            self._send_super(target, start, size, now)
            return at + 1
        run = 1
        if at + MIN_RUN <= len(sizes) and sizes[at + 1] == sizes[at]:
            run = self._run_length(at, sizes)
        if run >= MIN_RUN and self._send_run(target, start, size, run, vnet):
            return at + run
        self._send_single(target, start, size, vnet)
        return at + 1

    def _refuse(self, reason: DropReason, start: int, size: int, now: int) -> None:
        """A packet of a flow that is refused.  There may be a flood of them: nothing is copied."""
        device, slots = self._device, self._slots
        if not device.up or slots.buffer[start - VNET_SIZE + 1] != GSO_NONE:
            self._readable(start, size, Verdict(Action.DROP, reason), now)
            return
        packet = slots.view[start : start + size]
        device.drop(reason, now, direction=Direction.EGRESS, packet=packet)

    def _readable(self, start: int, size: int, verdict: Verdict | None, now: int) -> None:
        """Give the packets to the engine's readable path, one at a time."""
        packets = self._splitter.packets(self._slots.buffer, start, size)
        self._engine.send(packets, now=now, verdict=verdict)
        self._carry_out()

    # 4. Cut or gather, 5. seal, 6. send.

    def _send_super(self, target: Target, start: int, size: int, now: int) -> None:
        slots = self._slots
        plan = self._plan(start, size)
        if plan is None:
            self._device.drop(
                DropReason.MALFORMED,
                now,
                direction=Direction.EGRESS,
                packet=slots.view[start : start + size],
            )
            return
        whole, rows, trains = plan
        for cut, last in trains:
            self._segmenter.segment(rows, slots.buffer, start, whole, cut)
            inner = cut.segments * whole.shape.length
            inner += (cut.segments - 1) * cut.width + cut.last
            self._send_rows(target, rows, cut.segments, last, inner)

    def _plan(self, start: int, size: int) -> Plan | None:
        """How to segment a super-packet; cached, since bulk traffic repeats it."""
        buffer = self._slots.buffer
        vnet = VNET.unpack_from(buffer, start - VNET_SIZE)
        # All that `describe` looks at: version and IPv4 header length, TCP's data offset.
        offset = start + vnet[4] + 12
        odd = buffer[offset] if offset < start + size else -1
        key = (vnet, size, buffer[start], odd, self._device.mtu)
        plan = self._plans.get(key)
        if plan is None:
            whole = describe(self._slots.view[start : start + size], vnet)
            if whole is None:
                return None
            mtu, header = self._device.mtu, whole.shape.length
            rows = self._slab.rows(padded_size(header + whole.width, mtu) + TRANSPORT_OVERHEAD)
            trains = [
                (cut, rows.plain)
                if cut.last == cut.width
                else (cut, padded_size(header + cut.last, mtu))
                for cut in cuts(whole, rows.capacity)
            ]
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = Plan(whole, rows, trains)
        return plan

    def _run_length(self, at: int, sizes: list[int]) -> int:
        """How many packets from slot `at` on may share a train."""
        buffer, starts, size = self._slots.buffer, self._slots.starts, sizes[at]
        start = starts[at]
        # Everything before the IPv4 identification or the IPv6 hop limit, and the addresses.
        head = 6 if buffer[start] >> 4 == 6 else 4
        first, end = (8, 40) if head == 6 else (12, 20)
        stride, left = self._slots.stride, len(sizes) - at
        if (
            sizes.count(size) == len(sizes)
            and all_equal(buffer, start - VNET_SIZE, stride, left, VNET_SIZE + head)
            and all_equal(buffer, start + first, stride, left, end - first)
        ):
            return left
        same = buffer[start - VNET_SIZE : start + head]
        addresses = buffer[start + first : start + end]
        run = 1
        for index in range(at + 1, len(sizes)):
            start = starts[index]
            if (
                sizes[index] != size
                or buffer[start - VNET_SIZE : start + head] != same
                or buffer[start + first : start + end] != addresses
            ):
                break
            run += 1
        return run

    def _send_run(self, target: Target, start: int, size: int, run: int, vnet: bytearray) -> bool:
        """Gather and send equal packets; False, with nothing done, for odd checksum offsets."""
        flags, _, _, _, l4, offset = VNET.unpack(vnet)
        unfinished = flags & NEEDS_CSUM
        if unfinished and (l4 & 1 or offset & 1 or l4 + offset + 2 > size):
            return False
        checksum = (l4, offset) if unfinished else None
        rows = self._slab.rows(padded_size(size, self._device.mtu) + TRANSPORT_OVERHEAD)
        done = 0
        while done < run:
            count = min(run - done, rows.capacity)
            slots = self._slots
            self._segmenter.gather(
                rows, slots.buffer, start + done * slots.stride, slots.stride, count, size, checksum
            )
            self._send_rows(target, rows, count, rows.plain, count * size)
            done += count
        return True

    def _send_rows(self, target: Target, rows: Rows, count: int, last: int, inner: int) -> None:
        """Label, seal and send a train with `inner` bytes of packets, padding left out."""
        peer, session, endpoint, aead = target
        counters = session.reserve(count, self._device.parameters)
        train = rows.seal(aead, count, last, session.remote_index, counters.start)
        refused = self._udp.send_train(train, rows.stride, endpoint)
        self._sent[peer] = self._sent.get(peer, 0) + len(train)
        self._device.encrypted.add(count, inner)
        if refused:
            self._refused += refused

    def _send_single(self, target: Target, start: int, size: int, vnet: bytearray) -> None:
        """Seal a packet in place and send it."""
        view, buffer = self._slots.view, self._slots.buffer
        if vnet != NO_OFFLOAD and vnet[0] & NEEDS_CSUM:
            _, _, _, _, l4, offset = VNET.unpack(vnet)
            complete_checksum(view[start : start + size], l4, offset)
        plain = padded_size(size, self._device.mtu)
        end = start + plain
        if plain > size:
            buffer[start + size : end] = bytes(plain - size)
        peer, session, endpoint, aead = target
        counter = session.reserve(1, self._device.parameters).start
        begin = start - TRANSPORT_HEADER_SIZE
        _pack_header(buffer, begin, TYPE_TRANSPORT, session.remote_index, counter)
        whole = view[begin : end + TAG_SIZE]
        body = whole[TRANSPORT_HEADER_SIZE:]
        aead.cipher.encrypt_into(_pack_nonce(counter), body[:plain], None, body)
        refused = self._udp.send_train(whole, len(whole), endpoint)
        self._sent[peer] = self._sent.get(peer, 0) + len(whole)
        self._device.encrypted.add(1, size)
        if refused:
            self._refused += refused

    # 7. Timers and counters.

    def _account(self, now: int) -> None:
        """Timers, byte counts and rekeying, once per peer and turn."""
        device, sent = self._device, self._sent
        self._sent = {}
        for peer, size in sent.items():
            outbound.note_sent(device, peer, size, now, content=True)
            session = peer.current
            if session is not None and session.wants_rekey_to_send(now, device.parameters):
                outbound.initiate(device, peer, now)
        for _ in range(self._refused):
            device.drop(DropReason.UDP_SEND_FAILED, now, direction=Direction.EGRESS)
        self._refused = 0

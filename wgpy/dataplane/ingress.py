"""The receive path in batches; the numbers are those of `pipeline`'s list.

Messages are opened in the buffer they were received into.  A message's sixteen-byte header
leaves room for the virtio header that the TUN device expects before a packet, so a packet
that is not merged is written in place.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import numpy as np

from wgpy.dataplane.flows import Flows
from wgpy.dataplane.interpreted import INTERPRETED
from wgpy.dataplane.offload import MAX_MESSAGES, NO_OFFLOAD, VNET, VNET_SIZE, describe
from wgpy.dataplane.train_tools import SLAB_SIZE, Rows, Tools
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
from wgpy.protocol.policy import Action, Verdict
from wgpy.protocol.session import Session

MAX_LONG: Final = 8
LONG: Final = 1 << 15
"""Trains of at least this size, in bytes, are taken one after the other in one turn."""
MAX_REFUSED: Final = 32
"""Lone datagrams that bring nothing are taken one after the other, too: where there is one
there are many, and the packets of the peers wait behind them."""

BODY: Final = TRANSPORT_HEADER_SIZE

_read_header: Final = struct.Struct("<QQ").unpack_from
"""Type and index as one number (`train.message_head`), and the counter."""
_pack_nonce: Final = struct.Struct("<4xQ").pack


class Train(Protocol):
    """`size` bytes of datagrams of `stride` bytes, the last perhaps shorter."""

    @property
    def size(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def endpoint(self) -> Endpoint: ...


class TrainSource(Protocol):
    """Receives the datagrams of one source as a train."""

    def receive_train(self, fd: int, buffer: memoryview, /) -> Train | None:
        """The next train, read into `buffer` (at least 64 KiB); None when none is ready."""


class _Gathered(NamedTuple):
    """A `Train` put together from datagrams that came singly."""

    size: int
    stride: int
    endpoint: Endpoint


class PacketSink(Protocol):
    """A TUN device with virtio headers."""

    udp_offload: bool
    given_up: set[int]
    """IP protocols whose packets are not to be merged any more; grows."""

    def write_from(self, view: memoryview) -> bool: ...


Judged = tuple[int, Verdict | None]
"""Total length of a well-formed packet that may pass, else 0 and the verdict that refused it.
The verdict travels with the packet, so that the policy is asked once."""
UNKNOWN: Final = (0, None)
"""The readable path parses the packet and asks the policy."""


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
    """The receive path: datagrams of the peers become inner packets for the host."""

    def __init__(
        self,
        engine: Engine,
        tun: PacketSink,
        udp: TrainSource,
        carry_out: Callable[[], None],
        tools: Tools = INTERPRETED,
    ) -> None:
        """`carry_out` sends and delivers at once what the engine's readable path queued."""
        self._engine = engine
        self._device = engine.device
        self._receive = udp.receive_train
        self._write = tun.write_from
        self._given_up = tun.given_up
        self._carry_out = carry_out
        self._slab = tools.slab()
        self._merger = tools.merger(udp=tun.udp_offload)
        self.flows = Flows(engine.device)
        self._lone = True

    # 1. Receive.

    def turn(self, fd: int, now: int) -> None:
        """Receive from one socket: one train, or several in a row (see above).

        Datagrams that came singly (no GSO at the peer, no GRO here) are gathered into trains.
        """
        self.flows.refresh()
        view, long, refused, messages = self._slab.view, 0, 0, 0
        ahead: Train | None = None
        # Where datagrams come one at a time, the first is delivered before a second is read.
        lone = self._lone
        while long < MAX_LONG and refused < MAX_REFUSED:
            train = self._receive(fd, view) if ahead is None else ahead
            if train is None:
                break
            ahead = None
            if not lone:
                train, ahead = self._gather(fd, train)
            useful = self._take(train, now)
            if ahead is not None:
                view[: ahead.size] = view[train.size : train.size + ahead.size]
            if not useful:
                refused += 1
                continue
            messages += -(-train.size // max(train.stride, 1))
            if ahead is None and train.size < LONG and not lone:
                break
            long, lone = long + 1, False
        if ahead is not None:
            self._take(ahead, now)
        self._lone = messages <= 1 and ahead is None

    def _gather(self, fd: int, first: Train) -> tuple[Train, Train | None]:
        """Receive more transport data of the same size and source behind a single datagram.

        Returns them as a train, which ends as trains do (full, or with a shorter datagram), and
        what was received after it and does not belong to it: it lies behind the train.
        Handshake messages are not gathered, so that their number per turn stays bounded.
        """
        stride, endpoint, buffer = first.size, first.endpoint, self._slab.buffer
        if not TRANSPORT_OVERHEAD <= stride <= first.stride or buffer[0] != TYPE_TRANSPORT:
            return first, None
        view, at = self._slab.view, stride
        ahead: Train | None = None
        while at + stride <= min(SLAB_SIZE // 2, MAX_MESSAGES * stride):
            found = self._receive(fd, view[at:])
            if found is None:
                break
            if (
                not 0 < found.size <= min(stride, found.stride)
                or found.endpoint != endpoint
                or buffer[at] != TYPE_TRANSPORT
            ):
                ahead = found
                break
            at += found.size
            if found.size < stride:
                break
        return _Gathered(at, stride, endpoint), ahead

    def _take(self, train: Train, now: int) -> bool:
        """Handle the datagrams at the front of the slab; False for a lone one without use."""
        size, stride, endpoint = train.size, train.stride, train.endpoint
        if size <= stride:
            return self._single(size, endpoint, now)
        if stride < TRANSPORT_OVERHEAD or size > SLAB_SIZE // 2:
            self._readable(0, size, max(stride, 1), endpoint, now)
        else:
            self._train(size, stride, endpoint, now)
        return True

    def _train(self, size: int, stride: int, endpoint: Endpoint, now: int) -> None:
        rows = self._slab.rows(stride)
        count = -(-size // stride)
        last = size - (count - 1) * stride - TRANSPORT_OVERHEAD
        if last < 0:  # Too short for a transport message.
            count, last = count - 1, rows.plain
        if count > rows.room:
            count, last = rows.room, rows.plain
        self._rows(rows, count, last, endpoint, now)
        taken = (count - 1) * stride + last + TRANSPORT_OVERHEAD
        if taken < size:  # Behind the rows, and not further than the train goes.
            self._readable(taken, size, stride, endpoint, now)

    def _rows(self, rows: Rows, count: int, last: int, endpoint: Endpoint, now: int) -> None:
        """`count` messages, the last with `last` bytes of plaintext."""
        stride = rows.stride
        # 2. Type and index: usually all the same.
        head = self._slab.buffer[:8]
        if rows.heads[:count].tobytes() == head * count:
            run = Messages(rows, 0, count, last)
            self._run(run, int.from_bytes(head, "little"), endpoint, now)
        elif TYPE_TRANSPORT not in rows.bytes[:count, 0].tobytes():  # A flood of handshakes.
            end = (count - 1) * stride + last + TRANSPORT_OVERHEAD
            self._readable(0, end, stride, endpoint, now)
        else:
            self._split(rows, count, last, endpoint, now)

    def _readable(self, start: int, end: int, stride: int, source: Endpoint, now: int) -> None:
        """Give the datagrams to the engine's readable path, one at a time."""
        view = self._slab.view
        self._engine.receive(
            [
                Datagram(bytes(view[at : min(at + stride, end)]), source)
                for at in range(start, max(end, start + 1), stride)  # One may be empty.
            ],
            now=now,
        )
        self._carry_out()

    def _split(self, rows: Rows, count: int, last: int, source: Endpoint, now: int) -> None:
        """Runs of messages with the same type and index."""
        heads = rows.heads[:count].copy()
        bounds = [0, *(np.flatnonzero(heads[1:] != heads[:-1]) + 1).tolist(), count]
        for first, end in itertools.pairwise(bounds):
            size = last if end == count else rows.plain
            self._run(Messages(rows, first, end - first, size), int(heads[first]), source, now)

    # 3. Session, age, counters.

    def _session(self, head: int, greatest: int, now: int) -> tuple[Session, OpenSslAead] | None:
        """The session of this type and index and what to open with; None: do not open here."""
        device = self._device
        if head & 0xFFFFFFFF != TYPE_TRANSPORT or not device.up:
            return None
        session = device.indices.get(head >> 32)
        if (
            not isinstance(session, Session)
            or session.expired(now, device.parameters)
            or greatest >= device.parameters.reject_after_messages
        ):
            return None
        aead = session.receiver
        # The other backends cannot open in place.
        return (session, aead) if isinstance(aead, OpenSslAead) else None

    def _run(self, run: Messages, head: int, source: Endpoint, now: int) -> None:
        rows, first, count, last = run
        counters = rows.counters[first : first + count]
        start = int(counters[0])
        ascending = rows.ascending(first, count)
        greatest = start + count - 1 if ascending else int(counters.max())
        found = self._session(head, greatest, now)
        if found is None:
            stride = rows.stride
            stop = (first + count - 1) * stride + last + TRANSPORT_OVERHEAD
            self._readable(first * stride, stop, stride, source, now)
            return
        session, aead = found
        # 4. Open.
        wrong = rows.open(aead, first, count, last)
        # 5. The replay window.
        if ascending and not wrong and session.window.accept_run(start, count):
            self._accepted(session, run, source, now)
        else:
            self._one_by_one(session, run, frozenset(wrong), source, now)

    def _single(self, size: int, source: Endpoint, now: int) -> bool:
        """Steps 2 to 6 for a datagram that came alone; whether it was a message of a peer."""
        slab = self._slab
        found = None
        if size >= TRANSPORT_OVERHEAD:
            head, counter = _read_header(slab.buffer)
            found = self._session(head, counter, now)
        if found is None:
            self._engine.receive([Datagram(bytes(slab.view[:size]), source)], now=now)
            self._carry_out()
            return False
        session, aead = found
        device, peer = self._device, session.peer
        plain = size - TRANSPORT_OVERHEAD
        sealed = slab.view[BODY:size]
        reason: DropReason | None
        try:
            aead.cipher.decrypt_into(_pack_nonce(counter), sealed, None, sealed[:plain])
            reason = session.window.accept(counter)
        except TagMismatch:
            reason = DropReason.TAG_INVALID
        if reason is not None:
            device.drop(reason, now, peer=peer, endpoint=source, size=size)
            return False
        # Deliver before updating timers, unless the packet moves the endpoint or confirms
        # keys: the host's answer must use those.
        early = plain and session is peer.current and peer.endpoint == source
        if early:
            self._deliver_alone(peer, BODY, plain, now)
        inbound.authenticated(device, session, source, size, now)
        if plain:
            inbound.content_received(device, peer, now)
            if not early:
                self._deliver_alone(peer, BODY, plain, now)
        else:
            device.events.append(KeepaliveReceived(now, peer.public_key))
        return True

    def _one_by_one(
        self,
        session: Session,
        run: Messages,
        wrong: frozenset[int],
        source: Endpoint,
        now: int,
    ) -> None:
        """Check each counter separately and deliver the accepted parts of the run."""
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
        """Update timers and counters for authentic, fresh messages; then deliver them."""
        device, peer = self._device, session.peer
        rows, first, count, last = run
        total = (count - 1) * rows.stride + last + TRANSPORT_OVERHEAD
        inbound.authenticated(device, session, source, total, now)
        if last == 0:  # A keepalive; if rows.plain is 0, all of them are.
            keepalives = count if rows.plain == 0 else 1
            device.events.extend([KeepaliveReceived(now, peer.public_key)] * keepalives)
            count -= keepalives
            if count == 0:
                return
            run = Messages(rows, first, count, rows.plain)
        inbound.content_received(device, peer, now)
        self._deliver(peer, run, now)

    # 6. Inner source and policy, per flow.

    def _judge(self, packet: memoryview, peer: Peer) -> Judged:
        """Look up a packet's flow; length 0: the readable path decides."""
        size = len(packet)
        first = packet[0]
        if first >> 4 == 4 and size >= 20:
            total = packet[2] << 8 | packet[3]
            if not 20 <= (first & 15) * 4 <= total <= size:
                return UNKNOWN
            key = bytes(packet[12:20])
        elif first >> 4 == 6 and size >= 40:
            total = 40 + (packet[4] << 8 | packet[5])
            if total > size:
                return UNKNOWN
            key = bytes(packet[8:40])
        else:
            return UNKNOWN
        if self.flows.get(key) is peer:
            return total, None
        return self._learn(key, packet, total, peer)

    def _learn(self, key: bytes, packet: memoryview, total: int, peer: Peer) -> Judged:
        """Ask allowed IPs and policy; length 0: refused, or not to be cached."""
        device = self._device
        addresses = read_addresses(packet)
        if addresses is None or device.allowed_ips.lookup(addresses.source) is not peer:
            return UNKNOWN
        verdict = device.policy.ingress(
            addresses.source, addresses.destination, peer.public_key, packet[:total]
        )
        if verdict.action is not Action.ACCEPT or verdict.per_packet:
            return 0, verdict
        self.flows.remember(key, peer)
        return total, None

    # 7. Merge and write.

    def _deliver(self, peer: Peer, run: Messages, now: int) -> None:
        """Write the packets to the TUN device, merged where that is exact."""
        rows, at, count, last = run
        end = at + count
        while at < end:
            used, merged = 1, None
            first: Judged | None = None
            if end - at > 1:
                first = self._judge(rows.plaintexts[at], peer)
                if first[0] and not self._is_given_up(rows.plaintexts[at]):
                    used, merged = self._merger.merge(rows, at, end - at, last)
            if merged is not None:
                self._device.delivered.add(used, _size_apart(merged, used))
                if not self._write(merged):
                    self._refused(used, now)
            else:
                for index in range(at, at + used):
                    size = last if index == end - 1 else rows.plain
                    start = index * rows.stride + BODY
                    self._deliver_alone(peer, start, size, now, first if index == at else None)
            at += used

    def _is_given_up(self, packet: memoryview) -> bool:
        """Whether the device refuses to take packets of this protocol merged."""
        return bool(self._given_up) and packet[6 if packet[0] >> 4 == 6 else 9] in self._given_up

    def _deliver_alone(
        self, peer: Peer, start: int, size: int, now: int, judged: Judged | None = None
    ) -> None:
        """A packet of `size` bytes, padding included, at `start` of the slab."""
        slab = self._slab
        packet = slab.view[start : start + size]
        total, verdict = judged or self._judge(packet, peer)
        if not total:
            inbound.deliver(self._device, peer, bytes(packet), now, verdict)
            self._carry_out()
            return
        self._device.delivered.add(1, total)
        slab.buffer[start - VNET_SIZE : start] = NO_OFFLOAD
        if not self._write(slab.view[start - VNET_SIZE : start + total]):
            self._refused(1, now)

    def _refused(self, count: int, now: int) -> None:
        for _ in range(count):
            self._device.drop(DropReason.TUN_WRITE_FAILED, now, direction=Direction.INGRESS)


def _size_apart(merged: memoryview, count: int) -> int:
    """Bytes of the `count` packets that were merged: each has the headers of the whole."""
    whole = merged[VNET_SIZE:]
    described = describe(whole, VNET.unpack_from(merged))
    return len(whole) + (count - 1) * (described.shape.length if described else 0)

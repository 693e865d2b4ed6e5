"""What all peers of one device share: keys, tables, counters and output queues.

`inbound`, `outbound` and `configure` are functions over a `Device`; `engine` is its face.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from wgpy.protocol.allowedips import PrefixTable
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import Parameters
from wgpy.protocol.cookie import MacChecker
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.events import Direction, Event, PacketDropped
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.packet import read_addresses
from wgpy.protocol.peer import Peer
from wgpy.protocol.policy import PacketPolicy
from wgpy.protocol.ratelimit import LoadMeter, RateLimiter, ReplyLimiter
from wgpy.protocol.session import Session
from wgpy.protocol.tai64n import TimestampSource

MAX_EVENTS = 4096
_HEAD_BYTES = 64
_SCHEDULE_SLACK = 64


class HandshakeKeys(NamedTuple):
    """What Wireshark's key log needs to open one handshake; all secrets, so no repr."""

    static_private: PrivateKey
    remote_static: PublicKey
    ephemeral_private: bytes
    preshared_key: PresharedKey

    def __repr__(self) -> str:
        return "HandshakeKeys(<hidden>)"


class Forwarded:
    """Inner packets in one direction, and their bytes without padding."""

    __slots__ = ("bytes", "packets")

    def __init__(self) -> None:
        self.packets = 0
        self.bytes = 0

    def add(self, packets: int, size: int) -> None:
        """`packets` more, `size` bytes together."""
        self.packets += packets
        self.bytes += size


class Device:
    """Shared state.  All times in ns; `outbox`, `inbox` and `plaintext` are what leaves."""

    def __init__(
        self,
        crypto: Crypto,
        entropy: Callable[[int], bytes],
        timestamps: TimestampSource,
        parameters: Parameters,
        mtu: int,
        policy: PacketPolicy,
    ) -> None:
        self.crypto = crypto
        self.entropy = entropy
        self.timestamps = timestamps
        self.parameters = parameters
        self.mtu = mtu
        self.policy = policy
        self.up = True
        self.listen_port = 0
        self.fwmark = 0
        self.private_key: PrivateKey | None = None
        self.public_key: PublicKey | None = None
        self.checker: MacChecker | None = None
        self.peers: dict[PublicKey, Peer] = {}
        self.allowed_ips: PrefixTable[Peer] = PrefixTable()
        # Receiver index → the session, or the peer whose initiation it names (§5.4.2).
        self.indices: dict[int, Session | Peer] = {}
        self.limiter = RateLimiter(parameters.cookie_rate, parameters.cookie_burst)
        self.replies = ReplyLimiter(parameters.cookie_replies, parameters.cookie_replies_in_all)
        self.load = LoadMeter(
            parameters.under_load_backlog, parameters.handshake_drain, parameters.under_load_hold
        )
        self.outbox: list[Datagram] = []
        self.inbox: list[bytes] = []
        self.plaintext: list[bytes] = []
        self.drops: Counter[DropReason] = Counter()
        self.encrypted = Forwarded()
        self.released = Forwarded()
        """Returned to the host in plaintext, by the policy."""
        self.delivered = Forwarded()
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.trace_drops = False
        self.keylog: Callable[[HandshakeKeys], None] | None = None
        self._schedule: list[tuple[int, int, Peer]] = []
        self._schedule_ties = 0

    def is_endpoint(self, ip: bytes, port: int | None = None) -> bool:
        """Whether a peer's endpoint has this outer address (and this port, if given)."""
        return any(
            there is not None and there.ip == ip and port in (None, there.port)
            for there in (peer.endpoint for peer in self.peers.values())
        )

    def endpoint_moved(self) -> None:
        """Invalidate flow caches: a flow to the new address may hold our own datagrams."""
        self.allowed_ips.generation += 1

    def jitter(self) -> int:
        """0 to Parameters.rekey_timeout_jitter ns, so that peers do not synchronise (§6.1)."""
        return int.from_bytes(self.entropy(4)) * (self.parameters.rekey_timeout_jitter + 1) >> 32

    def new_index(self, owner: Session | Peer | None = None) -> int:
        """A random 32-bit index not in use, given to `owner` if there is one already."""
        while True:
            index = int.from_bytes(self.entropy(4))
            if index not in self.indices:
                if owner is not None:
                    self.indices[index] = owner
                return index

    def drop(
        self,
        reason: DropReason,
        now: int,
        *,
        peer: Peer | None = None,
        direction: Direction = Direction.INGRESS,
        endpoint: Endpoint | None = None,
        packet: Buffer = b"",
        size: int | None = None,
    ) -> None:
        """Count a discarded message or inner packet (`packet`) under its name."""
        self.drops[reason] += 1
        if peer is not None:
            peer.drops[reason] += 1
        if self.trace_drops:
            addresses = read_addresses(packet)
            self.events.append(
                PacketDropped(
                    at=now,
                    peer=None if peer is None else peer.public_key,
                    reason=reason,
                    direction=direction,
                    size=len(packet) if size is None else size,
                    endpoint=endpoint,
                    source=b"" if addresses is None else addresses.source,
                    destination=b"" if addresses is None else addresses.destination,
                    head=bytes(packet[:_HEAD_BYTES]),
                )
            )

    def release(self, sessions: Iterable[Session]) -> None:
        """Sessions left their slots: remove their indices."""
        for session in sessions:
            self.indices.pop(session.local_index, None)

    def erase_keys(self, peer: Peer) -> None:
        """Forget all key material of `peer` (§6.3)."""
        self.drop_initiation(peer)
        self.release(peer.erase())

    def drop_initiation(self, peer: Peer) -> None:
        """Forget the handshake that we began, with its index and ephemeral key."""
        if peer.initiation is not None:
            self.indices.pop(peer.initiation.local_index, None)
            self.crypto.forget(peer.initiation.ephemeral_private)
            peer.initiation = None

    def drop_staged(self, peer: Peer, reason: DropReason, now: int) -> None:
        """Empty the peer's queue, naming why."""
        while peer.staged:
            packet = peer.staged.popleft()
            if packet:
                self.drop(reason, now, peer=peer, direction=Direction.EGRESS, packet=packet)

    # The schedule: a heap of (time, tie, peer).  Traffic only pushes deadlines later, which
    # costs nothing here: an entry that comes up too early is put back at its true time.

    def reschedule(self, peer: Peer) -> None:
        """The peer's timers changed: check it no later than its next deadline."""
        at = peer.timers.earliest_at()
        if at is not None and (peer.scheduled_at is None or at < peer.scheduled_at):
            self._push(peer, at)

    def schedule_by(self, peer: Peer, at: int) -> None:
        """As `reschedule`, when `at` is the only deadline that is new."""
        if peer.scheduled_at is None or at < peer.scheduled_at:
            self.reschedule(peer)

    def earliest_entry(self) -> int | None:
        """A time not later than the earliest deadline; too early at worst, and cheap."""
        return self._schedule[0][0] if self._schedule else None

    def next_scheduled(self) -> Peer | None:
        """The peer with the earliest true deadline."""
        while self._schedule:
            at, _, peer = self._schedule[0]
            if peer.scheduled_at == at and peer.timers.earliest_at() == at:
                return peer
            heapq.heappop(self._schedule)
            if peer.scheduled_at == at:
                peer.scheduled_at = None
                if self.peers.get(peer.public_key) is peer:
                    self.reschedule(peer)
        return None

    def _push(self, peer: Peer, at: int) -> None:
        peer.scheduled_at = at
        if len(self._schedule) > 2 * len(self.peers) + _SCHEDULE_SLACK:
            # Entries overtaken by earlier ones pile up until their time: drop them.
            self._schedule = [e for e in self._schedule if e[2].scheduled_at == e[0]]
            heapq.heapify(self._schedule)
        self._schedule_ties += 1
        heapq.heappush(self._schedule, (at, self._schedule_ties, peer))

"""The engine: one WireGuard device without sockets, clock or randomness of its own.

It takes datagrams (`receive`), inner packets (`send`), configuration (`apply`) and the
time (`handle_deadline`), and returns datagrams, inner packets, events and the next
deadline.  Nothing blocks and nothing raises: invalid input from the network is dropped
under a name (`drops`).  All times are monotonic nanoseconds.

    engine.receive(datagrams, now=now)    engine.pull_datagrams()
    engine.send(packets, now=now)         engine.pull_packets(), engine.pull_plaintext()
    engine.handle_deadline(now=now)       engine.next_deadline()
    engine.apply(change, now=now)         engine.snapshot(), engine.next_event()

The readable path is all here and in `inbound`, `outbound`, `noise`; a batch pipeline may
use `device` and the bookkeeping functions that this path uses too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wgpy.protocol import configure, inbound, outbound
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import DEFAULT_PARAMETERS, Parameters
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.device import Device, HandshakeKeys
from wgpy.protocol.drops import DropReason
from wgpy.protocol.events import Direction, Event, HandshakeGaveUp, KeysErased
from wgpy.protocol.peer import Peer
from wgpy.protocol.policy import EncryptAll, PacketPolicy, Verdict
from wgpy.protocol.settings import DeviceChange, DeviceSnapshot
from wgpy.protocol.tai64n import TimestampSource
from wgpy.protocol.timers import Deadline, Timer


class Engine:
    """A WireGuard device, sans-IO."""

    def __init__(
        self,
        *,
        crypto: Crypto,
        entropy: Callable[[int], bytes],
        now: int,
        wall: int,
        parameters: Parameters = DEFAULT_PARAMETERS,
        mtu: int = 1420,
        policy: PacketPolicy | None = None,
    ) -> None:
        """`entropy(n)` gives n unpredictable bytes; `wall` is ns since 1970 at `now`."""
        self.device = Device(
            crypto,
            entropy,
            TimestampSource(now=now, wall=wall),
            parameters,
            mtu,
            EncryptAll() if policy is None else policy,
        )

    def receive(self, datagrams: Iterable[Datagram], *, now: int) -> None:
        """Take outer datagrams from the network."""
        for datagram in datagrams:
            inbound.receive_datagram(self.device, datagram, now)

    def send(
        self, packets: Iterable[bytes], *, now: int, verdict: Verdict | None = None
    ) -> None:
        """Take inner packets that the host sends.

        `verdict` is the policy's verdict on all of them (one flow), if it was asked already.
        """
        for packet in packets:
            outbound.send_packet(self.device, packet, now, verdict)

    def pull_datagrams(self) -> list[Datagram]:
        """Outer datagrams to send; each is returned once."""
        self.device.outbox, datagrams = [], self.device.outbox
        return datagrams

    def pull_packets(self) -> list[bytes]:
        """Inner packets to deliver to the host; each is returned once."""
        self.device.inbox, packets = [], self.device.inbox
        return packets

    def pull_plaintext(self) -> list[bytes]:
        """Inner packets that may leave unencrypted, by the policy; each is returned once."""
        self.device.plaintext, packets = [], self.device.plaintext
        return packets

    def next_deadline(self) -> Deadline | None:
        """When `handle_deadline` has something to do, and why; None: only after input."""
        peer = self.device.next_scheduled()
        return None if peer is None else peer.timers.earliest()

    def next_look(self) -> int | None:
        """When to call `handle_deadline`, for a loop that asks in every round.

        Never later than `next_deadline`; sometimes earlier, when traffic has postponed a
        deadline and the schedule was not updated yet.
        """
        return self.device.earliest_entry()

    def handle_deadline(self, *, now: int) -> None:
        """Do everything that is due at `now`; calling it early or late is harmless."""
        device = self.device
        while (peer := device.next_scheduled()) is not None:
            at = peer.timers.earliest_at()
            if at is None or at > now:
                return
            for timer in peer.timers.due(now):
                self._expire(peer, timer, now)
            device.reschedule(peer)

    def _expire(self, peer: Peer, timer: Timer, now: int) -> None:
        device = self.device
        match timer:
            case Timer.RETRY_HANDSHAKE:
                self._retry(peer, now)
            case Timer.NEW_HANDSHAKE:
                # The cause may be the local address: let the kernel choose a new one.
                if peer.endpoint is not None:
                    peer.endpoint = peer.endpoint.without_source()
                outbound.initiate(device, peer, now)
            case Timer.KEEPALIVE:
                outbound.send_keepalive(device, peer, now)
            case Timer.PERSISTENT_KEEPALIVE:
                # The next one is due even if nothing can be sent now.
                peer.timers.set_persistent(peer.timers.persistent_interval, now)
                outbound.send_keepalive(device, peer, now)
            case Timer.ZERO_KEYS:
                device.erase_keys(peer)
                device.events.append(KeysErased(now, peer.public_key))

    def _retry(self, peer: Peer, now: int) -> None:
        """§6.4: repeat the initiation until Rekey-Attempt-Time has passed."""
        device = self.device
        if now - peer.handshake_started_at >= device.parameters.rekey_attempt_time:
            peer.timers.handshake_given_up(now)
            device.drop_staged(peer, DropReason.HANDSHAKE_GAVE_UP, now)
            device.events.append(HandshakeGaveUp(now, peer.public_key))
            return
        if peer.endpoint is not None:
            peer.endpoint = peer.endpoint.without_source()
        outbound.initiate(device, peer, now, retry=True)

    def apply(self, change: DeviceChange, *, now: int) -> None:
        """Change the configuration; a `DeviceChange` is valid, so this cannot fail."""
        configure.apply(self.device, change, now)

    def rekey(self, *, now: int) -> int:
        """Begin a handshake with each peer that has a session; how many were begun.

        One begun less than Rekey-Timeout ago is not repeated (§6.1).
        """
        before = len(self.device.outbox)
        for peer in self.device.peers.values():
            if peer.current is not None and self.device.up:
                outbound.initiate(self.device, peer, now)
        return len(self.device.outbox) - before

    def press(self, *, now: int) -> None:
        """More handshake messages wait than can be read: we are under load (§5.3) for a while."""
        self.device.load.press(now)

    def set_up(self, up: bool, *, now: int) -> None:
        """The device was brought up or down; engines start up."""
        configure.set_up(self.device, up, now)

    def set_wall_clock(self, *, now: int, wall: int) -> None:
        """The wall clock says `wall` ns at `now`: a new anchor for timestamps."""
        self.device.timestamps.anchor(now=now, wall=wall)

    def snapshot(self) -> DeviceSnapshot:
        """The whole configuration and state."""
        return configure.snapshot(self.device)

    def next_event(self) -> Event | None:
        """The oldest event not read yet; the engine remembers the last 4096."""
        return self.device.events.popleft() if self.device.events else None

    def record_drop(
        self,
        reason: DropReason,
        *,
        now: int,
        direction: Direction = Direction.INGRESS,
        packet: Buffer = b"",
    ) -> None:
        """Count a packet that an edge of the data plane had to discard."""
        self.device.drop(reason, now, direction=direction, packet=packet)

    @property
    def drops(self) -> Mapping[DropReason, int]:
        """How often each reason discarded something."""
        return self.device.drops

    @property
    def trace_drops(self) -> bool:
        """Whether each drop becomes a `PacketDropped` event too (off: counted only)."""
        return self.device.trace_drops

    @trace_drops.setter
    def trace_drops(self, on: bool) -> None:
        self.device.trace_drops = on

    @property
    def keylog(self) -> Callable[[HandshakeKeys], None] | None:
        """Called with the keys of every handshake; for captures only."""
        return self.device.keylog

    @keylog.setter
    def keylog(self, sink: Callable[[HandshakeKeys], None] | None) -> None:
        self.device.keylog = sink

    @property
    def mtu(self) -> int:
        """MTU of the inner device in bytes; padding never exceeds it (§5.4.6)."""
        return self.device.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self.device.mtu = mtu

    @property
    def policy(self) -> PacketPolicy:
        """The routing table in front."""
        return self.device.policy

    @policy.setter
    def policy(self, policy: PacketPolicy) -> None:
        self.device.policy = policy

"""The send path: initiations, keepalives, inner packets.

Processing of an inner packet (§3):
1. The policy says encrypt, plaintext or drop.
2. Allowed IPs name the peer (`route`).
3. With a usable session it is padded, sealed and sent (`seal`).
4. Without one it waits in the peer's queue and a handshake starts (`flush`, `initiate`).
"""

from __future__ import annotations

from wgpy.protocol import noise
from wgpy.protocol.constants import TAG_SIZE, TRANSPORT_HEADER_SIZE, TYPE_TRANSPORT
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.device import Device, HandshakeKeys
from wgpy.protocol.drops import DropReason
from wgpy.protocol.events import Direction, InitiationSent, KeepaliveSent
from wgpy.protocol.keys import PrivateKey
from wgpy.protocol.messages import TRANSPORT_HEADER
from wgpy.protocol.own import comes_round
from wgpy.protocol.packet import Addresses, padded_size, read_addresses
from wgpy.protocol.peer import Peer
from wgpy.protocol.policy import Action, Verdict
from wgpy.protocol.session import Session
from wgpy.protocol.timers import Timer

KEEPALIVE = b""
"""An empty inner packet (§6.5)."""


def send_packet(device: Device, packet: bytes, now: int, verdict: Verdict | None = None) -> None:
    """Take one inner packet from the host; `verdict` is the policy's, if it was asked already."""
    addresses = read_addresses(packet)
    if not device.up:
        device.drop(DropReason.DEVICE_DOWN, now, direction=Direction.EGRESS, packet=packet)
        return
    if addresses is None:
        verdict = device.policy.malformed(packet)
    elif verdict is None:
        verdict = device.policy.egress(addresses.source, addresses.destination, packet)
    if verdict.action is Action.PLAINTEXT:
        device.plaintext.append(packet)
        device.released.add(1, len(packet))
    elif verdict.action is Action.ENCRYPT and addresses is not None:
        route(device, packet, addresses, now)
    else:
        reason = verdict.reason or DropReason.POLICY_DENIED
        device.drop(reason, now, direction=Direction.EGRESS, packet=packet)


def route(device: Device, packet: bytes, addresses: Addresses, now: int) -> None:
    """Hand a packet to the peer that owns its destination (§2)."""
    peer = device.allowed_ips.lookup(addresses.destination)
    if peer is None:
        device.drop(DropReason.NO_PEER, now, direction=Direction.EGRESS, packet=packet)
        return
    if comes_round(device, packet, addresses, peer):
        device.drop(
            DropReason.OWN_DATAGRAM, now, peer=peer, direction=Direction.EGRESS, packet=packet
        )
        return
    if peer.endpoint is None:
        device.drop(
            DropReason.NO_ENDPOINT, now, peer=peer, direction=Direction.EGRESS, packet=packet
        )
        return
    stage(device, peer, packet, now)
    flush(device, peer, now)


def stage(device: Device, peer: Peer, packet: bytes, now: int) -> None:
    """Queue a packet for `peer`; a full queue loses its oldest."""
    if len(peer.staged) >= device.parameters.staged_packets:
        oldest = peer.staged.popleft()
        device.drop(
            DropReason.QUEUE_FULL, now, peer=peer, direction=Direction.EGRESS, packet=oldest
        )
    peer.staged.append(packet)


def flush(device: Device, peer: Peer, now: int) -> None:
    """Send what is staged if there are keys for it; otherwise ask for keys (§6.4)."""
    if not peer.staged:
        return
    session, parameters = peer.current, device.parameters
    while session is not None and peer.staged and session.can_send(now, parameters):
        seal(device, session, peer.staged.popleft(), now)
    if peer.staged or (session is not None and session.wants_rekey_to_send(now, parameters)):
        initiate(device, peer, now)


def seal(device: Device, session: Session, packet: bytes, now: int) -> None:
    """Pad, encrypt and send one packet on a session that can send (§5.4.6)."""
    peer = session.peer
    assert peer.endpoint is not None, "a session exists only with a peer whose endpoint is known"
    (counter,) = session.reserve(1, device.parameters)
    padded = packet.ljust(padded_size(len(packet), device.mtu), b"\0")
    header = TRANSPORT_HEADER.pack(TYPE_TRANSPORT, session.remote_index, counter)
    device.outbox.append(Datagram(header + session.sender.seal(counter, padded), peer.endpoint))
    size = TRANSPORT_HEADER_SIZE + len(padded) + TAG_SIZE
    note_sent(device, peer, size, now, content=bool(packet))
    if packet:
        device.encrypted.add(1, len(packet))
    else:
        device.events.append(KeepaliveSent(now, peer.public_key))


def note_sent(device: Device, peer: Peer, size: int, now: int, *, content: bool) -> None:
    """Transport messages of `size` bytes in all left to `peer`; `content` if not all empty."""
    peer.tx_bytes += size
    timers = peer.timers
    timers.authenticated_sent(now)
    if content and not timers.is_set(Timer.NEW_HANDSHAKE):
        device.schedule_by(peer, timers.data_sent(now, device.jitter()))
    if timers.persistent_interval:
        device.reschedule(peer)


def send_keepalive(device: Device, peer: Peer, now: int) -> None:
    """Send an empty packet to `peer`, unless packets wait: they serve as well (§6.5)."""
    if peer.endpoint is None or not device.up:
        return
    if not peer.staged:
        peer.staged.append(KEEPALIVE)
    flush(device, peer, now)


def initiate(device: Device, peer: Peer, now: int, *, retry: bool = False) -> None:
    """Start or repeat a handshake, at most once in Rekey-Timeout (§6.1, §6.4).

    A call that is not a retry restarts Rekey-Attempt-Time, because there is new data.
    """
    if not retry:
        peer.handshake_started_at = now
        peer.initiations_sent = 0
    sent_at = peer.initiation_sent_at
    if sent_at is not None and now - sent_at < device.parameters.rekey_timeout:
        return
    private_key = device.private_key
    if private_key is None or peer.endpoint is None:
        return
    if not peer.is_reachable(device.crypto, private_key):
        return
    message = _make_initiation(device, peer, private_key, now)
    device.outbox.append(Datagram(message, peer.endpoint))
    peer.initiation_sent_at = now
    peer.initiations_sent += 1
    peer.tx_bytes += len(message)
    peer.timers.authenticated_sent(now)
    peer.timers.handshake_initiated(now, device.jitter())
    device.reschedule(peer)
    device.events.append(
        InitiationSent(now, peer.public_key, peer.endpoint, peer.initiations_sent)
    )


def _make_initiation(device: Device, peer: Peer, private_key: PrivateKey, now: int) -> bytes:
    """A fresh initiation, which replaces the one that may be pending (§6.4)."""
    assert device.public_key is not None
    device.drop_initiation(peer)
    ephemeral = PrivateKey.clamp(device.entropy(32))
    message, peer.initiation = noise.create_initiation(
        device.crypto,
        static_public=device.public_key,
        remote_static=peer.public_key,
        static_static=peer.static_static(device.crypto, private_key),
        ephemeral_private=ephemeral,
        sender_index=device.new_index(peer),
        timestamp=device.timestamps.issue(now),
    )
    if device.keylog is not None:
        device.keylog(HandshakeKeys(private_key, peer.public_key, ephemeral, peer.preshared_key))
    return peer.macs.sign(message.encode(), now)

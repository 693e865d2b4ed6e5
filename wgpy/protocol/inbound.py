"""The receive path: the four messages (§5.4), each authenticated before state changes.

Processing of a datagram:
1. Length, type and reserved bytes (`messages.message_type`).
2. Handshake messages: mac1, and under load mac2 and the rate limit (`_admit`).
3. The message opens under keys that only the peer has.
4. Only now state changes, in one place per message: `_commit_…`, `authenticated`.
"""

from __future__ import annotations

from wgpy.protocol import noise, outbound
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import (
    TRANSPORT_HEADER_SIZE,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
)
from wgpy.protocol.crypto import LowOrderError
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.device import Device, HandshakeKeys
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.events import (
    CookieReceived,
    CookieReplySent,
    EndpointMoved,
    InitiationReceived,
    KeepaliveReceived,
    ResponseReceived,
    ResponseSent,
    SessionEstablished,
)
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.messages import (
    TRANSPORT_HEADER,
    CookieReply,
    Initiation,
    Response,
    message_type,
)
from wgpy.protocol.packet import read_addresses
from wgpy.protocol.peer import Peer
from wgpy.protocol.policy import Action, Verdict
from wgpy.protocol.session import Session
from wgpy.protocol.timers import Timer


def receive_datagram(device: Device, datagram: Datagram, now: int) -> None:
    """Take one datagram from the network."""
    data, endpoint = datagram
    kind = message_type(data)
    reason: DropReason | None
    if isinstance(kind, DropReason):
        reason = kind
    elif not device.up:
        reason = DropReason.DEVICE_DOWN
    elif kind == TYPE_INITIATION:
        reason = receive_initiation(device, bytes(data), endpoint, now)
    elif kind == TYPE_RESPONSE:
        reason = receive_response(device, bytes(data), endpoint, now)
    elif kind == TYPE_COOKIE_REPLY:
        reason = receive_cookie_reply(device, bytes(data), endpoint, now)
    else:
        receive_transport(device, data, endpoint, now)
        return
    if reason is not None:
        device.drop(reason, now, endpoint=endpoint, size=len(data))


def _admit(device: Device, data: bytes, source: Endpoint, now: int) -> DropReason | None:
    """mac1 always; under load mac2, or a cookie reply instead of work (§5.3).

    A flood ends here, so nothing is parsed before.
    """
    if device.checker is None:
        return DropReason.NO_PRIVATE_KEY
    if not device.checker.mac1_ok(data):
        return DropReason.MAC1_INVALID
    if not device.load.note(now):
        return None
    if device.checker.mac2_ok(data, source, now):
        return None if device.limiter.allow(source.ip, now) else DropReason.RATE_LIMITED
    if not device.replies.allow(source.ip, now):
        return DropReason.COOKIE_LIMITED
    # Both handshake messages begin with type and sender index (§5.4.2, §5.4.3).
    sender_index = int.from_bytes(data[4:8], "little")
    reply = device.checker.reply(data, sender_index, source, now)
    device.outbox.append(Datagram(reply.encode(), source))
    device.events.append(CookieReplySent(now, None, source))
    return DropReason.MAC2_REQUIRED


def receive_initiation(
    device: Device, data: bytes, source: Endpoint, now: int
) -> DropReason | None:
    """Read an initiation (§5.4.2) and answer it (§5.4.3)."""
    refused = _admit(device, data, source, now)
    if refused is not None:
        return refused
    message = Initiation.parse(data)
    assert device.private_key is not None and device.public_key is not None
    try:
        opened = noise.open_static(
            device.crypto,
            message,
            static_private=device.private_key,
            static_public=device.public_key,
        )
        if opened is None:
            return DropReason.STATIC_INVALID
        peer = device.peers.get(PublicKey(opened.initiator_public))
        if peer is None:
            return DropReason.UNKNOWN_INITIATOR
        static_static = peer.static_static(device.crypto, device.private_key)
    except LowOrderError:
        return DropReason.LOW_ORDER_KEY
    timestamp = noise.open_timestamp(opened, message, static_static=static_static)
    if timestamp is None:
        return DropReason.TIMESTAMP_INVALID
    if timestamp <= peer.greatest_timestamp:
        return DropReason.TIMESTAMP_REPLAYED
    last = peer.initiation_received_at
    if last is not None and now - last < device.parameters.initiation_guard:
        return DropReason.INITIATION_FLOOD
    # Authentic and fresh: from here on state changes.
    peer.greatest_timestamp = timestamp
    peer.initiation_received_at = now
    device.events.append(InitiationReceived(now, peer.public_key, source))
    heard(device, peer, source, len(data), now)
    _respond(device, peer, opened, message, now)
    return None


def _respond(
    device: Device, peer: Peer, opened: noise.OpenedStatic, message: Initiation, now: int
) -> None:
    """Derive keys as responder and send the response; they wait in the next slot."""
    assert device.private_key is not None and peer.endpoint is not None
    if peer.responses_unconfirmed % 2:
        # The last one did not arrive.  As with our own initiations, whatever was wrong may be
        # the local address: let the kernel choose, every other time.
        peer.endpoint = peer.endpoint.without_source()
    peer.responses_unconfirmed += 1
    ephemeral = PrivateKey.clamp(device.entropy(32))
    local_index = device.new_index()
    response, keys = noise.create_response(
        opened,
        message,
        preshared_key=peer.preshared_key,
        ephemeral_private=ephemeral,
        sender_index=local_index,
    )
    _install(device, peer, keys, local_index, message.sender_index, initiator=False, now=now)
    signed = peer.macs.sign(response.encode(), now)
    device.outbox.append(Datagram(signed, peer.endpoint))
    peer.tx_bytes += len(signed)
    peer.timers.authenticated_sent(now)
    device.reschedule(peer)
    device.events.append(ResponseSent(now, peer.public_key, peer.endpoint))
    if device.keylog is not None:
        device.keylog(
            HandshakeKeys(device.private_key, peer.public_key, ephemeral, peer.preshared_key)
        )


def receive_response(device: Device, data: bytes, source: Endpoint, now: int) -> DropReason | None:
    """Read the answer to our initiation (§5.4.3): the session can be used at once."""
    refused = _admit(device, data, source, now)
    if refused is not None:
        return refused
    message = Response.parse(data)
    peer = device.indices.get(message.receiver_index)
    if not isinstance(peer, Peer) or peer.initiation is None:
        return DropReason.UNKNOWN_INDEX
    assert device.private_key is not None
    try:
        keys = noise.consume_response(
            device.crypto,
            peer.initiation,
            message,
            static_private=device.private_key,
            preshared_key=peer.preshared_key,
        )
    except LowOrderError:
        return DropReason.LOW_ORDER_KEY
    if keys is None:
        return DropReason.RESPONSE_INVALID
    # Authentic: from here on state changes.  The index passes on to the session.
    local_index = peer.initiation.local_index
    peer.initiation = None
    session = _install(
        device, peer, keys, local_index, message.sender_index, initiator=True, now=now
    )
    device.events.append(ResponseReceived(now, peer.public_key, source))
    heard(device, peer, source, len(data), now)
    _established(device, session, now)
    # §5.4.5: the responder may not send before it has heard from us, so speak at once.
    outbound.send_keepalive(device, peer, now)
    return None


def receive_cookie_reply(
    device: Device, data: bytes, source: Endpoint, now: int
) -> DropReason | None:
    """Keep the cookie for our next handshake message (§5.4.7); nothing else changes (§6.6)."""
    message = CookieReply.parse(data)
    owner = device.indices.get(message.receiver_index)
    if owner is None:
        return DropReason.UNKNOWN_INDEX
    peer = owner if isinstance(owner, Peer) else owner.peer
    if not peer.macs.awaits_cookie():
        return DropReason.COOKIE_UNEXPECTED
    if not peer.macs.receive(message, now):
        return DropReason.COOKIE_INVALID
    device.events.append(CookieReceived(now, peer.public_key, source))
    return None


def receive_transport(device: Device, data: Buffer, source: Endpoint, now: int) -> None:
    """Open one transport message (§5.4.6) and deliver the packet inside (§3)."""
    _, index, counter = TRANSPORT_HEADER.unpack_from(data)
    session = device.indices.get(index)
    if not isinstance(session, Session):
        device.drop(DropReason.UNKNOWN_INDEX, now, endpoint=source, size=len(data))
        return
    peer = session.peer
    reason: DropReason | None = None
    plaintext: bytes | None = None
    if session.expired(now, device.parameters):
        reason = DropReason.SESSION_EXPIRED
    elif counter >= device.parameters.reject_after_messages:
        reason = DropReason.COUNTER_EXHAUSTED
    else:
        plaintext = session.receiver.open(counter, data[TRANSPORT_HEADER_SIZE:])
        reason = (
            DropReason.TAG_INVALID if plaintext is None else session.window.accept(counter)
        )
    if reason is not None or plaintext is None:
        device.drop(
            reason or DropReason.TAG_INVALID, now, peer=peer, endpoint=source, size=len(data)
        )
        return
    authenticated(device, session, source, len(data), now)
    if not plaintext:
        device.events.append(KeepaliveReceived(now, peer.public_key))
        return
    content_received(device, peer, now)
    deliver(device, peer, plaintext, now)


def deliver(
    device: Device, peer: Peer, plaintext: bytes, now: int, verdict: Verdict | None = None
) -> None:
    """Trim padding, check the inner source against allowed IPs and policy, hand out (§3).

    `verdict` is the policy's, if it was asked already.
    """
    addresses = read_addresses(plaintext)
    if addresses is None:
        device.drop(DropReason.INNER_MALFORMED, now, peer=peer, packet=plaintext)
        return
    packet = plaintext[: addresses.total_length]
    if device.allowed_ips.lookup(addresses.source) is not peer:
        device.drop(DropReason.SOURCE_NOT_ALLOWED, now, peer=peer, packet=packet)
        return
    if verdict is None:
        verdict = device.policy.ingress(
            addresses.source, addresses.destination, peer.public_key, packet
        )
    if verdict.action is not Action.ACCEPT:
        reason = verdict.reason or DropReason.POLICY_DENIED
        device.drop(reason, now, peer=peer, packet=packet)
        return
    device.inbox.append(packet)
    device.delivered.add(1, len(packet))


def authenticated(
    device: Device, session: Session, source: Endpoint, size: int, now: int
) -> None:
    """Authentic, fresh transport messages of `size` bytes in all came on `session`.

    Confirms keys (§6.3), moves the endpoint (§2.1), renews in time (§6.2).
    """
    peer = session.peer
    heard(device, peer, source, size, now)
    gone = peer.confirm(session)
    if gone is not None:
        device.release(gone)
        _established(device, session, now)
        outbound.flush(device, peer, now)
    if (
        session is peer.current
        and not peer.late_rekey_done
        and session.wants_rekey_to_receive(now, device.parameters)
    ):
        peer.late_rekey_done = True
        outbound.initiate(device, peer, now)


def heard(device: Device, peer: Peer, source: Endpoint, size: int, now: int) -> None:
    """An authenticated message came from `source`: the peer is there now (§2.1)."""
    peer.rx_bytes += size
    if peer.endpoint != source:
        old, peer.endpoint = peer.endpoint, source
        if old is None or old.ip != source.ip:
            device.endpoint_moved()
        if old is None or old.without_source() != source.without_source():
            device.events.append(EndpointMoved(now, peer.public_key, old, source))
    peer.timers.authenticated_received(now)
    if peer.timers.persistent_interval:
        device.reschedule(peer)


def content_received(device: Device, peer: Peer, now: int) -> None:
    """Some of what `peer` sent was more than a keepalive: answer in time (§6.5)."""
    if not peer.timers.is_set(Timer.KEEPALIVE):
        device.schedule_by(peer, peer.timers.data_received(now))


def _install(
    device: Device,
    peer: Peer,
    keys: noise.TransportKeys,
    local_index: int,
    remote_index: int,
    *,
    initiator: bool,
    now: int,
) -> Session:
    """A session from fresh keys, in its slot and under its index."""
    session = Session(
        device.crypto,
        peer,
        keys,
        local_index=local_index,
        remote_index=remote_index,
        initiator=initiator,
        now=now,
        replay_window=device.parameters.replay_window,
    )
    install = peer.install_as_initiator if initiator else peer.install_as_responder
    device.release(install(session))
    device.indices[local_index] = session
    peer.timers.session_derived(now)
    device.reschedule(peer)
    return session


def _established(device: Device, session: Session, now: int) -> None:
    """Both sides are known to have the keys."""
    peer = session.peer
    peer.timers.handshake_complete()
    peer.initiations_sent = 0
    peer.responses_unconfirmed = 0
    peer.late_rekey_done = False
    peer.latest_handshake = device.timestamps.wall(now)
    peer.handshake_at = now
    device.events.append(
        SessionEstablished(
            now, peer.public_key, session.initiator, session.local_index, session.remote_index
        )
    )

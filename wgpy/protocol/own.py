"""Recognising our own datagrams among the packets to send: self-encapsulation.

Where a route leads a peer's endpoint into the tunnel, each datagram would come back as a
packet, be sealed again, and so on: one ping becomes a storm.  Such a packet is UDP to a
peer's endpoint and carries an index and a counter (or a handshake index) of ours, which
nobody else's message to that endpoint does.  A fragmented datagram is stopped as well: its
first fragment holds the headers, and the rest is one more packet.

A datagram to one peer may well travel inside of another peer's tunnel (onion routing; the
kernel allows it).  It comes round again only where the carrier's own datagrams are, in the
end, carried by that first peer.

Loops through a second tunnel of this host cannot be told by their contents: docs/linux.md.
"""

from __future__ import annotations

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import (
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    TYPE_TRANSPORT,
)
from wgpy.protocol.device import Device
from wgpy.protocol.packet import Addresses
from wgpy.protocol.peer import Peer
from wgpy.protocol.session import Session

_UDP = 17
_UDP_HEADER = 8
_TRANSPORT_HEADER = 16
_IPV6_HEADER = 40


def comes_round(device: Device, packet: Buffer, addresses: Addresses, carrier: Peer) -> bool:
    """Whether a packet from the TUN device is a datagram of ours that goes in circles.

    `carrier` is the peer whose allowed IPs cover its destination.
    """
    addressee = _addressee(device, packet, addresses)
    if addressee is None:
        return False
    passed: set[Peer] = set()
    peer: Peer | None = carrier
    while peer is not None and peer not in passed:
        if peer is addressee:
            return True
        passed.add(peer)
        peer = device.allowed_ips.lookup(peer.endpoint.ip) if peer.endpoint else None
    return False


def _addressee(device: Device, packet: Buffer, addresses: Addresses) -> Peer | None:
    """The peer that this device sent the message in `packet` to; None: it did not."""
    if packet[0] >> 4 == 4:
        start, protocol = (packet[0] & 15) * 4, packet[9]
    else:
        start, protocol = _IPV6_HEADER, packet[6]
    message = start + _UDP_HEADER
    if protocol != _UDP or addresses.total_length < message + _TRANSPORT_HEADER:
        return None
    kind = packet[message]
    if not TYPE_INITIATION <= kind <= TYPE_TRANSPORT or kind == TYPE_COOKIE_REPLY:
        return None
    port = packet[start + 2] << 8 | packet[start + 3]
    index = int.from_bytes(packet[message + 4 : message + 8], "little")
    there = [
        peer
        for peer in device.peers.values()
        if peer.endpoint is not None
        and (peer.endpoint.ip, peer.endpoint.port) == (addresses.destination, port)
    ]
    if kind in (TYPE_INITIATION, TYPE_RESPONSE):
        owner = device.indices.get(index)
        sender = owner.peer if isinstance(owner, Session) else owner
        return sender if sender in there else None
    counter = int.from_bytes(packet[message + 8 : message + 16], "little")
    return next(
        (
            peer
            for peer in there
            for session in peer.sessions()
            if session.remote_index == index and counter < session.next_counter
        ),
        None,
    )

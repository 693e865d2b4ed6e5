"""Recognising our own datagrams among the packets to send: self-encapsulation.

Where a route leads a peer's endpoint into the tunnel, each datagram would come back as a
packet, be sealed again, and so on: one ping becomes a storm.  Such a packet is UDP to a
peer's endpoint and carries an index and a counter (or a handshake index) of ours, which
nobody else's message to that endpoint does.  A datagram that was cut into fragments ends
all the same: its first fragment holds the headers, and the rest is one packet more.
"""

from __future__ import annotations

from wgpy.protocol.constants import (
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    TYPE_TRANSPORT,
)
from wgpy.protocol.device import Device
from wgpy.protocol.packet import Addresses
from wgpy.protocol.policy import Buffer

_UDP = 17
_UDP_HEADER = 8
_TRANSPORT_HEADER = 16
_IPV6_HEADER = 40


def is_own_datagram(device: Device, packet: Buffer, addresses: Addresses) -> bool:
    """Whether a packet from the TUN device is a message that this device sent."""
    if packet[0] >> 4 == 4:
        start, protocol = (packet[0] & 15) * 4, packet[9]
    else:
        start, protocol = _IPV6_HEADER, packet[6]
    message = start + _UDP_HEADER
    if protocol != _UDP or addresses.total_length < message + _TRANSPORT_HEADER:
        return False
    kind = packet[message]
    if not TYPE_INITIATION <= kind <= TYPE_TRANSPORT or kind == TYPE_COOKIE_REPLY:
        return False
    port = packet[start + 2] << 8 | packet[start + 3]
    index = int.from_bytes(packet[message + 4 : message + 8], "little")
    if kind in (TYPE_INITIATION, TYPE_RESPONSE):
        return index in device.indices and device.is_endpoint(addresses.destination, port)
    counter = int.from_bytes(packet[message + 8 : message + 16], "little")
    return any(
        session is not None and session.remote_index == index and counter < session.next_counter
        for peer in device.peers.values()
        if peer.endpoint is not None
        and (peer.endpoint.ip, peer.endpoint.port) == (addresses.destination, port)
        for session in (peer.current, peer.previous, peer.next)
    )

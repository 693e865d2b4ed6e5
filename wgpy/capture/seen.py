"""One datagram explained, and whether it is plausibly WireGuard.

Plausible is what has a message's type and the length that belongs to it (§5.4): all other
datagrams belong to other protocols.  A few of those match too: a message that neither an index,
nor a key, nor a port confirms is *perhaps* one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from wgpy.capture.link import Udp
from wgpy.capture.sessions import WELL_KNOWN_PORTS
from wgpy.protocol.constants import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    KEEPALIVE_SIZE,
    RESPONSE_SIZE,
    TRANSPORT_HEADER_SIZE,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    TYPE_TRANSPORT,
)
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.messages import Message, parse

NAMES: Final = {1: "initiation", 2: "response", 3: "cookie reply", 4: "transport"}
_SIZES: Final = {
    TYPE_INITIATION: INITIATION_SIZE,
    TYPE_RESPONSE: RESPONSE_SIZE,
    TYPE_COOKIE_REPLY: COOKIE_REPLY_SIZE,
}
_ZERO: Final = bytes(3)
_OTHERS: Final = frozenset({53, 67, 68, 69, 123, 137, 138, 161, 443, 1900, 3478, 5353, 5355})
"""Ports of other protocols: a datagram that only has one of WireGuard's lengths is theirs."""
_INDEX = struct.Struct("<I")
_COUNTER = struct.Struct("<Q")
_INDEX_PLACES: Final = {TYPE_RESPONSE: 8, TYPE_COOKIE_REPLY: 4, TYPE_TRANSPORT: 4}


@dataclass(slots=True)
class Seen:
    """One datagram explained.

    `problems` are reasons for which its receiver drops it; `notes` are other findings;
    `handshake` numbers the initiation (its frame) that authenticates the message, `joined`
    the one that its index belongs to, keys or not.  `payload` is what was captured of `size`
    bytes, `reserved` the three reserved bytes where they are not zero.  `same_as` is the frame
    that held the same datagram; `perhaps`: nothing but the form speaks for WireGuard.
    """

    frame: int
    at: int
    source: Endpoint
    destination: Endpoint
    kind: int
    payload: bytes
    size: int
    reserved: bytes = b""
    perhaps: bool = False
    same_as: int | None = None
    mac1_of: bytes | None = None
    sender: bytes | None = None
    role: str = ""
    joined: int | None = None
    handshake: int | None = None
    plaintext: bytes | None = None
    inner: bytes | None = None
    problems: list[DropReason] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Bytes that the capture cut off."""
        return self.size - len(self.payload)

    @property
    def keepalive(self) -> bool:
        """Data of no bytes (§6.5): its size shows that without a key."""
        return self.kind == TYPE_TRANSPORT and self.size == KEEPALIVE_SIZE

    @property
    def authentic(self) -> bool:
        """Keys have shown that the sender made it."""
        return self.sender is not None or self.plaintext is not None

    @property
    def standard(self) -> bytes:
        """The captured bytes with reserved bytes of zero, as the MACs and tags cover them."""
        payload = self.payload
        return payload[:1] + _ZERO + payload[4:] if self.reserved else payload

    @property
    def message(self) -> Message | None:
        """The message as a value; None when the capture cut it."""
        parsed = None if self.missing else parse(self.standard)
        return None if isinstance(parsed, DropReason) else parsed

    @property
    def sender_index(self) -> int | None:
        """Initiation and response: the index by which their sender is answered."""
        if self.kind > TYPE_RESPONSE or len(self.payload) < 8:
            return None
        index: int = _INDEX.unpack_from(self.payload, 4)[0]
        return index

    @property
    def receiver(self) -> int | None:
        """All but the initiation: the receiver's index."""
        place = _INDEX_PLACES.get(self.kind)
        if place is None or len(self.payload) < place + 4:
            return None
        index: int = _INDEX.unpack_from(self.payload, place)[0]
        return index

    @property
    def counter(self) -> int | None:
        """Data: the message's counter."""
        if self.kind != TYPE_TRANSPORT or len(self.payload) < TRANSPORT_HEADER_SIZE:
            return None
        counter: int = _COUNTER.unpack_from(self.payload, 8)[0]
        return counter


def look(frame: int, at: int, udp: Udp) -> Seen | None:
    """A datagram whose type and length fit WireGuard; None for others.

    Whether data is `perhaps` WireGuard's is decided where the indices are known.
    """
    source, destination, payload, missing = udp
    size = len(payload) + missing
    if len(payload) < 4:
        return None
    kind = payload[0]
    if size < KEEPALIVE_SIZE if kind == TYPE_TRANSPORT else _SIZES.get(kind) != size:
        return None
    seen = Seen(frame, at, source, destination, kind, payload, size)
    if payload[1:4] != _ZERO:
        seen.reserved = payload[1:4]
    if kind != TYPE_TRANSPORT and WELL_KNOWN_PORTS.isdisjoint((source.port, destination.port)):
        foreign = source.port in _OTHERS or destination.port in _OTHERS
        if foreign and seen.reserved:
            return None
        seen.perhaps = foreign or bool(seen.reserved)
    return seen


def split(udp: Udp) -> list[Udp]:
    """The datagrams of a train: a capture on a sender with segmentation offload (UDP_SEGMENT)
    shows many data messages as one datagram.

    The second message is found by its header: same receiver, next counter.
    """
    payload = udp.payload
    if len(payload) < 2 * KEEPALIVE_SIZE or payload[0] != TYPE_TRANSPORT:
        return [udp]
    following = _COUNTER.unpack_from(payload, 8)[0] + 1
    stride = -1
    if following < 1 << 64:
        stride = payload.find(payload[:8] + _COUNTER.pack(following), KEEPALIVE_SIZE)
    if stride < 0:
        return [udp]
    total = len(payload) + udp.missing
    pieces = []
    for start in range(0, len(payload), stride):
        piece = payload[start : start + stride]
        missing = min(stride, total - start) - len(piece)
        pieces.append(Udp(udp.source, udp.destination, piece, missing))
    return pieces

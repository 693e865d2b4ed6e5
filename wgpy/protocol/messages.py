"""The four messages as bytes and back (§5.4.2, §5.4.3, §5.4.6, §5.4.7).

All integers are little-endian.  The first byte is the type and three reserved zero bytes
follow, so type and reserved bytes are read as one 32-bit number, as the kernel does.
Parsing checks layout only: no key, no MAC, no state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    KEEPALIVE_SIZE,
    MAC_SIZE,
    RESPONSE_SIZE,
    TRANSPORT_HEADER_SIZE,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    TYPE_TRANSPORT,
)
from wgpy.protocol.drops import DropReason

ZERO_MAC = bytes(MAC_SIZE)

_TYPE = struct.Struct("<I")
_INITIATION = struct.Struct("<II32s48s28s16s16s")
_RESPONSE = struct.Struct("<III32s16s16s16s")
_COOKIE_REPLY = struct.Struct("<II24s32s")
TRANSPORT_HEADER = struct.Struct("<IIQ")
"""type with reserved zeros, receiver index, counter."""

_FIXED_SIZES = {
    TYPE_INITIATION: INITIATION_SIZE,
    TYPE_RESPONSE: RESPONSE_SIZE,
    TYPE_COOKIE_REPLY: COOKIE_REPLY_SIZE,
}


@dataclass(frozen=True, slots=True)
class Initiation:
    """First message, initiator to responder (§5.4.2): 148 bytes."""

    type: ClassVar[int] = TYPE_INITIATION
    sender_index: int
    unencrypted_ephemeral: bytes
    encrypted_static: bytes
    encrypted_timestamp: bytes
    mac1: bytes = ZERO_MAC
    mac2: bytes = ZERO_MAC

    def encode(self) -> bytes:
        """The 148 bytes of the wire."""
        return _INITIATION.pack(
            self.type,
            self.sender_index,
            self.unencrypted_ephemeral,
            self.encrypted_static,
            self.encrypted_timestamp,
            self.mac1,
            self.mac2,
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """From 148 bytes whose type was checked by `message_type`."""
        return cls(*_INITIATION.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class Response:
    """Second message, responder to initiator (§5.4.3): 92 bytes."""

    type: ClassVar[int] = TYPE_RESPONSE
    sender_index: int
    receiver_index: int
    unencrypted_ephemeral: bytes
    encrypted_nothing: bytes
    mac1: bytes = ZERO_MAC
    mac2: bytes = ZERO_MAC

    def encode(self) -> bytes:
        """The 92 bytes of the wire."""
        return _RESPONSE.pack(
            self.type,
            self.sender_index,
            self.receiver_index,
            self.unencrypted_ephemeral,
            self.encrypted_nothing,
            self.mac1,
            self.mac2,
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """From 92 bytes whose type was checked by `message_type`."""
        return cls(*_RESPONSE.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class CookieReply:
    """Answer to a handshake message under load (§5.4.7): 64 bytes."""

    type: ClassVar[int] = TYPE_COOKIE_REPLY
    receiver_index: int
    nonce: bytes
    encrypted_cookie: bytes

    def encode(self) -> bytes:
        """The 64 bytes of the wire."""
        return _COOKIE_REPLY.pack(
            self.type, self.receiver_index, self.nonce, self.encrypted_cookie
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """From 64 bytes whose type was checked by `message_type`."""
        return cls(*_COOKIE_REPLY.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class Transport:
    """Encrypted inner packet (§5.4.6): 16 bytes of header, ciphertext, 16 bytes of tag."""

    type: ClassVar[int] = TYPE_TRANSPORT
    receiver_index: int
    counter: int
    encrypted_packet: bytes

    def encode(self) -> bytes:
        """The bytes of the wire: 16 + len(encrypted_packet)."""
        return (
            TRANSPORT_HEADER.pack(self.type, self.receiver_index, self.counter)
            + self.encrypted_packet
        )

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """From at least 32 bytes whose type was checked by `message_type`."""
        _, receiver_index, counter = TRANSPORT_HEADER.unpack_from(data)
        return cls(receiver_index, counter, bytes(data[TRANSPORT_HEADER_SIZE:]))


Message = Initiation | Response | CookieReply | Transport


def message_type(data: Buffer) -> int | DropReason:
    """The type of a datagram whose length fits it, or why it is not a message."""
    size = len(data)
    if size < 4:
        return DropReason.LENGTH_INVALID
    kind: int = _TYPE.unpack_from(data)[0]
    if kind == TYPE_TRANSPORT:
        return kind if size >= KEEPALIVE_SIZE else DropReason.LENGTH_INVALID
    expected = _FIXED_SIZES.get(kind)
    if expected is None:
        return DropReason.TYPE_UNKNOWN
    return kind if size == expected else DropReason.LENGTH_INVALID


_PARSERS: dict[int, Callable[[Buffer], Message]] = {
    TYPE_INITIATION: Initiation.parse,
    TYPE_RESPONSE: Response.parse,
    TYPE_COOKIE_REPLY: CookieReply.parse,
    TYPE_TRANSPORT: Transport.parse,
}


def parse(data: Buffer) -> Message | DropReason:
    """Parse any datagram, or say why it is not a message."""
    kind = message_type(data)
    if isinstance(kind, DropReason):
        return kind
    return _PARSERS[kind](data)

"""The four messages of §5.4 as bytes: constants, parsers, and a dissector with field names.

A parser takes exactly what the paper draws and raises `Malformed` for anything else.
Multi-byte integers are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from wgspec.primitives import hash_

CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"

INITIAL_CHAINING_KEY: Final = hash_(CONSTRUCTION)
INITIAL_HASH: Final = hash_(INITIAL_CHAINING_KEY, IDENTIFIER)

INITIATION: Final = 1
RESPONSE: Final = 2
COOKIE_REPLY: Final = 3
TRANSPORT: Final = 4
NAMES: Final = {1: "initiation", 2: "response", 3: "cookie reply", 4: "transport data"}
SIZES: Final = {INITIATION: 148, RESPONSE: 92, COOKIE_REPLY: 64}
KEEPALIVE_SIZE: Final = 32
ZERO_MAC: Final = bytes(16)

# §6.1, seconds and counts.
REKEY_AFTER_TIME: Final = 120.0
REJECT_AFTER_TIME: Final = 180.0
REKEY_ATTEMPT_TIME: Final = 90.0
REKEY_TIMEOUT: Final = 5.0
KEEPALIVE_TIMEOUT: Final = 10.0
REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1
COOKIE_LIFETIME: Final = 120.0

# Where the paper says "jitter" and names no amount: the kernel's and wireguard-go's.
JITTER: Final = 0.334


class Malformed(ValueError):
    """Not one of the four messages."""


@dataclass(frozen=True, slots=True)
class Initiation:
    """§5.4.2"""

    raw: bytes
    sender: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    mac1: bytes
    mac2: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """§5.4.3"""

    raw: bytes
    sender: int
    receiver: int
    ephemeral: bytes
    empty: bytes
    mac1: bytes
    mac2: bytes


@dataclass(frozen=True, slots=True)
class CookieReply:
    """§5.4.7"""

    raw: bytes
    receiver: int
    nonce: bytes
    cookie: bytes


@dataclass(frozen=True, slots=True)
class Transport:
    """§5.4.6"""

    raw: bytes
    receiver: int
    counter: int
    packet: bytes

    @property
    def is_keepalive(self) -> bool:
        return len(self.raw) == KEEPALIVE_SIZE


Message = Initiation | Response | CookieReply | Transport


# name, offset, size of each field, in the order of the paper's figures.
FIELDS: Final[dict[int, tuple[tuple[str, int, int], ...]]] = {
    INITIATION: (
        ("type", 0, 1),
        ("reserved", 1, 3),
        ("sender", 4, 4),
        ("ephemeral", 8, 32),
        ("static", 40, 48),
        ("timestamp", 88, 28),
        ("mac1", 116, 16),
        ("mac2", 132, 16),
    ),
    RESPONSE: (
        ("type", 0, 1),
        ("reserved", 1, 3),
        ("sender", 4, 4),
        ("receiver", 8, 4),
        ("ephemeral", 12, 32),
        ("empty", 44, 16),
        ("mac1", 60, 16),
        ("mac2", 76, 16),
    ),
    COOKIE_REPLY: (
        ("type", 0, 1),
        ("reserved", 1, 3),
        ("receiver", 4, 4),
        ("nonce", 8, 24),
        ("cookie", 32, 32),
    ),
    TRANSPORT: (
        ("type", 0, 1),
        ("reserved", 1, 3),
        ("receiver", 4, 4),
        ("counter", 8, 8),
        ("packet", 16, 0),
    ),
}


def kind(data: bytes) -> int:
    """The message type byte; 0 for an empty datagram."""
    return data[0] if data else 0


def parse(data: bytes) -> Message:
    """The message, or `Malformed` with what is wrong."""
    code = kind(data)
    if code not in FIELDS:
        raise Malformed(f"type {code} of a {len(data)}-byte datagram is not a WireGuard message")
    if data[1:4] != bytes(3):
        raise Malformed(f"reserved bytes are {data[1:4].hex()}, not zero")
    if code == TRANSPORT:
        if len(data) < KEEPALIVE_SIZE:
            raise Malformed(f"transport data of {len(data)} bytes, at least 32 are needed")
        receiver, counter = struct.unpack_from("<IQ", data, 4)
        return Transport(data, receiver, counter, data[16:])
    if len(data) != SIZES[code]:
        raise Malformed(f"{NAMES[code]} of {len(data)} bytes, not {SIZES[code]}")
    if code == INITIATION:
        sender, *fields = struct.unpack("<4xI32s48s28s16s16s", data)
        return Initiation(data, sender, *fields)
    if code == RESPONSE:
        sender, receiver, *fields = struct.unpack("<4xII32s16s16s16s", data)
        return Response(data, sender, receiver, *fields)
    receiver, nonce, cookie = struct.unpack("<4xI24s32s", data)
    return CookieReply(data, receiver, nonce, cookie)


def field(data: bytes, name: str) -> slice:
    """Where field `name` of this message type lies."""
    for field_name, offset, size in FIELDS[kind(data)]:
        if field_name == name:
            return slice(offset, offset + size if size else len(data))
    raise KeyError(name)


def flip(data: bytes, name: str, bit: int = 0) -> bytes:
    """`data` with one bit of the named field inverted."""
    out = bytearray(data)
    where = field(data, name)
    out[where.start + bit // 8] ^= 1 << (bit % 8)
    return bytes(out)


def replace(data: bytes, name: str, value: bytes) -> bytes:
    """`data` with the named field's bytes replaced."""
    out = bytearray(data)
    out[field(data, name)] = value
    return bytes(out)


def describe(data: bytes) -> str:
    """One line: what this datagram is."""
    try:
        message = parse(data)
    except Malformed as error:
        return f"malformed: {error}"
    if isinstance(message, Transport):
        what = "keepalive" if message.is_keepalive else f"data of {len(message.packet) - 16} bytes"
        return f"{what}, receiver {message.receiver:08x}, counter {message.counter}"
    parts = [NAMES[kind(data)]]
    if isinstance(message, Initiation | Response):
        parts.append(f"sender {message.sender:08x}")
    if not isinstance(message, Initiation):
        parts.append(f"receiver {message.receiver:08x}")
    if isinstance(message, Initiation | Response) and message.mac2 != ZERO_MAC:
        parts.append("with mac2")
    return ", ".join(parts)


def dissect(data: bytes) -> list[tuple[str, str]]:
    """(field, hex) pairs for a person to read; a malformed datagram is one pair."""
    code = kind(data)
    fields = FIELDS.get(code, ())
    if not fields or (code in SIZES and len(data) != SIZES[code]):
        return [("datagram", data.hex())]
    return [(name, data[field(data, name)].hex()) for name, _, _ in fields]

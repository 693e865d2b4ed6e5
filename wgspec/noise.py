"""The handshake of §5.4.2 to §5.4.5, written naively, with a hook at each step to make an error.

Every function works on plain values and keeps nothing.  A builder's `Wrong` lets a case
replace an input (a timestamp, a key, the PSK) or edit the finished bytes before or after
the MACs are computed; everything it does not name is done right.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from wgspec.primitives import Forged, dh, hash_, kdf, mac, open_, public_key, seal
from wgspec.wire import (
    INITIAL_CHAINING_KEY,
    INITIAL_HASH,
    LABEL_MAC1,
    ZERO_MAC,
    Initiation,
    Response,
)

NO_PSK = bytes(32)
Edit = Callable[[bytearray], None]


@dataclass(frozen=True, slots=True)
class Wrong:
    """What to do differently from the paper; None follows the paper.

    `edit` changes the message before its MACs, `edit_last` after them; `mac1_for` is the
    public key that mac1 is keyed with; `low_order` is an ephemeral public key whose every
    DH is zero (the message is consistent with that); a positive `resize` appends zero
    bytes to the finished message, a negative one cuts it.
    """

    edit: Edit | None = None
    edit_last: Edit | None = None
    mac1_for: bytes | None = None
    mac2: bytes | None = None
    low_order: bytes | None = None
    resize: int = 0


RIGHT = Wrong()


@dataclass(frozen=True, slots=True)
class Keys:
    """A transport key pair as its owner sees it."""

    send: bytes
    receive: bytes


@dataclass(frozen=True, slots=True)
class Handshake:
    """The state between the first and the second message."""

    raw: bytes
    chaining_key: bytes
    hash: bytes
    ephemeral_private: bytes
    sender: int
    ephemeral_remote: bytes = b""
    timestamp: bytes = b""
    static_remote: bytes = b""

    @property
    def mac1(self) -> bytes:
        """mac1 of the message that was built."""
        return self.raw[-32:-16]


def tai64n(seconds: float | None = None) -> bytes:
    """§5.1: a 12-byte TAI64N label of a Unix time (now), full nanoseconds."""
    ns = time.time_ns() if seconds is None else int(seconds * 1e9)
    whole, rest = divmod(ns, 1_000_000_000)
    return (2**62 + 10 + whole).to_bytes(8, "big") + rest.to_bytes(4, "big")


def mac1_key(recipient: bytes) -> bytes:
    """§5.4.4: what mac1 is keyed with."""
    return hash_(LABEL_MAC1, recipient)


def finish(body: bytes, recipient: bytes, cookie: bytes | None, wrong: Wrong = RIGHT) -> bytes:
    """Append mac1 and mac2 (§5.4.4), apply the edits."""
    out = bytearray(body)
    if wrong.edit is not None:
        wrong.edit(out)
    out += mac(mac1_key(wrong.mac1_for or recipient), bytes(out))
    if wrong.mac2 is not None:
        out += wrong.mac2
    else:
        out += mac(cookie, bytes(out)) if cookie else ZERO_MAC
    if wrong.edit_last is not None:
        wrong.edit_last(out)
    return bytes(out[: wrong.resize] if wrong.resize < 0 else out + bytes(wrong.resize))


def build_initiation(
    private: bytes,
    remote: bytes,
    *,
    sender: int,
    ephemeral: bytes,
    timestamp: bytes,
    cookie: bytes | None = None,
    wrong: Wrong = RIGHT,
) -> Handshake:
    """Message 1 from `private` to the public key `remote`."""
    h = hash_(INITIAL_HASH, remote)
    e_public = wrong.low_order or public_key(ephemeral)
    (c,) = kdf(1, INITIAL_CHAINING_KEY, e_public)
    h = hash_(h, e_public)
    c, key = kdf(2, c, bytes(32) if wrong.low_order else dh(ephemeral, remote))
    static = seal(key, 0, public_key(private), h)
    h = hash_(h, static)
    c, key = kdf(2, c, dh(private, remote))
    encrypted_timestamp = seal(key, 0, timestamp, h)
    h = hash_(h, encrypted_timestamp)
    body = b"\x01\0\0\0" + sender.to_bytes(4, "little") + e_public + static + encrypted_timestamp
    raw = finish(body, remote, cookie, wrong)
    return Handshake(raw, c, h, ephemeral, sender, timestamp=timestamp, static_remote=remote)


def read_initiation(private: bytes, message: Initiation) -> Handshake:
    """Message 1 as the responder reads it; `Forged` when static or timestamp do not open."""
    h = hash_(hash_(INITIAL_HASH, public_key(private)), message.ephemeral)
    (c,) = kdf(1, INITIAL_CHAINING_KEY, message.ephemeral)
    c, key = kdf(2, c, dh(private, message.ephemeral))
    static = open_(key, 0, message.static, h)
    h = hash_(h, message.static)
    c, key = kdf(2, c, dh(private, static))
    timestamp = open_(key, 0, message.timestamp, h)
    h = hash_(h, message.timestamp)
    return Handshake(
        message.raw, c, h, b"", message.sender, message.ephemeral, timestamp, static_remote=static
    )


def build_response(
    received: Handshake,
    *,
    sender: int,
    ephemeral: bytes,
    psk: bytes = NO_PSK,
    receiver: int | None = None,
    cookie: bytes | None = None,
    wrong: Wrong = RIGHT,
) -> tuple[Handshake, Keys]:
    """Message 2 to the sender of `received`, and the keys as the responder holds them."""
    e_public = wrong.low_order or public_key(ephemeral)
    (c,) = kdf(1, received.chaining_key, e_public)
    h = hash_(received.hash, e_public)
    for remote in (received.ephemeral_remote, received.static_remote):
        (c,) = kdf(1, c, bytes(32) if wrong.low_order else dh(ephemeral, remote))
    c, tau, key = kdf(3, c, psk)
    h = hash_(h, tau)
    empty = seal(key, 0, b"", h)
    h = hash_(h, empty)
    to = received.sender if receiver is None else receiver
    body = b"\x02\0\0\0" + sender.to_bytes(4, "little") + to.to_bytes(4, "little")
    raw = finish(body + e_public + empty, received.static_remote, cookie, wrong)
    theirs, ours = kdf(2, c, b"")
    return Handshake(raw, c, h, ephemeral, sender), Keys(send=ours, receive=theirs)


def read_response(sent: Handshake, private: bytes, message: Response, psk: bytes = NO_PSK) -> Keys:
    """Message 2 as the initiator reads it; `Forged` when it does not open."""
    (c,) = kdf(1, sent.chaining_key, message.ephemeral)
    h = hash_(sent.hash, message.ephemeral)
    (c,) = kdf(1, c, dh(sent.ephemeral_private, message.ephemeral))
    (c,) = kdf(1, c, dh(private, message.ephemeral))
    c, tau, key = kdf(3, c, psk)
    h = hash_(h, tau)
    open_(key, 0, message.empty, h)
    ours, theirs = kdf(2, c, b"")
    return Keys(send=ours, receive=theirs)


__all__ = [
    "NO_PSK",
    "RIGHT",
    "Forged",
    "Handshake",
    "Keys",
    "Wrong",
    "build_initiation",
    "build_response",
    "finish",
    "mac1_key",
    "read_initiation",
    "read_response",
    "tai64n",
]

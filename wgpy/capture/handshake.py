"""Open captured handshakes from whichever private keys are known.

Every Diffie-Hellman result can be computed from either side: `_dh` takes two public keys
and uses the private key that is known of one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from wgpy.capture.keylog import Keys
from wgpy.protocol.crypto import Aead, Crypto, LowOrderError
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.keys import NO_PRESHARED_KEY
from wgpy.protocol.messages import Initiation, Response
from wgpy.protocol.noise import Transcript, TransportKeys
from wgpy.protocol.replay import ReplayWindow


@dataclass(slots=True)
class SeenInitiation:
    """An opened initiation that waits for its response; `frame` is its number."""

    frame: int
    initiator: bytes
    responder: bytes
    ephemeral: bytes
    timestamp: bytes
    chaining_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


class SeenSession:
    """One direction of a session: `sender` is the public key of who sends on it."""

    __slots__ = ("born", "cipher", "frame", "sender", "source", "window")

    def __init__(
        self, crypto: Crypto, key: bytes, sender: bytes, frame: int, born: int, window: int
    ) -> None:
        self.cipher: Aead = crypto.aead(key)
        self.sender = sender
        self.frame = frame
        self.born = born
        self.window = ReplayWindow(window)
        self.source: Endpoint | None = None


def _dh(keys: Keys, one: bytes, other: bytes) -> bytes | None:
    """DH of two public keys if a private key of either is known; may raise LowOrderError."""
    for known in (keys.statics, keys.ephemerals):
        if one in known:
            return keys.crypto.dh(known[one], other)
        if other in known:
            return keys.crypto.dh(known[other], one)
    return None


def open_initiation(
    keys: Keys, message: Initiation, responder: bytes, frame: int
) -> SeenInitiation | DropReason | None:
    """What an initiation to `responder` says; None without a key for it."""
    ephemeral = message.unencrypted_ephemeral
    transcript = Transcript.begin(keys.crypto, responder, None)
    transcript.mix_key("e", ephemeral)
    transcript.mix_hash("e", ephemeral)
    try:
        shared = _dh(keys, ephemeral, responder)
        if shared is None:
            return None
        initiator = transcript.open("s", transcript.mix_dh("es", shared), message.encrypted_static)
        if initiator is None:
            return DropReason.STATIC_INVALID
        shared = _dh(keys, initiator, responder)
        if shared is None:
            return None
    except LowOrderError:
        return DropReason.LOW_ORDER_KEY
    timestamp = transcript.open("{t}", transcript.mix_dh("ss", shared), message.encrypted_timestamp)
    if timestamp is None:
        return DropReason.TIMESTAMP_INVALID
    return SeenInitiation(
        frame, initiator, responder, ephemeral, timestamp, transcript.chaining_key, transcript.hash
    )


def open_response(
    keys: Keys, initiation: SeenInitiation, message: Response
) -> TransportKeys | DropReason | None:
    """Keys of both directions (`send` is the initiator's); None without a key for it."""
    ephemeral = message.unencrypted_ephemeral
    try:
        shared = _dh(keys, initiation.ephemeral, ephemeral)
        static = _dh(keys, initiation.initiator, ephemeral)
    except LowOrderError:
        return DropReason.LOW_ORDER_KEY
    if shared is None or static is None:
        return None
    for preshared in (NO_PRESHARED_KEY, *keys.preshared):
        transcript = Transcript(keys.crypto, initiation.chaining_key, initiation.hash)
        transcript.mix_key("e", ephemeral)
        transcript.mix_hash("e", ephemeral)
        transcript.mix_key("ee", shared)
        transcript.mix_key("se", static)
        key = transcript.mix_psk("psk", preshared)
        if transcript.open("{}", key, message.encrypted_nothing) is not None:
            return TransportKeys(*transcript.split())
    return DropReason.RESPONSE_INVALID

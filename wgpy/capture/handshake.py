"""Open captured handshakes from whichever private keys are known.

Every Diffie-Hellman result can be computed from either side: `_dh` takes two public keys
and uses the private key that is known of one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from wgpy.capture.keylog import Keys
from wgpy.protocol.crypto import Aead, Crypto, LowOrderError
from wgpy.protocol.drops import DropReason
from wgpy.protocol.keys import NO_PRESHARED_KEY, PublicKey
from wgpy.protocol.messages import Initiation, Response
from wgpy.protocol.noise import Transcript, TransportKeys
from wgpy.protocol.replay import ReplayWindow


class Sealed(NamedTuple):
    """A message that the known keys do not open, and which key would."""

    reason: str


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
    """What opens one direction of a session; `sender` is the public key of who sends on it.

    `born` is when the handshake ended, None where it is not in the capture.
    """

    __slots__ = ("born", "cipher", "frame", "sender", "window")

    def __init__(
        self,
        crypto: Crypto,
        key: bytes,
        sender: bytes | None,
        frame: int | None,
        born: int | None,
        window: int,
    ) -> None:
        self.cipher: Aead = crypto.aead(key)
        self.sender = sender
        self.frame = frame
        self.born = born
        self.window = ReplayWindow(window)


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
) -> SeenInitiation | DropReason | Sealed:
    """What an initiation to `responder` says."""
    ephemeral = message.unencrypted_ephemeral
    transcript = Transcript.begin(keys.crypto, responder, None)
    transcript.mix_key("e", ephemeral)
    transcript.mix_hash("e", ephemeral)
    try:
        shared = _dh(keys, ephemeral, responder)
        if shared is None:
            return Sealed(
                f"opening it takes the static private key of {_short(responder)}, its responder,"
                " or the initiator's ephemeral one; the initiator's static key alone opens nothing"
            )
        initiator = transcript.open("s", transcript.mix_dh("es", shared), message.encrypted_static)
        if initiator is None:
            return DropReason.STATIC_INVALID
        shared = _dh(keys, initiator, responder)
        if shared is None:
            return Sealed(
                f"it is from {_short(initiator)}; the rest takes the static private key of"
                " either side"
            )
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
) -> TransportKeys | DropReason | Sealed:
    """Keys of both directions (`send` is the initiator's).

    A response that no known preshared key opens is `Sealed`, not invalid: the key log may
    lack the right one.
    """
    ephemeral = message.unencrypted_ephemeral
    try:
        shared = _dh(keys, initiation.ephemeral, ephemeral)
        static = _dh(keys, initiation.initiator, ephemeral)
    except LowOrderError:
        return DropReason.LOW_ORDER_KEY
    if shared is None or static is None:
        return Sealed(
            "the data takes an ephemeral private key and the static one of the same side"
            " (LOCAL_EPHEMERAL_PRIVATE_KEY): static keys alone do not open it"
        )
    for preshared in (NO_PRESHARED_KEY, *keys.preshared):
        transcript = Transcript(keys.crypto, initiation.chaining_key, initiation.hash)
        transcript.mix_key("e", ephemeral)
        transcript.mix_hash("e", ephemeral)
        transcript.mix_key("ee", shared)
        transcript.mix_key("se", static)
        key = transcript.mix_psk("psk", preshared)
        if transcript.open("{}", key, message.encrypted_nothing) is not None:
            return TransportKeys(*transcript.split())
    return Sealed("it opens with none of the preshared keys known: one is missing, or it is forged")


def _short(public: bytes) -> str:
    return f"{PublicKey(public).base64[:8]}…"

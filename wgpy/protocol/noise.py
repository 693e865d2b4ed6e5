"""The handshake: Noise_IKpsk2 as §5.4.2 and §5.4.3 write it, token by token.

Pure functions over values.  Each step carries its Noise token in a comment, so that the
file can be read beside the paper: ``e``, ``es``, ``s``, ``ss``, ``{t}`` in the initiation,
``e``, ``ee``, ``se``, ``psk``, ``{}`` in the response.  Nothing here decides whether a
message is *acceptable*; it opens or it does not, and nothing is stored.

Who does what:  initiator `create_initiation` → responder `open_static`, `open_timestamp`,
`create_response` → initiator `consume_response`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from wgpy.protocol.constants import CONSTRUCTION, IDENTIFIER
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.messages import Initiation, Response

Trace = Callable[[str, str, bytes], None]
"""Called with (token, name of the value, value) after each step; for vectors and teaching."""


def kdf(crypto: Crypto, key: bytes, material: bytes, count: int) -> tuple[bytes, ...]:
    """Kdf_n of §5.4: `count` outputs of 32 bytes."""
    secret = crypto.hmac(key, material)
    outputs: list[bytes] = []
    previous = b""
    for number in range(1, count + 1):
        previous = crypto.hmac(secret, previous, bytes([number]))
        outputs.append(previous)
    return tuple(outputs)


class Transcript:
    """Chaining key C and hash H of a handshake in progress."""

    __slots__ = ("chaining_key", "crypto", "hash", "trace")

    def __init__(
        self, crypto: Crypto, chaining_key: bytes, hash_: bytes, trace: Trace | None = None
    ) -> None:
        self.crypto = crypto
        self.chaining_key = chaining_key
        self.hash = hash_
        self.trace = trace

    @classmethod
    def begin(cls, crypto: Crypto, responder_public: bytes, trace: Trace | None) -> Transcript:
        """The state both sides start from: who the responder is is known to both."""
        chaining_key = crypto.hash(CONSTRUCTION)
        transcript = cls(crypto, chaining_key, crypto.hash(chaining_key, IDENTIFIER), trace)
        transcript.mix_hash("<- s", responder_public)
        return transcript

    def mix_hash(self, token: str, data: bytes) -> None:
        """H := Hash(H ‖ data)."""
        self.hash = self.crypto.hash(self.hash, data)
        self._tell(token, "hash", self.hash)

    def mix_key(self, token: str, material: bytes) -> None:
        """C := Kdf1(C, material)."""
        (self.chaining_key,) = kdf(self.crypto, self.chaining_key, material, 1)
        self._tell(token, "chaining_key", self.chaining_key)

    def mix_dh(self, token: str, shared: bytes) -> bytes:
        """(C, κ) := Kdf2(C, shared); returns κ."""
        self.chaining_key, key = kdf(self.crypto, self.chaining_key, shared, 2)
        self._tell(token, "chaining_key", self.chaining_key)
        self._tell(token, "key", key)
        return key

    def mix_psk(self, token: str, preshared_key: bytes) -> bytes:
        """(C, τ, κ) := Kdf3(C, Q); H := Hash(H ‖ τ); returns κ."""
        self.chaining_key, tau, key = kdf(self.crypto, self.chaining_key, preshared_key, 3)
        self._tell(token, "chaining_key", self.chaining_key)
        self._tell(token, "tau", tau)
        self._tell(token, "key", key)
        self.mix_hash(token, tau)
        return key

    def seal(self, token: str, key: bytes, plaintext: bytes) -> bytes:
        """Aead(κ, 0, plaintext, H), mixed into H."""
        sealed = self.crypto.aead(key).seal(0, plaintext, self.hash)
        self.mix_hash(token, sealed)
        return sealed

    def open(self, token: str, key: bytes, sealed: bytes) -> bytes | None:
        """The plaintext, mixed into H; None and H unchanged when the tag is wrong."""
        plaintext = self.crypto.aead(key).open(0, sealed, self.hash)
        if plaintext is not None:
            self.mix_hash(token, sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Initiator's sending key and receiving key (§5.4.5)."""
        first, second = kdf(self.crypto, self.chaining_key, b"", 2)
        self._tell("split", "initiator_sends", first)
        self._tell("split", "responder_sends", second)
        return first, second

    def _tell(self, token: str, name: str, value: bytes) -> None:
        if self.trace is not None:
            self.trace(token, name, value)


class TransportKeys(NamedTuple):
    """One key for each direction, from the owner's side; the repr hides them."""

    send: bytes
    receive: bytes

    def __repr__(self) -> str:
        return "TransportKeys(<hidden>)"


@dataclass(slots=True)
class SentInitiation:
    """What an initiator keeps until the response arrives."""

    local_index: int
    ephemeral_private: bytes = field(repr=False)
    chaining_key: bytes = field(repr=False)
    hash: bytes = field(repr=False)


def create_initiation(
    crypto: Crypto,
    *,
    static_public: bytes,
    remote_static: bytes,
    static_static: bytes,
    ephemeral_private: bytes,
    sender_index: int,
    timestamp: bytes,
    trace: Trace | None = None,
) -> tuple[Initiation, SentInitiation]:
    """The first message, its MACs still zero.  `static_static` is DH of both statics.

    Raises `LowOrderError` when the remote static key is of low order.
    """
    transcript = Transcript.begin(crypto, remote_static, trace)
    ephemeral_public = crypto.public_key(ephemeral_private)
    # e
    transcript.mix_key("e", ephemeral_public)
    transcript.mix_hash("e", ephemeral_public)
    # es
    key = transcript.mix_dh("es", crypto.dh(ephemeral_private, remote_static))
    # s
    encrypted_static = transcript.seal("s", key, static_public)
    # ss
    key = transcript.mix_dh("ss", static_static)
    # {t}
    encrypted_timestamp = transcript.seal("{t}", key, timestamp)
    message = Initiation(sender_index, ephemeral_public, encrypted_static, encrypted_timestamp)
    sent = SentInitiation(
        sender_index, ephemeral_private, transcript.chaining_key, transcript.hash
    )
    return message, sent


class OpenedStatic(NamedTuple):
    """Who claims to initiate; proven only once the timestamp opened too."""

    initiator_public: bytes
    transcript: Transcript


def open_static(
    crypto: Crypto,
    message: Initiation,
    *,
    static_private: bytes,
    static_public: bytes,
    trace: Trace | None = None,
) -> OpenedStatic | None:
    """First half of reading an initiation, up to the initiator's identity.

    None when the static key does not open; raises `LowOrderError` for a bad ephemeral.
    """
    transcript = Transcript.begin(crypto, static_public, trace)
    # e
    transcript.mix_key("e", message.unencrypted_ephemeral)
    transcript.mix_hash("e", message.unencrypted_ephemeral)
    # es
    key = transcript.mix_dh("es", crypto.dh(static_private, message.unencrypted_ephemeral))
    # s
    initiator_public = transcript.open("s", key, message.encrypted_static)
    return None if initiator_public is None else OpenedStatic(initiator_public, transcript)


def open_timestamp(
    opened: OpenedStatic, message: Initiation, *, static_static: bytes
) -> bytes | None:
    """Second half: the 12-byte timestamp, which authenticates the initiator; None if not."""
    transcript = opened.transcript
    # ss
    key = transcript.mix_dh("ss", static_static)
    # {t}
    return transcript.open("{t}", key, message.encrypted_timestamp)


def create_response(
    opened: OpenedStatic,
    message: Initiation,
    *,
    preshared_key: bytes,
    ephemeral_private: bytes,
    sender_index: int,
) -> tuple[Response, TransportKeys]:
    """The second message, its MACs still zero, and the responder's keys."""
    transcript = opened.transcript
    crypto = transcript.crypto
    ephemeral_public = crypto.public_key(ephemeral_private)
    # e
    transcript.mix_key("e", ephemeral_public)
    transcript.mix_hash("e", ephemeral_public)
    # ee, se
    transcript.mix_key("ee", crypto.dh(ephemeral_private, message.unencrypted_ephemeral))
    transcript.mix_key("se", crypto.dh(ephemeral_private, opened.initiator_public))
    # psk
    key = transcript.mix_psk("psk", preshared_key)
    # {}
    encrypted_nothing = transcript.seal("{}", key, b"")
    crypto.forget(ephemeral_private)
    initiator_sends, responder_sends = transcript.split()
    response = Response(sender_index, message.sender_index, ephemeral_public, encrypted_nothing)
    return response, TransportKeys(send=responder_sends, receive=initiator_sends)


def consume_response(
    crypto: Crypto,
    sent: SentInitiation,
    message: Response,
    *,
    static_private: bytes,
    preshared_key: bytes,
    trace: Trace | None = None,
) -> TransportKeys | None:
    """The initiator's keys; None when the response does not open.

    Raises `LowOrderError` for a bad ephemeral.
    """
    transcript = Transcript(crypto, sent.chaining_key, sent.hash, trace)
    ephemeral = message.unencrypted_ephemeral
    # e
    transcript.mix_key("e", ephemeral)
    transcript.mix_hash("e", ephemeral)
    # ee, se
    transcript.mix_key("ee", crypto.dh(sent.ephemeral_private, ephemeral))
    transcript.mix_key("se", crypto.dh(static_private, ephemeral))
    # psk
    key = transcript.mix_psk("psk", preshared_key)
    # {}
    if transcript.open("{}", key, message.encrypted_nothing) is None:
        return None
    crypto.forget(sent.ephemeral_private)
    initiator_sends, responder_sends = transcript.split()
    return TransportKeys(send=initiator_sends, receive=responder_sends)

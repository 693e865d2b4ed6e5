"""The third backend: the RFCs in plain Python, for teaching and as an oracle.

Slow, and not constant-time: never for traffic that matters.
"""

from __future__ import annotations

import struct
from typing import Final

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import HASH_SIZE, MAC_SIZE
from wgpy.protocol.crypto.interface import LowOrderError
from wgpy.protocol.reference.aead import aead_open, aead_seal, xaead_open, xaead_seal
from wgpy.protocol.reference.blake2s import blake2s, hmac_blake2s
from wgpy.protocol.reference.x25519 import BASE_POINT, x25519

_pack_nonce: Final = struct.Struct("<4xQ").pack


class ReferenceAead:
    """See `wgpy.protocol.crypto.Aead`."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = bytes(key)

    def seal(self, counter: int, plaintext: Buffer, aad: Buffer = b"") -> bytes:
        """Ciphertext ‖ tag."""
        return aead_seal(self._key, _pack_nonce(counter), bytes(plaintext), bytes(aad))

    def open(self, counter: int, ciphertext: Buffer, aad: Buffer = b"") -> bytes | None:
        """The plaintext, or None."""
        return aead_open(self._key, _pack_nonce(counter), bytes(ciphertext), bytes(aad))


class ReferenceCrypto:
    """See `wgpy.protocol.crypto.Crypto`."""

    __slots__ = ()

    name: Final = "reference"

    def forget(self, private: bytes) -> None:
        """Nothing is kept."""

    def public_key(self, private: bytes) -> bytes:
        """The public key of `private`."""
        return x25519(private, BASE_POINT)

    def dh(self, private: bytes, public: bytes) -> bytes:
        """X25519, or `LowOrderError`."""
        result = x25519(private, public)
        if not any(result):
            raise LowOrderError
        return result

    def hash(self, *parts: Buffer) -> bytes:
        """BLAKE2s-256 of the parts joined."""
        return blake2s(b"".join(parts), HASH_SIZE)

    def mac(self, key: bytes, data: Buffer) -> bytes:
        """Keyed BLAKE2s-128."""
        return blake2s(bytes(data), MAC_SIZE, bytes(key))

    def hmac(self, key: bytes, *parts: Buffer) -> bytes:
        """HMAC-BLAKE2s-256."""
        return hmac_blake2s(bytes(key), b"".join(parts))

    def aead(self, key: bytes) -> ReferenceAead:
        """ChaCha20-Poly1305 under `key`."""
        return ReferenceAead(key)

    def xaead_seal(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: Buffer) -> bytes:
        """Ciphertext ‖ tag."""
        return xaead_seal(bytes(key), nonce, bytes(plaintext), bytes(aad))

    def xaead_open(self, key: bytes, nonce: bytes, ciphertext: Buffer, aad: Buffer) -> bytes | None:
        """The plaintext, or None."""
        return xaead_open(bytes(key), nonce, bytes(ciphertext), bytes(aad))

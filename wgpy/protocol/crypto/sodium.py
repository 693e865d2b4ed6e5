"""The second backend: libsodium through PyNaCl's bindings."""

from __future__ import annotations

import struct
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as SodiumError

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import KEY_SIZE, TAG_SIZE
from wgpy.protocol.crypto.blake import HashlibBlake
from wgpy.protocol.crypto.interface import LowOrderError

_pack_nonce: Final = struct.Struct("<4xQ").pack


class SodiumAead:
    """See `wgpy.protocol.crypto.Aead`."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a key has {KEY_SIZE} bytes, not {len(key)}")
        self._key = bytes(key)

    def seal(self, counter: int, plaintext: Buffer, aad: Buffer = b"") -> bytes:
        """Ciphertext ‖ tag."""
        return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(
            bytes(plaintext), bytes(aad), _pack_nonce(counter), self._key
        )

    def open(self, counter: int, ciphertext: Buffer, aad: Buffer = b"") -> bytes | None:
        """The plaintext, or None."""
        if len(ciphertext) < TAG_SIZE:
            return None
        try:
            return bindings.crypto_aead_chacha20poly1305_ietf_decrypt(
                bytes(ciphertext), bytes(aad), _pack_nonce(counter), self._key
            )
        except CryptoError:
            return None


class SodiumCrypto(HashlibBlake):
    """See `wgpy.protocol.crypto.Crypto`."""

    __slots__ = ()

    name: Final = "sodium"

    def forget(self, private: bytes) -> None:
        """Nothing is kept."""

    def public_key(self, private: bytes) -> bytes:
        """The public key of `private`."""
        return bindings.crypto_scalarmult_base(bytes(private))

    def dh(self, private: bytes, public: bytes) -> bytes:
        """X25519, or `LowOrderError`; libsodium's only refusal once both sizes are right."""
        if len(private) != KEY_SIZE or len(public) != KEY_SIZE:
            raise ValueError(f"a key has {KEY_SIZE} bytes")
        try:
            return bindings.crypto_scalarmult(bytes(private), bytes(public))
        except SodiumError as error:
            raise LowOrderError from error

    def aead(self, key: bytes) -> SodiumAead:
        """ChaCha20-Poly1305 under `key`."""
        return SodiumAead(key)

    def xaead_seal(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: Buffer) -> bytes:
        """Ciphertext ‖ tag."""
        return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            bytes(plaintext), bytes(aad), nonce, bytes(key)
        )

    def xaead_open(self, key: bytes, nonce: bytes, ciphertext: Buffer, aad: Buffer) -> bytes | None:
        """The plaintext, or None."""
        if len(ciphertext) < TAG_SIZE:
            return None
        try:
            return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                bytes(ciphertext), bytes(aad), nonce, bytes(key)
            )
        except CryptoError:
            return None

"""What a crypto backend is: the primitives of §5.4 as types, and the error that all share.

The backends stand on this module; the package makes them by name.
"""

from __future__ import annotations

from typing import Protocol

from wgpy.protocol.buffer import Buffer


class LowOrderError(Exception):
    """The Diffie-Hellman result is zero: the public key has low order (RFC 7748 §6.1)."""


class Aead(Protocol):
    """ChaCha20-Poly1305 (RFC 8439) under one key; the nonce is 4 zero bytes ‖ LE64(counter).

    Keep one per key: making one costs as much as sealing a packet.
    """

    def seal(self, counter: int, plaintext: Buffer, aad: Buffer = b"") -> bytes:
        """Ciphertext followed by the 16-byte tag."""

    def open(self, counter: int, ciphertext: Buffer, aad: Buffer = b"") -> bytes | None:
        """The plaintext, or None when the tag does not fit or there is none."""


class Crypto(Protocol):
    """One implementation of every primitive of §5.4.  Keys are 32 bytes."""

    @property
    def name(self) -> str:
        """The name `backend` knows it by."""

    def public_key(self, private: bytes) -> bytes:
        """The Curve25519 public key of a private key (clamped here, RFC 7748 §5)."""

    def dh(self, private: bytes, public: bytes) -> bytes:
        """X25519; raises `LowOrderError` when the result is all zero."""

    def forget(self, private: bytes) -> None:
        """Drop whatever was kept to make `public_key` and `dh` of this private key fast.

        A handshake calls it when it is done with an ephemeral key: forward secrecy needs
        that nothing outlives it.
        """

    def hash(self, *parts: Buffer) -> bytes:
        """Hash(): BLAKE2s with 32 bytes of output, of the parts joined."""

    def mac(self, key: bytes, data: Buffer) -> bytes:
        """Mac(): *keyed* BLAKE2s with 16 bytes of output."""

    def hmac(self, key: bytes, *parts: Buffer) -> bytes:
        """Hmac(): HMAC (RFC 2104) over BLAKE2s, 32 bytes, of the parts joined."""

    def aead(self, key: bytes) -> Aead:
        """Aead() under `key`."""

    def xaead_seal(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: Buffer) -> bytes:
        """Xaead(): XChaCha20-Poly1305 with a 24-byte nonce; ciphertext ‖ tag."""

    def xaead_open(self, key: bytes, nonce: bytes, ciphertext: Buffer, aad: Buffer) -> bytes | None:
        """The plaintext, or None when the tag does not fit."""

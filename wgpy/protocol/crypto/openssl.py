"""The default backend: OpenSSL through package cryptography.

XChaCha20-Poly1305 is not in OpenSSL.  It is derived here from what is: HChaCha20 is a
ChaCha20 block without its final addition, so one keystream block minus the initial state
gives it.  That keeps the default backend to one library (libsodium is never loaded) and
makes it an independent check of the sodium backend.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.crypto.blake import HashlibBlake
from wgpy.protocol.crypto.interface import LowOrderError

TagMismatch: Final = InvalidTag
"""Raised by `OpenSslAead.cipher` for a wrong tag."""

_pack_nonce: Final = struct.Struct("<4xQ").pack
_WORDS: Final = struct.Struct("<8I")
_SIGMA: Final = b"expand 32-byte k"

# A device works with its static key and one ephemeral key at a time; two more let
# initiations that are under way keep theirs.
_KEPT_KEYS: Final = 4


class OpenSslAead:
    """`cipher` is the library's object, for a fast path that seals in place itself."""

    __slots__ = ("cipher",)

    def __init__(self, key: bytes) -> None:
        self.cipher: Final = ChaCha20Poly1305(key)

    def seal(self, counter: int, plaintext: Buffer, aad: Buffer = b"") -> bytes:
        """Ciphertext ‖ tag."""
        return self.cipher.encrypt(_pack_nonce(counter), plaintext, aad)

    def open(self, counter: int, ciphertext: Buffer, aad: Buffer = b"") -> bytes | None:
        """The plaintext, or None."""
        try:
            return self.cipher.decrypt(_pack_nonce(counter), ciphertext, aad)
        except InvalidTag:
            return None

    def seal_into(self, counter: int, plaintext: Buffer, out: bytearray | memoryview) -> None:
        """Ciphertext ‖ tag into `out`, which must have exactly that size; they may overlap
        where `plaintext` is the start of `out`."""
        self.cipher.encrypt_into(_pack_nonce(counter), plaintext, None, out)

    def open_into(self, counter: int, ciphertext: Buffer, out: bytearray | memoryview) -> bool:
        """The plaintext into `out`, 16 bytes shorter than `ciphertext`; False: tag wrong,
        and the content of `out` must be discarded."""
        try:
            self.cipher.decrypt_into(_pack_nonce(counter), ciphertext, None, out)
        except InvalidTag:
            return False
        return True


class OpenSslCrypto(HashlibBlake):
    """See `wgpy.protocol.crypto.Crypto`."""

    __slots__ = ("_keys",)

    name: Final = "openssl"

    def __init__(self) -> None:
        # Loading a private key makes OpenSSL compute its public one: 22 µs, almost a DH.
        self._keys: OrderedDict[bytes, X25519PrivateKey] = OrderedDict()

    def _load(self, private: bytes) -> X25519PrivateKey:
        key = self._keys.get(private)
        if key is None:
            key = X25519PrivateKey.from_private_bytes(private)
            self._keys[private] = key
            if len(self._keys) > _KEPT_KEYS:
                self._keys.popitem(last=False)
        else:
            self._keys.move_to_end(private)
        return key

    def forget(self, private: bytes) -> None:
        """Drop the kept key; OpenSSL overwrites it."""
        self._keys.pop(private, None)

    def public_key(self, private: bytes) -> bytes:
        """The public key of `private`."""
        return self._load(private).public_key().public_bytes_raw()

    def dh(self, private: bytes, public: bytes) -> bytes:
        """X25519, or `LowOrderError`."""
        point = X25519PublicKey.from_public_bytes(public)
        key = self._load(private)
        try:
            return key.exchange(point)
        except ValueError as error:
            raise LowOrderError from error

    def aead(self, key: bytes) -> OpenSslAead:
        """ChaCha20-Poly1305 under `key`."""
        return OpenSslAead(key)

    def xaead_seal(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: Buffer) -> bytes:
        """Ciphertext ‖ tag."""
        cipher = ChaCha20Poly1305(_hchacha20(key, nonce[:16]))
        return cipher.encrypt(bytes(4) + nonce[16:], plaintext, aad)

    def xaead_open(self, key: bytes, nonce: bytes, ciphertext: Buffer, aad: Buffer) -> bytes | None:
        """The plaintext, or None."""
        cipher = ChaCha20Poly1305(_hchacha20(key, nonce[:16]))
        try:
            return cipher.decrypt(bytes(4) + nonce[16:], ciphertext, aad)
        except InvalidTag:
            return None


def _hchacha20(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20 (draft-irtf-cfrg-xchacha-03 §2.2) of a 16-byte nonce, from one ChaCha20 block.

    A block is rounds(state) + state; HChaCha20 is the first and last row of rounds(state).
    """
    block = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    rows = _WORDS.unpack(block[:16] + block[48:])
    initial = _WORDS.unpack(_SIGMA + nonce)
    return _WORDS.pack(*((a - b) & 0xFFFFFFFF for a, b in zip(rows, initial, strict=True)))

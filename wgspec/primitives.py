"""The cryptographic functions of the whitepaper's §5.4, by its names.

Written for clarity on top of `hashlib` and the package `cryptography`; XChaCha20-Poly1305
is built here from HChaCha20, because neither has it.
"""

from __future__ import annotations

import hashlib
import hmac as _hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


class Forged(Exception):
    """An authentication tag did not verify."""


def hash_(*parts: bytes) -> bytes:
    """Hash: unkeyed BLAKE2s, 32 bytes."""
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key: bytes, data: bytes) -> bytes:
    """Mac: *keyed* BLAKE2s, 16 bytes."""
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def hmac(key: bytes, data: bytes) -> bytes:
    """Hmac: the HMAC construction over BLAKE2s, 32 bytes."""
    return _hmac.new(key, data, hashlib.blake2s).digest()


def kdf(count: int, key: bytes, data: bytes) -> list[bytes]:
    """Kdf_n: `count` outputs of 32 bytes."""
    secret = hmac(key, data)
    outputs = [hmac(secret, b"\x01")]
    while len(outputs) < count:
        outputs.append(hmac(secret, outputs[-1] + bytes([len(outputs) + 1])))
    return outputs


def public_key(private: bytes) -> bytes:
    """The X25519 public key of a private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, public: bytes) -> bytes:
    """X25519; 32 zero bytes for a low-order point, where the package refuses to answer."""
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError:
        return bytes(32)


def nonce(counter: int) -> bytes:
    """§5.4: 4 zero bytes and the counter, little-endian."""
    return bytes(4) + counter.to_bytes(8, "little")


def seal(key: bytes, counter: int, plaintext: bytes, aad: bytes = b"") -> bytes:
    """Aead: ciphertext and 16-byte tag."""
    return ChaCha20Poly1305(key).encrypt(nonce(counter), plaintext, aad)


def open_(key: bytes, counter: int, ciphertext: bytes, aad: bytes = b"") -> bytes:
    """The plaintext, or `Forged`."""
    try:
        return ChaCha20Poly1305(key).decrypt(nonce(counter), ciphertext, aad)
    except InvalidTag as error:
        raise Forged from error


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & 0xFFFFFFFF


def _quarter(s: list[int], a: int, b: int, c: int, d: int) -> None:
    for first, second, third, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[first] = (s[first] + s[second]) & 0xFFFFFFFF
        s[third] = _rotate(s[third] ^ s[first], bits)


def hchacha20(key: bytes, nonce16: bytes) -> bytes:
    """The subkey of XChaCha20 (draft-irtf-cfrg-xchacha)."""
    state = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<12I", key + nonce16)]
    for _ in range(10):
        for column in range(4):
            _quarter(state, column, 4 + column, 8 + column, 12 + column)
        for i in range(4):
            _quarter(state, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *state[:4], *state[12:])


def xseal(key: bytes, nonce24: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Xaead: ciphertext and tag under a 24-byte nonce."""
    box = ChaCha20Poly1305(hchacha20(key, nonce24[:16]))
    return box.encrypt(bytes(4) + nonce24[16:], plaintext, aad)


def xopen(key: bytes, nonce24: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """The plaintext, or `Forged`."""
    box = ChaCha20Poly1305(hchacha20(key, nonce24[:16]))
    try:
        return box.decrypt(bytes(4) + nonce24[16:], ciphertext, aad)
    except InvalidTag as error:
        raise Forged from error

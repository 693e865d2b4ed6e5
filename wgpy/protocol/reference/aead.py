"""ChaCha20-Poly1305, RFC 8439 §2.6 and §2.8, and XChaCha20-Poly1305 (its draft §2.1, §2.3)."""

from __future__ import annotations

import struct

from wgpy.protocol.reference.chacha20 import chacha20_block, chacha20_xor, hchacha20
from wgpy.protocol.reference.poly1305 import poly1305

TAG = 16


def pad16(data: bytes) -> bytes:
    """The zero bytes that fill `data` to a multiple of 16 (§2.8)."""
    return bytes(-len(data) % 16)


def tag_of(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """The tag over aad and ciphertext, each padded, and both lengths (§2.8).

    The one-time key is the first half of key stream block 0 (§2.6); the text begins at 1.
    """
    one_time_key = chacha20_block(key, 0, nonce)[:32]
    lengths = struct.pack("<QQ", len(aad), len(ciphertext))
    return poly1305(one_time_key, aad + pad16(aad) + ciphertext + pad16(ciphertext) + lengths)


def aead_seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Ciphertext ‖ tag; 32-byte key, 12-byte nonce."""
    check_sizes(key, nonce, 12)
    ciphertext = chacha20_xor(key, 1, nonce, plaintext)
    return ciphertext + tag_of(key, nonce, ciphertext, aad)


def aead_open(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes | None:
    """The plaintext, or None when the tag does not fit."""
    check_sizes(key, nonce, 12)
    if len(sealed) < TAG:
        return None
    ciphertext, tag = sealed[:-TAG], sealed[-TAG:]
    if tag_of(key, nonce, ciphertext, aad) != tag:
        return None
    return chacha20_xor(key, 1, nonce, ciphertext)


def xaead_seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """As `aead_seal` with 24 bytes of nonce: 16 make a subkey, 8 go on as the nonce."""
    check_sizes(key, nonce, 24)
    return aead_seal(hchacha20(key, nonce[:16]), bytes(4) + nonce[16:], plaintext, aad)


def xaead_open(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes | None:
    """The plaintext, or None when the tag does not fit."""
    check_sizes(key, nonce, 24)
    return aead_open(hchacha20(key, nonce[:16]), bytes(4) + nonce[16:], sealed, aad)


def check_sizes(key: bytes, nonce: bytes, nonce_size: int) -> None:
    """Raises ValueError unless the key has 32 bytes and the nonce `nonce_size`."""
    if len(key) != 32 or len(nonce) != nonce_size:
        raise ValueError(f"wanted 32 bytes of key and {nonce_size} of nonce")

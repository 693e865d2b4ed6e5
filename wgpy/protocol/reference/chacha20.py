"""The ChaCha20 stream cipher, RFC 8439 §2.1 to §2.4, and HChaCha20 (XChaCha draft §2.2).

The state is a 4×4 matrix of 32-bit words: four constants, eight of the key, a block
counter and three of the nonce.  Twenty rounds mix it; adding the initial state makes the
mixing impossible to undo.
"""

from __future__ import annotations

import struct
from typing import Final

MASK: Final = 0xFFFFFFFF
CONSTANTS: Final = struct.unpack("<4I", b"expand 32-byte k")

# RFC 8439 §2.3: the four columns, then the four diagonals.
COLUMNS: Final = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS: Final = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def rotate(word: int, bits: int) -> int:
    """A 32-bit word rolled left."""
    return (word << bits | word >> (32 - bits)) & MASK


def quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    """RFC 8439 §2.1, on four words of the state (§2.2)."""
    state[a] = (state[a] + state[b]) & MASK
    state[d] = rotate(state[d] ^ state[a], 16)
    state[c] = (state[c] + state[d]) & MASK
    state[b] = rotate(state[b] ^ state[c], 12)
    state[a] = (state[a] + state[b]) & MASK
    state[d] = rotate(state[d] ^ state[a], 8)
    state[c] = (state[c] + state[d]) & MASK
    state[b] = rotate(state[b] ^ state[c], 7)


def twenty_rounds(state: list[int]) -> list[int]:
    """Ten times a column round and a diagonal round, on a copy."""
    working = list(state)
    for _ in range(10):
        for indices in COLUMNS + DIAGONALS:
            quarter_round(working, *indices)
    return working


def initial_state(key: bytes, last_row: bytes) -> list[int]:
    """Constants, the 32-byte key, and 16 bytes that are counter ‖ nonce."""
    return [*CONSTANTS, *struct.unpack("<8I", key), *struct.unpack("<4I", last_row)]


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """64 bytes of key stream (§2.3); `nonce` has 12 bytes."""
    state = initial_state(key, struct.pack("<I", counter) + nonce)
    mixed = twenty_rounds(state)
    return struct.pack("<16I", *((m + s) & MASK for m, s in zip(mixed, state, strict=True)))


def chacha20_xor(key: bytes, counter: int, nonce: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt (§2.4): XOR with the key stream that begins at block `counter`."""
    out = bytearray()
    for offset in range(0, len(data), 64):
        stream = chacha20_block(key, counter + offset // 64, nonce)
        out += bytes(d ^ k for d, k in zip(data[offset : offset + 64], stream, strict=False))
    return bytes(out)


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """A 32-byte subkey from a key and 16 bytes of nonce (draft-irtf-cfrg-xchacha-03 §2.2).

    As a block, without the final addition, and only the first and the last row: the words
    whose inputs an attacker knows are exactly those that are given away.
    """
    mixed = twenty_rounds(initial_state(key, nonce))
    return struct.pack("<8I", *mixed[:4], *mixed[12:])

"""The BLAKE2s hash function, RFC 7693, and HMAC (RFC 2104) over it.

Sixteen words of state are mixed with the sixteen words of a 64-byte block in ten rounds;
a key is simply a first block of its own, and key and digest length are part of the
initial state, so that keyed and unkeyed results have nothing to do with each other.
"""

from __future__ import annotations

import struct
from typing import Final

MASK: Final = 0xFFFFFFFF
BLOCK: Final = 64

# §2.6: the fractional parts of the square roots of the first eight primes, as SHA-256's.
IV: Final = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip

# §2.7: in which order each round takes the words of the block.
SIGMA: Final = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)

# §3.2: the columns, then the diagonals, of the 4×4 state.
MIXED: Final = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def rotate(word: int, bits: int) -> int:
    """A 32-bit word rolled right."""
    return (word >> bits | word << (32 - bits)) & MASK


def mix(v: list[int], a: int, b: int, c: int, d: int, x: int, y: int) -> None:
    """The function G of §3.1 with BLAKE2s's rotations."""
    v[a] = (v[a] + v[b] + x) & MASK
    v[d] = rotate(v[d] ^ v[a], 16)
    v[c] = (v[c] + v[d]) & MASK
    v[b] = rotate(v[b] ^ v[c], 12)
    v[a] = (v[a] + v[b] + y) & MASK
    v[d] = rotate(v[d] ^ v[a], 8)
    v[c] = (v[c] + v[d]) & MASK
    v[b] = rotate(v[b] ^ v[c], 7)


def compress(h: list[int], block: bytes, count: int, last: bool) -> list[int]:
    """The function F of §3.2; `count` is the number of bytes hashed, this block included."""
    m = struct.unpack("<16I", block)
    v = [*h, *IV]
    v[12] ^= count & MASK
    v[13] ^= count >> 32
    if last:
        v[14] ^= MASK
    for order in SIGMA:
        for number, indices in enumerate(MIXED):
            mix(v, *indices, m[order[2 * number]], m[order[2 * number + 1]])
    return [h[i] ^ v[i] ^ v[i + 8] for i in range(8)]


def blake2s(data: bytes, size: int = 32, key: bytes = b"") -> bytes:
    """The digest of `size` bytes (1-32), keyed when `key` (at most 32 bytes) is given (§3.3)."""
    if not 1 <= size <= 32 or len(key) > 32:
        raise ValueError("a digest has 1 to 32 bytes, a key at most 32")
    if key:
        data = key.ljust(BLOCK, b"\0") + data
    h = list(IV)
    h[0] ^= 0x01010000 ^ len(key) << 8 ^ size
    offset = 0
    while len(data) - offset > BLOCK:
        h = compress(h, data[offset : offset + BLOCK], offset + BLOCK, last=False)
        offset += BLOCK
    h = compress(h, data[offset:].ljust(BLOCK, b"\0"), len(data), last=True)
    return struct.pack("<8I", *h)[:size]


def hmac_blake2s(key: bytes, data: bytes) -> bytes:
    """HMAC (RFC 2104 §2) over BLAKE2s-256: two unkeyed hashes, the key in a padded block."""
    block = (blake2s(key) if len(key) > BLOCK else key).ljust(BLOCK, b"\0")
    inner = blake2s(bytes(byte ^ 0x36 for byte in block) + data)
    return blake2s(bytes(byte ^ 0x5C for byte in block) + inner)

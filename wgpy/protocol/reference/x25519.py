"""X25519, RFC 7748 §5: scalar multiplication on Curve25519 with the Montgomery ladder.

Only x-coordinates ("u" in the RFC) travel.  The ladder keeps the points n·P and (n+1)·P
as fractions X/Z, so that one division at the end is enough.
"""

from __future__ import annotations

from typing import Final

PRIME: Final = 2**255 - 19
A24: Final = 121665
BASE_POINT: Final = (9).to_bytes(32, "little")


def decode_scalar(private: bytes) -> int:
    """A private key as a number, clamped (§5): a multiple of the cofactor 8, bit 254 set."""
    scalar = int.from_bytes(private, "little")
    return scalar & ~(1 << 255) & ~7 | (1 << 254)


def decode_u(public: bytes) -> int:
    """A public key as a number: the top bit is ignored, and any value is taken (§5)."""
    return (int.from_bytes(public, "little") & ((1 << 255) - 1)) % PRIME


def ladder(k: int, u: int) -> int:
    """The u-coordinate of k times the point with coordinate `u` (the pseudocode of §5)."""
    x1, x2, z2, x3, z3 = u, 1, 0, u, 1
    swapped = 0
    for position in reversed(range(255)):
        bit = k >> position & 1
        if bit != swapped:
            x2, x3, z2, z3 = x3, x2, z3, z2
            swapped = bit
        a, b = x2 + z2, x2 - z2
        c, d = x3 + z3, x3 - z3
        aa, bb = a * a % PRIME, b * b % PRIME
        da, cb = d * a % PRIME, c * b % PRIME
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % PRIME, x1 * (da - cb) ** 2 % PRIME
        x2, z2 = aa * bb % PRIME, e * (aa + A24 * e) % PRIME
    if swapped:
        x2, z2 = x3, z3
    # 1/z by Fermat; 0 stays 0, which is how a low-order point shows.
    return x2 * pow(z2, PRIME - 2, PRIME) % PRIME


def x25519(private: bytes, public: bytes) -> bytes:
    """32 bytes: all zero when `public` is a point of low order (§6.1 asks to check)."""
    if len(private) != 32 or len(public) != 32:
        raise ValueError("wanted 32 bytes of private and 32 of public key")
    return ladder(decode_scalar(private), decode_u(public)).to_bytes(32, "little")

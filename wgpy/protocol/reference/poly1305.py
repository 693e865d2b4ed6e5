"""The Poly1305 one-time authenticator, RFC 8439 §2.5.

The message is a polynomial, 16 bytes a coefficient, evaluated at the secret point `r`
modulo the prime 2^130 - 5; the secret `s` hides the result.  A key must never
authenticate two messages.
"""

from __future__ import annotations

from typing import Final

PRIME: Final = 2**130 - 5
CLAMP: Final = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF


def poly1305(key: bytes, message: bytes) -> bytes:
    """The 16-byte tag of `message` under a 32-byte one-time key (§2.5.1)."""
    r = int.from_bytes(key[:16], "little") & CLAMP
    s = int.from_bytes(key[16:], "little")
    accumulator = 0
    for offset in range(0, len(message), 16):
        # The 1 above each block makes trailing zeros count.
        block = message[offset : offset + 16] + b"\1"
        accumulator = (accumulator + int.from_bytes(block, "little")) * r % PRIME
    return ((accumulator + s) % 2**128).to_bytes(16, "little")

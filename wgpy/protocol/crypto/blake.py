"""Hash(), Mac() and Hmac() of §5.4 through hashlib, for the two fast backends.

Neither package cryptography (no keyed mode, no 16-byte output) nor libsodium (BLAKE2b
only) has the BLAKE2s that WireGuard needs, so both share the standard library's.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Final

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import HASH_SIZE, MAC_SIZE

_BLOCK: Final = 64
_IPAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OPAD: Final = bytes(byte ^ 0x5C for byte in range(256))


class HashlibBlake:
    """The three BLAKE2s constructions as static methods."""

    __slots__ = ()

    @staticmethod
    def hash(*parts: Buffer) -> bytes:
        """BLAKE2s-256 of the parts joined."""
        return blake2s(b"".join(parts), digest_size=HASH_SIZE).digest()

    @staticmethod
    def mac(key: bytes, data: Buffer) -> bytes:
        """Keyed BLAKE2s-128."""
        return blake2s(data, key=key, digest_size=MAC_SIZE).digest()

    @staticmethod
    def hmac(key: bytes, *parts: Buffer) -> bytes:
        """HMAC-BLAKE2s-256; half the time of the hmac module on a handshake's short inputs."""
        block = (blake2s(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
        inner = blake2s(block.translate(_IPAD) + b"".join(parts)).digest()
        return blake2s(block.translate(_OPAD) + inner).digest()

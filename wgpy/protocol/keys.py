"""Curve25519 and preshared keys as values that do not print their secrets.

A key is its 32 bytes (a `bytes` subclass, so the crypto backends take it as it is).
Text forms: base64 as `wg` prints it, hex as the UAPI wants it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Self

from wgpy.protocol.constants import KEY_SIZE


class KeyFormatError(ValueError):
    """The text or byte string is not a 32-byte key."""


class Key(bytes):
    """32 bytes.  Raises `KeyFormatError` for any other length."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        if len(raw) != KEY_SIZE:
            raise KeyFormatError(f"a key has {KEY_SIZE} bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """From 44 base64 characters, as `wg` writes keys; not one bit may be spare (as `wg`)."""
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise KeyFormatError("not a base64 key: 44 characters ending in '='") from error
        if len(raw) != KEY_SIZE or base64.b64encode(raw).decode() != text:
            raise KeyFormatError("not a base64 key: 44 characters ending in '='")
        return cls(raw)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """From 64 hex digits, the UAPI's form."""
        if len(text) != 2 * KEY_SIZE:
            raise KeyFormatError(f"not a hex key: {2 * KEY_SIZE} digits wanted")
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            raise KeyFormatError("not a hex key") from error

    @property
    def base64(self) -> str:
        """44 characters, `wg`'s form."""
        return base64.b64encode(self).decode()

    @property
    def is_zero(self) -> bool:
        """All zero: in the UAPI, the absence of a key."""
        return not any(self)


class PublicKey(Key):
    """A Curve25519 public key; its repr is the short base64 form, safe to log."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"PublicKey({self.base64[:8]}…)"

    __str__ = __repr__


class SecretKey(Key):
    """A key that must not be seen: repr, str and format redact it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)


class PrivateKey(SecretKey):
    """A Curve25519 private key."""

    __slots__ = ()

    @classmethod
    def clamp(cls, raw: bytes) -> Self:
        """`raw` (32 bytes) with the bits of RFC 7748 §5 set and cleared, as `wg genkey`."""
        scalar = bytearray(raw)
        scalar[0] &= 248
        scalar[31] = (scalar[31] & 127) | 64
        return cls(bytes(scalar))


class PresharedKey(SecretKey):
    """A symmetric key mixed into the handshake (§5.2); all zero means none."""

    __slots__ = ()


NO_PRESHARED_KEY = PresharedKey(bytes(KEY_SIZE))

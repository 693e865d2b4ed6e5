"""Bytes that look random and are the same for the same seed and label."""

from __future__ import annotations

from wgpy.protocol.crypto import backend
from wgpy.protocol.keys import PrivateKey


class SeededEntropy:
    """A BLAKE2s counter stream; callable like the engine's entropy."""

    def __init__(self, seed: int, label: str) -> None:
        self._crypto = backend("openssl")
        self._key = self._crypto.hash(b"wgpy vectors", seed.to_bytes(8), label.encode())
        self._counter = 0

    def __call__(self, size: int) -> bytes:
        output = b""
        while len(output) < size:
            output += self._crypto.hash(self._key, self._counter.to_bytes(8))
            self._counter += 1
        return output[:size]

    def private_key(self) -> PrivateKey:
        """A clamped private key."""
        return PrivateKey.clamp(self(32))

    def integer(self, below: int) -> int:
        """0 to below - 1."""
        return int.from_bytes(self(8)) % below

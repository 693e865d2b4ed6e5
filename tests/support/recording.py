"""A crypto backend that refuses to use a nonce twice, and a view of an engine's state."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.crypto import Aead, Crypto, backend
from wgpy.protocol.engine import Engine


class NonceReuseError(AssertionError):
    """One key sealed two messages under the same counter."""


class RecordingCrypto:
    """All of `backend(name)`, with every (key, counter) that sealed something remembered."""

    def __init__(self, name: str = "openssl") -> None:
        self._inner = backend(name)
        self.used: set[tuple[bytes, int]] = set()
        self.xnonces: set[bytes] = set()
        self.name = self._inner.name
        for method in ("public_key", "dh", "forget", "hash", "mac", "hmac", "xaead_open"):
            setattr(self, method, getattr(self._inner, method))

    def aead(self, key: bytes) -> Aead:
        return _RecordingAead(self._inner, key, self.used)

    def xaead_seal(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: Buffer) -> bytes:
        if nonce in self.xnonces:
            raise NonceReuseError("a cookie reply's nonce was used twice")
        self.xnonces.add(nonce)
        return self._inner.xaead_seal(key, nonce, plaintext, aad)


class _RecordingAead:
    def __init__(self, crypto: Crypto, key: bytes, used: set[tuple[bytes, int]]) -> None:
        self._aead = crypto.aead(key)
        self._key = bytes(key)
        self._used = used
        self.open = self._aead.open
        if hasattr(self._aead, "cipher"):
            self.cipher = _RecordingCipher(self._aead.cipher, self)

    def use(self, counter: int) -> None:
        """Remember that `counter` was sealed with; once."""
        if (self._key, counter) in self._used:
            raise NonceReuseError(f"counter {counter} was used twice")
        self._used.add((self._key, counter))

    def seal(self, counter: int, plaintext: Buffer, aad: Buffer = b"") -> bytes:
        self.use(counter)
        return self._aead.seal(counter, plaintext, aad)


class _RecordingCipher:
    """What a batch path takes from an Aead to seal and open in place."""

    def __init__(self, cipher: Any, aead: _RecordingAead) -> None:
        self._encrypt_into = cipher.encrypt_into
        self._aead = aead
        self.decrypt_into = cipher.decrypt_into

    def encrypt_into(self, nonce: Buffer, data: Buffer, aad: Buffer | None, out: Any) -> Any:
        assert not any(nonce[:4]) and aad is None
        self._aead.use(int.from_bytes(nonce[4:], "little"))
        return self._encrypt_into(nonce, data, aad, out)


# What a refused message may change: counters, the load and rate meters, what is told to
# people, and values that are only computed late.
COUNTERS = frozenset(
    {"drops", "events", "load", "limiter", "crypto", "_crypto", "_static_static", "_schedule",
     "scheduled_at", "_schedule_ties", "entropy", "_entropy"}
)  # fmt: skip


def fingerprint(engine: Engine, ignore: Iterable[str] = COUNTERS) -> object:
    """Everything that the engine remembers, as a value that can be compared."""
    seen: dict[int, int] = {}
    skipped = frozenset(ignore)

    def view(thing: object) -> object:
        if thing is None or isinstance(thing, (int, float, str, bytes, Enum)):
            return thing
        if id(thing) in seen:
            return ("again", seen[id(thing)])
        seen[id(thing)] = len(seen)
        if isinstance(thing, dict):
            return [(view(k), view(v)) for k, v in thing.items()]
        if isinstance(thing, (list, tuple)) or type(thing).__name__ == "deque":
            return [view(item) for item in thing]
        names = [*getattr(thing, "__dict__", ())]
        for cls in type(thing).__mro__:
            slots = getattr(cls, "__slots__", ())
            names += [slots] if isinstance(slots, str) else slots
        if not names or callable(thing):
            return (type(thing).__name__, id(thing))
        return (
            type(thing).__name__,
            [(n, view(getattr(thing, n, None))) for n in names if n not in skipped],
        )

    return view(engine.device)

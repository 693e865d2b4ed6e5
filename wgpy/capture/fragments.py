"""IP fragments put together, with bounded memory."""

from __future__ import annotations

from typing import Final, NamedTuple

Key = tuple[bytes, bytes, int]
"""Source, destination and identification (RFC 791, RFC 8200 §4.5)."""

MAX_BYTES: Final = 1 << 24
"""All fragments that wait; the oldest packet goes first."""
MAX_PACKET: Final = 1 << 16


class Part(NamedTuple):
    """One fragment: `size` bytes of the packet at `offset`, of which `data` were captured."""

    offset: int
    size: int
    more: bool
    data: bytes


class _Packet:
    __slots__ = ("held", "parts", "total")

    def __init__(self) -> None:
        self.parts: dict[int, Part] = {}
        self.held = 0
        self.total = -1


class Fragments:
    """Takes fragments in any order; a repeated one changes nothing."""

    def __init__(self) -> None:
        self._packets: dict[Key, _Packet] = {}
        self._held = 0
        self.given_up = 0

    @property
    def waiting(self) -> int:
        """Fragments whose packet is not complete, those given up for memory included."""
        return self.given_up + sum(len(packet.parts) for packet in self._packets.values())

    def join(self, key: Key, part: Part) -> tuple[bytes, int] | None:
        """The packet that `part` completes, as captured bytes and size; None before that.

        The bytes end at the first one that the capture cut.
        """
        packet = self._packets.setdefault(key, _Packet())
        if part.offset in packet.parts or part.offset + part.size > MAX_PACKET:
            return None
        packet.parts[part.offset] = part
        packet.held += part.size
        self._held += part.size + 100
        if not part.more:
            packet.total = part.offset + part.size
        if packet.held == packet.total:
            return self._assemble(key)
        while self._held > MAX_BYTES:
            self.given_up += len(self._forget(next(iter(self._packets))).parts)
        return None

    def _forget(self, key: Key) -> _Packet:
        packet = self._packets.pop(key)
        self._held -= packet.held + 100 * len(packet.parts)
        return packet

    def _assemble(self, key: Key) -> tuple[bytes, int] | None:
        packet = self._forget(key)
        pieces, place, whole = [], 0, True
        for offset, part in sorted(packet.parts.items()):
            if offset != place:
                self.given_up += len(packet.parts)
                return None  # overlaps: no receiver takes them (RFC 5722)
            place += part.size
            if whole:
                pieces.append(part.data)
                whole = len(part.data) == part.size
        return b"".join(pieces), packet.total

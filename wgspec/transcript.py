"""What happened in a case: datagrams with time and direction, notes, and the key log.

It feeds the failure report (hex with fields named) and the capture (`wgspec.pcapng`).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from wgspec.target import Address
from wgspec.wire import describe, dissect


@dataclass(frozen=True, slots=True)
class Entry:
    """`direction` is ">" to the target, "<" from it, "." for a note."""

    at: float
    direction: str
    text: str
    data: bytes = b""
    source: Address | None = None
    destination: Address | None = None


@dataclass
class Transcript:
    """At most `limit` entries are kept, the rest are counted.

    They come as the case reads them; `ordered` is what happened when.
    """

    start: float = 0.0
    limit: int = 600
    entries: list[Entry] = field(default_factory=list)
    omitted: int = 0
    secrets: list[str] = field(default_factory=list)

    def note(self, at: float, text: str) -> None:
        self._add(Entry(at - self.start, ".", text))

    def datagram(self, at: float, sent: bool, data: bytes, source: Address, to: Address) -> None:
        self._add(Entry(at - self.start, ">" if sent else "<", describe(data), data, source, to))

    def _add(self, entry: Entry) -> None:
        if len(self.entries) >= self.limit:
            self.omitted += 1
            return
        self.entries.append(entry)

    def ordered(self) -> list[Entry]:
        """The entries in order of time; those of one moment stay as they came."""
        return sorted(self.entries, key=lambda entry: entry.at)

    def secret(self, private: bytes, remote_public: bytes, ephemeral: bytes, psk: bytes) -> None:
        """Log the keys of one handshake in the order that Wireshark's key log wants."""
        for name, value in (
            ("LOCAL_STATIC_PRIVATE_KEY", private),
            ("REMOTE_STATIC_PUBLIC_KEY", remote_public),
            ("LOCAL_EPHEMERAL_PRIVATE_KEY", ephemeral),
            ("PRESHARED_KEY", psk),
        ):
            self.secrets.append(f"{name}={base64.b64encode(value).decode()}")

    def lines(self, *, fields: bool = False) -> list[str]:
        """For people; with `fields` every datagram is followed by its named fields."""
        out: list[str] = []
        for entry in self.ordered():
            where = f"  {entry.source} -> {entry.destination}" if entry.source else ""
            out.append(f"{entry.at:9.3f} {entry.direction} {entry.text}{where}")
            if fields and entry.data:
                out += [f"{'':12}{name:10} {value}" for name, value in shown(entry.data)]
        if self.omitted:
            out.append(f"{'':9} . and {self.omitted} more that are not kept")
        return out


def shown(data: bytes, limit: int = 256) -> list[tuple[str, str]]:
    """The named fields with long values cut."""
    return [
        (name, value if len(value) <= limit else f"{value[:limit]}… ({len(value) // 2} bytes)")
        for name, value in dissect(data)
    ]

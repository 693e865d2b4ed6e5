"""A whole capture, explained: frames in, `Seen` out, as lines or JSON, and a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wgpy.capture.dissect import Dissector
from wgpy.capture.follow import Follower
from wgpy.capture.frames import Frame, Secrets
from wgpy.capture.keylog import Keys
from wgpy.capture.pcap import read_capture
from wgpy.capture.seen import NAMES, Seen, split
from wgpy.protocol.crypto import backend
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import format_address
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.messages import CookieReply, Initiation, Response
from wgpy.protocol.packet import read_addresses

_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}


class Explainer:
    """Explains the frames of a capture, and counts what was found and what was not read."""

    def __init__(self, key_logs: Iterable[Path] = ()) -> None:
        """Raises `KeyLogError` or OSError for a key log."""
        self.keys = Keys(backend("openssl"))
        for path in key_logs:
            self.keys.read(path.read_text(encoding="ascii", errors="replace"), str(path))
        self.follower = Follower(self.keys)
        self.frames = self.messages = self.perhaps = self.authentic = self.inner = self.cut = 0
        self.with_problems = 0
        self.kinds: Counter[int] = Counter()
        self.problems: Counter[DropReason] = Counter()
        self._dissector = Dissector()

    @property
    def unread(self) -> dict[str, int]:
        """Frames that were not read, by reason."""
        return self._dissector.unread

    def explain(self, records: Iterable[Frame | Secrets], name: str) -> Iterator[Seen]:
        """Every WireGuard message; raises `CaptureError` or `KeyLogError` where one lies."""
        for record in records:
            if isinstance(record, Secrets):
                self.keys.read(record.key_log, f"{name}: decryption secrets")
                continue
            self.frames += 1
            whole = self._dissector.datagram(record)
            if whole is None:
                continue
            for datagram in split(whole):
                seen = self.follower.datagram(record.number, record.at, datagram)
                if seen is not None:
                    self._count(seen)
                    yield seen

    def _count(self, seen: Seen) -> None:
        if seen.same_as is not None:
            return
        self.messages += 1
        self.kinds[seen.kind] += 1
        self.perhaps += seen.perhaps
        self.authentic += seen.authentic
        self.inner += seen.inner is not None
        self.cut += seen.missing > 0
        if seen.problems:
            self.with_problems += 1
            self.problems.update(seen.problems)

    def summary(self) -> dict[str, Any]:
        """All counts and sessions as JSON; `type` distinguishes it from a message."""
        follower = self.follower
        return {
            "type": "summary",
            "frames": self.frames,
            "messages": self.messages,
            "by_type": {NAMES[kind]: count for kind, count in sorted(self.kinds.items())},
            "perhaps": self.perhaps,
            "authenticated": self.authentic,
            "inner_packets": self.inner,
            "captured_again": follower.repeated,
            "cut": self.cut,
            "not_read": self.unread,
            "not_messages": {reason.name: n for reason, n in follower.strangers.items()},
            "problems": {reason.name: n for reason, n in self.problems.items()},
            "flows": [flow.to_json() for flow in follower.sessions.flows()],
        }


def explain(capture: Path, key_logs: list[Path]) -> Iterator[Seen]:
    """Every WireGuard message of a pcap or pcapng file.

    Keys come from the file itself and from `key_logs`.  Raises `CaptureError`,
    `KeyLogError` or OSError.
    """
    return Explainer(key_logs).explain(read_capture(capture), str(capture))


def _index(index: int | None) -> str | None:
    return None if index is None else f"0x{index:08x}"


def fields(seen: Seen) -> dict[str, Any]:
    """The message's own fields, for people and machines; those that were captured."""
    message = seen.message
    result: dict[str, Any] = {}
    if seen.sender_index is not None:
        result["sender"] = _index(seen.sender_index)
    if seen.receiver is not None:
        result["receiver"] = _index(seen.receiver)
    if isinstance(message, Initiation | Response):
        result["ephemeral"] = PublicKey(message.unencrypted_ephemeral).base64
        result["mac1"], result["mac2"] = message.mac1.hex(), message.mac2.hex()
    elif isinstance(message, CookieReply):
        result["nonce"] = message.nonce.hex()
    elif seen.counter is not None:
        result["counter"] = seen.counter
        result["data"] = seen.size - 16
    return result


def to_json(seen: Seen) -> dict[str, Any]:
    """One message as a JSON object; keys and packets in base64 and hex."""
    return {
        "frame": seen.frame,
        "time_ns": seen.at,
        "source": str(seen.source),
        "destination": str(seen.destination),
        "type": NAMES[seen.kind],
        "size": seen.size,
        "captured": len(seen.payload),
        "same_as": seen.same_as,
        "perhaps": seen.perhaps,
        "reserved": seen.reserved.hex() or None,
        "fields": fields(seen),
        "mac1_for": None if seen.mac1_of is None else PublicKey(seen.mac1_of).base64,
        "handshake": seen.joined,
        "authenticated_by": seen.handshake,
        "role": seen.role or None,
        "sender": None if seen.sender is None else PublicKey(seen.sender).base64,
        "keepalive": seen.keepalive,
        "inner": None if seen.inner is None else seen.inner.hex(),
        "problems": [problem.name for problem in seen.problems],
        "notes": seen.notes,
    }


def describe_inner(packet: bytes) -> str:
    """``10.0.0.1 → 10.0.0.2 ICMP, 84 bytes``."""
    addresses = read_addresses(packet)
    if addresses is None:
        return f"{len(packet)} bytes that are not an IP packet"
    number = packet[9] if packet[0] >> 4 == 4 else packet[6]
    name = _PROTOCOLS.get(number, f"protocol {number}")
    source, destination = format_address(addresses.source), format_address(addresses.destination)
    return f"{source} → {destination} {name}, {addresses.total_length} bytes"

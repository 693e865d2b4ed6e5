"""A whole capture, explained: frames in, `Seen` out, as lines, JSON or a pcap of the inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wgpy.capture.follow import Follower, Seen
from wgpy.capture.frames import Secrets
from wgpy.capture.keylog import Keys
from wgpy.capture.link import Reassembler
from wgpy.capture.pcap import read_capture
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import format_address
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.messages import CookieReply, Initiation, Response, Transport
from wgpy.protocol.packet import read_addresses

NAMES = {1: "initiation", 2: "response", 3: "cookie reply", 4: "transport"}
_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}


def explain(capture: Path, key_logs: list[Path]) -> Iterator[Seen]:
    """Every WireGuard message of a pcap or pcapng file.

    Keys come from the file itself and from `key_logs`.  Raises `CaptureError`,
    `KeyLogError` or OSError.
    """
    keys = Keys(backend("openssl"))
    for path in key_logs:
        keys.read(path.read_text(encoding="ascii", errors="replace"), str(path))
    follower, reassembler = Follower(keys), Reassembler()
    for record in read_capture(capture):
        if isinstance(record, Secrets):
            keys.read(record.key_log, f"{capture}: decryption secrets")
            continue
        datagram = reassembler.datagram(record)
        if datagram is not None:
            seen = follower.datagram(record.number, record.at, datagram)
            if seen is not None:
                yield seen


def fields(seen: Seen) -> dict[str, Any]:
    """The message's own fields, for people and machines."""
    message = seen.message
    result: dict[str, Any] = {}
    if isinstance(message, Initiation | Response):
        result["sender"] = f"0x{message.sender_index:08x}"
    if isinstance(message, Response | CookieReply | Transport):
        result["receiver"] = f"0x{message.receiver_index:08x}"
    if isinstance(message, Initiation | Response):
        result["ephemeral"] = PublicKey(message.unencrypted_ephemeral).base64
        result["mac1"], result["mac2"] = message.mac1.hex(), message.mac2.hex()
    elif isinstance(message, CookieReply):
        result["nonce"] = message.nonce.hex()
    else:
        result["counter"] = message.counter
        result["data"] = len(message.encrypted_packet)
    return result


def to_json(seen: Seen) -> dict[str, Any]:
    """One message as a JSON object; keys and packets in base64 and hex."""
    return {
        "frame": seen.frame,
        "time_ns": seen.at,
        "source": str(seen.source),
        "destination": str(seen.destination),
        "type": NAMES[seen.message.type],
        "size": seen.size,
        "fields": fields(seen),
        "mac1_for": None if seen.mac1_of is None else PublicKey(seen.mac1_of).base64,
        "authenticated_by": seen.handshake,
        "sender": None if seen.sender is None else PublicKey(seen.sender).base64,
        "keepalive": seen.plaintext == b"",
        "inner": None if seen.inner is None else seen.inner.hex(),
        "problems": [problem.name for problem in seen.problems],
        "notes": seen.notes,
    }


def describe_inner(packet: bytes) -> str:
    """``10.0.0.1 → 10.0.0.2 ICMP, 84 bytes``."""
    addresses = read_addresses(packet)
    if addresses is None:
        return f"{len(packet)} bytes that are no IP packet"
    number = packet[9] if packet[0] >> 4 == 4 else packet[6]
    name = _PROTOCOLS.get(number, f"protocol {number}")
    source, destination = format_address(addresses.source), format_address(addresses.destination)
    return f"{source} → {destination} {name}, {addresses.total_length} bytes"

"""A device as rows for scripts (`wg show IFACE FIELD`), as JSON, and units for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from wgpy.protocol.constants import NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.keys import Key
from wgpy.protocol.settings import DeviceSnapshot, PeerSnapshot
from wgpy.protocol.timers import Deadline

Rows = Iterator[tuple[str, ...]]


def drops(of: DeviceSnapshot | PeerSnapshot) -> list[tuple[DropReason, int]]:
    """Reasons that occurred, the most frequent first."""
    counted = [(reason, count) for reason, count in of.drops.items() if count]
    return sorted(counted, key=lambda item: (-item[1], item[0].name))


def handshake_age(peer: PeerSnapshot, wall: int) -> int | None:
    """Ns since the latest handshake, None for never.

    Uses the monotonic clock if the implementation reports it; otherwise `wall` (ns since
    1970), which is wrong if the clock was set since the handshake.
    """
    if peer.handshake_at is not None:
        return -peer.handshake_at
    return wall - peer.latest_handshake if peer.latest_handshake else None


def _seconds(peer: PeerSnapshot) -> str:
    return str(peer.latest_handshake // NS)


def _key(key: Key | None) -> str:
    return "(none)" if key is None or key.is_zero else key.base64


def _fwmark(device: DeviceSnapshot) -> str:
    return f"{device.fwmark:#x}" if device.fwmark else "off"


def _allowed(peer: PeerSnapshot, separator: str) -> str:
    return separator.join(map(str, peer.allowed_ips)) or "(none)"


def _keepalive(peer: PeerSnapshot) -> str:
    return str(peer.persistent_keepalive or "off")


def _per_peer(*values: Callable[[PeerSnapshot], str]) -> Callable[[DeviceSnapshot], Rows]:
    def rows(device: DeviceSnapshot) -> Rows:
        for peer in device.peers:
            yield (peer.public_key.base64, *(value(peer) for value in values))

    return rows


def _per_device(value: Callable[[DeviceSnapshot], str]) -> Callable[[DeviceSnapshot], Rows]:
    def rows(device: DeviceSnapshot) -> Rows:
        yield (value(device),)

    return rows


def _dump(device: DeviceSnapshot) -> Rows:
    private, public = _key(device.private_key), _key(device.public_key)
    yield private, public, str(device.listen_port), _fwmark(device)
    for peer in device.peers:
        yield (
            peer.public_key.base64,
            _key(peer.preshared_key),
            str(peer.endpoint or "(none)"),
            _allowed(peer, ","),
            _seconds(peer),
            str(peer.rx_bytes),
            str(peer.tx_bytes),
            _keepalive(peer),
        )


FIELDS: Final[dict[str, Callable[[DeviceSnapshot], Rows]]] = {
    "public-key": _per_device(lambda device: _key(device.public_key)),
    "private-key": _per_device(lambda device: _key(device.private_key)),
    "listen-port": _per_device(lambda device: str(device.listen_port)),
    "fwmark": _per_device(_fwmark),
    "peers": _per_peer(),
    "preshared-keys": _per_peer(lambda peer: _key(peer.preshared_key)),
    "endpoints": _per_peer(lambda peer: str(peer.endpoint or "(none)")),
    "allowed-ips": _per_peer(lambda peer: _allowed(peer, " ")),
    "latest-handshakes": _per_peer(_seconds),
    "transfer": _per_peer(lambda peer: str(peer.rx_bytes), lambda peer: str(peer.tx_bytes)),
    "persistent-keepalive": _per_peer(_keepalive),
    "dump": _dump,
}


def as_dict(device: DeviceSnapshot, wall: int) -> dict[str, Any]:
    """The device as JSON at `wall` (ns since 1970); of secrets only whether they are set."""
    return {
        "public_key": device.public_key.base64 if device.public_key else None,
        "has_private_key": device.private_key is not None,
        "listen_port": device.listen_port,
        "fwmark": device.fwmark,
        "next_deadline": _deadline(device.deadline),
        "drops": {reason.name: count for reason, count in drops(device)},
        "peers": [_peer(peer, wall) for peer in device.peers],
    }


def _deadline(deadline: Deadline | None) -> dict[str, Any] | None:
    return {"in_ns": deadline.at, "reason": deadline.reason} if deadline else None


def _peer(peer: PeerSnapshot, wall: int) -> dict[str, Any]:
    return {
        "public_key": peer.public_key.base64,
        "has_preshared_key": not peer.preshared_key.is_zero,
        "endpoint": str(peer.endpoint) if peer.endpoint else None,
        "allowed_ips": [str(prefix) for prefix in peer.allowed_ips],
        "latest_handshake_ns": peer.latest_handshake or None,
        "handshake_age_ns": handshake_age(peer, wall),
        "rx_bytes": peer.rx_bytes,
        "tx_bytes": peer.tx_bytes,
        "persistent_keepalive_s": peer.persistent_keepalive,
        "next_deadline": _deadline(peer.deadline),
        "drops": {reason.name: count for reason, count in drops(peer)},
    }


def human_bytes(count: int) -> str:
    """As `wg` writes byte counts: ``1.23 MiB``."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        if amount < 1024 or unit == "TiB":
            break
    return f"{amount:.2f} {unit}"


def human_time(ns: int) -> str:
    """As `wg` writes the age of a handshake: ``1 minute, 2 seconds ago``."""
    seconds = ns // NS
    if seconds < 0:
        return "in the future: the clock was set back"
    if seconds == 0:
        return "Now"
    parts = []
    for unit, size in (("year", 31536000), ("day", 86400), ("hour", 3600), ("minute", 60)):
        amount, seconds = divmod(seconds, size)
        if amount:
            parts.append(f"{amount} {unit}{'s' * (amount != 1)}")
    if seconds:
        parts.append(f"{seconds} second{'s' * (seconds != 1)}")
    return ", ".join(parts) + " ago"

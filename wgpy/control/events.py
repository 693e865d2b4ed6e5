"""The form of a drop on the control socket: addresses, protocol and ports.

The engine's event carries the head of the packet; what the head does not show is None here.
"""

from __future__ import annotations

from typing import Any, Final

from wgpy.protocol.endpoint import format_address
from wgpy.protocol.events import PacketDropped

_PORTS_AT_START: Final = {6: "tcp", 17: "udp", 132: "sctp"}
_NAMES: Final = {**_PORTS_AT_START, 1: "icmp", 58: "icmpv6"}


def describe_drop(event: PacketDropped, wall: int) -> dict[str, Any]:
    """A drop with its 5-tuple, as far as the packet's head tells; `wall` in ns since 1970."""
    protocol, source_port, destination_port = _protocol_and_ports(event.head)
    return {
        "event": "drop",
        "time": wall,
        "reason": event.reason.name,
        "sentence": event.reason.sentence,
        "direction": event.direction.value,
        "size": event.size,
        "source": format_address(event.source) if event.source else None,
        "destination": format_address(event.destination) if event.destination else None,
        "protocol": protocol,
        "source_port": source_port,
        "destination_port": destination_port,
        "peer": event.peer.base64 if event.peer else None,
        "endpoint": str(event.endpoint) if event.endpoint else None,
    }


def _protocol_and_ports(head: bytes) -> tuple[str | None, int | None, int | None]:
    """Name (or number) of the protocol; ports only from a first fragment without IPv6 options."""
    if len(head) >= 20 and head[0] >> 4 == 4:
        number, at = head[9], (head[0] & 15) * 4
        first = not (head[6] << 8 | head[7]) & 0x1FFF
    elif len(head) >= 40 and head[0] >> 4 == 6:
        number, at, first = head[6], 40, True
    else:
        return None, None, None
    name = _NAMES.get(number, str(number))
    if not first or number not in _PORTS_AT_START or len(head) < at + 4:
        return name, None, None
    return name, head[at] << 8 | head[at + 1], head[at + 2] << 8 | head[at + 3]

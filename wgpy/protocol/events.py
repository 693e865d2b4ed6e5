"""The engine's events: one frozen value for each thing that happened.

Events are for logs, captures and tests; the protocol never depends on one being read.
The engine keeps a bounded number of them and discards the oldest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.keys import PublicKey


class Direction(Enum):
    """Seen from this device."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class Event:
    """`at` is the engine's time in ns; `peer` is None where no peer is known."""

    at: int
    peer: PublicKey | None


@dataclass(frozen=True, slots=True)
class InitiationSent(Event):
    """`attempt` counts from 1 within one handshake."""

    endpoint: Endpoint
    attempt: int


@dataclass(frozen=True, slots=True)
class InitiationReceived(Event):
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class ResponseSent(Event):
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class ResponseReceived(Event):
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SessionEstablished(Event):
    """Keys may be used to send: the initiator has the response, or the responder the first data."""

    initiator: bool
    local_index: int
    remote_index: int


@dataclass(frozen=True, slots=True)
class CookieReplySent(Event):
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class CookieReceived(Event):
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class KeepaliveSent(Event):
    pass


@dataclass(frozen=True, slots=True)
class KeepaliveReceived(Event):
    pass


@dataclass(frozen=True, slots=True)
class EndpointMoved(Event):
    old: Endpoint | None
    new: Endpoint


@dataclass(frozen=True, slots=True)
class HandshakeGaveUp(Event):
    """No answer within Rekey-Attempt-Time (§6.4)."""


@dataclass(frozen=True, slots=True)
class KeysErased(Event):
    """All key material of the peer was forgotten, 540 s after the last handshake (§6.3)."""


@dataclass(frozen=True, slots=True)
class PacketDropped(Event):
    """`source` and `destination` are packed inner addresses, empty where they are not known.

    `endpoint` is the outer source of a received datagram.  `head` holds at most the first
    64 bytes of an inner packet (never of a ciphertext), for the 5-tuple.
    """

    reason: DropReason
    direction: Direction
    size: int
    endpoint: Endpoint | None = None
    source: bytes = b""
    destination: bytes = b""
    head: bytes = b""

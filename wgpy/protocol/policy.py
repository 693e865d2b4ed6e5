"""The port between the TUN device and cryptokey routing: the "routing table in front".

The data plane asks once per flow (source and destination address) and caches the answer
until `PacketPolicy.generation` changes.  An answer that depends on more than the two
addresses is marked ``per_packet`` and is not cached.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.drops import DropReason
from wgpy.protocol.keys import PublicKey


class Action(Enum):
    """What to do with an inner packet."""

    ENCRYPT = "encrypt"
    """Egress: hand to cryptokey routing.  No peer for it means a drop, never plaintext."""
    PLAINTEXT = "plaintext"
    """Egress: give back to the host unencrypted."""
    ACCEPT = "accept"
    """Ingress: deliver."""
    DROP = "drop"


class Verdict(NamedTuple):
    """A policy's answer; `reason` names the drop, `per_packet` forbids caching."""

    action: Action
    reason: DropReason | None = None
    per_packet: bool = False


ENCRYPT = Verdict(Action.ENCRYPT)
PLAINTEXT = Verdict(Action.PLAINTEXT)
ACCEPT = Verdict(Action.ACCEPT)


class PacketPolicy(Protocol):
    """Judges inner packets; pure, no I/O.  Addresses are packed (4 or 16 bytes)."""

    @property
    def generation(self) -> int:
        """Grows whenever an answer given before may be stale."""

    def egress(self, source: bytes, destination: bytes, packet: Buffer) -> Verdict:
        """A well-formed packet read from the TUN device: ENCRYPT, PLAINTEXT or DROP."""

    def ingress(
        self, source: bytes, destination: bytes, peer: PublicKey, packet: Buffer
    ) -> Verdict:
        """A packet out of `peer`'s tunnel, its source already allowed: ACCEPT or DROP."""

    def malformed(self, packet: Buffer) -> Verdict:
        """A packet from the TUN device that is not IP or shorter than it says."""


class EncryptAll:
    """The policy of plain WireGuard: cryptokey routing alone decides."""

    generation = 0

    def egress(self, source: bytes, destination: bytes, packet: Buffer) -> Verdict:  # noqa: ARG002
        """Always ENCRYPT."""
        return ENCRYPT

    def ingress(
        self, source: bytes, destination: bytes, peer: PublicKey, packet: Buffer  # noqa: ARG002
    ) -> Verdict:
        """Always ACCEPT."""
        return ACCEPT

    def malformed(self, packet: Buffer) -> Verdict:  # noqa: ARG002
        """Always DROP."""
        return Verdict(Action.DROP, DropReason.MALFORMED)

"""What policy and allowed IPs said about a flow, remembered until either changes.

A flow is source and destination address, joined.  Only simple answers are remembered
(out: encrypt to this peer, or refuse under this name; in: accept from this peer); every
other packet is asked about again, in the engine's readable code, which also names its drop.
Refusals have a table of their own: whoever asks for much that is refused must not make us
forget what others may do.
"""

from __future__ import annotations

from typing import Final

from wgpy.protocol.device import Device
from wgpy.protocol.drops import DropReason
from wgpy.protocol.peer import Peer

MAX_FLOWS: Final = 8192
"""When there are more, all are forgotten and learnt anew."""


class Flows(dict[bytes, Peer]):
    """Flow → peer; `refused`: flow → name of the drop."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device
        self._policy = device.policy
        self._policy_generation = self._allowed_generation = -1
        self.refused: dict[bytes, DropReason] = {}

    def refresh(self) -> None:
        """Forget what was learnt before the policy or the allowed IPs changed."""
        device = self._device
        policy = device.policy
        if (
            device.allowed_ips.generation != self._allowed_generation
            or policy.generation != self._policy_generation
            or policy is not self._policy
        ):
            self._allowed_generation = device.allowed_ips.generation
            self._policy_generation = policy.generation
            self._policy = policy
            self.clear()
            self.refused.clear()

    def remember(self, flow: bytes, peer: Peer) -> None:
        """Until the next change, or until there are too many."""
        if len(self) >= MAX_FLOWS:
            self.clear()
        self[flow] = peer

    def refuse(self, flow: bytes, reason: DropReason) -> None:
        """As `remember`, for what is dropped."""
        if len(self.refused) >= MAX_FLOWS:
            self.refused.clear()
        self.refused[flow] = reason

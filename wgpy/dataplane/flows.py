"""A cache of what policy and allowed IPs said about a flow, valid until either changes.

A flow is source and destination address, concatenated.  Only simple answers are cached
(sending: encrypt to this peer, or refuse under this name; receiving: accept from this
peer).  Every other packet is judged again by the engine's readable code, which also names
its drop.  Refusals have a table of their own, so that a scan of refused addresses does not
evict the flows of others.
"""

from __future__ import annotations

from typing import Final

from wgpy.protocol.device import Device
from wgpy.protocol.drops import DropReason
from wgpy.protocol.peer import Peer

MAX_FLOWS: Final = 8192
"""At this size the cache is emptied and filled again."""


class Flows(dict[bytes, Peer]):
    """Flow → peer; `refused`: flow → name of the drop."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device
        self._policy = device.policy
        self._policy_generation = self._allowed_generation = -1
        self.refused: dict[bytes, DropReason] = {}

    def refresh(self) -> None:
        """Empty the cache if the policy or the allowed IPs have changed."""
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
        """Cache an answer until the next change, or until the cache is full."""
        if len(self) >= MAX_FLOWS:
            self.clear()
        self[flow] = peer

    def refuse(self, flow: bytes, reason: DropReason) -> None:
        """As `remember`, for what is dropped."""
        if len(self.refused) >= MAX_FLOWS:
            self.refused.clear()
        self.refused[flow] = reason

"""A policy for tests that a client of the control socket switches: ``{"op": "block"}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgpy.control.policy import NoPolicy
from wgpy.protocol.drops import DropReason
from wgpy.protocol.policy import ENCRYPT, Action, Verdict


class Switch(NoPolicy):
    """Encrypts everything until it is told to block everything."""

    generation = 0
    blocks = False

    def egress(self, source, destination, packet):  # noqa: ARG002
        return Verdict(Action.DROP, DropReason.POLICY_DENIED) if self.blocks else ENCRYPT

    def session(self):
        return self

    def request(self, op: str, message: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        self.blocks = op == "block"
        self.generation += 1
        return {}

    def close(self) -> None:
        """Nothing was begun."""


def load() -> Switch:
    return Switch()

"""A policy that can be driven through the control socket, and its sessions.

Operations that the server does not know belong to the policy, which has one session per
client, so that a transaction ends with the client that began it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from wgpy.control.framing import Answer, ControlError
from wgpy.protocol.policy import EncryptAll, PacketPolicy

VerdictListener = Callable[[Mapping[str, Any]], None]


class PolicySession(Protocol):
    """One client's session with the policy."""

    def request(self, op: str, message: Mapping[str, Any]) -> Answer:
        """Answer one bounded request; an iterator gives a long answer part by part.

        Raises `ControlError`.
        """

    def close(self) -> None:
        """The client is gone: forget what it left half-done."""


class ControlledPolicy(PacketPolicy, Protocol):
    """A policy that can be driven through the control socket."""

    verdict_listener: VerdictListener | None
    """Called with each verdict, once per flow and generation, while there is a listener."""

    def describe(self) -> Mapping[str, Any]:
        """Name, schema version and state, for ``hello`` and ``status``."""

    def session(self) -> PolicySession: ...

    def housekeeping(self) -> bool:
        """Do a slice of background work; True while there is more."""


class _NoSession:
    """The session where there is no policy: every operation is refused."""

    def request(self, op: str, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
        """Always refuses."""
        raise ControlError("unknown_op", f"unknown operation {op!r}: no policy is in front")

    def close(self) -> None:
        """Nothing was begun."""


class NoPolicy(EncryptAll):
    """Plain WireGuard, as a policy that can be driven through the control socket."""

    verdict_listener: VerdictListener | None = None

    def describe(self) -> Mapping[str, Any]:
        """It has no name and no state."""
        return {"name": None}

    def session(self) -> PolicySession:
        """One that refuses everything."""
        return _NoSession()

    def housekeeping(self) -> bool:
        """There is none."""
        return False

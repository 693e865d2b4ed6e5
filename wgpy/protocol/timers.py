"""A peer's deadlines (§6): when something is due if nothing else happens.

There are five, each an absolute time in ns or None.  The engine reports what happened with
methods named as in the kernel's timers.c, and asks with `due` what is due.  There are no
callbacks and nothing to cancel: the engine acts on what is due and reports back.
Rekeying at 120 s and 165 s is not a deadline: it is decided when a packet passes (§6.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from wgpy.protocol.constants import NS, Parameters


@dataclass(frozen=True, slots=True)
class Deadline:
    """`at` in the engine's ns and why, in words ("rekey timeout: retry handshake")."""

    at: int
    reason: str


class Timer(Enum):
    """The five deadlines; the value is the reason that is displayed."""

    RETRY_HANDSHAKE = "Rekey-Timeout: no response yet, send the initiation again (§6.4)"
    NEW_HANDSHAKE = "nothing came back for our data: start a new handshake (§6.5)"
    KEEPALIVE = "Keepalive-Timeout: answer received data with an empty packet (§6.5)"
    PERSISTENT_KEEPALIVE = "persistent keepalive interval"
    ZERO_KEYS = "erase all key material (§6.3)"

    # By identity: Enum's own hash is Python code, and each batch looks timers up.
    __hash__ = object.__hash__


class Timers:
    """Five optional deadlines of one peer; all times in ns."""

    __slots__ = ("_at", "_parameters", "persistent_interval")

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._at: dict[Timer, int] = {}
        self.persistent_interval = 0  # seconds, 0 is off

    def earliest(self) -> Deadline | None:
        """The next deadline with its reason."""
        if not self._at:
            return None
        timer = min(self._at, key=self._at.__getitem__)
        return Deadline(self._at[timer], timer.value)

    def earliest_at(self) -> int | None:
        """The next deadline's time alone."""
        return min(self._at.values()) if self._at else None

    def due(self, now: int) -> list[Timer]:
        """The deadlines that have come, earliest first; each is cleared."""
        ready = sorted((t for t, at in self._at.items() if at <= now), key=self._at.__getitem__)
        for timer in ready:
            del self._at[timer]
        return ready

    def is_set(self, timer: Timer) -> bool:
        """Whether a deadline is pending."""
        return timer in self._at

    def clear(self) -> None:
        """Forget all deadlines."""
        self._at.clear()

    # What happened.

    def data_sent(self, now: int, jitter: int) -> int:
        """We sent a packet with content: somebody should answer within 15 s (§6.5).

        Returns the deadline, as does `data_received`.
        """
        return self._at.setdefault(
            Timer.NEW_HANDSHAKE, now + self._parameters.dead_peer_time + jitter
        )

    def data_received(self, now: int) -> int:
        """We received a packet with content: send something within 10 s (§6.5).

        Any packet we send meanwhile suffices; one keepalive answers all packets before it.
        """
        return self._at.setdefault(
            Timer.KEEPALIVE, now + self._parameters.keepalive_timeout
        )

    def authenticated_sent(self, now: int) -> None:
        """An authenticated packet left: no keepalive is due any more."""
        self._at.pop(Timer.KEEPALIVE, None)
        self._traversed(now)

    def authenticated_received(self, now: int) -> None:
        """An authenticated packet came: the peer is alive."""
        self._at.pop(Timer.NEW_HANDSHAKE, None)
        self._traversed(now)

    def handshake_initiated(self, now: int, jitter: int) -> None:
        """An initiation left; repeat it unless answered (§6.4)."""
        self._at[Timer.RETRY_HANDSHAKE] = now + self._parameters.rekey_timeout + jitter

    def handshake_complete(self) -> None:
        """The other side proved that it has the keys."""
        self._at.pop(Timer.RETRY_HANDSHAKE, None)

    def handshake_given_up(self, now: int) -> None:
        """No answer in time: no keepalive is due, and old keys are erased at their deadline."""
        self._at.pop(Timer.KEEPALIVE, None)
        self._at.setdefault(Timer.ZERO_KEYS, now + self._parameters.zero_after_time)

    def session_derived(self, now: int) -> None:
        """Ephemeral keys exist: erase them 540 s from here unless renewed (§6.3)."""
        self._at[Timer.ZERO_KEYS] = now + self._parameters.zero_after_time

    def set_persistent(self, interval: int, now: int) -> None:
        """Set the persistent keepalive interval in seconds; 0 turns it off."""
        self.persistent_interval = interval
        self._at.pop(Timer.PERSISTENT_KEEPALIVE, None)
        self._traversed(now)

    def _traversed(self, now: int) -> None:
        if self.persistent_interval:
            self._at[Timer.PERSISTENT_KEEPALIVE] = now + self.persistent_interval * NS

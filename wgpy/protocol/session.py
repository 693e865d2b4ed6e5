"""One pair of transport keys and its counters (§5.4.5, §5.4.6).

A session is created when the second message of a handshake was made or opened, and is kept
in one of its peer's three slots.  Python cannot overwrite a key in memory: erasing a session
(§6.3) means that nothing refers to its ciphers any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wgpy.protocol.constants import Parameters
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.noise import TransportKeys
from wgpy.protocol.replay import ReplayWindow

if TYPE_CHECKING:
    from wgpy.protocol.peer import Peer


class Session:
    """Keys, counters and replay window of one handshake."""

    __slots__ = (
        "born",
        "initiator",
        "keys",
        "local_index",
        "next_counter",
        "peer",
        "receiver",
        "remote_index",
        "sender",
        "window",
    )

    def __init__(
        self,
        crypto: Crypto,
        peer: Peer,
        keys: TransportKeys,
        *,
        local_index: int,
        remote_index: int,
        initiator: bool,
        now: int,
        replay_window: int,
    ) -> None:
        self.peer = peer
        self.keys = keys
        """For captures only; as secret as the ciphers, and erased with them."""
        self.sender = crypto.aead(keys.send)
        self.receiver = crypto.aead(keys.receive)
        self.local_index = local_index
        self.remote_index = remote_index
        self.initiator = initiator
        self.born = now
        self.next_counter = 0
        self.window = ReplayWindow(replay_window)

    def expired(self, now: int, parameters: Parameters) -> bool:
        """Reject-After-Time has passed: neither send nor receive (§6.2)."""
        return now - self.born >= parameters.reject_after_time

    def can_send(self, now: int, parameters: Parameters) -> bool:
        """Young enough, and at least one counter is left."""
        return (
            now - self.born < parameters.reject_after_time
            and self.next_counter < parameters.reject_after_messages
        )

    def reserve(self, count: int, parameters: Parameters) -> range:
        """The next counters to seal with, at most `count`: fewer at Reject-After-Messages.

        A counter is handed out once and never returned.
        """
        first = self.next_counter
        self.next_counter = min(first + count, parameters.reject_after_messages)
        return range(first, self.next_counter)

    def wants_rekey_to_send(self, now: int, parameters: Parameters) -> bool:
        """Rekey-After-Messages, or the initiator's Rekey-After-Time, is reached (§6.2)."""
        return self.next_counter > parameters.rekey_after_messages or (
            self.initiator and now - self.born >= parameters.rekey_after_time
        )

    def wants_rekey_to_receive(self, now: int, parameters: Parameters) -> bool:
        """An initiator that only receives renews in time for the last packets (§6.2)."""
        return self.initiator and now - self.born >= parameters.receive_rekey_time

    def __repr__(self) -> str:
        role = "initiator" if self.initiator else "responder"
        return f"Session({self.local_index:08x}, {role}, born={self.born})"

"""A peer: who it is, where it is, its three key slots, its timers and its queue.

Slots (§6.3): `current` is used to send.  `next` holds keys that we made as responder and
that the initiator has not confirmed by using them.  `previous` still opens messages that
were in flight when keys changed.  Only authenticated messages get here.
"""

from __future__ import annotations

from collections import Counter, deque

from wgpy.protocol.constants import Parameters
from wgpy.protocol.cookie import MacMaker
from wgpy.protocol.crypto import Crypto, LowOrderError
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.keys import NO_PRESHARED_KEY, PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.noise import SentInitiation
from wgpy.protocol.session import Session
from wgpy.protocol.timers import Timers


class Peer:
    """State of one peer.  Hashed by identity: it is the owner in the allowed-IPs table."""

    __slots__ = (
        "_static_static",
        "current",
        "drops",
        "endpoint",
        "greatest_timestamp",
        "handshake_at",
        "handshake_started_at",
        "initiation",
        "initiation_received_at",
        "initiation_sent_at",
        "initiations_sent",
        "late_rekey_done",
        "latest_handshake",
        "macs",
        "next",
        "preshared_key",
        "previous",
        "public_key",
        "responses_unconfirmed",
        "rx_bytes",
        "scheduled_at",
        "staged",
        "timers",
        "tx_bytes",
    )

    def __init__(self, public_key: PublicKey, crypto: Crypto, parameters: Parameters) -> None:
        self.public_key = public_key
        self.preshared_key: PresharedKey = NO_PRESHARED_KEY
        self.endpoint: Endpoint | None = None
        self.macs = MacMaker(crypto, public_key, parameters.cookie_lifetime)
        self.timers = Timers(parameters)
        self._static_static: bytes | None = None
        # Sessions.
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: Session | None = None
        # Our handshake in progress; times in ns, None for never.
        self.initiation: SentInitiation | None = None
        self.initiation_sent_at: int | None = None
        self.handshake_started_at = 0
        self.initiations_sent = 0
        self.late_rekey_done = False
        # Their handshakes.  The floor survives handshakes and key erasure (§5.1).
        self.greatest_timestamp = b""
        self.initiation_received_at: int | None = None
        self.responses_unconfirmed = 0
        # Packets that wait for a session; an empty one is a keepalive.
        self.staged: deque[bytes] = deque()
        self.rx_bytes = 0
        self.tx_bytes = 0
        self.latest_handshake = 0
        self.handshake_at: int | None = None
        self.drops: Counter[DropReason] = Counter()
        # When the engine's schedule checks this peer next; set by the schedule only.
        self.scheduled_at: int | None = None

    def static_static(self, crypto: Crypto, private_key: PrivateKey) -> bytes:
        """DH of both static keys, computed once; raises `LowOrderError` for a bad peer key."""
        if self._static_static is None:
            self._static_static = crypto.dh(private_key, self.public_key)
        return self._static_static

    def is_reachable(self, crypto: Crypto, private_key: PrivateKey) -> bool:
        """Whether a handshake with this peer's key is possible at all."""
        try:
            self.static_static(crypto, private_key)
        except LowOrderError:
            return False
        return True

    def sessions(self) -> list[Session]:
        """The sessions that exist, in any slot."""
        return [s for s in (self.previous, self.current, self.next) if s is not None]

    def install_as_initiator(self, session: Session) -> list[Session]:
        """The response opened: use the keys at once.  Returns the sessions pushed out.

        Unconfirmed keys of the other direction become the previous ones: the other side
        may already use them when both initiate at the same time.
        """
        gone = [self.previous]
        if self.next is not None:
            gone.append(self.current)
            self.previous, self.next = self.next, None
        else:
            self.previous = self.current
        self.current = session
        return [s for s in gone if s is not None]

    def install_as_responder(self, session: Session) -> list[Session]:
        """We answered: wait for confirmation.  Returns the sessions pushed out."""
        gone = [self.next, self.previous]
        self.previous = None
        self.next = session
        return [s for s in gone if s is not None]

    def confirm(self, session: Session) -> list[Session] | None:
        """Data arrived on `session`: if it is the next one, use it from now on.

        Returns the sessions pushed out, None when nothing changed.
        """
        if session is not self.next:
            return None
        gone = self.previous
        self.previous, self.current, self.next = self.current, session, None
        return [] if gone is None else [gone]

    def erase(self) -> list[Session]:
        """Forget all key material (§6.3); returns the sessions that were."""
        gone = self.sessions()
        self.previous = self.current = self.next = None
        self.initiation = None
        return gone

    def forget_identity(self) -> None:
        """Our own key changed: what was derived from it is void."""
        self._static_static = None
        self.initiation_sent_at = None
        self.macs.forget()

    def __repr__(self) -> str:
        return f"Peer({self.public_key.base64[:8]}…, {self.endpoint})"

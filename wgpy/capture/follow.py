"""Understand captured WireGuard traffic with the keys of one side, or of both.

A `Follower` sees all datagrams in order.  From each message it tells the fields, whether
the MACs are right, which handshake authenticates it, the inner packet, and what is wrong
with it: the same names that a device uses when it drops (`DropReason`), so that the reader
learns why a packet vanished.

One private key of either side opens the static key and timestamp of an initiation; one
ephemeral private key of either side, with a static one of the same side, opens the data.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from wgpy.capture.handshake import SeenInitiation, SeenSession, open_initiation, open_response
from wgpy.capture.keylog import Keys
from wgpy.capture.link import Udp
from wgpy.protocol.constants import DEFAULT_PARAMETERS, MAC_SIZE, Parameters
from wgpy.protocol.cookie import cookie_key, mac1_key
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.messages import (
    ZERO_MAC,
    CookieReply,
    Initiation,
    Message,
    Response,
    Transport,
    parse,
)
from wgpy.protocol.packet import read_addresses

_MACS = 2 * MAC_SIZE


@dataclass(slots=True)
class Seen:
    """One datagram explained.

    `problems` are reasons for which its receiver drops it; `notes` are other findings;
    `handshake` numbers the initiation (its frame) that authenticates the message.
    """

    frame: int
    at: int
    source: Endpoint
    destination: Endpoint
    message: Message
    size: int
    mac1_of: bytes | None = None
    sender: bytes | None = None
    handshake: int | None = None
    plaintext: bytes | None = None
    inner: bytes | None = None
    problems: list[DropReason] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _SentMessage:
    """A handshake message that a cookie reply may answer."""

    raw: bytes
    recipient: bytes | None


class Follower:
    """State of all tunnels in a capture.  `keys` may grow while it works."""

    def __init__(self, keys: Keys, parameters: Parameters = DEFAULT_PARAMETERS) -> None:
        self._keys = keys
        self._crypto = keys.crypto
        self._parameters = parameters
        self._initiations: dict[int, SeenInitiation] = {}
        self._sessions: dict[int, SeenSession] = {}
        self._sent: dict[int, _SentMessage] = {}
        self._cookies: dict[tuple[bytes, Endpoint], tuple[bytes, int]] = {}
        self._floors: dict[tuple[bytes, bytes], bytes] = {}

    def datagram(self, frame: int, at: int, udp: Udp) -> Seen | None:
        """Explain a UDP datagram of a frame; None when it is no WireGuard message."""
        message = parse(udp.payload)
        if isinstance(message, DropReason):
            return None
        seen = Seen(frame, at, udp.source, udp.destination, message, len(udp.payload))
        if isinstance(message, (Initiation, Response)):
            self._check_macs(seen, udp.payload)
        if isinstance(message, Initiation):
            self._initiation(seen, message, udp.payload)
        elif isinstance(message, Response):
            self._response(seen, message, udp.payload)
        elif isinstance(message, CookieReply):
            self._cookie_reply(seen, message)
        else:
            self._transport(seen, message)
        return seen

    # --- handshake messages ---

    def _check_macs(self, seen: Seen, raw: bytes) -> None:
        """Whom mac1 is for, and whether mac2 fits a cookie that we saw (§5.4.4)."""
        body, mac1, mac2 = raw[:-_MACS], raw[-_MACS:-MAC_SIZE], raw[-MAC_SIZE:]
        for public in self._keys.publics:
            if self._crypto.mac(mac1_key(self._crypto, public), body) == mac1:
                seen.mac1_of = public
                break
        else:
            if self._keys.publics:
                seen.notes.append("mac1 is for nobody whose public key is known")
        if mac2 == ZERO_MAC or seen.mac1_of is None:
            return
        known = self._cookies.get((seen.mac1_of, seen.source.without_source()))
        if known is None:
            seen.notes.append("mac2 is set, by a cookie that this capture does not hold")
        elif self._crypto.mac(known[0], raw[:-MAC_SIZE]) != mac2:
            seen.notes.append("mac2 does not fit the cookie seen before")
        elif seen.at - known[1] >= self._parameters.cookie_lifetime:
            seen.notes.append("mac2 was made with a cookie that is too old (§5.4.4)")
        else:
            seen.notes.append("mac2 fits the cookie seen before")

    def _initiation(self, seen: Seen, message: Initiation, raw: bytes) -> None:
        self._sent[message.sender_index] = _SentMessage(raw, seen.mac1_of)
        if seen.mac1_of is None:
            return
        opened = open_initiation(self._keys, message, seen.mac1_of, seen.frame)
        if isinstance(opened, DropReason):
            seen.problems.append(opened)
        elif opened is None:
            seen.notes.append("no private key of either side: static and timestamp stay sealed")
        else:
            seen.sender = opened.initiator
            seen.handshake = seen.frame
            pair = (opened.initiator, opened.responder)
            if opened.timestamp <= self._floors.get(pair, b""):
                seen.problems.append(DropReason.TIMESTAMP_REPLAYED)
            else:
                self._floors[pair] = opened.timestamp
                self._initiations[message.sender_index] = opened

    def _response(self, seen: Seen, message: Response, raw: bytes) -> None:
        self._sent[message.sender_index] = _SentMessage(raw, seen.mac1_of)
        initiation = self._initiations.get(message.receiver_index)
        if initiation is None:
            if message.receiver_index in self._sessions:
                seen.problems.append(DropReason.UNKNOWN_INDEX)
                seen.notes.append("its handshake was completed before")
            else:
                seen.notes.append("the initiation it answers is not in the capture, or sealed")
            return
        opened = open_response(self._keys, initiation, message)
        if isinstance(opened, DropReason):
            seen.problems.append(opened)
            return
        if opened is None:
            seen.notes.append("no ephemeral key of either side: the session stays sealed")
            return
        seen.sender, seen.handshake = initiation.responder, initiation.frame
        window = self._parameters.replay_window
        crypto = self._crypto
        there = SeenSession(
            crypto, opened.send, initiation.initiator, initiation.frame, seen.at, window
        )
        back = SeenSession(
            crypto, opened.receive, initiation.responder, initiation.frame, seen.at, window
        )
        self._sessions[message.sender_index] = there
        self._sessions[message.receiver_index] = back
        del self._initiations[message.receiver_index]

    def _cookie_reply(self, seen: Seen, message: CookieReply) -> None:
        sent = self._sent.get(message.receiver_index)
        if sent is None:
            seen.problems.append(DropReason.UNKNOWN_INDEX)
            return
        if sent.recipient is None:
            seen.notes.append("the message it answers was for an unknown public key")
            return
        cookie = self._crypto.xaead_open(
            cookie_key(self._crypto, sent.recipient),
            message.nonce,
            message.encrypted_cookie,
            sent.raw[-_MACS:-MAC_SIZE],
        )
        if cookie is None:
            seen.problems.append(DropReason.COOKIE_INVALID)
            return
        seen.sender = sent.recipient
        # The cookie is for whoever sent that message: the address this reply goes to.
        self._cookies[sent.recipient, seen.destination.without_source()] = (cookie, seen.at)
        seen.notes.append("cookie opens")

    # --- data ---

    def _transport(self, seen: Seen, message: Transport) -> None:
        session = self._sessions.get(message.receiver_index)
        if session is None:
            seen.notes.append("no keys for this session")
            return
        seen.handshake = session.frame
        if message.counter >= self._parameters.reject_after_messages:
            seen.problems.append(DropReason.COUNTER_EXHAUSTED)
        plaintext = session.cipher.open(message.counter, message.encrypted_packet)
        if plaintext is None:
            seen.problems.append(DropReason.TAG_INVALID)
            return
        seen.sender, seen.plaintext = session.sender, plaintext
        if seen.at - session.born >= self._parameters.reject_after_time:
            seen.problems.append(DropReason.SESSION_EXPIRED)
        repeated = session.window.accept(message.counter)
        if repeated is not None:
            seen.problems.append(repeated)
        if seen.source != session.source:
            if session.source is not None:
                seen.notes.append(f"roamed from {session.source}")
            session.source = seen.source
        if not plaintext:
            return
        addresses = read_addresses(plaintext)
        if addresses is None:
            seen.problems.append(DropReason.INNER_MALFORMED)
        else:
            seen.inner = plaintext[: addresses.total_length]

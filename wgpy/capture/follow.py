"""Understand captured WireGuard traffic with the keys of one side, of both, or with none.

A `Follower` sees all datagrams in order.  From each message it tells the fields, whether
the MACs are right, which handshake authenticates it, the inner packet, and what is wrong
with it: the same names that a device uses when it drops (`DropReason`), so that the reader
learns why a packet vanished.

One private key of either side opens the static key and timestamp of an initiation; one
ephemeral private key of either side, with a static one of the same side, opens the data;
so does a session's transport key.  Without keys `sessions` joins what belongs together.

Three rules:

* No verdict on bytes that are not in the capture, nor on what may not be WireGuard.
* A `problem` is something for which a receiver drops the message.  What only the capture or
  the key log lacks is a note.
* The same datagram captured twice is judged once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from wgpy.capture.handshake import (
    Sealed,
    SeenInitiation,
    SeenSession,
    open_initiation,
    open_response,
)
from wgpy.capture.keylog import Keys
from wgpy.capture.link import Udp
from wgpy.capture.repeats import Repeats
from wgpy.capture.seen import Seen, look
from wgpy.capture.sessions import Flow, Initiated, Sessions, remember
from wgpy.protocol.constants import (
    DEFAULT_PARAMETERS,
    MAC_SIZE,
    TRANSPORT_HEADER_SIZE,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    TYPE_TRANSPORT,
    Parameters,
)
from wgpy.protocol.cookie import cookie_key, mac1_key
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.messages import (
    ZERO_MAC,
    CookieReply,
    Initiation,
    Message,
    Response,
    message_type,
)
from wgpy.protocol.noise import TransportKeys
from wgpy.protocol.packet import read_addresses

_MACS = 2 * MAC_SIZE


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
        self._repeats = Repeats()
        self._sent: dict[int, _SentMessage] = {}
        self._cookies: dict[tuple[bytes, Endpoint], tuple[bytes, int]] = {}
        self._floors: dict[tuple[bytes, bytes], bytes] = {}
        self.sessions = Sessions()
        self.strangers: Counter[DropReason] = Counter()
        """Datagrams between the endpoints of a tunnel that are not messages."""

    @property
    def repeated(self) -> int:
        """Datagrams that were in the capture more than once."""
        return self._repeats.count

    def datagram(self, frame: int, at: int, udp: Udp) -> Seen | None:
        """Explain a UDP datagram of a frame; None when it is not a WireGuard message."""
        seen = look(frame, at, udp)
        if seen is None or not self._plausible(seen):
            self._stranger(udp)
            return None
        seen.same_as = self._repeats.first(frame, at, udp.payload)
        if seen.same_as is not None:
            return seen
        if seen.missing:
            seen.notes.append(
                f"cut by the capture: {len(udp.payload)} of {seen.size} bytes; not judged"
            )
        if seen.reserved:
            seen.notes.append(
                f"reserved bytes are {seen.reserved.hex()}, not zero: Cloudflare WARP does"
                " this, standard WireGuard drops it"
            )
        if seen.kind == TYPE_TRANSPORT:
            self._transport(seen)
        else:
            self._handshake(seen)
        return seen

    def _plausible(self, seen: Seen) -> bool:
        """Data with reserved bytes that are not zero has nothing to go by but its index."""
        if seen.kind != TYPE_TRANSPORT or not seen.reserved:
            return True
        receiver = seen.receiver
        return receiver is not None and (
            receiver in self._keys.transport or self.sessions.flow(receiver) is not None
        )

    def _stranger(self, udp: Udp) -> None:
        if not udp.missing and self.sessions.is_tunnel(udp.source, udp.destination):
            reason = message_type(udp.payload)
            if isinstance(reason, DropReason):
                self.strangers[reason] += 1
            else:
                self.strangers[DropReason.TYPE_UNKNOWN] += 1

    # --- handshake messages ---

    def _handshake(self, seen: Seen) -> None:
        message = seen.message
        if isinstance(message, Initiation | Response):
            self._check_macs(seen)
        if seen.kind == TYPE_INITIATION:
            self._initiation(seen, message)
        elif seen.kind == TYPE_RESPONSE:
            self._response(seen, message)
        elif isinstance(message, CookieReply):
            self._cookie_reply(seen, message)

    def _check_macs(self, seen: Seen) -> None:
        """Which key mac1 is for, and whether mac2 fits a cookie seen before (§5.4.4)."""
        raw = seen.standard
        body, mac1, mac2 = raw[:-_MACS], raw[-_MACS:-MAC_SIZE], raw[-MAC_SIZE:]
        for public in self._keys.publics:
            if self._crypto.mac(mac1_key(self._crypto, public), body) == mac1:
                seen.mac1_of, seen.perhaps = public, False
                break
        else:
            if self._keys.publics:
                seen.notes.append("mac1 matches no known public key")
        if seen.sender_index is not None:
            remember(self._sent, seen.sender_index, _SentMessage(raw, seen.mac1_of))
        if mac2 == ZERO_MAC or seen.mac1_of is None:
            return
        known = self._cookies.get((seen.mac1_of, seen.source.without_source()))
        if known is None:
            seen.notes.append("mac2 is set, with a cookie that is not in this capture")
        elif self._crypto.mac(known[0], raw[:-MAC_SIZE]) != mac2:
            seen.notes.append("mac2 does not fit the cookie seen before")
        elif seen.at - known[1] >= self._parameters.cookie_lifetime:
            seen.notes.append("mac2 uses an expired cookie (§5.4.4)")
        else:
            seen.notes.append("mac2 fits the cookie seen before")

    def _initiation(self, seen: Seen, message: Message | None) -> None:
        index = seen.sender_index
        if index is None:
            return
        opened = self._open_initiation(seen, message)
        if isinstance(opened, DropReason):
            seen.problems.append(opened)
            return
        before = self.sessions.initiated(index)
        if isinstance(opened, Sealed):
            seen.notes.append(opened.reason)
            if before is not None and before.opened is not None:
                return  # what keys have proved is not replaced by what cannot be checked
        started, notes = self.sessions.initiation(
            seen.frame, seen.at, seen.source, seen.destination, index
        )
        seen.notes += notes
        if isinstance(opened, SeenInitiation):
            seen.sender, seen.handshake = opened.initiator, seen.frame
            started.opened = opened
        elif opened is not None:
            started.sealed = opened.reason

    def _open_initiation(
        self, seen: Seen, message: Message | None
    ) -> SeenInitiation | Sealed | DropReason | None:
        """None when no keys are known that could open anything."""
        if not self._keys.publics:
            return None
        if not isinstance(message, Initiation):
            return Sealed("its initiation was cut by the capture")
        if seen.mac1_of is None:
            return Sealed(
                "to open it, the key log needs the responder's public key"
                " (REMOTE_STATIC_PUBLIC_KEY)"
            )
        opened = open_initiation(self._keys, message, seen.mac1_of, seen.frame)
        if not isinstance(opened, SeenInitiation):
            return opened
        pair = (opened.initiator, opened.responder)
        if opened.timestamp <= self._floors.get(pair, b""):
            seen.sender, seen.handshake = opened.initiator, seen.frame
            return DropReason.TIMESTAMP_REPLAYED
        remember(self._floors, pair, opened.timestamp)
        return opened

    def _response(self, seen: Seen, message: Message | None) -> None:
        receiver, sender = seen.receiver, seen.sender_index
        started = None if receiver is None else self.sessions.initiated(receiver)
        if started is None or sender is None:
            seen.notes.append("the initiation that it answers is not in the capture")
            return
        seen.perhaps, seen.joined = False, started.frame
        if started.session is not None:
            if started.opened is not None:
                seen.problems.append(DropReason.UNKNOWN_INDEX)
            seen.notes.append("its handshake was completed before")
            return
        opened = self._open_response(seen, started, message)
        if isinstance(opened, DropReason):
            seen.problems.append(opened)
            return
        if isinstance(opened, Sealed):
            seen.notes.append(opened.reason)
            started.sealed = opened.reason
        flows = self.sessions.response(seen.frame, seen.at, started, sender)
        if isinstance(opened, TransportKeys) and started.opened is not None:
            initiation = started.opened
            seen.sender, seen.handshake = initiation.responder, initiation.frame
            for flow, key, public in zip(
                flows, opened, (initiation.initiator, initiation.responder), strict=True
            ):
                flow.opener = self._opener(key, public, flow)

    def _open_response(
        self, seen: Seen, started: Initiated, message: Message | None
    ) -> TransportKeys | Sealed | DropReason | None:
        """The session's keys; None when no keys are known."""
        if not isinstance(message, Response):
            return Sealed("its response was cut by the capture") if self._keys.publics else None
        if started.opened is not None:
            return open_response(self._keys, started.opened, message)
        if seen.mac1_of is not None:
            name = PublicKey(seen.mac1_of).base64[:8]
            return Sealed(f"by mac1 the initiator is {name}…; its initiation stays sealed")
        return Sealed("its initiation stays sealed") if self._keys.publics else None

    def _opener(self, key: bytes, sender: bytes | None, flow: Flow) -> SeenSession:
        session = flow.session
        return SeenSession(
            self._crypto,
            key,
            sender,
            None if session is None else session.initiation,
            None if session is None else session.at,
            self._parameters.replay_window,
        )

    def _cookie_reply(self, seen: Seen, message: CookieReply) -> None:
        sent = self._sent.get(message.receiver_index)
        if sent is None:
            seen.notes.append("the message that it answers is not in the capture")
            return
        seen.perhaps = False
        if sent.recipient is None:
            if self._keys.publics:
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
        # The cookie is for the sender of that message: the address this reply goes to.
        place = sent.recipient, seen.destination.without_source()
        remember(self._cookies, place, (cookie, seen.at))
        seen.notes.append("cookie opens")

    # --- data ---

    def _transport(self, seen: Seen) -> None:
        receiver, counter = seen.receiver, seen.counter
        if receiver is None or counter is None:
            seen.perhaps = True
            return
        flow = self.sessions.flow(receiver)
        if flow is None:
            flow = self.sessions.orphan(seen.at, receiver, seen.source, seen.destination)
        if flow.session is not None:
            seen.joined = flow.session.initiation
        seen.role = flow.role
        if not seen.missing and not self._open(seen, flow, counter):
            return
        if not flow.messages and flow.opener is None:
            self._explain_sealed(seen, flow)
        flow.sure = flow.sure or flow.opener is not None or flow.fits(counter)
        seen.perhaps = not flow.sure
        if DropReason.REPLAYED not in seen.problems:
            seen.notes += flow.count(
                seen.at, counter, seen.size, (seen.source, seen.destination), seen.authentic
            )

    def _explain_sealed(self, seen: Seen, flow: Flow) -> None:
        if flow.session is None:
            seen.notes.append("its handshake is not in the capture")
        elif flow.session.sealed:
            seen.notes.append(f"stays sealed: see the handshake in {flow.session.initiation}")

    def _open(self, seen: Seen, flow: Flow, counter: int) -> bool:
        """Open a whole message if its key is known; False when it is not authentic."""
        sealed = seen.payload[TRANSPORT_HEADER_SIZE:]
        plaintext = None
        if flow.opener is None and flow.receiver in self._keys.transport:
            plaintext = self._try_transport_keys(flow, counter, sealed)
            if plaintext is None:
                seen.notes.append("opens with no TRANSPORT_KEY of its index")
        opener = flow.opener
        if opener is None:
            return True
        seen.handshake = opener.frame
        if counter >= self._parameters.reject_after_messages:
            seen.problems.append(DropReason.COUNTER_EXHAUSTED)
        if plaintext is None:
            plaintext = opener.cipher.open(counter, sealed)
        if plaintext is None:
            seen.problems.append(DropReason.TAG_INVALID)
            return False
        seen.sender, seen.plaintext = opener.sender, plaintext
        if (
            opener.born is not None
            and seen.at - opener.born >= self._parameters.reject_after_time
        ):
            seen.problems.append(DropReason.SESSION_EXPIRED)
        repeated = opener.window.accept(counter)
        if repeated is not None:
            seen.problems.append(repeated)
        if plaintext:
            addresses = read_addresses(plaintext)
            if addresses is None:
                seen.problems.append(DropReason.INNER_MALFORMED)
            else:
                seen.inner = plaintext[: addresses.total_length]
        return True

    def _try_transport_keys(self, flow: Flow, counter: int, sealed: bytes) -> bytes | None:
        """The plaintext by one of the key log's keys for this index, which is then the flow's."""
        for known in self._keys.transport[flow.receiver]:
            opener = self._opener(known.key, known.sender, flow)
            plaintext = opener.cipher.open(counter, sealed)
            if plaintext is not None:
                flow.opener = opener
                return plaintext
        return None

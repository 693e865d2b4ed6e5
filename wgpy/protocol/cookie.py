"""mac1, mac2 and cookies: denial-of-service resistance (§5.3, §5.4.4, §5.4.7).

Every handshake message ends in mac1 and mac2.  mac1 proves that the sender knows the
recipient's public key.  Under load a responder answers with an encrypted cookie bound to the source
address, and mac2 of the repeated message proves possession of it.

`MacChecker` is the receiver's half (one per device), `MacMaker` the sender's (one per peer).
§5.3 binds the cookie to the source IP, §5.4.7 to IP *and* port: we follow the latter.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import LABEL_COOKIE, LABEL_MAC1, MAC_SIZE, XNONCE_SIZE
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.messages import ZERO_MAC, CookieReply

_MACS_SIZE = 2 * MAC_SIZE


def mac1_key(crypto: Crypto, public_key: bytes) -> bytes:
    """Key of mac1 in messages *to* the owner of `public_key` (§5.4.4)."""
    return crypto.hash(LABEL_MAC1, public_key)


def cookie_key(crypto: Crypto, public_key: bytes) -> bytes:
    """Key of cookie replies *from* the owner of `public_key` (§5.4.7)."""
    return crypto.hash(LABEL_COOKIE, public_key)


class MacChecker:
    """Verifies mac1 and mac2 of messages to us and makes cookie replies."""

    __slots__ = ("_born", "_cookie_key", "_crypto", "_entropy", "_lifetime", "_mac1_key", "_secret")

    def __init__(
        self, crypto: Crypto, public_key: bytes, entropy: Callable[[int], bytes], lifetime: int
    ) -> None:
        self._crypto = crypto
        self._entropy = entropy
        self._lifetime = lifetime
        self._mac1_key = mac1_key(crypto, public_key)
        self._cookie_key = cookie_key(crypto, public_key)
        self._secret = b""
        self._born = 0

    def mac1_ok(self, message: Buffer) -> bool:
        """Whether mac1 of an encoded handshake message is right."""
        body, mac1 = message[:-_MACS_SIZE], message[-_MACS_SIZE:-MAC_SIZE]
        return compare_digest(self._crypto.mac(self._mac1_key, body), mac1)

    def mac2_ok(self, message: Buffer, source: Endpoint, now: int) -> bool:
        """Whether mac2 was made with the cookie that `source` would get now."""
        if not self._secret or now - self._born >= self._lifetime:
            return False
        body, mac2 = message[:-MAC_SIZE], message[-MAC_SIZE:]
        if mac2 == ZERO_MAC:  # a flood's usual case, for which no MAC is computed
            return False
        return compare_digest(self._crypto.mac(self._cookie(source), body), mac2)

    def reply(
        self, message: Buffer, sender_index: int, source: Endpoint, now: int
    ) -> CookieReply:
        """The cookie reply to an encoded message from `source` with a valid mac1."""
        if not self._secret or now - self._born >= self._lifetime:
            self._secret = self._entropy(32)
            self._born = now
        nonce = self._entropy(XNONCE_SIZE)
        mac1 = bytes(message[-_MACS_SIZE:-MAC_SIZE])
        sealed = self._crypto.xaead_seal(self._cookie_key, nonce, self._cookie(source), mac1)
        return CookieReply(sender_index, nonce, sealed)

    def _cookie(self, source: Endpoint) -> bytes:
        # The encoding of the address is private to us; the port goes in as 2 bytes.
        return self._crypto.mac(self._secret, source.ip + source.port.to_bytes(2))


class MacMaker:
    """Puts mac1 and mac2 on messages to one peer and keeps that peer's latest cookie."""

    __slots__ = ("_cookie", "_cookie_key", "_crypto", "_last_mac1", "_lifetime", "_mac1_key",
                 "_received_at")

    def __init__(self, crypto: Crypto, public_key: bytes, lifetime: int) -> None:
        self._crypto = crypto
        self._lifetime = lifetime
        self._mac1_key = mac1_key(crypto, public_key)
        self._cookie_key = cookie_key(crypto, public_key)
        self._last_mac1: bytes | None = None
        self._cookie: bytes | None = None
        self._received_at = 0

    def sign(self, message: bytes, now: int) -> bytes:
        """An encoded message with both MACs filled in."""
        body = message[:-_MACS_SIZE]
        mac1 = self._crypto.mac(self._mac1_key, body)
        self._last_mac1 = mac1
        mac2 = ZERO_MAC
        if self._cookie is not None and now - self._received_at < self._lifetime:
            mac2 = self._crypto.mac(self._cookie, body + mac1)
        return body + mac1 + mac2

    def awaits_cookie(self) -> bool:
        """Whether a message was sent that no cookie reply has answered yet."""
        return self._last_mac1 is not None

    def receive(self, reply: CookieReply, now: int) -> bool:
        """Keep the cookie if it opens under the last mac1; False changes nothing.

        One message earns one cookie: a second reply to it is ignored (as the kernel).
        """
        if self._last_mac1 is None:
            return False
        cookie = self._crypto.xaead_open(
            self._cookie_key, reply.nonce, reply.encrypted_cookie, self._last_mac1
        )
        if cookie is None:
            return False
        self._cookie, self._received_at = cookie, now
        self._last_mac1 = None
        return True

    def forget(self) -> None:
        """Drop cookie and pending mac1."""
        self._cookie = self._last_mac1 = None

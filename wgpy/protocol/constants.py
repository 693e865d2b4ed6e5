"""Every number of the protocol, once, with its section of the whitepaper.

What the paper fixes for interoperability is a module constant.  What an implementation
may choose, and what a researcher may want to change, lives in `Parameters`.
All times are nanoseconds, all sizes bytes unless the name says otherwise.
"""

from dataclasses import dataclass
from typing import Final

NS: Final = 1_000_000_000
"""Nanoseconds in a second."""
MS: Final = 1_000_000
"""Nanoseconds in a millisecond."""

# §5.4: strings that seed the transcript and the MAC keys.
CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"

# §5.4: primitive sizes.
KEY_SIZE: Final = 32
HASH_SIZE: Final = 32
MAC_SIZE: Final = 16
TAG_SIZE: Final = 16
TIMESTAMP_SIZE: Final = 12
XNONCE_SIZE: Final = 24

# §5.4.2, §5.4.3, §5.4.6, §5.4.7: the four messages.
TYPE_INITIATION: Final = 1
TYPE_RESPONSE: Final = 2
TYPE_COOKIE_REPLY: Final = 3
TYPE_TRANSPORT: Final = 4
INITIATION_SIZE: Final = 148
RESPONSE_SIZE: Final = 92
COOKIE_REPLY_SIZE: Final = 64
TRANSPORT_HEADER_SIZE: Final = 16
TRANSPORT_OVERHEAD: Final = TRANSPORT_HEADER_SIZE + TAG_SIZE
KEEPALIVE_SIZE: Final = TRANSPORT_OVERHEAD
PADDING_MULTIPLE: Final = 16

# Not in the paper: what the kernel and wireguard-go agree on.
MAX_STAGED_PACKETS: Final = 128


@dataclass(frozen=True, slots=True)
class Parameters:
    """The protocol's adjustable numbers; the defaults are the whitepaper's.

    A researcher can run an engine with another replay window or rekey time, and the
    simulator shows what that does.  Interoperability needs the defaults.
    """

    # §6.1
    rekey_after_messages: int = 2**60
    reject_after_messages: int = 2**64 - 2**13 - 1
    rekey_after_time: int = 120 * NS
    reject_after_time: int = 180 * NS
    rekey_attempt_time: int = 90 * NS
    rekey_timeout: int = 5 * NS
    keepalive_timeout: int = 10 * NS
    # §6.1 asks for jitter but names no amount: the kernel adds up to a third of a second.
    rekey_timeout_jitter: int = 333 * MS
    # §6.3: three times Reject-After-Time.
    zero_after_rejects: int = 3
    # §5.4.7
    cookie_lifetime: int = 120 * NS
    # §5.4.6 names no size: 8192 bits as the kernel and wireguard-go (8128 usable).
    replay_window: int = 8192
    # Not in the paper; numbers of the kernel.
    initiation_guard: int = 20 * MS
    staged_packets: int = MAX_STAGED_PACKETS
    cookie_rate: int = 20
    cookie_burst: int = 5
    # Cookie replies a second, to one source and in all.  Not in the paper or the kernel,
    # which answer everything: an attacker must not choose how much we compute and send.
    cookie_replies: int = 500
    cookie_replies_in_all: int = 5_000
    # §5.3 leaves "under load" to the implementation.  Ours is a leaky bucket: each
    # handshake message with a valid mac1 adds one, `handshake_drain` a second leak out.
    # At `under_load_backlog` cookies are demanded, until the level was below it for
    # `under_load_hold`.  A backlog of 0 is "always under load".
    under_load_backlog: int = 128
    handshake_drain: int = 1_000
    under_load_hold: int = 1 * NS

    @property
    def receive_rekey_time(self) -> int:
        """Age at which an initiator that only receives starts a handshake (§6.2): 165 s."""
        return self.reject_after_time - self.keepalive_timeout - self.rekey_timeout

    @property
    def zero_after_time(self) -> int:
        """Age at which all key material is erased (§6.3): 540 s."""
        return self.reject_after_time * self.zero_after_rejects

    @property
    def dead_peer_time(self) -> int:
        """Silence after our data that starts a new handshake (§6.5): 15 s."""
        return self.keepalive_timeout + self.rekey_timeout


DEFAULT_PARAMETERS: Final = Parameters()

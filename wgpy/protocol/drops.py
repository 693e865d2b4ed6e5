"""Every discard has a name.

WireGuard sends no error messages, so this name is the only way to see why a packet was
lost: the counter, the trace line, the metric label, the capture comment and the test's
assertion all use it.
"""

from enum import Enum


class DropReason(Enum):
    """Why a packet or a message was discarded; the value is a sentence that explains it."""

    # Outer datagrams (§5.4).
    LENGTH_INVALID = "datagram length does not fit its message type"
    TYPE_UNKNOWN = "first byte is not a message type, or a reserved byte is not zero"
    MAC1_INVALID = "mac1 is not ours (§5.3)"
    NO_PRIVATE_KEY = "this device has no private key"
    MAC2_REQUIRED = "under load: answered with a cookie reply (§5.3)"
    RATE_LIMITED = "under load: this source sends too many handshakes"
    COOKIE_LIMITED = "under load: no cookie reply, for too many were sent (§5.3)"
    STATIC_INVALID = "encrypted static key does not open (§5.4.2)"
    UNKNOWN_INITIATOR = "initiator's public key is not a configured peer (§5.1)"
    LOW_ORDER_KEY = "Diffie-Hellman result is zero"
    TIMESTAMP_INVALID = "encrypted timestamp does not open (§5.4.2)"
    TIMESTAMP_REPLAYED = "timestamp is not greater than the greatest seen (§5.1)"
    INITIATION_FLOOD = "initiation within 20 ms of the peer's last one"
    UNKNOWN_INDEX = "receiver index belongs to no session or handshake"
    RESPONSE_INVALID = "response does not open (§5.4.3)"
    COOKIE_UNEXPECTED = "cookie reply to no message of ours (§5.4.7)"
    COOKIE_INVALID = "cookie does not open (§5.4.7)"
    SESSION_EXPIRED = "session is older than Reject-After-Time (§6.2)"
    COUNTER_EXHAUSTED = "counter is at Reject-After-Messages (§6.2)"
    TAG_INVALID = "authentication tag does not fit (§5.4.6)"
    REPLAYED = "counter was received before (§5.4.6)"
    COUNTER_TOO_OLD = "counter is behind the replay window (§5.4.6)"

    # Inner packets (§2, §3).
    INNER_MALFORMED = "decrypted packet is not IPv4 or IPv6, or shorter than its header states"
    SOURCE_NOT_ALLOWED = "inner source is not in the peer's allowed IPs (§3)"
    MALFORMED = "packet to send is not IPv4 or IPv6, or shorter than its header states"
    NO_PEER = "no allowed IPs cover the destination (§3)"
    OWN_DATAGRAM = "a route leads this tunnel's own datagrams into it"
    NO_ENDPOINT = "the peer's endpoint is not known yet (§2.1)"
    QUEUE_FULL = "the peer's staged queue was full: oldest packet dropped"
    HANDSHAKE_GAVE_UP = "no handshake within Rekey-Attempt-Time (§6.4)"
    PEER_REMOVED = "the peer was removed or changed while the packet waited"
    DEVICE_DOWN = "the device is down"

    # The policy in front (strict mode).
    UNENCRYPTED_TRAFFIC = "traffic between pods would leave unencrypted"
    SOURCE_NOT_ON_NODE = "inner source is not known to live on the sending node"
    PLAINTEXT_INGRESS = "pod traffic arrived outside the tunnel"
    POLICY_NOT_LOADED = "the policy has no table yet: nothing passes"
    POLICY_DENIED = "the policy refuses this packet"

    # The edges: sockets and the TUN device.
    UDP_SEND_FAILED = "the UDP socket refused the datagram"
    UDP_OVERFLOW = "the UDP socket's receive queue overflowed"
    HANDSHAKE_QUEUE_FULL = "the queue of handshake messages overflowed"
    TUN_WRITE_FAILED = "the TUN device refused the packet"

    @property
    def sentence(self) -> str:
        """The reason in words."""
        return self.value

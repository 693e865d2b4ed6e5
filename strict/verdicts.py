"""The rows of the verdict table, and a decision with its explanation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from strict.ipcache import Entry
from strict.nodes import Node
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.policy import Action, Verdict


class Rule(IntEnum):
    """The verdict table's rows (docs/strict-mode.md); 0 and 10 are outside it, 11 above."""

    NOT_LOADED = 0
    MALFORMED = 1
    LOCAL = 2
    KNOWN_ENDPOINT = 3
    KNOWN_POD_CIDR = 4
    UNKNOWN_POD = 5
    OUTSIDE = 6
    NODE_PLAINTEXT = 7
    NODE_ENCRYPTED = 8
    NODE_UNKNOWN = 9
    INGRESS = 10
    CARRIED = 11

    @property
    def sentence(self) -> str:
        """Description of the row."""
        return _SENTENCES[self]


_SENTENCES: Final = {
    Rule.NOT_LOADED: "the table is not loaded yet: nothing passes",
    Rule.MALFORMED: "not readable as IPv4 or IPv6",
    Rule.LOCAL: "the destination is on this node",
    Rule.KNOWN_ENDPOINT: "the ipcache knows the destination, its node and the node's key",
    Rule.KNOWN_POD_CIDR: "a known node's pod CIDR covers the destination",
    Rule.UNKNOWN_POD: "pod to pod, and the destination cannot be encrypted to",
    Rule.OUTSIDE: "the destination is outside the cluster",
    Rule.NODE_PLAINTEXT: "node traffic, which is not to be encrypted",
    Rule.NODE_ENCRYPTED: "node traffic to a known peer, node encryption on",
    Rule.NODE_UNKNOWN: "node traffic to an unknown peer, node encryption on",
    Rule.INGRESS: "out of a tunnel",
    Rule.CARRIED: "quotes or wraps a packet from pod to pod, or one that cannot be read",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and why: the row, what decided it, and what is missing ("" for nothing)."""

    rule: Rule
    verdict: Verdict
    missing: str = ""
    entry: Entry | None = None
    cidr: Prefix | None = None
    node: Node | None = None

    @property
    def outcome(self) -> str:
        """For people: encrypted, plaintext, delivered or dropped."""
        return _OUTCOMES[self.verdict.action]


_OUTCOMES: Final = {
    Action.ENCRYPT: "encrypted",
    Action.PLAINTEXT: "plaintext",
    Action.ACCEPT: "delivered",
    Action.DROP: "dropped",
}

UNENCRYPTED: Final = Verdict(Action.DROP, DropReason.UNENCRYPTED_TRAFFIC)
UNENCRYPTED_THIS_TIME: Final = Verdict(Action.DROP, DropReason.UNENCRYPTED_TRAFFIC, True)
ENCRYPT_THIS_TIME: Final = Verdict(Action.ENCRYPT, None, True)
PLAINTEXT_THIS_TIME: Final = Verdict(Action.PLAINTEXT, None, True)
NOT_LOADED: Final = Verdict(Action.DROP, DropReason.POLICY_NOT_LOADED)
MALFORMED: Final = Verdict(Action.DROP, DropReason.MALFORMED)
NOT_ON_NODE: Final = Verdict(Action.DROP, DropReason.SOURCE_NOT_ON_NODE)

"""A peer's states as a table: which keys exist, what moves them, which timers may be pending.

Two things about a peer are independent of each other:

* `Keys`: which of the three session slots are occupied (§6.3).  There are five cases, not
  eight: `previous` never exists without `current`, and never beside `next`, because an
  answered initiation takes the place of what is older than the current session.
* whether a handshake that we began is in progress (`initiation`).  It does not depend on
  the slots: our initiation survives the answering of theirs, so that handshakes which
  cross both complete.

The engine does not read this table; `Peer` moves sessions between its slots in a few plain
lines.  The table is the specification of those lines: the state machine in `tests/state`
checks every move and every pending timer against it and must meet every row, and the
diagram in docs/protocol.md is drawn from it (`python -m wgpy.protocol.states`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final

from wgpy.protocol.timers import Timer

if TYPE_CHECKING:
    from wgpy.protocol.peer import Peer


class Keys(Enum):
    """The occupied session slots; the value is their names."""

    NONE = ()
    ANSWERED = ("next",)
    ESTABLISHED = ("current",)
    RENEWED = ("previous", "current")
    ANSWERED_AGAIN = ("current", "next")


class Move(Enum):
    """What moves sessions between the slots; the value says when."""

    RESPONSE = "our initiation is answered (§5.4.3)"
    INITIATION = "we answer their initiation (§5.4.3)"
    CONFIRMED = "first message under the next keys (§5.4.5)"
    ERASED = "540 s without new keys, or the identity changes (§6.3)"


MOVES: Final[Mapping[tuple[Keys, Move], Keys]] = {
    (Keys.NONE, Move.RESPONSE): Keys.ESTABLISHED,
    # Both sides initiated: the other side may already use the keys that we answered with.
    (Keys.ANSWERED, Move.RESPONSE): Keys.RENEWED,
    (Keys.ESTABLISHED, Move.RESPONSE): Keys.RENEWED,
    (Keys.RENEWED, Move.RESPONSE): Keys.RENEWED,
    (Keys.ANSWERED_AGAIN, Move.RESPONSE): Keys.RENEWED,
    (Keys.NONE, Move.INITIATION): Keys.ANSWERED,
    (Keys.ANSWERED, Move.INITIATION): Keys.ANSWERED,
    (Keys.ESTABLISHED, Move.INITIATION): Keys.ANSWERED_AGAIN,
    (Keys.RENEWED, Move.INITIATION): Keys.ANSWERED_AGAIN,
    (Keys.ANSWERED_AGAIN, Move.INITIATION): Keys.ANSWERED_AGAIN,
    (Keys.ANSWERED, Move.CONFIRMED): Keys.ESTABLISHED,
    (Keys.ANSWERED_AGAIN, Move.CONFIRMED): Keys.RENEWED,
    **{(keys, Move.ERASED): Keys.NONE for keys in Keys},
}
"""A pair that is not here does not happen: without `next` there is nothing to confirm."""

MAY_SEND: Final = frozenset({Keys.ESTABLISHED, Keys.RENEWED, Keys.ANSWERED_AGAIN})
"""Where a current session exists.  A responder waits for confirmation (§5.4.5)."""


def keys_of(peer: Peer) -> Keys:
    """The slots that are occupied; raises ValueError for a combination that must not exist."""
    slots = ("previous", "current", "next")
    return Keys(tuple(name for name in slots if getattr(peer, name) is not None))


def may_be_pending(timer: Timer, keys: Keys, *, initiated: bool) -> bool:
    """Whether `timer` may be set in this state; `initiated`: our handshake is in progress."""
    match timer:
        case Timer.RETRY_HANDSHAKE:
            # Erasing the keys during the retries takes the initiation; the next retry makes
            # a new one, unless a session is confirmed before.
            return initiated or keys not in MAY_SEND
        case Timer.NEW_HANDSHAKE | Timer.KEEPALIVE:
            return keys in MAY_SEND  # Somebody sent content, so a session was confirmed.
        case Timer.PERSISTENT_KEEPALIVE | Timer.ZERO_KEYS:
            return True


def must_be_pending(timer: Timer, keys: Keys) -> bool:
    """Whether `timer` has to be set in this state: key material always has its end (§6.3)."""
    return timer is Timer.ZERO_KEYS and keys is not Keys.NONE


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "stateDiagram-v2"
    for keys in Keys:
        slots = ", ".join(keys.value) or "no session"
        yield f"    {keys.name}: {keys.name}<br/>{slots}"
    yield "    [*] --> NONE"
    for (keys, move), after in MOVES.items():
        if move is not Move.ERASED:
            yield f"    {keys.name} --> {after.name}: {move.name}"
    for keys in Keys:
        if keys is not Keys.NONE:
            yield f"    {keys.name} --> NONE: {Move.ERASED.name}"


if __name__ == "__main__":
    print(mermaid())

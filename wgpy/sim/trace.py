"""The time-line of a run: what was sent, what happened to it, and how each node reacted.

Each `Entry` has a text form and a JSON form.  It never holds a secret: messages are shown
by name, size, indices and counter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum

from wgpy.protocol import events as ev
from wgpy.protocol import messages
from wgpy.protocol.constants import KEEPALIVE_SIZE, NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, format_address

JsonValue = str | int | float | bool | None


class Kind(Enum):
    """What an entry is about; the value is its JSON name."""

    SENT = "sent"
    FATE = "fate"
    EVENT = "event"
    DROP = "drop"
    TIMER = "timer"
    INNER = "inner"
    NOTE = "note"


_MARK = {
    Kind.SENT: "→",
    Kind.FATE: "~",
    Kind.EVENT: "·",
    Kind.DROP: "✗",
    Kind.TIMER: "⏲",
    Kind.INNER: "⇥",
    Kind.NOTE: "#",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """`at` in simulated ns; `name` is the machine's word, `text` the person's."""

    at: int
    node: str
    kind: Kind
    name: str
    text: str
    details: dict[str, JsonValue] = field(default_factory=dict)

    def line(self, width: int) -> str:
        """One line of the time-line, the node's name in `width` columns."""
        return f"{self.at / NS:14.6f}  {self.node:<{width}}  {_MARK[self.kind]} {self.text}"

    def as_json(self) -> dict[str, JsonValue]:
        """Flat: at_ns, node, kind, name, text, and the details."""
        return {
            "at_ns": self.at,
            "node": self.node,
            "kind": self.kind.value,
            "name": self.name,
            "text": self.text,
            **self.details,
        }


class Trace:
    """Entries in order; keeps none when not `enabled`, for runs with thousands of nodes."""

    __slots__ = ("enabled", "entries")

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.entries: list[Entry] = []

    def add(
        self, at: int, node: str, kind: Kind, name: str, text: str, **details: JsonValue
    ) -> None:
        """Append an entry."""
        if self.enabled:
            self.entries.append(Entry(at, node, kind, name, text, details))

    def find(self, name: str, node: str | None = None) -> list[Entry]:
        """All entries of that name, of one node or of all."""
        return [e for e in self.entries if e.name == name and node in (None, e.node)]

    def lines(self) -> Iterator[str]:
        """The whole time-line as text."""
        width = max((len(e.node) for e in self.entries), default=0)
        for entry in self.entries:
            yield entry.line(width)


def describe_datagram(data: bytes) -> tuple[str, str, dict[str, JsonValue]]:
    """(name, text, details) of an outer datagram."""
    message = messages.parse(data)
    size: dict[str, JsonValue] = {"size": len(data)}
    match message:
        case messages.Initiation():
            text = f"initiation, sender {message.sender_index:08x}"
            name = "initiation"
            size |= {"sender": message.sender_index, "mac2": message.mac2 != messages.ZERO_MAC}
        case messages.Response():
            text = f"response, sender {message.sender_index:08x} receiver "
            text += f"{message.receiver_index:08x}"
            name = "response"
            size |= {
                "sender": message.sender_index,
                "receiver": message.receiver_index,
                "mac2": message.mac2 != messages.ZERO_MAC,
            }
        case messages.CookieReply():
            text, name = f"cookie reply, receiver {message.receiver_index:08x}", "cookie-reply"
            size |= {"receiver": message.receiver_index}
        case messages.Transport():
            name = "keepalive" if len(data) == KEEPALIVE_SIZE else "data"
            text = f"{name}, receiver {message.receiver_index:08x} counter {message.counter}"
            size |= {"receiver": message.receiver_index, "counter": message.counter}
        case _:
            name, text = "garbage", f"not a message: {message.sentence}"
    if size.get("mac2"):
        text += ", with mac2"
    return name, f"{text} ({len(data)} bytes)", size


def describe_event(event: ev.Event) -> tuple[Kind, str, str, dict[str, JsonValue]]:
    """(kind, name, text, details) of an engine's event."""
    details = {
        f.name: _plain(getattr(event, f.name)) for f in fields(event) if f.name not in _SKIPPED
    }
    if isinstance(event, ev.PacketDropped):
        reason = event.reason.name
        text = f"dropped {event.size} bytes ({event.direction.value}): {reason}, "
        return Kind.DROP, reason, text + event.reason.sentence, details
    name = type(event).__name__
    shown = ", ".join(f"{k} {_shown(k, v)}" for k, v in details.items() if v is not None)
    return Kind.EVENT, name, f"{_words(name)}{': ' if shown else ''}{shown}", details


_SKIPPED = ("at", "peer", "head")


def _words(name: str) -> str:
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in name)
    return spaced.strip()


def _plain(value: object) -> JsonValue:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case DropReason():
            return value.name
        case Enum():
            return str(value.value)
        case Endpoint():
            return str(value)
        case bytes():
            return format_address(value) if len(value) in (4, 16) else value.hex()
    return str(value)


def _shown(name: str, value: JsonValue) -> str:
    if name.endswith("_index") and isinstance(value, int):
        return f"{value:08x}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)

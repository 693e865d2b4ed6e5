"""One of the engine's events as a line of text: what happened, to which peer, and why.

No packet contents appear: an inner packet is described by its addresses and size.
"""

from __future__ import annotations

import dataclasses
import re
from enum import Enum

from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import format_address
from wgpy.protocol.events import Event

_LEFT_OUT = frozenset({"at", "peer", "head"})


def in_words(event: Event) -> str:
    """For instance ``response received, peer hG6x…, endpoint 192.0.2.1:51820``."""
    words = [re.sub(r"(?<!^)(?=[A-Z])", " ", type(event).__name__).lower()]
    if event.peer is not None:
        words.append(f"peer {event.peer.base64[:8]}…")
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if field.name not in _LEFT_OUT and value not in (None, b""):
            words.append(f"{field.name.replace('_', ' ')} {_text(value)}")
    return ", ".join(words)


def _text(value: object) -> str:
    match value:
        case DropReason():
            return f"{value.name} ({value.sentence})"
        case Enum():
            return str(value.value)
        case bytes():
            return format_address(value)
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)

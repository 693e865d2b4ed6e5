"""What `wgpy decrypt` prints: a line for each message, and a summary.

A line is one line for files and pipes; on a terminal it is wrapped at its width, with what
follows indented.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from wgpy.capture.decrypt import Explainer, describe_inner, fields
from wgpy.capture.seen import NAMES, Seen
from wgpy.capture.sessions import Flow
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.keys import PublicKey

_SGR: Final = {
    "dim": "2", "red": "1;31", "green": "32", "yellow": "33", "cyan": "36", "magenta": "35",
}  # fmt: skip
_COLOURS: Final = {1: "cyan", 2: "green", 3: "magenta", 4: ""}
_INDENT: Final = 18
_SHOWN_FLOWS: Final = 20
_PLURALS: Final = {"reply": "replies"}


class Style(NamedTuple):
    """Whether to colour, and where to wrap (0: nowhere)."""

    colour: bool = False
    width: int = 0

    def paint(self, colour: str, text: str) -> str:
        """`text` in a colour of `_SGR`."""
        return f"\x1b[{_SGR[colour]}m{text}\x1b[0m" if self.colour and colour else text


Part = tuple[str, str]
"""Colour and text."""


@lru_cache(4096)
def _place(endpoint: Endpoint) -> str:
    return str(endpoint)


@lru_cache(4096)
def _name(public: bytes) -> str:
    return f"{PublicKey(public).base64[:8]}…"


def line(seen: Seen, start: int, style: Style) -> str:
    """A message, its time counted from `start` (ns)."""
    head = f"{seen.frame:6} {(seen.at - start) / 1e9:10.6f} "
    between = f"{_place(seen.source)} → {_place(seen.destination)} "
    parts: list[Part] = [("", between), *_parts(seen)]
    if style.width:
        return style.paint("dim", head) + _wrapped(parts, style)
    text = " ".join(style.paint(colour, part) for colour, part in parts[1:])
    return f"{head}{between}{text}"


def _wrapped(parts: list[Part], style: Style) -> str:
    """Parts put into lines, each part whole where it fits."""
    place, out = _INDENT, []
    for number, (colour, part) in enumerate(parts):
        words = [part.rstrip()]
        if _INDENT + len(part) > style.width:
            words = part.split()
        for word in words:
            gap = 1 if number or word is not words[0] else 0
            if place > _INDENT and place + gap + len(word) > style.width:
                out.append("\n" + " " * _INDENT)
                place, gap = _INDENT, 0
            out.append(" " * gap + style.paint(colour, word))
            place += gap + len(word)
    return "".join(out)


def _parts(seen: Seen) -> Iterator[Part]:
    name = f"perhaps {NAMES[seen.kind]}" if seen.perhaps else NAMES[seen.kind]
    yield _COLOURS[seen.kind], name
    yield from _field_parts(seen)
    if seen.mac1_of is not None:
        yield "", f"mac1 for {_name(seen.mac1_of)}"
    if seen.sender is not None:
        yield "", f"from {_name(seen.sender)}"
    if seen.role and seen.sender is None:
        yield "", f"from {seen.role}"
    if seen.handshake is not None:
        yield "dim", f"by handshake in {seen.handshake}"
    elif seen.joined is not None:
        yield "dim", f"of handshake in {seen.joined}"
    if seen.inner is not None:
        yield "green", f"| {describe_inner(seen.inner)}"
    elif seen.keepalive:
        yield "green", "| keepalive"
    for problem in seen.problems:
        yield "red", f"{problem.name}: {problem.sentence}"
    for note in seen.notes:
        yield "yellow", f"({note})"


def _field_parts(seen: Seen) -> Iterator[Part]:
    if seen.counter is not None and seen.receiver is not None:
        yield "dim", f"counter={seen.counter}"
        yield "dim", f"receiver=0x{seen.receiver:08x}"
        if seen.inner is None and not seen.keepalive:
            yield "dim", f"{seen.size} bytes"
        return
    for name, value in fields(seen).items():
        if name == "mac1" or (name == "mac2" and not value.strip("0")):
            continue
        shown = f"{value[:12]}…" if isinstance(value, str) and len(value) > 12 else value
        yield "dim", f"{name}={shown}"


# --- summary ---------------------------------------------------------------------------


def _count(number: int, name: str) -> str:
    if number == 1:
        return f"1 {name}"
    *words, last = name.split(" ")
    return " ".join([str(number), *words, _PLURALS.get(last, f"{last}s")])


def summary(explainer: Explainer, style: Style, *, whole: bool) -> Iterator[str]:
    """Lines for the end; `whole`: the file was read to its end."""
    flows = list(explainer.follower.sessions.flows())
    if explainer.messages:
        yield ""
    for flow in flows[:_SHOWN_FLOWS]:
        yield from _flow(flow, style)
    if len(flows) > _SHOWN_FLOWS:
        yield f"… and {len(flows) - _SHOWN_FLOWS} more directions of sessions (--json has all)"
    yield (
        f"{_count(explainer.messages, 'message')} in {_count(explainer.frames, 'frame')}, "
        f"{explainer.authentic} authenticated, {_count(explainer.inner, 'inner packet')}"
    )
    yield from _caveats(explainer, style)
    if explainer.with_problems:
        names = ", ".join(f"{n} {reason.name}" for reason, n in explainer.problems.most_common())
        yield style.paint("red", f"{explainer.with_problems} that a receiver drops: {names}")
    elif explainer.authentic and not explainer.unread and not explainer.cut and whole:
        yield style.paint("green", "no problems")
    elif explainer.messages and not explainer.authentic:
        yield style.paint("yellow", "nothing could be checked: no keys that open these messages")
    elif explainer.messages:
        yield style.paint("yellow", "no problems in what could be read")


def _caveats(explainer: Explainer, style: Style) -> Iterator[str]:
    follower = explainer.follower
    texts = []
    if explainer.perhaps:
        texts.append(f"{explainer.perhaps} of them only perhaps WireGuard")
    if follower.repeated:
        texts.append(
            f"{_count(follower.repeated, 'datagram')} captured again within 0.1 s (several"
            " capture points, or doubled by the network): shown once"
        )
    if explainer.cut:
        texts.append(f"{_count(explainer.cut, 'message')} cut by the capture: not judged")
    for reason, number in follower.strangers.most_common():
        texts.append(
            f"{_count(number, 'datagram')} between these endpoints not WireGuard: {reason.name}"
        )
    for text, number in explainer.unread.items():
        texts.append(f"{_count(number, 'frame')} not read: {text}")
    for text in texts:
        yield style.paint("yellow", text)


def _flow(flow: Flow, style: Style) -> Iterator[str]:
    session = flow.session
    name = "without handshake" if session is None else f"handshake in {session.initiation}"
    role = f", from {flow.role}" if flow.role else ""
    yield f"{_place(flow.source)} → {_place(flow.destination)} ({name}{role})"
    kept = f", {_count(flow.keepalives, 'keepalive')}" if flow.keepalives else ""
    missing = f"{flow.missing} not in the capture" if flow.missing else "none missing"
    yield style.paint(
        "dim",
        f"    {_count(flow.messages, 'message')}{kept}, {flow.size} bytes,"
        f" counters {flow.first} to {flow.greatest}, {missing}",
    )

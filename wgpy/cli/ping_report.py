"""What `wgpy ping` found at each layer, for people and for programs, with likely reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import click

from wgpy.protocol.constants import MS
from wgpy.protocol.drops import DropReason


class Status(Enum):
    """Result of a layer."""

    OK = "ok"
    UNCLEAR = "unclear"
    FAILED = "failed"
    SKIPPED = "skipped"


_COLOURS = {
    Status.OK: "green",
    Status.UNCLEAR: "yellow",
    Status.FAILED: "red",
    Status.SKIPPED: "yellow",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's result: `text` for people, `data` for JSON, `hints` with likely reasons."""

    name: str
    status: Status
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    hints: tuple[str, ...] = ()

    def render(self) -> str:
        """The line for people, hints below."""
        status = click.style(f"{self.status.value:8}", fg=_COLOURS[self.status])
        lines = [f"{self.name:10} {status} {self.text}"]
        lines += [f"{'':19} - {hint}" for hint in self.hints]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The layer as JSON."""
        status = {"status": self.status.value, "text": self.text}
        return status | dict(self.data) | {"hints": list(self.hints)}


def milliseconds(ns: int) -> str:
    """A round trip for people."""
    return f"{ns / MS:.2f} ms"


def drop_hints(drops: Mapping[DropReason, int]) -> tuple[str, ...]:
    """What was discarded at this end, by name."""
    return tuple(
        f"discarded here: {count} {reason.name} ({reason.sentence})"
        for reason, count in drops.items()
        if count > 0
    )


def echo_layer(name: str, target: str, trips: list[int | None], hints: tuple[str, ...]) -> Layer:
    """The layer of several echo requests; `trips` in ns, None for each that was lost."""
    back = [trip for trip in trips if trip is not None]
    data = {"target": target, "sent": len(trips), "received": len(back), "round_trips_ns": back}
    count = f"{len(back)}/{len(trips)} replies from {target}"
    if not back:
        return Layer(name, Status.FAILED, count, data, hints)
    mean = sum(back) // len(back)
    times = "/".join(f"{ns / MS:.2f}" for ns in (min(back), mean, max(back)))
    return Layer(name, Status.OK, f"{count}, {times} ms (min/mean/max)", data)

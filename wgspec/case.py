"""The registry of requirements: what a case is, and how one is declared.

A case is a coroutine that takes a `Lab`, returns when the target met the requirement,
raises `Mismatch` when it did not, `Unsupported` when it cannot be judged here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from wgspec.lab import Lab
from wgspec.target import Capability

Body = Callable[[Lab], Awaitable[None]]

SECTIONS: Final = {
    "A": "Wire format and silence",
    "B": "Initiator",
    "C": "Responder",
    "D": "mac2, cookies, load",
    "E": "Transport",
    "F": "Timers",
    "G": "Cryptokey routing",
    "H": "Roaming",
    "I": "Life cycle and robustness",
}
LEVELS: Final = {
    "M": "the whitepaper says so",
    "D": "de facto: the kernel and wireguard-go agree, the paper is silent",
    "I": "informative: measured and reported, not judged",
    "Q": "quality under attack",
}
IMPLEMENTATIONS: Final = {
    "P": "the whitepaper",
    "K": "the Linux kernel",
    "G": "wireguard-go",
    "G22": "wireguard-go 0.0.20220316",
    "B": "boringtun",
    "GT": "GotaTun",
}
COSTS: Final = {"q": "under 2 s", "s": "up to 30 s", "l": "over 30 s"}
PROFILES: Final = {"quick": "q", "full": "qs", "long": "qsl"}


@dataclass(frozen=True, slots=True)
class Case:
    """One requirement.

    `known` tells what implementations are known to do (K kernel, G wireguard-go,
    B boringtun).  `fresh` gives the case an instance of its own; `heavy` ones load the
    machine and run one at a time.
    """

    id: str
    section: str
    level: str
    cost: str
    paper: str
    text: str
    run: Body
    known: Mapping[str, str] = field(default_factory=dict)
    needs: frozenset[Capability] = frozenset()
    fresh: bool = False
    heavy: bool = False

    @property
    def number(self) -> int:
        return int(self.id.removeprefix("R-"))


REGISTRY: Final[dict[str, Case]] = {}


def case(
    id: str,
    *,
    level: str,
    cost: str,
    paper: str,
    text: str,
    known: Mapping[str, str] | None = None,
    needs: Iterable[Capability] = (),
    fresh: bool = False,
    heavy: bool = False,
) -> Callable[[Body], Body]:
    """Register the decorated coroutine; its section is the letter of its module's name."""

    def register(body: Body) -> Body:
        section = body.__module__.rsplit("section_", 1)[-1][:1].upper()
        if id in REGISTRY or section not in SECTIONS or level not in LEVELS or cost not in COSTS:
            raise ValueError(f"{id}: bad or repeated declaration of a case")
        needed = frozenset(needs) | ({Capability.FRESH} if fresh else frozenset())
        REGISTRY[id] = Case(
            id, section, level, cost, paper, text, body, dict(known or {}), needed, fresh, heavy
        )
        return body

    return register

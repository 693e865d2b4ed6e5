"""Named scenarios: a sequence of actions on a `World`, and checks of what must hold.

A scenario is a function of a `Run`.  It makes nodes, lets time pass, and states its
checks; each check is a sentence with the numbers that were observed.  With other
`Parameters` the same checks use the new numbers, so a researcher sees what changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from wgpy.protocol.constants import DEFAULT_PARAMETERS, NS, Parameters
from wgpy.protocol.crypto import backend
from wgpy.sim.link import Link
from wgpy.sim.trace import Entry, JsonValue
from wgpy.sim.world import Node, World


@dataclass(frozen=True, slots=True)
class Check:
    """A sentence, whether it held, and what was seen."""

    text: str
    passed: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Setting:
    """What a user may choose of a run; `link` None leaves it to the scenario."""

    seed: int = 0
    crypto: str = "openssl"
    parameters: Parameters = DEFAULT_PARAMETERS
    link: Link | None = None


class Run:
    """One run: its world, and the checks made so far."""

    def __init__(self, setting: Setting, *, trace: bool = True) -> None:
        self.setting = setting
        self.parameters = setting.parameters
        self.checks: list[Check] = []
        self.world = World(
            seed=setting.seed,
            crypto=backend(setting.crypto),
            parameters=setting.parameters,
            trace=trace,
        )

    @property
    def link(self) -> Link:
        """The user's link, or one with 10 ms and nothing lost."""
        return self.setting.link or Link()

    def pair(self, link: Link | None = None) -> tuple[Node, Node]:
        """Alice and Bob, who know each other's address."""
        wire = link or self.link
        alice = self.world.add("alice", link=wire)
        bob = self.world.add("bob", link=wire)
        self.world.join(alice, bob)
        return alice, bob

    def check(self, text: str, passed: bool, seen: object) -> None:
        """State what must be true, and what was."""
        self.checks.append(Check(text, passed, str(seen)))

    def ping_every(self, interval: int, count: int, sender: Node, other: Node) -> None:
        """Plan `count` pings, one each `interval` ns from now, numbered from 1."""
        start = self.world.clock.monotonic()
        for number in range(1, count + 1):
            self.world.at(
                start + (number - 1) * interval, lambda n=number: sender.ping(other, n)  # type: ignore[misc]
            )  # fmt: skip

    # Queries of the time-line.

    def entries(self, name: str, node: Node | None = None) -> list[Entry]:
        """Entries of one name (a message, an event, a drop), of one node or all."""
        return self.world.trace.find(name, None if node is None else node.name)

    def times(self, name: str, node: Node | None = None) -> list[float]:
        """Their times in seconds."""
        return [entry.at / NS for entry in self.entries(name, node)]

    def gaps(self, name: str, node: Node | None = None) -> list[float]:
        """Seconds between one and the next."""
        return [later - earlier for earlier, later in pairwise(self.times(name, node))]

    def datagrams_between(self, start: int, end: int) -> int:
        """How many datagrams were sent from `start` (ns) up to before `end`."""
        return sum(
            entry.kind.value == "sent" and start <= entry.at < end
            for entry in self.world.trace.entries
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """`name` for the command line, `title` for people, `sections` of the whitepaper."""

    name: str
    title: str
    sections: str
    story: Callable[[Run], None]
    traced: bool = True


@dataclass(slots=True)
class Outcome:
    """A finished run."""

    scenario: Scenario
    setting: Setting
    run: Run
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """All checks held, and there was at least one."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, object]:
        """For machines: the checks and the whole time-line."""
        timeline: list[dict[str, JsonValue]] = [
            entry.as_json() for entry in self.run.world.trace.entries
        ]
        return {
            "scenario": self.scenario.name,
            "title": self.scenario.title,
            "sections": self.scenario.sections,
            "seed": self.setting.seed,
            "passed": self.passed,
            "checks": [{"text": c.text, "passed": c.passed, "seen": c.seen} for c in self.checks],
            "simulated_ns": self.run.world.clock.monotonic(),
            "timeline": timeline,
        }


REGISTRY: dict[str, Scenario] = {}
"""Filled by the modules of `wgpy.sim.scenarios`, which offers it whole as `SCENARIOS`."""


def scenario(
    name: str, title: str, sections: str, *, traced: bool = True
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register a story under a name."""

    def register(story: Callable[[Run], None]) -> Callable[[Run], None]:
        REGISTRY[name] = Scenario(name, title, sections, story, traced)
        return story

    return register


def play(chosen: Scenario, setting: Setting | None = None) -> Outcome:
    """Run one of `wgpy.sim.scenarios`."""
    setting = setting or Setting()
    run = Run(setting, trace=chosen.traced)
    chosen.story(run)
    return Outcome(chosen, setting, run, run.checks)


def with_parameters(setting: Setting, **changes: int) -> Setting:
    """The setting with other protocol parameters."""
    return replace(setting, parameters=replace(setting.parameters, **changes))

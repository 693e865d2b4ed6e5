"""The hunt: lives of clusters, scenes of meddling, and what was found, all from one seed.

    python -m tests.leaks --duration 3600        # make leak-hunt
    python -m tests.leaks --seed 7 --count 2000  # the same combinations again

The seed fixes which combinations are shot and in which scenes; when exactly the machine gets
to each of them it cannot fix.  A find names seed, scene and shot, and shows the frame.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from testbed.cluster import Cluster, ClusterError
from testbed.topology import parse_topology
from tests.leaks import meddling_kernel  # noqa: F401  (enters its ways to meddle)
from tests.leaks.life import Life, NotHealed
from tests.leaks.meddling import BACKSTOP, GRACE, MEDDLINGS, TUNNEL, Meddling, fits
from tests.leaks.shots import TOPOLOGY
from tests.leaks.wire import Deaf

SCENES_A_LIFE = 20
DWELL = 60
"""Shots while everything chosen goes on."""


@dataclass
class Find:
    """A leak: what was sent in which scene, and the first frame that showed it."""

    seed: int
    scene: str
    shot: str
    link: str
    frame: bytes
    count: int

    def __str__(self) -> str:
        return (f"LEAK seed {self.seed}: {self.scene}\n  {self.shot}\n  {self.count}x, first on "
                f"{self.link}, {len(self.frame)} bytes: {self.frame[:160].hex()}")  # fmt: skip


@dataclass
class Outcome:
    """Everything about a hunt that can be counted."""

    combinations: int = 0
    secret: int = 0
    open_seen: int = 0
    frames: int = 0
    scenes: list[str] = field(default_factory=list)
    finds: list[Find] = field(default_factory=list)
    pairs_of_life: list[bytes] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    """Scenes after which a cluster did not work again, with seed and last words."""
    refused: list[str] = field(default_factory=list)
    """Meddling that had no effect, and what the machine said."""


def scene_of(chance: random.Random) -> list[tuple[Meddling, str]]:
    """One to three ways to meddle and where, in the order in which they may happen."""
    chosen: list[Meddling] = []
    wanted = chance.choice((1, 1, 2, 2, 2, 3))
    names = list(MEDDLINGS)
    chance.shuffle(names)
    for name in names:
        if len(chosen) < wanted and fits(chosen, MEDDLINGS[name]):
            chosen.append(MEDDLINGS[name])
    chosen.sort(key=lambda each: ("", BACKSTOP, TUNNEL).index(each.layer))
    node = chance.choice(("alpha", "alpha", "beta"))
    return [(each, node) for each in chosen]


def describe(scene: list[tuple[Meddling, str]]) -> str:
    return " + ".join(f"{each.name} ({node})" for each, node in scene)


def play(life: Life, scene: list[tuple[Meddling, str]], dwell: int = DWELL) -> None:
    """One scene from beginning to end; the cluster works again afterwards."""
    life.now = describe(scene)
    with contextlib.ExitStack() as stack:
        for each, node in scene:
            stack.enter_context(each.on(life, node, life.chance))
            if each.layer == BACKSTOP:
                time.sleep(GRACE)
        life.dwell(dwell)
    life.now += ", healing"
    life.heal()
    life.dwell(10)


@contextlib.contextmanager
def life_of(
    seed: int, mode: str = "strict", *, masquerade: bool | None = None,
    node_encryption: bool | None = None, pace: float | None = None,
) -> Iterator[Life]:  # fmt: skip
    """A cluster under fire; what is not said is by the seed."""
    chance = random.Random(seed)
    settings = {"masquerade": chance.random() < 0.5, "node_encryption": chance.random() < 0.25}
    if masquerade is not None:
        settings["masquerade"] = masquerade
    if node_encryption is not None:
        settings["node_encryption"] = node_encryption
    words = {key: str(value).lower() for key, value in settings.items()}
    topology = parse_topology(TOPOLOGY.format(mode=mode, **words))
    more = {} if pace is None else {"pace": pace}
    with Cluster.up(topology) as cluster, Life(cluster, chance, **more) as life:
        yield life


def hunt(
    seed: int, *, count: int, duration: float, say: Callable[[str], None] = print,
    mode: str = "strict", stop_at: int = 0,
) -> Outcome:  # fmt: skip
    """Lives with the seeds `seed`, `seed` + 1, … until `count` shots or `duration` seconds."""
    outcome, begin = Outcome(), time.monotonic()

    def over() -> bool:
        return (outcome.combinations >= count or time.monotonic() - begin > duration
                or bool(stop_at and len(outcome.finds) >= stop_at))  # fmt: skip

    while not over():
        try:
            one_life(seed, outcome, over, say, mode)
        except (NotHealed, ClusterError, Deaf, TimeoutError) as error:
            outcome.trouble.append(f"seed {seed}: {error}")
            say(f"TROUBLE seed {seed}: {error}")
        seed += 1
        say(f"{time.monotonic() - begin:6.0f} s  next seed {seed}: {outcome.combinations} "
            f"combinations ({outcome.secret} secret), {outcome.frames} frames searched, "
            f"{outcome.open_seen} open shots seen, {len(outcome.finds)} LEAKS")  # fmt: skip
    return outcome


def one_life(
    seed: int, outcome: Outcome, over: Callable[[], bool], say: Callable[[str], None], mode: str
) -> None:
    """One cluster; what happened is counted also when it breaks."""
    with life_of(seed, mode) as life:
        known: set[object] = set()
        outcome.pairs_of_life.clear()
        before = 0
        try:
            for _ in range(SCENES_A_LIFE):
                scene = scene_of(life.chance)
                outcome.scenes.append(describe(scene))
                say(f"           seed {seed}: {describe(scene)}")
                try:
                    play(life, scene)
                finally:
                    collect(seed, life, known, outcome, say)
                    outcome.combinations += len(life.shots) - before
                    before = len(life.shots)
                if over():
                    break
        finally:
            outcome.secret += sum(shot.secret for shot in list(life.shots.values()))
            outcome.frames += life.wire.frames
            outcome.open_seen += len(life.wire.open)
            outcome.refused += life.refused
        if not life.wire.open:
            raise Deaf("not one open shot was seen: the wire is not heard")


def collect(
    seed: int, life: Life, known: set[object], outcome: Outcome, say: Callable[[str], None]
) -> None:
    """New finds; settles first, so that what was sent is searched.  Each kind is said once."""
    life.settle()
    for number, sighting in life.leaks().items():
        if number in known or not sighting.frames:
            continue
        known.add(number)
        shot = life.shots.get(number) if number is not None else None
        scene = life.scene.get(number, life.now) if number is not None else life.now
        link, frame = sighting.frames[0]
        words = str(shot) if shot else "#? payload that was cut"
        find = Find(seed, scene, words, link, frame, sighting.count)
        outcome.finds.append(find)
        kind = (shot.sender, shot.target, shot.version, shot.shape) if shot else "cut"
        if kind not in known:
            known.add(kind)
            say(str(find))
    for at, link, frame in life.wire.pairs[len(outcome.pairs_of_life) :]:
        outcome.pairs_of_life.append(frame)
        if at > life.lenient_until:
            find = Find(seed, life.now, "#- no payload, but two pods' addresses", link, frame, 1)
            outcome.finds.append(find)
            say(str(find))

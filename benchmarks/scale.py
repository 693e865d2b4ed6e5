"""Growth: the cost of more peers, more allowed IPs and more handshakes, without a kernel.

All points are built first and then measured in turn within each repetition, forwards and
backwards by turns, so that a drifting machine does not bend the curve; growth is the
median of the repetitions' own ratios, so many short ones are better than a few long.

There are two kinds of traffic: ``per_packet`` is one busy flow, ``per_packet_spread``
sends every packet to another place (no cache helps).  Floods on whole tunnels are `flood`'s.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu_time import cost, no_collector, set_aside
from benchmarks.environment import environment
from benchmarks.harness import TUNNEL_ADDRESS, Hub
from benchmarks.meter import watched
from benchmarks.model import Recording, Sample
from benchmarks.packets import udp_packet, udp_run
from benchmarks.pipeline import BATCH, receiving, sending, train
from benchmarks.subjects import Subject, subjects
from wgpy.protocol.constants import INITIATION_SIZE, MS, NS, TYPE_INITIATION
from wgpy.protocol.cookie import MacMaker
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix

PEERS = (1, 10, 100, 1_000, 10_000)
ENTRIES = (10, 100, 1_000, 10_000, 100_000, 512_000)
SIZE = 576
STRANGER = Endpoint.parse("203.0.113.9:40000")

Said = Callable[[str, float, str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """`most` cuts the curves short; `seconds` of CPU time for each value."""

    seconds: float = 0.1
    repetitions: int = 20
    most_peers: int = PEERS[-1]
    most_entries: int = ENTRIES[-1]
    handshakes: int = 1_000


@dataclass(frozen=True, slots=True)
class Point:
    """A hub built for one place on a curve, with destinations to spread packets over."""

    curve: str
    x: int
    hub: Hub
    spread: list[bytes]
    paths: list[Subject]


def measure(plan: Plan, said: Said) -> Recording:
    """All curves and rates that need no network."""
    recording = Recording("scale", environment(), {
        "seconds": plan.seconds, "repetitions": plan.repetitions, "packet": SIZE, "batch": BATCH,
    })  # fmt: skip
    with watched(recording, "curves in memory"):
        _measure_curves(plan, recording, said)
    gc.collect()
    with watched(recording, "rates in memory"):
        _measure_rates(plan, recording, said)
    return recording


def _measure_curves(plan: Plan, recording: Recording, said: Said) -> None:
    curves = [
        list(_peer_points(plan, recording, said)),
        list(_entry_points(plan, recording, said)),
    ]
    with set_aside():
        for repetition in range(plan.repetitions):
            for points in curves:
                for subject, point in in_turn(points, repetition):
                    _measure_point(point, subject, plan, repetition, recording, said)


def in_turn(points: Sequence[Point], repetition: int) -> Iterator[tuple[Subject, Point]]:
    """Each path on all points before the next path, so compared values are close in time."""
    for paths in zip(*(point.paths for point in points), strict=True):
        found = list(zip(paths, points, strict=True))
        yield from reversed(found) if repetition % 2 else found


def _measure_rates(plan: Plan, recording: Recording, said: Said) -> None:
    rates = Rates(plan)
    for repetition in range(plan.repetitions):
        for figure, rate in rates.measure():
            said(figure, rate, "1/s")
            recording.samples.append(Sample(figure, "1/s", "wgpy", rate, "", repetition))


def _measure_point(
    point: Point, subject: Subject, plan: Plan, repetition: int, recording: Recording, said: Said
) -> None:
    places = itertools.cycle(point.spread)

    def scattered() -> int:
        packets = [udp_packet(TUNNEL_ADDRESS, next(places), SIZE) for _ in range(BATCH)]
        return subject.offer(packets)

    busy = per_packet(point.hub, subject, plan.seconds)
    spread = sending(subject, scattered, plan.seconds / 2)
    for figure, value in (("per_packet", busy), ("per_packet_spread", spread)):
        said(f"{point.curve} {point.x:,} · {figure} · {subject.name}", value, "s")
        recording.samples.append(
            Sample(
                f"{point.curve}.{figure}", "s", subject.name, value, "", repetition, float(point.x)
            )
        )


def per_packet(hub: Hub, subject: Subject, seconds: float) -> float:
    """CPU seconds for a packet out and one in, of one busy flow; half of `seconds` each."""
    member = hub.members[0]
    outward = udp_run(TUNNEL_ADDRESS, member.address, SIZE, BATCH)
    inward = udp_run(member.address, TUNNEL_ADDRESS, SIZE, BATCH)
    out = sending(subject, lambda: subject.offer(outward), seconds / 2)
    return out + receiving(subject, lambda: subject.arrive(train(hub, inward)), seconds / 2)


def _peer_points(plan: Plan, recording: Recording, said: Said) -> Iterator[Point]:
    for peers in (p for p in PEERS if p <= plan.most_peers):
        hub = Hub(peers)
        before = time.process_time()
        hub.establish()
        each = (time.process_time() - before) / peers
        said(f"peers {peers:,} · handshake, both sides", each, "s")
        recording.samples.append(Sample("peers.handshake", "s", "wgpy", each, "", 0, float(peers)))
        order = random.Random(peers).sample(hub.members, min(peers, 2_048))
        yield Point("peers", peers, hub, [m.address for m in order], subjects(hub))


def _entry_points(plan: Plan, recording: Recording, said: Said) -> Iterator[Point]:
    for entries in (e for e in ENTRIES if e <= plan.most_entries):
        hub = Hub(1)
        hub.establish()
        prefixes = list(itertools.islice(prefixes_of_a_cluster(), entries))
        gc.collect()
        memory, before = resident(), time.process_time()
        hub.add_prefixes(hub.members[0], prefixes)
        took = time.process_time() - before
        places = [p.ip for p in random.Random(entries).sample(prefixes, min(entries, 2_048))]
        for figure, unit, value in (
            ("entries.load", "s", took),
            ("entries.memory", "B", float(max(0, resident() - memory))),
        ):
            said(f"entries {entries:,} · {figure}", value, unit)
            recording.samples.append(Sample(figure, unit, "wgpy", value, "", 0, float(entries)))
        yield Point("entries", entries, hub, places, subjects(hub))


def prefixes_of_a_cluster() -> Iterator[Prefix]:
    """Distinct prefixes as a cluster has them: mostly single pods, some node ranges."""
    for number in itertools.count():
        if number % 16 == 15:
            yield Prefix(struct.pack(">I", (100 << 24 | 64 << 16) + (number >> 4 << 8)), 24)
        else:
            yield Prefix(struct.pack(">I", (11 << 24) + number), 32)


def resident() -> int:
    """Resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Rates:
    """Handshakes answered, forgeries refused and cookies given, per CPU second of one core."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._hub = Hub(plan.handshakes)
        self._arriving: list[Datagram] = []
        self._seen = 0

    def measure(self) -> Iterator[tuple[str, float]]:
        """(figure, rate) of one repetition."""
        yield "handshakes.answered", self._handshakes()
        yield "bad-mac1.refused", 1 / self._cost(self._forge, self._refused)
        yield "cookies.given", 1 / self._cost(self._ask, self._answered)

    def _handshakes(self) -> float:
        """Initiations of distinct peers, each answered; slowly enough never to be "load"."""
        hub = self._hub
        hub.clock.tick(10 * NS)
        arriving = hub.initiations()
        answered = 0
        with no_collector():
            before = time.process_time()
            for initiation in arriving:
                hub.engine.receive([initiation], now=hub.clock.tick(2 * MS))
                answered += len(hub.engine.pull_datagrams())
            took = time.process_time() - before
        if answered != len(arriving):
            raise RuntimeError(f"{answered} of {len(arriving)} initiations were answered")
        return answered / took

    def _forge(self) -> int:
        self._arriving = [Datagram(garbage(), STRANGER) for _ in range(BATCH)]
        return BATCH

    def _refused(self) -> int:
        before, self._seen = self._seen, self._hub.engine.drops[DropReason.MAC1_INVALID]
        return self._seen - before

    def _ask(self) -> int:
        """Valid mac1, no mac2, and far too many of them: the device is under load."""
        hub = self._hub
        maker = MacMaker(hub.crypto, hub.public, 1)
        while not hub.engine.device.load.note(hub.clock.now):
            pass
        self._arriving = [Datagram(maker.sign(garbage(), 0), STRANGER) for _ in range(BATCH)]
        return BATCH

    def _answered(self) -> int:
        return len(self._hub.engine.pull_datagrams())

    def _receive(self) -> None:
        self._hub.engine.receive(self._arriving, now=self._hub.clock.now)

    def _cost(self, prepare: Callable[[], int], came_out: Callable[[], int]) -> float:
        return cost(prepare, self._receive, came_out, self._plan.seconds)


def garbage() -> bytes:
    """148 bytes that look like an initiation but are invalid."""
    return struct.pack("<I", TYPE_INITIATION) + os.urandom(INITIATION_SIZE - 4)

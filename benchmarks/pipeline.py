"""The packet path in memory: packets and bytes per CPU second, no kernel in the figure.

``SIZE`` bytes in equal UDP packets read one by one, and TCP in super-packets of 44
segments, which is what bulk traffic looks like at a TUN device with offloads.
Repetitions are interleaved: each one measures every load and direction on every path.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.cpu_time import cost
from benchmarks.environment import environment
from benchmarks.harness import TUNNEL_ADDRESS, Hub
from benchmarks.meter import watched
from benchmarks.model import Recording, Sample
from benchmarks.packets import SuperPacket, super_packet, udp_run
from benchmarks.subjects import Subject, subjects, subjects_hub
from wgpy.protocol.datagram import Datagram

SIZES = (64, 576, 1420)
BATCH = 64
SEGMENTS = 44
MTU = 1420

Said = Callable[[str, float, str], None]


def measure(*, seconds: float, repetitions: int, said: Said) -> Recording:
    """`seconds` of CPU time for each figure and repetition."""
    options = {"seconds": seconds, "repetitions": repetitions, "batch": BATCH, "sizes": SIZES}
    recording = Recording("pipeline", environment(), options)
    with watched(recording, "in memory"):
        _measure(recording, seconds, repetitions, said)
    return recording


def _measure(recording: Recording, seconds: float, repetitions: int, said: Said) -> None:
    hub = subjects_hub()
    paths = subjects(hub)
    bulk = Bulk(hub)
    for repetition in range(repetitions):
        for size in SIZES:
            for subject in paths:
                found = both_ways(hub, subject, size, seconds)
                _keep(recording, f"udp{size}", size, subject.name, repetition, found, said)
        for subject in paths:
            found = bulk.both_ways(subject, seconds)
            _keep(recording, "tcp", MTU, subject.name, repetition, found, said)


def _keep(
    recording: Recording, load: str, size: int, name: str, repetition: int,
    found: dict[str, float], said: Said,
) -> None:  # fmt: skip
    for direction, each in found.items():
        said(f"{direction}-{load} · {name}", 1 / each, "1/s")
        for figure, unit, value in (("packets", "1/s", 1 / each), ("bytes", "B/s", size / each)):
            recording.samples.append(
                Sample(f"{direction}-{load}.{figure}", unit, name, value, "", repetition)
            )


def both_ways(hub: Hub, subject: Subject, size: int, seconds: float) -> dict[str, float]:
    """CPU seconds per packet for sending and for receiving UDP packets of `size` bytes."""
    member = hub.members[0]
    outward = udp_run(TUNNEL_ADDRESS, member.address, size, BATCH)
    inward = udp_run(member.address, TUNNEL_ADDRESS, size, BATCH)
    return {
        "send": sending(subject, lambda: subject.offer(outward), seconds),
        "receive": receiving(subject, lambda: subject.arrive(train(hub, inward)), seconds),
    }


def sending(subject: Subject, prepare: Callable[[], int], seconds: float) -> float:
    """CPU seconds per packet sent."""
    return cost(prepare, subject.send, subject.came_out, seconds)


def receiving(subject: Subject, prepare: Callable[[], int], seconds: float) -> float:
    """CPU seconds per packet received."""
    return cost(prepare, subject.receive, subject.came_out, seconds)


def train(hub: Hub, packets: list[bytes]) -> list[Datagram]:
    """Datagrams of the hub's first member that carry `packets`, with fresh counters."""
    member = hub.members[0]
    member.engine.send(packets, now=hub.clock.now)
    return [Datagram(d.data, member.endpoint) for d in member.engine.pull_datagrams()]


class Bulk:
    """TCP super-packets between a hub and its first member."""

    def __init__(self, hub: Hub) -> None:
        address = hub.members[0].address
        self._hub = hub
        self._outward: SuperPacket = super_packet(TUNNEL_ADDRESS, address, SEGMENTS, MTU)
        self._inward: SuperPacket = super_packet(address, TUNNEL_ADDRESS, SEGMENTS, MTU)

    def both_ways(self, subject: Subject, seconds: float) -> dict[str, float]:
        """CPU seconds per segment."""
        inward = self._inward.segments
        return {
            "send": sending(subject, lambda: subject.offer_super(self._outward), seconds),
            "receive": receiving(
                subject, lambda: subject.arrive(train(self._hub, inward)), seconds
            ),
        }

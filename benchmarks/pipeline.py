"""The packet path in memory: packets and bytes per CPU second, no kernel in the figure.

Repetitions are interleaved: each one measures every size and direction on every path.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.cpu_time import cost
from benchmarks.environment import environment
from benchmarks.harness import TUNNEL_ADDRESS, Hub, packet
from benchmarks.model import Recording, Sample
from benchmarks.subjects import Subject, subjects
from wgpy.protocol.datagram import Datagram

SIZES = (64, 576, 1420)
BATCH = 64


def measure(
    *, seconds: float, repetitions: int, said: Callable[[str, float, str], None]
) -> Recording:
    """`seconds` of CPU time for each figure and repetition."""
    options = {"seconds": seconds, "repetitions": repetitions, "batch": BATCH, "sizes": SIZES}
    recording = Recording("pipeline", environment(), options)
    hub = Hub(1)
    hub.establish()
    for repetition in range(repetitions):
        for size in SIZES:
            for subject in subjects(hub):
                for direction, seconds_each in both_ways(hub, subject, size, seconds).items():
                    name = f"{direction}-{size}"
                    said(f"{name} · {subject.name}", 1 / seconds_each, "1/s")
                    for figure, unit, value in (
                        (f"{name}.packets", "1/s", 1 / seconds_each),
                        (f"{name}.bytes", "B/s", size / seconds_each),
                    ):
                        sample = Sample(figure, unit, subject.name, value, "", repetition)
                        recording.samples.append(sample)
    return recording


def both_ways(hub: Hub, subject: Subject, size: int, seconds: float) -> dict[str, float]:
    """CPU seconds per packet for sending and for receiving packets of `size` bytes."""
    member = hub.members[0]
    outward = [packet(TUNNEL_ADDRESS, member.address, size)] * BATCH
    inward = [packet(member.address, TUNNEL_ADDRESS, size)] * BATCH

    def train() -> list[Datagram]:
        member.engine.send(inward, now=hub.clock.now)
        return [Datagram(d.data, member.endpoint) for d in member.engine.pull_datagrams()]

    return {
        "send": cost(lambda: outward, subject.send, seconds),
        "receive": cost(train, subject.receive, seconds),
    }

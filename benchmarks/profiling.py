"""Profile of the packet path: CPU time per packet of each function, without the kernel.

cProfile finds each function's share, which is then laid over the cost measured without
it, because its own overhead would dominate.  A function's time is its
own, not that of what it calls; what C code calls (the seals of one train under `map`)
counts for the Python function that started it.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.cpu_time import cost
from benchmarks.environment import environment
from benchmarks.harness import TUNNEL_ADDRESS, Hub
from benchmarks.meter import watched
from benchmarks.model import Recording, Sample
from benchmarks.packets import super_packet, udp_run
from benchmarks.pipeline import BATCH, MTU, SEGMENTS, Said, train
from benchmarks.subjects import Batch, subjects, subjects_hub

LEAST = 0.02
"""Functions below this share are added up as "everything else"."""
SMALL = 64


def measure(*, seconds: float, said: Said) -> Recording:
    """The batch path, both directions, for bulk TCP and for small UDP packets."""
    recording = Recording("profile", environment(), {"seconds": seconds})
    hub = subjects_hub()
    with watched(recording, "profile"):
        for path in (subject for subject in subjects(hub) if isinstance(subject, Batch)):
            for name, prepare, step in _ways(hub, path):
                each = cost(prepare, step, path.came_out, seconds)
                said(f"{name} · {path.name}", each, "s")
                recording.samples.append(Sample(f"{name}.total", "s", path.name, each))
                for function, share in _shares(prepare, step, path.came_out, seconds):
                    figure = f"{name}.{function}"
                    recording.samples.append(Sample(figure, "s", path.name, share * each))
    return recording


def _ways(hub: Hub, path: Batch) -> Iterator[tuple[str, Callable[[], int], Callable[[], None]]]:
    address = hub.members[0].address
    bulk = super_packet(TUNNEL_ADDRESS, address, SEGMENTS, MTU)
    back = super_packet(address, TUNNEL_ADDRESS, SEGMENTS, MTU).segments
    small = udp_run(TUNNEL_ADDRESS, address, SMALL, BATCH)
    small_back = udp_run(address, TUNNEL_ADDRESS, SMALL, BATCH)
    yield "send-tcp", lambda: path.offer_super(bulk), path.send
    yield "receive-tcp", lambda: path.arrive(train(hub, back)), path.receive
    yield f"send-udp{SMALL}", lambda: path.offer(small), path.send
    yield f"receive-udp{SMALL}", lambda: path.arrive(train(hub, small_back)), path.receive


def _shares(
    prepare: Callable[[], int],
    step: Callable[[], None],
    came_out: Callable[[], int],
    seconds: float,
) -> list[tuple[str, float]]:
    """(Function, share of the step's time), the greatest first."""
    profile = cProfile.Profile()

    def profiled() -> None:
        profile.enable()
        step()
        profile.disable()

    cost(prepare, profiled, came_out, seconds)
    rows = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(row[2] for row in rows.values())
    named = sorted(((label(key), row[2] / total) for key, row in rows.items()), key=_by_share)
    shown = [(name, share) for name, share in named if share >= LEAST]
    rest = sum(share for _, share in named if share < LEAST)
    return [*_merged(shown), ("everything else", rest)]


def _by_share(item: tuple[str, float]) -> float:
    return -item[1]


def _merged(items: list[tuple[str, float]]) -> list[tuple[str, float]]:
    found: dict[str, float] = {}
    for name, share in items:
        found[name] = found.get(name, 0.0) + share
    return list(found.items())


def label(key: tuple[str, int, str]) -> str:
    """``egress.turn`` for Python, the bare name for C."""
    file, _, function = key
    if file == "~":
        words = function.strip("<>").split("'")
        return words[1] if len(words) > 1 else function.strip("<>").rpartition(" ")[2]
    return f"{Path(file).stem}.{function}"

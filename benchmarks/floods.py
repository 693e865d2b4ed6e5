"""Established traffic while an attacker floods: ``wgpy bench flood``.

A TCP stream of a fixed rate runs through an established tunnel; from its middle on it
shares the way with a flood of one kind.  For every kind and every implementation, in turn:

* ``KIND.goodput``: what of the stream arrives,
* ``KIND.p99``: round trips of pings beside it, the 99th percentile (lost ones count as the
  longest),
* ``KIND.peak_rss``: resident memory of the flooded end, the most so far,
* ``KIND.recovery``: from the flood's end until a new handshake has brought an answer,
* ``KIND.arrived``: what the attacker sent, a second.

``none`` is the same without a flood.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks import iperf
from benchmarks.flood import Sent, sending
from benchmarks.implementations import Implementation, Kind
from benchmarks.lab import Lab, LabError, preferred_congestion
from benchmarks.latency import PingError, steady
from benchmarks.meter import Usage, metered
from benchmarks.model import Recording, Sample
from benchmarks.progress import Progress
from benchmarks.tunnel import PORT, tunnel
from wgpy.programs import python_module

RATE = 20_000
KINDS = {
    "none": 0, "random": RATE, "mac1": RATE, "mac1-sources": RATE, "responses": RATE,
    "cookie-replies": RATE, "unknown-index": RATE, "replays": RATE, "keepalives": RATE,
    "tiny": RATE, "large": 200, "icmp": RATE,
}  # fmt: skip
"""Flood and packets a second: the large ones are 45 fragments each."""

SOURCES = "10.100.0.0/16"
"""Where forged sources lie (see `attacks`); answers to them are routed back."""

RECOVERY_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`offered` is the stream's rate in bit/s; `tries` attempts at what others disturbed."""

    implementations: tuple[Implementation, ...]
    kinds: tuple[str, ...] = tuple(KINDS)
    repetitions: int = 5
    seconds: float = 5.0
    tries: int = 2
    offered: float = 200e6
    rate: int = RATE
    congestion: str = field(default_factory=preferred_congestion)

    @property
    def steps(self) -> int:
        """Measurements to make when none is repeated."""
        return self.repetitions * len(self.implementations) * len(self.kinds)


def measure(plan: Plan, recording: Recording, progress: Progress) -> None:
    """Add the samples to `recording`; failures become notes."""
    for repetition in range(plan.repetitions):
        with contextlib.ExitStack() as stack:
            labs = []
            for implementation in plan.implementations:
                try:
                    context = tunnel(
                        implementation, cores=None, congestion=plan.congestion, mtu=1420
                    )
                    lab = stack.enter_context(context)
                    lab.right.run("ip", "route", "add", SOURCES, "via", lab.left.outer)
                    labs.append((implementation, lab))
                except LabError as error:
                    _note(recording, progress, f"{implementation.name}: {error}")
            for kind in plan.kinds:
                # Each begins as often as it follows.
                for implementation, lab in labs if repetition % 2 == 0 else labs[::-1]:
                    _one(plan, implementation, lab, kind, repetition, recording, progress)


def _one(
    plan: Plan, implementation: Implementation, lab: Lab, kind: str, repetition: int,
    recording: Recording, progress: Progress,
) -> None:  # fmt: skip
    where = f"{kind} · {implementation.name} · repetition {repetition + 1}"
    rate = min(KINDS[kind], plan.rate)
    for attempt in range(1, plan.tries + 1):
        progress.status(where)
        try:
            with (
                metered(lab) as usage, steady(lab, plan.seconds) as trips,
                flooding(lab, kind, rate) as sent,
            ):  # fmt: skip
                result = iperf.tcp(
                    lab, flows=1, reverse=False, seconds=plan.seconds, rate=plan.offered
                )
            recovery = recover(implementation, lab)
        except (LabError, iperf.IperfError, PingError) as error:
            _note(recording, progress, f"{where}: {error}")
            continue
        found = trips()
        figures = {
            "goodput": ("bit/s", result.goodput),
            "p99": ("s", found.above(0.99, plan.seconds)),
            "peak_rss": ("B", float(usage.peaks[1])),
            "recovery": ("s", recovery),
            "arrived": ("1/s", sent.count / usage.elapsed),
        }
        for name, (unit, value) in figures.items():
            recording.samples.append(
                _sample(f"{kind}.{name}", unit, value, implementation, repetition, attempt, usage)
            )
        progress.measured(where, result.goodput, "bit/s", usage.foreign.words)
        if not usage.foreign.disturbed:
            break
    progress.advance()


def recover(implementation: Implementation, lab: Lab) -> float:
    """Seconds until a ping is answered under keys of a handshake that begins now."""
    left, right = lab.ends
    if implementation.kind is not Kind.NONE:
        left.run("wg", "set", left.tunnel, "peer", lab.right_key, "remove")
        left.run("wg", "set", left.tunnel, "peer", lab.right_key, "allowed-ips", "10.98.0.0/24",
                 "endpoint", f"{right.outer}:{PORT}")  # fmt: skip
    begin = time.monotonic()
    while time.monotonic() - begin < RECOVERY_PATIENCE:
        ping = left.inside("ping", "-n", "-c", "1", "-W", "0.2", lab.target)
        if subprocess.run(ping, capture_output=True).returncode == 0:
            return time.monotonic() - begin
    raise LabError(f"no answer within {RECOVERY_PATIENCE:g} s of the flood's end")


@contextlib.contextmanager
def flooding(lab: Lab, kind: str, rate: int) -> Iterator[Sent]:
    """A flood from the left end's namespace to the right end while the context lasts."""
    if not rate:
        yield Sent()
        return
    left = lab.left
    program = python_module(
        "benchmarks.attacks", kind, str(rate), left.outer, lab.right.outer, str(PORT),
        lab.right_key, left.veth,
    )  # fmt: skip
    with sending(lab, program) as sent:
        yield sent


def _sample(
    figure: str, unit: str, value: float, implementation: Implementation, repetition: int,
    attempt: int, usage: Usage,
) -> Sample:  # fmt: skip
    return Sample(
        figure, unit, implementation.name, value, "", repetition, None, attempt,
        usage.foreign.share, usage.foreign.disturbed,
    )  # fmt: skip


def _note(recording: Recording, progress: Progress, text: str) -> None:
    recording.notes.append(text)
    progress.warn(text)

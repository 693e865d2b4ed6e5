"""The loads of the whole-system benchmark, each a name and a function of a lab.

A load returns measures; what one is called is its unit's business (``goodput`` in bit/s,
``received`` in 1/s, times in s, sizes in B).  "GB" is 10^9 bytes received, "packet" a
datagram received, so the figures include the work on lost packets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from benchmarks import iperf, latency
from benchmarks.lab import Lab
from benchmarks.meter import Usage, metered
from benchmarks.stats import percentile

GB = 1e9
LOSS_LIMIT = 0.01
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class Measure(NamedTuple):
    """One number of a load."""

    name: str
    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """All of one attempt; `round_trips` (sorted, s) only where the load has them."""

    measures: tuple[Measure, ...]
    usage: Usage
    round_trips: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a load may take: seconds, trials of a search, pings."""

    seconds: float
    trials: int
    trial_seconds: float
    pings: int


Load = Callable[[Lab, Effort], Outcome]


def tcp(lab: Lab, effort: Effort, *, flows: int, reverse: bool) -> Outcome:
    """Bulk transfer."""
    with metered(lab) as usage:
        result = iperf.tcp(lab, flows=flows, reverse=reverse, seconds=effort.seconds)
    measures = [
        Measure("goodput", "bit/s", result.goodput),
        Measure("retransmits", "1", result.retransmits),
    ]
    if result.received_bytes:
        measures += _costs(lab, usage, result.received_bytes / GB, "cpu_per_gb", "s/GB")
    return Outcome((*measures, *_memory(lab, usage)), usage)


def udp_overload(lab: Lab, effort: Effort, *, size: int) -> Outcome:
    """As many datagrams as the sender can offer."""
    with metered(lab) as usage:
        result = iperf.udp(lab, size=size, rate=0, seconds=effort.seconds)
    measures = [
        Measure("received", "1/s", result.rate),
        Measure("offered", "1/s", result.sent / result.seconds),
        Measure("loss", "1", result.loss),
    ]
    if result.received:
        measures += _costs(lab, usage, result.received, "cpu_per_packet", "s")
    return Outcome((*measures, *_memory(lab, usage)), usage)


def udp_highest(lab: Lab, effort: Effort, *, size: int) -> Outcome:
    """The highest rate of which at most 1 % is lost; raises `IperfError` if none is found."""

    def trial(rate: float) -> iperf.Udp:
        return iperf.udp(lab, size=size, rate=rate, seconds=effort.trial_seconds)

    with metered(lab) as usage:
        best = highest_rate(trial, effort.trials)
    if best is None:
        raise iperf.IperfError(f"more than 1 % was lost in each of {effort.trials} trials")
    measures = Measure("received", "1/s", best.rate), Measure("loss", "1", best.loss)
    return Outcome(measures, usage)


def highest_rate(trial: Callable[[float], iperf.Udp], trials: int) -> iperf.Udp | None:
    """Search in `trials` trials (the first at full speed); None when none was good enough.

    Up by half while nothing is lost, then bisection on the logarithm of the rate.  A rate is
    too high if it lost twice, so that a single disturbance does not decide.  When the
    sender cannot offer what is asked, its own limit is the answer.
    """
    full = trial(0)
    if full.loss <= LOSS_LIMIT:
        return full
    good, bad, lost_at, best = 0.0, 0.0, 0.0, None
    rate = max(full.rate, 1.0)
    for _ in range(trials - 1):
        result = trial(rate)
        if result.loss <= LOSS_LIMIT:
            good = rate
            if best is None or result.rate > best.rate:
                best = result
            if result.sent / result.seconds < 0.9 * rate:
                break
        elif lost_at != rate:
            lost_at = rate
            continue
        else:
            bad = rate
        rate = _next_rate(good, bad)
    return best


def _next_rate(good: float, bad: float) -> float:
    if not bad:
        return good * 1.5
    if not good:
        return bad / 2
    return math.sqrt(good * bad)


def ping(lab: Lab, effort: Effort) -> Outcome:
    """Flood ping."""
    with metered(lab) as usage:
        result = latency.flood(lab, count=effort.pings, seconds=max(effort.seconds, 2))
    ordered = result.ordered
    measures = [
        Measure("mean", "s", result.mean),
        *(Measure(name, "s", percentile(ordered, share)) for name, share in PERCENTILES.items()),
        Measure("max", "s", ordered[-1]),
        Measure("unanswered", "1", result.lost),
    ]
    return Outcome(tuple(measures), usage, ordered)


LOADS: dict[str, Load] = {
    "tcp1-up": partial(tcp, flows=1, reverse=False),
    "tcp1-down": partial(tcp, flows=1, reverse=True),
    "tcp4-up": partial(tcp, flows=4, reverse=False),
    "tcp4-down": partial(tcp, flows=4, reverse=True),
    "udp64-overload": partial(udp_overload, size=64),
    "udp1372-overload": partial(udp_overload, size=1372),
    "udp64-highest": partial(udp_highest, size=64),
    "udp1372-highest": partial(udp_highest, size=1372),
    "ping": ping,
}
"""In the order they run.  "up" is from the left end to the right one."""


def _costs(lab: Lab, usage: Usage, amount: float, name: str, unit: str) -> list[Measure]:
    """CPU time over `amount`: both ends, each end split in user and system, the machine."""
    measures = [Measure(f"machine_{name}", unit, usage.machine / amount)]
    if lab.daemons:
        measures.append(Measure(name, unit, usage.cpu.total / amount))
        for side, cpu in zip(("left", "right"), usage.ends, strict=True):
            measures.append(Measure(f"{name}_{side}_user", unit, cpu.user / amount))
            measures.append(Measure(f"{name}_{side}_system", unit, cpu.system / amount))
    return measures


def _memory(lab: Lab, usage: Usage) -> list[Measure]:
    """Peak RSS of each end and of the larger one."""
    if not lab.daemons:
        return []
    left, right = usage.peaks
    return [
        Measure("peak_rss", "B", max(left, right)),
        Measure("peak_rss_left", "B", left),
        Measure("peak_rss_right", "B", right),
    ]

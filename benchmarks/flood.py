"""Whole tunnels under a flood of handshake initiations, every implementation in turn.

* ``initiations.goodput`` over initiations per second: one TCP flow through an
  established tunnel while initiations with a valid mac1 (otherwise invalid) arrive.
* ``bad-mac1.cpu_per_datagram``: CPU time of the daemon for each refused datagram, with
  nothing else to do.  Datagrams that its socket lost are not counted as refused.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import iperf
from benchmarks.implementations import Implementation, Kind
from benchmarks.lab import Lab, LabError, preferred_congestion, stop
from benchmarks.meter import Usage, metered
from benchmarks.model import Recording, Sample
from benchmarks.progress import Progress
from benchmarks.tunnel import PORT, tunnel
from wgpy.programs import python_module

RATES = (0, 2_000, 20_000)
REFUSED_RATE = 30_000


@dataclass(frozen=True, slots=True)
class Plan:
    """`tries` attempts at a measurement that other load disturbed."""

    implementations: tuple[Implementation, ...]
    repetitions: int = 5
    seconds: float = 3.0
    tries: int = 2
    rates: tuple[int, ...] = RATES
    congestion: str = field(default_factory=preferred_congestion)

    @property
    def steps(self) -> int:
        """Measurements to make when none is repeated."""
        return self.repetitions * len(self.implementations) * (len(self.rates) + 1)


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
                    labs.append((implementation, stack.enter_context(context)))
                except LabError as error:
                    _note(recording, progress, f"{implementation.name}: {error}")
            for rate in plan.rates:
                for implementation, lab in labs:
                    _goodput(plan, implementation, lab, rate, repetition, recording, progress)
            for implementation, lab in labs:
                _refusals(plan, implementation, lab, repetition, recording, progress)


def _goodput(
    plan: Plan, implementation: Implementation, lab: Lab, rate: int, repetition: int,
    recording: Recording, progress: Progress,
) -> None:  # fmt: skip
    where = f"initiations {rate:,}/s · {implementation.name} · repetition {repetition + 1}"
    for attempt in range(1, plan.tries + 1):
        progress.status(where)
        try:
            with metered(lab) as usage, flooding(lab, rate, "good-mac1") as sent:
                result = iperf.tcp(lab, flows=1, reverse=False, seconds=plan.seconds)
        except (LabError, iperf.IperfError) as error:
            _note(recording, progress, f"{where}: {error}")
            continue
        for figure, unit, value in (
            ("initiations.goodput", "bit/s", result.goodput),
            ("initiations.arrived", "1/s", sent.count / usage.elapsed),
        ):
            recording.samples.append(
                _sample(figure, unit, implementation, value, repetition, attempt, usage, rate)
            )
        progress.measured(where, result.goodput, "bit/s", usage.foreign.words)
        if not usage.foreign.disturbed:
            break
    progress.advance()


def _refusals(
    plan: Plan, implementation: Implementation, lab: Lab, repetition: int,
    recording: Recording, progress: Progress,
) -> None:  # fmt: skip
    where = f"bad mac1 · {implementation.name} · repetition {repetition + 1}"
    if implementation.kind is not Kind.USERSPACE:
        progress.advance()
        return
    for attempt in range(1, plan.tries + 1):
        progress.status(where)
        try:
            lost = udp_drops(lab.daemons[1].pid)
            with metered(lab) as usage:
                with flooding(lab, REFUSED_RATE, "bad-mac1") as sent:
                    time.sleep(plan.seconds)
                time.sleep(0.2)  # what waits in the socket is part of the work
            arrived = sent.count - (udp_drops(lab.daemons[1].pid) - lost)
        except (LabError, OSError) as error:
            _note(recording, progress, f"{where}: {error}")
            continue
        each = usage.ends[1].total / max(1, arrived)
        recording.samples.append(
            _sample("bad-mac1.cpu_per_datagram", "s", implementation, each, repetition, attempt,
                    usage, None)
        )  # fmt: skip
        progress.measured(where, each, "s", usage.foreign.words)
        if not usage.foreign.disturbed:
            break
    progress.advance()


@dataclass(slots=True)
class Sent:
    """`count` is known when the flood has ended."""

    count: int = field(default=0)


@contextlib.contextmanager
def flooding(lab: Lab, rate: int, kind: str) -> Iterator[Sent]:
    """Initiations from the left end's namespace to the right end while the context lasts."""
    if not rate:
        yield Sent()
        return
    program = python_module(
        "benchmarks.flooder", lab.right.outer, str(PORT), str(rate), kind, lab.right_key
    )
    with sending(lab, program) as sent:
        yield sent


@contextlib.contextmanager
def sending(lab: Lab, program: Sequence[str]) -> Iterator[Sent]:
    """Runs `program` in the left end's namespace while the context lasts.

    It says "ready", ends with its input and then prints how many datagrams it sent.
    Raises `LabError` when it does not start.
    """
    sent = Sent()
    process = lab.left.start(*program, stdin_pipe=True)
    try:
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            said = process.stderr.read()[-300:] if process.stderr else ""
            raise LabError(f"the flood did not start: {said}")
        yield sent
        process.stdin.close()
        sent.count = int(process.stdout.readline() or 0)
    finally:
        stop(process)


def udp_drops(pid: int) -> int:
    """Datagrams lost in the receive queues of the tunnel's port, in the namespace of `pid`."""
    lost = 0
    for family in ("udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == PORT:
                lost += int(fields[12])
    return lost


def _sample(
    figure: str, unit: str, implementation: Implementation, value: float, repetition: int,
    attempt: int, usage: Usage, x: float | None,
) -> Sample:  # fmt: skip
    return Sample(
        figure, unit, implementation.name, value, "", repetition, x, attempt,
        usage.foreign.share, usage.foreign.disturbed,
    )  # fmt: skip


def _note(recording: Recording, progress: Progress, text: str) -> None:
    recording.notes.append(text)
    progress.warn(text)

"""Whole tunnels, compared with each other.

Order: repetition → setting (free, pinned) → pass → load → implementation, rotated from one
pass and repetition to the next.  Within a repetition all implementations have their tunnels
up, so each load is measured on all of them within seconds: a machine that drifts moves them
together.  Each pass counts as a repetition: of the same tunnels, but cheap.

An attempt that other load disturbed is kept, marked, and made again, at most
`Options.tries` times.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from benchmarks import environment
from benchmarks.accounting import Foreign, foreign, snapshot
from benchmarks.implementations import Implementation, Kind
from benchmarks.iperf import IperfError
from benchmarks.lab import Lab, LabError, stop, veth_pair
from benchmarks.latency import PingError
from benchmarks.loads import LOADS, Effort, Measure, Outcome
from benchmarks.model import Distribution, Recording, Sample, evenly_ranked
from benchmarks.progress import Progress
from benchmarks.tunnel import Prepare, start_daemon, tunnel, wait_usable

FREE, PINNED = "free", "pinned"
START = "start"

Failure = (LabError, IperfError, PingError)


@dataclass(frozen=True, slots=True)
class Options:
    """A run's plan; `loads` are names of `LOADS` and ``start``."""

    implementations: tuple[Implementation, ...]
    effort: Effort
    repetitions: int = 5
    passes: int = 1
    """How often each repetition's tunnels are measured."""
    settings: tuple[str, ...] = (FREE, PINNED)
    loads: tuple[str, ...] = (*LOADS, START)
    tries: int = 3
    starts: int = 20
    congestion: str = "bbr"
    mtu: int = 1420
    cores: tuple[int, int] = (0, 1)
    prepare: Prepare = lambda *_: None
    """Called for each new tunnel before its first packet."""

    def cores_for(self, setting: str) -> tuple[int, int] | None:
        """One core per end when pinned."""
        return self.cores if setting == PINNED else None

    def as_json(self) -> dict[str, object]:
        """For the recording."""
        plain = asdict(self)
        del plain["prepare"]
        plain["implementations"] = {i.name: i.shown for i in self.implementations}
        return plain

    @property
    def steps(self) -> int:
        """Measurements to make when none is repeated."""
        traffic = sum(1 for load in self.loads if load in LOADS)
        starting = [i for i in self.implementations if i.kind is Kind.USERSPACE]
        rounds = self.repetitions * len(self.settings)
        per_round = traffic * len(self.implementations) * self.passes
        return rounds * per_round + (self.starts * len(starting) if START in self.loads else 0)


def new_recording(options: Options) -> Recording:
    """An empty recording with the environment filled in."""
    recording = Recording("system", environment.environment(), options.as_json())
    recording.environment |= {
        "tools": environment.tools(),
        "implementations": environment.versions(list(options.implementations)),
        "devices": {},
        "congestion": options.congestion,
        "mtu": options.mtu,
    }
    return recording


def measure(options: Options, recording: Recording, progress: Progress) -> None:
    """Run the plan into `recording`; failures become notes, and the rest goes on."""
    runner = _Runner(options, recording, progress)
    for repetition in range(options.repetitions):
        for setting in options.settings:
            runner.repetition(repetition, setting)
    if START in options.loads:
        runner.starts()


@dataclass(slots=True)
class _Runner:
    options: Options
    recording: Recording
    progress: Progress

    def note(self, text: str) -> None:
        self.recording.notes.append(text)
        self.progress.warn(text)

    def repetition(self, repetition: int, setting: str) -> None:
        """All traffic loads, each on every implementation in turn."""
        with contextlib.ExitStack() as stack:
            labs = self._labs(repetition, setting, stack)
            loads = [load for load in self.options.loads if load in LOADS]
            for turn in range(self.options.passes):
                number = repetition * self.options.passes + turn
                for load in loads:
                    for implementation, lab in _rotated(labs, turn):
                        self._load(load, implementation, lab, number, setting)

    def _labs(
        self, repetition: int, setting: str, stack: contextlib.ExitStack
    ) -> list[tuple[Implementation, Lab]]:
        labs = []
        options = self.options
        for implementation in _rotated(options.implementations, repetition):
            self.progress.status(f"{implementation.name}: setting up ({setting})")
            context = tunnel(
                implementation,
                cores=options.cores_for(setting),
                congestion=options.congestion,
                mtu=options.mtu,
                prepare=options.prepare,
            )
            try:
                lab = stack.enter_context(context)
            except LabError as error:
                self.note(f"{implementation.name} ({setting}, repetition {repetition}): {error}")
                traffic = sum(1 for load in options.loads if load in LOADS)
                self.progress.advance(traffic * options.passes)
                continue
            self._record_devices(implementation, lab)
            labs.append((implementation, lab))
        return labs

    def _record_devices(self, implementation: Implementation, lab: Lab) -> None:
        devices = self.recording.environment["devices"]
        devices.setdefault("veth", environment.device(lab.left, lab.left.veth))
        if implementation.kind is not Kind.NONE and implementation.name not in devices:
            devices[implementation.name] = environment.device(lab.left, lab.left.tunnel)

    def _load(
        self, load: str, implementation: Implementation, lab: Lab, repetition: int, setting: str
    ) -> None:
        where = f"{load} · {implementation.name} · {setting} · repetition {repetition + 1}"
        for attempt in range(1, self.options.tries + 1):
            self.progress.status(where)
            if any(daemon.poll() is not None for daemon in lab.daemons):
                self.note(f"{where}: not measured, the program ended before")
                break
            try:
                outcome = LOADS[load](lab, self.options.effort)
            except Failure as error:
                self.note(f"{where}, attempt {attempt}: {error}")
                continue
            first = outcome.measures[0]
            sample = Sample(
                f"{load}.{first.name}", first.unit, implementation.name, first.value,
                setting, repetition, None, attempt,
                outcome.usage.foreign.share, outcome.usage.foreign.disturbed,
            )  # fmt: skip
            self._keep(load, outcome, sample)
            self.progress.measured(where, first.value, first.unit, outcome.usage.foreign.words)
            if not sample.disturbed:
                break
        self.progress.advance()

    def _keep(self, load: str, outcome: Outcome, like: Sample) -> None:
        for measure in outcome.measures:
            self.recording.samples.append(_sample(load, measure, like))
        if outcome.round_trips:
            trips = outcome.round_trips
            kept = Distribution(
                f"{load}.round_trip", "s", like.implementation,
                evenly_ranked(trips), len(trips), like.setting, like.repetition,
            )  # fmt: skip
            self.recording.distributions.append(kept)

    def starts(self) -> None:
        """Start each program again and again, in turn, on a lab of its own."""
        programs = [i for i in self.options.implementations if i.kind is Kind.USERSPACE]
        with veth_pair(None, self.options.congestion) as lab:
            for repetition in range(self.options.starts):
                for implementation in _rotated(programs, repetition):
                    self._start(implementation, lab, repetition)

    def _start(self, implementation: Implementation, lab: Lab, repetition: int) -> None:
        for attempt in range(1, self.options.tries + 1):
            self.progress.status(f"start · {implementation.name} · {repetition + 1}")
            try:
                seconds, others = start_up(implementation, lab)
            except LabError as error:
                self.note(f"start: {error}")
                break
            sample = Sample(
                "start.usable", "s", implementation.name, seconds, "", repetition, None,
                attempt, others.share, others.disturbed,
            )  # fmt: skip
            self.recording.samples.append(sample)
            if not others.disturbed:
                break
        self.progress.advance()


def start_up(implementation: Implementation, lab: Lab) -> tuple[float, Foreign]:
    """Seconds from starting the program to the first answer on its UAPI socket."""
    with tempfile.TemporaryFile("w+") as log:
        before = snapshot(time.monotonic())
        started = time.monotonic()
        daemon = start_daemon(lab.left, implementation, log)
        try:
            usable = wait_usable(lab.left, implementation, daemon, log)
            others = foreign(before, snapshot(time.monotonic()), os.getpid())
        finally:
            stop(daemon)
    return usable - started, others


def _sample(load: str, measure: Measure, like: Sample) -> Sample:
    return Sample(
        f"{load}.{measure.name}", measure.unit, like.implementation, measure.value,
        like.setting, like.repetition, None, like.attempt, like.foreign, like.disturbed,
    )  # fmt: skip


Item = TypeVar("Item")


def _rotated(items: Sequence[Item], by: int) -> Iterator[Item]:
    for place in range(len(items)):
        yield items[(place + by) % len(items)]

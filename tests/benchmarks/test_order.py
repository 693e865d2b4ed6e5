"""The order of a whole-system run: who is measured after whom, and as which repetition."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import system
from benchmarks.implementations import Implementation, Kind
from benchmarks.lab import End, Lab
from benchmarks.loads import LOADS, Effort, Measure, Outcome
from benchmarks.meter import Usage
from benchmarks.model import Recording
from benchmarks.progress import Progress
from testbed.namespaces import Namespace

A, B = (Implementation(name, Kind.NONE) for name in "AB")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``"TUNNEL LOAD"`` of each measurement, with tunnels and loads that do nothing."""
    done: list[str] = []

    @contextlib.contextmanager
    def tunnel(implementation: Implementation, **_: Any) -> Iterator[Lab]:
        space = Namespace(implementation.name, 0, 0, 0)
        yield Lab(*(End(space, "v", "t", "o", "i") for _ in range(2)))

    def load(name: str) -> Any:
        def run(lab: Lab, _: Effort) -> Outcome:
            done.append(f"{lab.left.namespace.name} {name}")
            return Outcome((Measure("value", "s", 1.0),), Usage())

        return run

    monkeypatch.setattr(system, "tunnel", tunnel)
    monkeypatch.setattr("benchmarks.environment.device", lambda *_: {})
    for name in ("ping", "tcp1-up"):
        monkeypatch.setitem(LOADS, name, load(name))
    return done


def run(repetitions: int, passes: int) -> tuple[system.Options, Recording]:
    options = system.Options(
        (A, B), Effort(1, 1, 1, 1), repetitions, passes, (system.FREE,), ("ping", "tcp1-up")
    )
    recording = Recording("system", {"devices": {}})
    with Progress(options.steps, quiet=True) as progress:
        system.measure(options, recording, progress)
    return options, recording


def test_each_load_is_measured_on_all_before_the_next_in_another_order_each_time(
    measured: list[str],
) -> None:
    options, _ = run(repetitions=2, passes=2)
    first = ["A ping", "B ping", "A tcp1-up", "B tcp1-up"]
    second = ["B ping", "A ping", "B tcp1-up", "A tcp1-up"]
    assert measured == [*first, *second, *second, *first]
    assert len(measured) == options.steps


def test_each_pass_counts_as_a_repetition(measured: list[str]) -> None:
    _, recording = run(repetitions=2, passes=3)
    assert len(measured) == 24
    for name in "AB":
        numbers = [s.repetition for s in recording.samples
                   if (s.implementation, s.figure) == (name, "ping.value")]  # fmt: skip
        assert numbers == list(range(6))

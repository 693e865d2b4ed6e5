"""Processor time: whose it is, and when a measurement counts as disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.accounting import (
    TICKS,
    Cpu,
    Process,
    Snapshot,
    foreign,
    parse_machine,
    parse_stat,
    peak_rss,
    snapshot,
)

LINE = (
    "42 (od (d) name) S 7 42 42 0 -1 4194560 100 0 0 0 "
    "300 200 50 25 20 0 1 0 12345 1000000 500 18446744073709551615"
)


def test_a_stat_line_with_an_awkward_name() -> None:
    process = parse_stat(LINE)
    assert (process.pid, process.parent, process.name) == (42, 7, "od (d) name")
    assert not process.kernel
    assert process.cpu == Cpu(350 / TICKS, 225 / TICKS)
    assert process.alone == 500 / TICKS


def test_a_kernel_thread_is_known_by_its_flag() -> None:
    assert parse_stat(LINE.replace("4194560", "2129984")).kernel


def test_the_machine_line() -> None:
    text = "cpu  100 1 200 9999 5 3 4 50 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\n"
    assert parse_machine(text) == (308 / TICKS, 50 / TICKS, 2)


OWN = 10


def process(pid: int, parent: int, seconds: float, *, kernel: bool = False) -> Process:
    return Process(pid, parent, f"p{pid}", kernel, Cpu(seconds, 0.0), seconds)


def state(at: float, busy: float, *processes: Process, stolen: float = 0.0) -> Snapshot:
    return Snapshot(at, {p.pid: p for p in processes}, busy, stolen, 2)


def test_children_and_their_children_are_ours() -> None:
    before = state(0, 0, process(OWN, 1, 0), process(11, OWN, 0), process(12, 11, 0))
    after = state(10, 15, process(OWN, 1, 1), process(11, OWN, 4), process(12, 11, 10))
    found = foreign(before, after, OWN)
    assert after.tree(OWN).total == 15
    assert found.seconds == 0 and not found.disturbed


def test_other_users_disturb_and_are_named() -> None:
    before = state(0, 0, process(OWN, 1, 0), process(20, 1, 3), process(21, 1, 0))
    after = state(10, 8, process(OWN, 1, 2), process(20, 1, 8), process(21, 1, 1))
    found = foreign(before, after, OWN)
    assert found.seconds == pytest.approx(6)
    assert found.share == pytest.approx(0.3)
    assert found.disturbed and "p20 (5.0 s)" in found.words


def test_what_ends_does_not_get_lost() -> None:
    """Pid 21 used two more seconds and ended: its parent's reaped time shows all four."""
    before = state(0, 0, process(OWN, 1, 0), process(20, 1, 0), process(21, 20, 2))
    after = state(10, 2, process(OWN, 1, 0), process(20, 1, 4))
    assert foreign(before, after, OWN).seconds == pytest.approx(2)


def test_kernel_threads_work_for_the_measured_traffic() -> None:
    before = state(0, 0, process(OWN, 1, 0), process(3, 2, 0, kernel=True))
    after = state(10, 9, process(OWN, 1, 4), process(3, 2, 5, kernel=True))
    assert not foreign(before, after, OWN).disturbed


def test_busy_time_that_nobody_here_explains_is_foreign() -> None:
    """Another container's processes are not in our /proc, but its time is."""
    found = foreign(state(0, 0, process(OWN, 1, 0)), state(10, 6, process(OWN, 1, 2)), OWN)
    assert found.seconds == pytest.approx(4) and found.disturbed


def test_stolen_time_disturbs() -> None:
    before, after = state(0, 0, process(OWN, 1, 0)), state(10, 0, process(OWN, 1, 0), stolen=3)
    assert foreign(before, after, OWN).disturbed


def test_a_rounding_error_of_ticks_does_not_disturb() -> None:
    before = state(0, 0, process(OWN, 1, 0))
    after = state(0.05, 0.03, process(OWN, 1, 0))
    assert not foreign(before, after, OWN).disturbed


def test_a_real_child_is_ours_and_the_parent_is_not() -> None:
    """A child spins for 0.3 s of CPU time and ends: all of it is found in our tree."""
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    before = snapshot(time.monotonic())
    subprocess.run([sys.executable, "-c", spin], check=True)
    after = snapshot(time.monotonic())
    assert after.tree(os.getpid()).since(before.tree(os.getpid())).total >= 0.28
    assert os.getppid() not in after.members(os.getpid())


def test_peak_memory_sums_the_tree(tmp_path: Path) -> None:
    for pid, parent, kib in ((5, 1, 1000), (6, 5, 500), (7, 1, 9000)):
        folder = tmp_path / str(pid)
        folder.mkdir()
        line = LINE.replace("42 (", f"{pid} (", 1).replace(" S 7 ", f" S {parent} ")
        (folder / "stat").write_text(line)
        (folder / "status").write_text(f"Name:\tx\nVmHWM:\t  {kib} kB\nVmRSS:\t 1 kB\n")
    (tmp_path / "stat").write_text("cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert peak_rss(5, tmp_path) == 1500 * 1024

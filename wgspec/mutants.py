"""Does the tester catch bugs?  Faults planted in wgpy, one at a time.

`faults.toml` lists them as pieces of source and what to write instead.  Faults of the
protocol are run against the `engine` target, in virtual time; those of the packet path,
which the engine alone does not have, against the daemon (this needs root).  A fault is
caught when a case fails.  Runs without a fault come first: they must not fail.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wgspec.case import all_cases

TIME_LIMIT = 300
"""Seconds for one fault; a fault that stops time is caught by this."""
DAEMON = "wgpy.dataplane."
DAEMON_CASES = ("E", "G", "R-38", "R-86")
"""What is asked about the packet path; R-86 (2 minutes) only if the others do not know."""
SLOW = frozenset({"R-102", "R-103", "R-104"})
"""Asked only about faults that no other case catches."""


class FaultDoesNotFit(Exception):
    """The source is not as the fault expects it; the text says what to look at."""


@dataclass(frozen=True, slots=True)
class Fault:
    """In `module`, write `instead` where the source has `find` (exactly once)."""

    name: str
    what: str
    module: str
    find: str
    instead: str

    @property
    def in_daemon(self) -> bool:
        """Whether it is planted into the daemon, not into the engine."""
        return self.module.startswith(DAEMON)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which cases caught a fault; `trouble` when the run itself did not work."""

    fault: Fault
    caught_by: tuple[str, ...]
    trouble: str = ""


def _load() -> dict[str, Fault]:
    tables = tomllib.loads(Path(__file__).with_name("faults.toml").read_text())
    return {name: Fault(name=name, **table) for name, table in tables.items()}


FAULTS: Final = _load()


def altered(fault: Fault, source: str) -> str:
    """The source with the fault in it; raises `FaultDoesNotFit`."""
    times = source.count(fault.find)
    if times != 1:
        raise FaultDoesNotFit(
            f"{fault.name}: {fault.find!r} occurs {times} times in {fault.module}, not once"
        )
    return source.replace(fault.find, fault.instead)


def failures(sut: str, ids: Sequence[str], seed: int) -> tuple[tuple[str, ...], str]:
    """(ids that fail, trouble) of one run in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="wgspec-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-P", "-m", "wgspec", "run", "--sut", sut, "--seed", str(seed),
                   "--json", str(result), "--html", folder, *ids]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return ("no end",), ""
        if not result.exists():
            return (), (done.stderr or done.stdout).strip()[-400:]
        results = json.loads(result.read_text())["results"]
    return tuple(r["id"] for r in results if r["verdict"] in ("FAIL", "XPASS")), ""


def try_fault(fault: Fault, seed: int) -> Outcome:
    """Run the cases that are quick here, then the slow ones if nothing caught it."""
    if fault.in_daemon:
        sut = f"wgpy --fault {shlex.quote(fault.name)}"
        caught, trouble = failures(sut, DAEMON_CASES[:-1], seed)
        if not caught and not trouble:
            caught, trouble = failures(sut, DAEMON_CASES[-1:], seed)
        return Outcome(fault, caught, trouble)
    sut = f"engine --fault {shlex.quote(fault.name)}"
    every = [c.id for c in all_cases()]
    caught, trouble = failures(sut, [i for i in every if i not in SLOW], seed)
    if not caught and not trouble:
        caught, trouble = failures(sut, sorted(SLOW), seed)
    return Outcome(fault, caught, trouble)


def trouble_without(names: Iterable[str], seed: int) -> str:
    """Why the targets of these faults fail even without one; empty when they do not."""
    for in_daemon in {FAULTS[name].in_daemon for name in names}:
        sut, ids = ("wgpy", DAEMON_CASES[:-1]) if in_daemon else ("engine", ())
        caught, trouble = failures(sut, ids, seed)
        if caught or trouble:
            return trouble or f"{sut} fails without a fault: {', '.join(caught)}"
    return ""


def try_all(
    names: Iterable[str], *, seed: int, jobs: int, progress: Callable[[Outcome], None]
) -> list[Outcome]:
    """All outcomes in the order of the names; `progress` is told each as it is known."""

    def one(name: str) -> Outcome:
        outcome = try_fault(FAULTS[name], seed)
        progress(outcome)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, names))


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """For machines."""
    return [
        {
            "fault": o.fault.name,
            "what": o.fault.what,
            "caught_by": list(o.caught_by),
            "trouble": o.trouble,
        }
        for o in outcomes
    ]


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """A page for people."""
    missed = sum(not o.caught_by for o in outcomes)
    lines = [
        "# Planted faults and the cases that catch them",
        "",
        "Written by `wgpy spec mutants --markdown docs/wgspec-faults.md`; the faults are in "
        "`wgspec/faults.toml`.",
        "",
        f"{len(outcomes) - missed} of {len(outcomes)} caught.",
        "",
        "| fault | what is wrong | caught by |",
        "|---|---|---|",
    ]
    for outcome in outcomes:
        caught = ", ".join(outcome.caught_by) or f"**nothing** {outcome.trouble}"
        lines.append(f"| {outcome.fault.name} | {outcome.fault.what} | {caught} |")
    return "\n".join(lines) + "\n"

"""Runs the conformance suite on planted faults, several at a time.

Faults of the protocol are run against the `engine` target, in virtual time; those of the
packet path, which the engine does not have, against the daemon (this needs root).  A fault
is caught when a case fails.  Runs without a fault come first: they must not fail.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.faults import FAULTS, Fault
from wgspec.cases import all_cases

TIME_LIMIT = 300
"""Seconds for one fault; a fault that stops time is caught by this."""
DAEMON_CASES = ("E", "G", "R-38", "R-86")
"""What is asked about the packet path; R-86 (2 minutes) only if the others do not know."""
SLOW = frozenset({"R-102", "R-103", "R-104"})
"""Asked only about faults that no other case catches."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which cases caught a fault; `trouble` when the run itself did not work."""

    fault: Fault
    caught_by: tuple[str, ...]
    trouble: str = ""


def sut_with(fault: Fault) -> str:
    """What `wgpy spec run --sut` is given to test wgpy with this fault."""
    python, name = shlex.quote(sys.executable), shlex.quote(fault.name)
    if fault.in_daemon:
        return f"{python} -P -m tests.mutants.daemon {name} -f %i"
    return f"engine {python} -P -m tests.mutants.engine {name}"


def failures(sut: str, ids: Sequence[str], seed: int) -> tuple[tuple[str, ...], str]:
    """(ids that fail, trouble) of one run in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="wgpy-mutants-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-P", "-m", "wgspec", "run", "--sut", sut, "--seed", str(seed),
                   "--report", str(result), "--captures", folder, *ids]  # fmt: skip
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
    sut = sut_with(fault)
    if fault.in_daemon:
        rounds = [DAEMON_CASES[:-1], DAEMON_CASES[-1:]]
    else:
        every = [c.id for c in all_cases()]
        rounds = [tuple(i for i in every if i not in SLOW), tuple(sorted(SLOW))]
    for ids in rounds:
        caught, trouble = failures(sut, ids, seed)
        if caught or trouble:
            break
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
        "Written by `python -P -m tests.mutants --report docs/wgspec-faults.md`, from a clone of "
        "the repository; the faults are in `tests/mutants/faults.toml`.",
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

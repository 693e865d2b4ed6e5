"""One run from beginning to end, and what is known of it afterwards."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from wgspec.case import Case
from wgspec.cases import all_cases
from wgspec.runner import Options, Result, Runner, left_out, select
from wgspec.target import Target
from wgspec.verdict import Expectation, Expected, Verdict, of_build

Choose = Callable[[str], Expected | None]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: what was tested, how, when, and each result in the order of the ids."""

    options: Options
    target: str
    version: str
    """What the target says of itself; may be empty."""
    profile: str
    began: datetime
    seconds: float
    expected: Expected | None = None
    """The expected results that were used; None when there are none for this build."""
    results: list[Result] = field(default_factory=list)

    @property
    def failed(self) -> list[Result]:
        """The results that fail the run."""
        return [result for result in self.results if result.verdict.fails_run]

    @property
    def about_expected(self) -> str:
        """Which expected results were used, as a sentence."""
        if self.options.strict:
            return "--strict: every difference fails the run, known or not"
        if self.options.expected == "none":
            return "--expected none: every failure fails the run"
        build = self.version or "a build that does not say what it is"
        if self.expected is None:
            return f"no expected results for {build}: every failure fails the run"
        text = f"expected results: {self.expected.path.name}"
        if not self.expected.speaks_of(self.version):
            meant = ", ".join(self.expected.builds) or "no build"
            text += f" (written for {meant}; this is {build})"
        return text


def suite_version() -> str:
    """The version of this suite."""
    return f"wgspec {importlib.metadata.version('wgpy')}"


def chosen_cases(target: Target, options: Options) -> list[Case]:
    """The cases that a run would run."""
    return select(all_cases(), options, virtual=target.virtual)


def expected_of_build(version: str) -> Expected | None:
    """The file of `wgspec/expected/` for what a target says of itself."""
    return of_build(version, (case.id for case in all_cases()))


async def run(target: Target, options: Options, choose: Choose = expected_of_build) -> Run:
    """Run a target; `choose` is asked for expected results once it has said what it is.

    Raises `Unavailable` when it cannot be started, `BadExpectations` for a bad file.
    """
    began, start = datetime.now(UTC), time.monotonic()
    runner = Runner(target, options, choose)
    results = await runner.run(chosen_cases(target, options))
    results += left_out(all_cases(), options, virtual=target.virtual)
    results.sort(key=lambda result: result.case.number)
    return Run(
        options,
        target.name,
        target.version,
        "all, in virtual time" if target.virtual else options.profile,
        began,
        time.monotonic() - start,
        runner.expected,
        results,
    )


def differences(finished: Run) -> dict[str, Expectation]:
    """What the run has shown as expectations: known ones keep their words, and those of cases
    that did not run stay."""
    known = finished.expected.differences if finished.expected else {}
    results = {result.case.id: result for result in finished.results}
    source = f"run of {finished.began:%Y-%m-%d}, seed {finished.options.seed}"
    found: dict[str, Expectation] = {}
    for case in all_cases():
        result = results.get(case.id)
        if result is None or result.verdict is Verdict.SKIPPED:
            if case.id in known:
                found[case.id] = known[case.id]
        elif case.id in known and result.verdict in (Verdict.XFAIL, Verdict.UNSUPPORTED):
            found[case.id] = known[case.id]
        elif result.raw in (Verdict.FAIL, Verdict.UNSUPPORTED):
            words = result.observed.partition("\n")[0]
            match = words if result.raw is Verdict.UNSUPPORTED else ""
            found[case.id] = Expectation(result.raw, f"seen: {words}", source, match)
    return found

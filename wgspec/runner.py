"""Runs cases against a target and gives each a verdict.

With sockets, all light cases run at the same time: those that share on one instance, each
with its own keys and ports, the `fresh` ones on an instance of their own.  Then the `heavy`
ones, one at a time, because they load the machine.  In virtual time every case gets its
own instance and they run one after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from wgspec.case import COSTS, PROFILES, Case
from wgspec.check import Mismatch
from wgspec.lab import Lab
from wgspec.target import Capability, Instance, Rejected, Target, Unavailable, Unsupported
from wgspec.transcript import Transcript
from wgspec.verdict import Expected, Verdict, judge

TIME_LIMIT = {"q": 60.0, "s": 120.0, "l": 720.0}
"""Seconds after which a case is given up; far above what it needs."""


@dataclass
class Result:
    """How one case ended on one target."""

    case: Case
    verdict: Verdict
    reason: str = ""
    expected: str = ""
    actual: str = ""
    reports: list[str] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    seconds: float = 0.0
    diagnostics: str = ""
    repeat: str = ""
    raw: Verdict = Verdict.SKIPPED
    """How it ended before expected results were looked at."""
    observed: str = ""
    """What expected results are compared with."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run and how."""

    sut: str
    profile: str = "quick"
    ids: tuple[str, ...] = ()
    seed: int = 1
    strict: bool = False
    expected: str = ""
    """`--expected` as it was given: a file, none, or nothing."""
    progress: Callable[[Result], None] = lambda _: None

    @property
    def shown_sut(self) -> str:
        """`sut` as it may be printed and kept: without the secret keys of an endpoint."""
        return re.sub(r"(--(?:private|preshared)-key[ =])[A-Za-z0-9+/]{43}=", r"\1FILE", self.sut)

    def reporting(self, progress: Callable[[Result], None]) -> Options:
        """The same, with `progress` told each result as it comes."""
        return replace(self, progress=progress)


def select(cases: Iterable[Case], options: Options, *, virtual: bool) -> list[Case]:
    """The cases of a profile (all in virtual time), of its sections named by letter, and the
    ones named by id, whatever they cost."""
    wanted = {text.upper() for text in options.ids}
    costs = "qsl" if virtual else PROFILES[options.profile]
    return [
        c
        for c in cases
        if c.id in wanted or (c.cost in costs and (not wanted or c.section in wanted))
    ]


def left_out(cases: Iterable[Case], options: Options, *, virtual: bool) -> list[Result]:
    """What a profile leaves out, as SKIPPED results; nothing when ids were given."""
    if options.ids:
        return []
    cases = list(cases)
    chosen = {c.id for c in select(cases, options, virtual=virtual)}
    profiles = {cost: name for name, costs in reversed(PROFILES.items()) for cost in costs}
    return [
        Result(c, Verdict.SKIPPED, f"takes {COSTS[c.cost]}: in profile {profiles[c.cost]}")
        for c in cases
        if c.id not in chosen
    ]


def repeat_command(options: Options, case: Case) -> str:
    """The line that runs just this case again."""
    line = f"wgpy spec run --sut {shlex.quote(options.shown_sut)} {case.id} --seed {options.seed}"
    return f"{line} --expected {shlex.quote(options.expected)}" if options.expected else line


class Runner:
    """One run of some cases on one target."""

    def __init__(
        self,
        target: Target,
        options: Options,
        choose: Callable[[str], Expected | None] = lambda _version: None,
    ) -> None:
        """`choose` gives the expected results for what the target says of itself."""
        self.target = target
        self.options = options
        self.expected: Expected | None = None
        self._choose = choose
        self.results: dict[str, Result] = {}
        self._rng = Random(f"{options.seed}:{options.sut}")
        self._shared: Instance | None = None
        self._sharing = asyncio.Lock()
        self._instances: list[Instance] = []

    async def run(self, cases: Sequence[Case]) -> list[Result]:
        """All results in the order of `cases`; raises `Unavailable` when nothing can run."""
        await self.target.open()
        try:
            self.expected = self._choose(self.target.version)
            if self.target.virtual:
                for case in cases:
                    await self._fresh(case)
            else:
                await self._parallel([c for c in cases if not self._alone(c)])
                for case in (c for c in cases if self._alone(c)):
                    await self._fresh(case)
        finally:
            for instance in self._instances:
                await instance.stop()
            await self.target.close()
        return [self.results[c.id] for c in cases]

    async def _parallel(self, cases: Sequence[Case]) -> None:
        """Timed cases all at once, quick ones as many as the target takes."""
        shared = asyncio.Semaphore(self.target.parallel)
        fresh = asyncio.Semaphore(self.target.fresh_parallel)
        one_by_one = asyncio.Semaphore(1) if self.target.parallel == 1 else None

        async def start(case: Case, number: int) -> None:
            if case.cost != "q":
                await asyncio.sleep(number * self.target.stagger)
            own = self.target.one_per_case or (case.fresh and Capability.FRESH in self._offered())
            gate = one_by_one or (fresh if own else shared)
            async with gate if case.cost == "q" or one_by_one else contextlib.nullcontext():
                await (self._fresh(case) if own else self._on_shared(case))

        if any(not c.fresh for c in cases) and not self.target.one_per_case:
            await self._get_shared()
        order = sorted(cases, key=lambda c: "lsq".index(c.cost))
        try:
            async with asyncio.TaskGroup() as group:
                for number, case in enumerate(order):
                    group.create_task(start(case, number))
        except* Unavailable as several:
            raise Unavailable(str(several.exceptions[0])) from several

    def _alone(self, case: Case) -> bool:
        """Whether a case must not run beside others on this target."""
        return case.heavy or (self.target.shares_load and Capability.LOAD in case.needs)

    def _offered(self) -> frozenset[Capability]:
        return self._shared.capabilities if self._shared else frozenset(Capability)

    async def _create(self) -> Instance:
        instance = await self.target.create(self._rng.randbytes(32))
        self._instances.append(instance)
        return instance

    async def _get_shared(self) -> Instance:
        """The shared instance; a new one when a case has killed it."""
        async with self._sharing:
            if self._shared is None or not self._shared.health().alive:
                self._shared = await self._create()
            return self._shared

    async def _on_shared(self, case: Case) -> None:
        await self._judge(case, await self._get_shared())

    async def _fresh(self, case: Case) -> None:
        if not self.target.virtual and not self.target.one_per_case and case.fresh:
            missing = Capability.FRESH not in self._offered()
            if missing:
                await self._judge(case, await self._get_shared())
                return
        try:
            instance = await self._create()
        except Unavailable as error:
            if not self.results and not self._instances:
                raise
            self._record(Result(case, Verdict.FAIL, actual=f"the target did not start: {error}"))
            return
        await self._judge(case, instance)
        self._instances.remove(instance)
        await instance.stop()

    async def _judge(self, case: Case, instance: Instance) -> None:
        missing = [c.value for c in sorted(case.needs, key=lambda c: c.name)
                   if c not in instance.capabilities]  # fmt: skip
        if missing:
            result = Result(case, Verdict.UNSUPPORTED, f"it cannot {missing[0]}")
            self._record(result)
            return
        lab = Lab(instance, case.id, self.options.seed)
        result = await self._attempt(case, lab)
        result.seconds = instance.now() - lab.transcript.start
        result.transcript = lab.transcript
        result.reports = lab.reports
        if result.verdict is Verdict.FAIL:
            health = instance.health()
            result.diagnostics = instance.diagnostics()
            if not health.alive:
                result.actual += f" (the target is dead: {health.detail})"
        await lab.close()
        self._record(result)

    async def _attempt(self, case: Case, lab: Lab) -> Result:
        limit = None if self.target.virtual else TIME_LIMIT[case.cost]
        try:
            async with asyncio.timeout(limit):
                await case.run(lab)
        except Mismatch as error:
            if case.level == "I" and not self.options.strict:
                lab.report(f"differs: {error.actual} (usual: {error.expected})")
                return Result(case, Verdict.PASS)
            return Result(case, Verdict.FAIL, expected=error.expected, actual=error.actual)
        except Unsupported as error:
            return Result(case, Verdict.UNSUPPORTED, str(error))
        except Rejected as error:
            text = f"the target refused the configuration: {error}"
            return Result(case, Verdict.FAIL, expected="a configuration it takes", actual=text)
        except TimeoutError:
            return Result(case, Verdict.FAIL, expected="an end", actual=f"no end in {limit} s")
        except Exception as error:  # whatever a target does, the other cases run
            where = traceback.format_exc(limit=-3)
            return Result(
                case, Verdict.FAIL, expected="a case that runs",
                actual=f"{type(error).__name__}: {error}\n{where}",
            )  # fmt: skip
        return Result(case, Verdict.PASS)

    def _record(self, result: Result) -> None:
        result.raw = result.verdict
        result.observed = result.actual or result.reason
        final, why = judge(
            result.case.id,
            result.verdict,
            result.observed,
            self.expected.differences if self.expected else None,
            strict=self.options.strict,
        )
        if final is Verdict.FAIL and not result.actual:
            result.expected, result.actual = "a target that can be judged", result.reason
        result.verdict = final
        result.reason = why or result.reason
        result.repeat = repeat_command(self.options, result.case)
        self.results[result.case.id] = result
        self.options.progress(result)


def exit_status(results: Sequence[Result]) -> int:
    """0, 1 when a verdict fails the run, 2 when no case ran."""
    if not results:
        return 2
    return 1 if any(r.verdict.fails_run for r in results) else 0

"""Progress output while a benchmark runs.  Everything goes to stderr, so that stdout
stays free for tables and ``--json``."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from benchmarks.units import show


class Progress:
    """A bar with the running measurement, and one line for each finished one."""

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar = Bar(
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True, highlight=False),
            disable=quiet,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def status(self, text: str) -> None:
        """What is being measured now."""
        self._bar.update(self._task, description=text)

    def advance(self, steps: int = 1) -> None:
        """Measurements done."""
        self._bar.advance(self._task, steps)

    def measured(self, what: str, value: float, unit: str, disturbance: str = "") -> None:
        """One finished measurement."""
        if not self._quiet:
            mark = f"  [yellow]disturbed: {disturbance}[/]" if disturbance else ""
            self._bar.console.print(f"{what}: [bold]{show(value, unit)}[/]{mark}")

    def warn(self, text: str) -> None:
        """Something failed; the run goes on."""
        self._bar.console.print(text, style="red", markup=False)


def lines(*, quiet: bool) -> Callable[[str, float, str], None]:
    """A function that prints (what, value, unit) as one line, or nothing when `quiet`."""
    console = Console(stderr=True, highlight=False)

    def said(what: str, value: float, unit: str) -> None:
        if not quiet:
            console.print(f"{what}: [bold]{show(value, unit)}[/]")

    return said

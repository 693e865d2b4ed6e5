"""One self-contained HTML page from recordings: verdicts first, then plots, tables, machine.

Styles and plots are inline, so the file needs no other resources.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmarks.model import Recording
from benchmarks.plots import Plot
from benchmarks.tables import result_tables, target_table, verdict_style


def render(recordings: Sequence[Recording], plots: Sequence[Plot]) -> str:
    """The page's text."""
    templates = Environment(
        loader=PackageLoader("benchmarks"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters["verdict_style"] = verdict_style
    targets = target_table(recordings)
    return templates.get_template("report.html.j2").render(
        kinds=", ".join(recording.kind for recording in recordings),
        dates=", ".join(str(recording.environment.get("date", "")) for recording in recordings),
        targets=targets,
        measured=[row for row in targets.rows if row[3]],
        unmeasured=sorted({row[0] for row in targets.rows if not row[3]}),
        plots=plots,
        tables=[t for recording in recordings for t in result_tables(recording)],
        details=[t for recording in recordings for t in result_tables(recording, details=True)],
        disturbed=sum(len(recording.disturbed()) for recording in recordings),
        total=sum(len(v) for recording in recordings for v in recording.series().values()),
        notes=[note for recording in recordings for note in recording.notes],
        environments=[
            (recording.kind, list(flat(recording.environment)), list(flat(recording.options)))
            for recording in recordings
        ],
    )


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """A nested mapping as (dotted path, text) pairs; lists of values in one line."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        yield path, ", ".join(map(str, value))
    else:
        yield path, str(value)

"""Tables on a terminal, with rich."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.model import Recording
from benchmarks.tables import Table, result_tables, target_table, verdict_style


def console() -> Console:
    """Standard output; 160 columns for a file or a pipe."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=160)


def show_tables(tables: Iterable[Table]) -> None:
    """Print each table with its caption."""
    out = console()
    for table in tables:
        shown = RichTable(
            title=table.title,
            caption=table.caption,
            title_justify="left",
            min_width=len(table.title) + 2,
        )
        for place, heading in enumerate(table.header):
            side: Literal["left", "right"] = "left" if place == 0 else "right"
            shown.add_column(heading, justify=side, overflow="fold")
        for row in table.rows:
            shown.add_row(*(Text(cell, style=verdict_style(cell)) for cell in row))
        out.print(shown)


def show_recording(recording: Recording, *, details: bool = False) -> None:
    """All tables of a recording, the targets it can speak about, and what went wrong."""
    tables = result_tables(recording, details=details)
    targets = target_table([recording])
    measured = tuple(row for row in targets.rows if row[3])
    if measured:
        tables.append(Table(targets.title, targets.header, measured, targets.caption))
    show_tables(tables)
    out = console()
    disturbed = recording.disturbed()
    if disturbed:
        out.print(
            f"{len(disturbed)} of {sum(map(len, recording.series().values()))} values stay "
            "disturbed by other load after all tries: do not quote them.",
            style="yellow",
        )
    for note in recording.notes:
        out.print(note, style="red", markup=False)

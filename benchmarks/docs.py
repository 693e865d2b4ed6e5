"""Measured tables written into a Markdown page, between markers that name them.

``<!-- figures: NAME -->`` and ``<!-- end of figures -->`` enclose what this module
writes, so that every number of the page comes from a recording.
Names: ``targets``, ``headline`` (those in a few lines), ``environment``, a recording's
kind for all of its tables, and ``system-free``, ``system-pinned``, ``system-plain`` (what
no setting applies to) for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.model import Recording
from benchmarks.report import flat
from benchmarks.tables import Table, headline_table, result_tables, target_table

_BLOCK = re.compile(
    r"<!-- figures: (?P<name>[a-z0-9-]+) -->\n(?P<old>.*?)<!-- end of figures -->", re.DOTALL
)


class PageError(ValueError):
    """The page has no markers for figures."""


def fill(page: str, recordings: Sequence[Recording]) -> tuple[str, list[str]]:
    """(The page with every block written that the recordings can fill, names left alone).

    Raises `PageError` for a page without markers.
    """
    texts = _blocks(recordings)
    left: list[str] = []

    def written(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in texts:
            left.append(name)
            return match[0]
        return f"<!-- figures: {name} -->\n{texts[name]}<!-- end of figures -->"

    if not _BLOCK.search(page):
        raise PageError("no `<!-- figures: NAME -->` … `<!-- end of figures -->` in the page")
    return _BLOCK.sub(written, page), left


def _blocks(recordings: Sequence[Recording]) -> dict[str, str]:
    texts = {
        "targets": target_table(recordings).markdown(),
        "headline": headline_table(recordings).markdown(),
    }
    machines = []
    for recording in recordings:
        tables = result_tables(recording)
        # A second recording of a kind has more detail on a part of it, and is placed below.
        before = [texts[recording.kind]] if recording.kind in texts else []
        texts[recording.kind] = "\n".join((*before, *(_titled(table) for table in tables)))
        for setting in recording.settings():
            title = f"{recording.kind}, {setting}" if setting else recording.kind
            mine = [table for table in tables if table.title == title]
            if mine:
                texts[f"{recording.kind}-{setting or 'plain'}"] = mine[0].markdown()
        machines.append(_titled(_machine(recording)))
    texts["environment"] = "\n".join(machines)
    return texts


def _machine(recording: Recording) -> Table:
    rows = tuple((name, text.replace("|", "\\|")) for name, text in flat(recording.environment))
    disturbed = len(recording.disturbed())
    caption = f"{disturbed} values stay disturbed by other load." if disturbed else ""
    return Table(f"Machine of `{recording.kind}`", ("what", "value"), rows, caption)


def _titled(table: Table) -> str:
    return f"**{table.title}**\n\n{table.markdown()}"

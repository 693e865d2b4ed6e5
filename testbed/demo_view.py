"""Output of the demo: numbered steps, hex dumps with the secret marked, a final table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

MESSAGE_NAMES = {1: "initiation", 2: "response", 3: "cookie reply", 4: "data"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the final table; `good`: whether it is as expected, None: not judged.

    `colour` is for an expected result that is still bad news: the leak.
    """

    step: str
    result: str
    good: bool | None = None
    colour: str = ""


class Story:
    """Prints for people, or only one JSON document at the end."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.console = Console(quiet=as_json, highlight=False)
        self.rows: list[Row] = []
        self.facts: dict[str, Any] = {}
        self._as_json = as_json
        self._step = 0

    def step(self, title: str) -> None:
        """A new numbered step."""
        self._step += 1
        self.console.print(f"\n[bold cyan]{self._step}. {title}[/]")

    def say(self, text: str) -> None:
        """A sentence; may carry rich markup."""
        self.console.print("   " + text, soft_wrap=True)

    def note(self, **facts: Any) -> None:
        """Figures for the JSON form."""
        self.facts.update(facts)

    def result(
        self, step: str, result: str, good: bool | None = None, *, colour: str = ""
    ) -> None:
        """A line of the final table."""
        self.rows.append(Row(step, result, good, colour))

    @property
    def went_well(self) -> bool:
        """Whether every result in the table is as expected."""
        return all(row.good is not False for row in self.rows)

    def dump(self, title: str, data: bytes, secret: bytes, *, limit: int = 96) -> None:
        """A hex dump; bytes of `secret` are red, everything else is green."""
        self.console.print(f"   [dim]{title}[/]", soft_wrap=True)
        marks = marked(data, secret)
        for at in range(0, min(len(data), limit), 16):
            self.console.print(_dump_line(at, data[at : at + 16], marks[at : at + 16]))
        if len(data) > limit:
            self.console.print(f"   [dim]… {len(data) - limit} more bytes[/]")

    def finish(self, hints: list[str]) -> None:
        """The table and what to try next, or the JSON document."""
        if self._as_json:
            rows = [{"step": r.step, "result": r.result, "good": r.good} for r in self.rows]
            print(json.dumps({**self.facts, "steps": rows}, indent=2))
            return
        table = Table(title="\nWhat you saw", title_justify="left", title_style="bold")
        table.add_column("step", overflow="fold")
        table.add_column("result", overflow="fold")
        for row in self.rows:
            style = row.colour or {True: "green", False: "bold red", None: ""}[row.good]
            table.add_row(row.step, Text(row.result, style=style))
        self.console.print(table)
        self.console.print("\n[bold]Try next[/]")
        for hint in hints:
            self.console.print(f"  {hint}", markup=False, soft_wrap=True)


def marked(data: bytes, secret: bytes) -> list[bool]:
    """Which bytes of `data` belong to an occurrence of `secret`, at either end perhaps cut."""
    marks = [False] * len(data)
    start = data.find(secret)
    while secret and start >= 0:
        marks[start : start + len(secret)] = [True] * len(secret)
        start = data.find(secret, start + 1)
    return marks


def _dump_line(at: int, data: bytes, marks: list[bool]) -> Text:
    line = Text(f"     {at:04x}  ", style="dim")
    for byte, mark in zip(data, marks, strict=True):
        line.append(f"{byte:02x} ", style="bold red" if mark else "green")
    line.append("   " * (16 - len(data)) + " ")
    for byte, mark in zip(data, marks, strict=True):
        shown = chr(byte) if 32 <= byte < 127 else "."
        line.append(shown, style="bold red" if mark else "green")
    return line


def describe_message(message: bytes) -> str:
    """A WireGuard message by the whitepaper's field names, as far as it is in the clear."""
    kind = message[0] if message else 0
    name = MESSAGE_NAMES.get(kind, "?")
    if kind == 1:
        return (
            f"[bold]{name}[/]  sender_index {_index(message, 4)}  unencrypted_ephemeral "
            f"{message[8:12].hex()}…"
        )
    if kind == 2:
        return (
            f"[bold]{name}[/]  sender_index {_index(message, 4)}  receiver_index "
            f"{_index(message, 8)}"
        )
    if kind == 4:
        counter = int.from_bytes(message[8:16], "little")
        return f"[bold]{name}[/]  receiver_index {_index(message, 4)}  counter {counter}"
    return f"[bold]{name}[/]"


def _index(message: bytes, at: int) -> str:
    return f"{int.from_bytes(message[at : at + 4], 'little'):08x}"

"""Lines of the agent's log: text for people, and for programs what it is about."""

from __future__ import annotations

import json
import sys
import time


class Notice(str):
    """A line with its kind: `info`, `problem`, or `resolved`, and the subject of the latter."""

    kind: str
    about: str

    def __new__(cls, text: str, kind: str = "info", about: str = "") -> Notice:
        made = super().__new__(cls, text)
        made.kind, made.about = kind, about
        return made


def say(text: str) -> None:
    """For people, on stderr."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    print(f"{moment} {text}", file=sys.stderr, flush=True)


def say_json(text: str) -> None:
    """One JSON object per line on stdout: time (ns), kind, about, text."""
    notice = text if isinstance(text, Notice) else Notice(text)
    found = {"time": time.time_ns(), "kind": notice.kind, "about": notice.about, "text": str(text)}
    print(json.dumps(found), flush=True)

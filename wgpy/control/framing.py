"""The control socket's framing, schema 1: one JSON object per line, both ways.

    client → server   {"id": 1, "op": "hello"}
    server → client   {"id": 1, "ok": true, "result": {…}}
                      {"id": 2, "ok": false, "code": "invalid", "error": "what and why"}
                      {"id": 3, "part": {…}} … before the last line of a long answer
                      {"event": "drop", …} to those who subscribed

docs/control-socket.md is the reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

SCHEMA: Final = 1
"""Version of the framing and of the operations that need no policy."""
MAX_LINE: Final = 1 << 20
"""Bytes of one request: the bound of what one turn has to parse."""
CHUNK: Final = 1 << 16

Answer = Mapping[str, Any] | Iterator[Mapping[str, Any]]
"""A whole answer, or a long one part by part."""


class ControlError(Exception):
    """A request is refused; `code` is for programs, the text for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def encode(message: Mapping[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Mapping[str, Any]:
    """One request or answer; raises `ControlError`."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError("invalid", f"not one JSON object per line: {error}") from None
    if not isinstance(message, dict):
        raise ControlError("invalid", "not one JSON object per line")
    return message

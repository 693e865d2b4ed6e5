"""What every capture format yields: frames, and the secrets that some carry."""

from __future__ import annotations

from typing import NamedTuple


class CaptureError(Exception):
    """A file that is not a capture, or is damaged; names the file, the place and the problem."""


class Frame(NamedTuple):
    """One captured packet.  `number` counts from 1 as in Wireshark, `at` is ns since 1970.

    `original_size` is more than ``len(data)`` where a snap length cut the frame.
    """

    number: int
    at: int
    link_type: int
    data: bytes
    original_size: int
    interface: int = 0
    comments: tuple[str, ...] = ()


class Secrets(NamedTuple):
    """A WireGuard key log found inside a capture; holds for the frames after it."""

    key_log: str

    def __repr__(self) -> str:
        return "Secrets(<hidden>)"

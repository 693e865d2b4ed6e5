"""What a kind of vector is: a function from its inputs to what is expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vectors.model import Json
from wgpy.protocol.crypto import Crypto

Intermediates = list[tuple[str, str, bytes]]


class Computed(NamedTuple):
    """What a kind computes: the expected object and, for handshakes, every step."""

    expected: Json
    intermediates: Intermediates


Compute = Callable[[Crypto, Json], Computed]


def plain(expected: Json) -> Computed:
    """A result without intermediates."""
    return Computed(expected, [])

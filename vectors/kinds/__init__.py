"""How to compute each kind of vector with wgpy: one function from inputs to expected.

The generator calls it to fill a file, the verifier to check one; so a file can only
pass if wgpy still computes what it computed, and independent verifiers only agree if
wgpy was right.
"""

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


def kinds() -> dict[str, Compute]:
    """Every kind by name."""
    from vectors.kinds import handshake, invalid, primitives, tables, timers, uapi

    modules = (primitives, handshake, tables, timers, uapi, invalid)
    return {name: compute for module in modules for name, compute in module.KINDS.items()}

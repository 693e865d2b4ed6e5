"""How to compute each kind of vector with wgpy: one function from inputs to expected.

The generator calls it to fill a file, the verifier to check one; so a file can only
pass if wgpy still computes what it computed, and independent verifiers only agree if
wgpy was right.
"""

from typing import Final

from vectors.kinds import handshake, invalid, primitives, tables, timers, uapi
from vectors.kinds.base import Compute

_MODULES = (primitives, handshake, tables, timers, uapi, invalid)
KINDS: Final[dict[str, Compute]] = {
    name: compute for module in _MODULES for name, compute in module.KINDS.items()
}
"""Every kind by name."""

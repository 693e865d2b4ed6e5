"""One module per vector file: which inputs, with which comment and flags.

A generator only chooses inputs; what is expected is computed by `vectors.kinds`.
"""

from __future__ import annotations

from vectors.generators.builder import Builder
from vectors.generators.catalogue import FILES
from vectors.model import VectorFile

ORIGIN = "computed by wgpy from the rules of the WireGuard whitepaper (revision of June 1 2020)"
STANDALONE = "vectors/standalone.py (hashlib and package cryptography only)"


def file(name: str, seed: int) -> VectorFile:
    """One vector file from its generator."""
    entry = FILES[name]
    builder = Builder()
    entry.generate(seed, builder)
    return VectorFile(
        name=name,
        description=entry.description,
        origin=ORIGIN,
        generator=f"wgpy vectors generate {name} --seed {seed}",
        verified_by=(STANDALONE, entry.second),
        groups=tuple(builder.groups),
    )

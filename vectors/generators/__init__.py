"""One module per vector file: which inputs, with which comment and flags.

A generator only chooses inputs; what is expected is computed by `vectors.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from vectors.kinds import kinds
from vectors.model import Group, Json, Test, VectorFile
from wgpy.protocol.crypto import backend

ORIGIN = "computed by wgpy from the rules of the WireGuard whitepaper (revision of June 1 2020)"
STANDALONE = "vectors/standalone.py (hashlib and package cryptography only)"


@dataclass(frozen=True, slots=True)
class Wish:
    """One vector to be computed."""

    comment: str
    inputs: Json
    result: str = "valid"
    flags: tuple[str, ...] = field(default=())


class Builder:
    """Numbers the vectors of a file and computes what is expected."""

    def __init__(self) -> None:
        self._crypto = backend("openssl")
        self._kinds = kinds()
        self._tcid = 0
        self.groups: list[Group] = []

    def group(self, kind: str, source: str, comment: str, wishes: Iterable[Wish]) -> None:
        """Add a group of vectors of one kind."""
        tests = tuple(self._compute(kind, wishes))
        self.groups.append(Group(kind, source, comment, tests))

    def _compute(self, kind: str, wishes: Iterable[Wish]) -> Iterator[Test]:
        for wish in wishes:
            self._tcid += 1
            expected, intermediates = self._kinds[kind](self._crypto, wish.inputs)
            yield Test(
                self._tcid,
                wish.comment,
                wish.inputs,
                expected,
                wish.result,
                wish.flags,
                tuple(intermediates),
            )


Generator = Callable[[int, Builder], None]


def file(name: str, seed: int) -> VectorFile:
    """One vector file from its generator."""
    from vectors.generators import catalogue

    entry = catalogue.FILES[name]
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

"""What a generator uses: it states inputs, the builder computes what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from vectors.kinds import KINDS
from vectors.model import Group, Json, Test
from wgpy.protocol.crypto import backend


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
        self._tcid = 0
        self.groups: list[Group] = []

    def group(self, kind: str, source: str, comment: str, wishes: Iterable[Wish]) -> None:
        """Add a group of vectors of one kind."""
        tests = tuple(self._compute(kind, wishes))
        self.groups.append(Group(kind, source, comment, tests))

    def _compute(self, kind: str, wishes: Iterable[Wish]) -> Iterator[Test]:
        for wish in wishes:
            self._tcid += 1
            expected, intermediates = KINDS[kind](self._crypto, wish.inputs)
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

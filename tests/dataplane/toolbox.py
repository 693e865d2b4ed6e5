"""The tools of the batch path, interpreted and compiled: each test here runs with both.

A test module imports `kit`, which pytest then applies to all of its tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wgpy.dataplane.interpreted import INTERPRETED
from wgpy.dataplane.train_tools import Merger, Segmenter, Slab, Tools
from wgpy.protocol.crypto import Crypto, backend
from wgpy.turbo import TURBO, TurboCrypto


class Kit:
    """Used again and again, as the pipeline does: nothing of one train may show in the next."""

    def __init__(self, tools: Tools, crypto: Crypto) -> None:
        self.tools, self.crypto = tools, crypto
        self.slab: Slab = tools.slab()
        self.segmenter: Segmenter = tools.segmenter()
        self.mergers: dict[bool, Merger] = {udp: tools.merger(udp=udp) for udp in (True, False)}


KITS = {
    "interpreted": Kit(INTERPRETED, backend("openssl")),
    "compiled": Kit(TURBO, TurboCrypto()),
}
_current = [KITS["interpreted"]]


def current() -> Kit:
    """The kit of the test that runs."""
    return _current[0]


@pytest.fixture(scope="module", autouse=True, params=KITS)
def kit(request: pytest.FixtureRequest) -> Iterator[Kit]:
    _current[0] = KITS[request.param]
    yield _current[0]
    _current[0] = KITS["interpreted"]

"""What the batch path works with: these, or twins of them that do the same faster.

`wgpy.turbo` has compiled ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from wgpy.dataplane.offload_coalesce import Merger
from wgpy.dataplane.offload_segment import Segmenter
from wgpy.dataplane.train import Slab


class MakeMerger(Protocol):
    """`udp`: the device takes USO super-packets."""

    def __call__(self, *, udp: bool) -> Merger: ...


class Tools(NamedTuple):
    """Makers of the three; each user has its own."""

    slab: Callable[[], Slab]
    segmenter: Callable[[], Segmenter]
    merger: MakeMerger


INTERPRETED: Final = Tools(Slab, Segmenter, Merger)

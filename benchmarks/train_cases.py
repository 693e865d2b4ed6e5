"""What a whole train costs, for `micro`: the steps of the batch path on 44 messages.

``interpreted`` and ``compiled`` (`wgpy.turbo`) do the same work on the same bytes; what
lies between the calls, system calls above all, is not in it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.implementations import turbo_installed
from benchmarks.packets import super_packet
from benchmarks.pipeline import MTU, SEGMENTS
from wgpy.dataplane.interpreted import INTERPRETED
from wgpy.dataplane.offload import VNET, VNET_SIZE, describe
from wgpy.dataplane.offload_segment import cuts
from wgpy.dataplane.train_tools import Rows, Tools
from wgpy.protocol.crypto.openssl import OpenSslAead
from wgpy.protocol.packet import padded_size

NAMES = ("interpreted", "compiled")

Globals = dict[str, Any]


def statements() -> Iterator[tuple[str, str, partial[Globals]]]:
    """(Name, statement, what makes its globals) of each case."""
    for name in NAMES if turbo_installed() else NAMES[:1]:
        make = partial(_globals, name)
        for what, statement in (
            ("cut", "segmenter.segment(rows, buffer, 0, whole, cut)"),
            ("seal-1420", "rows.seal(aead, 44, 1420, 7, next(counter))"),
            ("seal-64", "small.seal(aead, 44, 64, 7, next(counter))"),
            ("seal-0", "empty.seal(aead, 44, 0, 7, next(counter))"),
            ("seal-open-1420", "seal_and_open(rows, 1420)"),
            ("seal-open-64", "seal_and_open(small, 64)"),
            ("merge", "merger.merge(cut_rows, 0, 44, 1420)"),
        ):
            yield f"train-{what}/{name}", statement, make


def _tools(name: str) -> tuple[Tools, OpenSslAead]:
    key = os.urandom(32)
    if name == "interpreted":
        return INTERPRETED, OpenSslAead(key)
    from wgpy.turbo import TURBO, TurboCrypto

    return TURBO, TurboCrypto().aead(key)


def _globals(name: str) -> Globals:
    tools, aead = _tools(name)
    slab, segmenter, merger = tools.slab(), tools.segmenter(), tools.merger(udp=True)
    packet = super_packet(bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), SEGMENTS, MTU).whole
    whole = describe(packet[VNET_SIZE:], VNET.unpack(packet[:VNET_SIZE]))
    assert whole is not None
    buffer = bytearray(packet[VNET_SIZE:]) + bytes(2 * MTU)
    (cut,) = cuts(whole, SEGMENTS)
    rows = slab.rows(padded_size(whole.shape.length + whole.width, MTU) + 32)
    other = tools.slab()
    cut_rows = other.rows(rows.stride)
    segmenter.segment(cut_rows, buffer, 0, whole, cut)
    counter = itertools.count(0, SEGMENTS)

    def seal_and_open(train: Rows, size: int) -> None:
        first = next(counter)
        train.seal(aead, SEGMENTS, size, 7, first)
        train.ascending(0, SEGMENTS)
        train.open(aead, 0, SEGMENTS, size)

    found = {
        "aead": aead, "slab": slab, "segmenter": segmenter, "merger": merger, "whole": whole,
        "buffer": buffer, "cut": cut, "rows": rows, "cut_rows": cut_rows, "counter": counter,
        "small": slab.rows(64 + 32), "empty": slab.rows(32), "seal_and_open": seal_and_open,
    }  # fmt: skip
    assert merger.merge(cut_rows, 0, SEGMENTS, MTU)[0] == SEGMENTS
    return found

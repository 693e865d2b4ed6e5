"""The check before packets are handled: compile everything and compare the results.

Compiled code handles live traffic only after it gave the same results as the interpreted
code on this machine: packets gathered, super-packets cut and merged, trains sealed and
opened.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from wgpy.dataplane.interpreted import INTERPRETED
from wgpy.dataplane.offload import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    TCP,
    UDP,
    Shape,
    describe,
    pseudo_sum,
)
from wgpy.dataplane.offload_segment import cuts
from wgpy.dataplane.train_tools import Rows, Tools
from wgpy.protocol.constants import TRANSPORT_OVERHEAD
from wgpy.protocol.crypto.openssl import OpenSslAead
from wgpy.protocol.packet import padded_size
from wgpy.turbo.compiler import FOLDER, IS_KEPT, IS_NEW
from wgpy.turbo.train_tools import TURBO, TurboCrypto

_COUNTER = (1 << 40) - 3
_INDEX = 0xFEDCBA98
_WIDTH = 300
_START = 64


class TurboError(RuntimeError):
    """Compiled code must not be used; the text says why and what to do."""


def make_ready(say: Callable[[str], None]) -> None:
    """Compile what is not on disk yet and check it; raises `TurboError`.

    `say` is called with a message if this takes noticeably long.
    """
    if sys.byteorder != "little":
        raise TurboError("--turbo supports only little-endian machines: start without it")
    if not IS_KEPT:
        say(f"compiling the packet path at each start, because other users can write to {FOLDER}")
    elif IS_NEW:
        say("compiling the packet path for this processor, once (about half a minute)")
    key = os.urandom(32)
    for packet in _super_packets():
        if _pass(TURBO, TurboCrypto().aead(key), packet) != _pass(
            INTERPRETED, OpenSslAead(key), packet
        ):
            raise TurboError(
                f"compiled code gives wrong results on this machine: start without --turbo"
                f" (its cache is {FOLDER})"
            )


def _super_packets() -> Iterator[tuple[tuple[int, ...], bytes]]:
    """TCP and UDP over IPv4 and IPv6, each with a virtio header and a shorter last segment."""
    payload = os.urandom(20 * _WIDTH + 17)
    addresses = os.urandom(32)
    for version, kind in ((4, GSO_TCPV4), (6, GSO_TCPV6), (4, GSO_UDP_L4), (6, GSO_UDP_L4)):
        protocol = UDP if kind == GSO_UDP_L4 else TCP
        field = 6 if protocol == UDP else 16
        l4 = bytearray(os.urandom(8 if protocol == UDP else 20))
        size = len(l4) + len(payload)
        if protocol == TCP:
            l4[12:14] = b"\x50\x18"  # No options; ACK and PSH.
        if version == 4:
            ip = b"\x45\0" + (20 + size).to_bytes(2, "big") + b"\xff\xf8\x40\0\x40"
            ip += bytes((protocol, 0, 0)) + addresses[:8]
        else:
            ip = b"\x60\0\0\0" + size.to_bytes(2, "big") + bytes((protocol, 64)) + addresses
        shape = Shape(version, protocol, len(ip), len(ip) + len(l4))
        stated = (pseudo_sum(ip, shape) + size) % 65_535
        l4[field : field + 2] = stated.to_bytes(2, "big")
        yield (NEEDS_CSUM, kind, 0, _WIDTH, len(ip), field), ip + l4 + payload


def _pass(tools: Tools, aead: OpenSslAead, packet: tuple[tuple[int, ...], bytes]) -> list[bytes]:
    """Every result for one super-packet: sealed, opened (one is forged), merged."""
    vnet, data = packet
    slab, segmenter, merger = tools.slab(), tools.segmenter(), tools.merger(udp=True)
    whole = describe(data, vnet)
    if whole is None:
        raise TurboError("a packet of our own is not understood")
    buffer = bytearray(_START) + data + bytes(2 * _WIDTH)
    rows = slab.rows(padded_size(whole.shape.length + whole.width, 1420) + TRANSPORT_OVERHEAD)
    seen = []
    for cut in cuts(whole, 16):
        segmenter.segment(rows, buffer, _START, whole, cut)
        size = whole.shape.length + cut.last
        sealed = rows.seal(aead, cut.segments, size, _INDEX, _COUNTER)
        seen.append(bytes(sealed))
        slab.buffer[rows.stride + 40] ^= 1
        seen.append(bytes([rows.ascending(0, cut.segments)]))
        wrong = rows.open(aead, 0, cut.segments, size)
        seen.append(bytes(wrong))
        merged = merger.merge(rows, 2, cut.segments - 2, size)[1]
        seen += [bytes(merged or b""), *_plaintexts(rows, cut.segments, wrong, size)]
    rows = slab.rows(padded_size(_WIDTH - 1, _WIDTH) + TRANSPORT_OVERHEAD)
    checksum = whole.shape.l4, vnet[5]
    segmenter.gather(rows, buffer, _START, _WIDTH, 9, _WIDTH - 1, checksum)
    return [*seen, *map(bytes, rows.plaintexts[:9])]


def _plaintexts(rows: Rows, count: int, wrong: list[int], last: int) -> Iterator[bytes]:
    """The opened messages; the content of a forged one is undefined."""
    for index in set(range(count)) - set(wrong):
        yield bytes(rows.message(index, last if index == count - 1 else rows.plain)[0])


"""Merging: whatever comes out stands for exactly the packets that went in, in order."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dataplane import oracle
from tests.dataplane.oracle import ACK, CWR, FIN, PSH, SYN, URG, Packet
from tests.dataplane.strategies import packets
from tests.dataplane.toolbox import current, kit  # noqa: F401
from wgpy.dataplane.offload import VNET, VNET_SIZE
from wgpy.dataplane.offload_coalesce import examine


def run(datagrams: list[bytes], *, udp: bool = True) -> list[list[bytes]]:
    """Feed opened packets as one train; the packets of each TUN write, cut by the oracle.

    All packets but the last are padded to the first's size; the last may be shorter.
    """
    slab, merger = current().slab, current().mergers[udp]
    plain = max(len(p) for p in datagrams) + 15 & ~15
    rows = slab.rows(plain + 32)
    last = len(datagrams[-1]) + 15 & ~15
    for number, packet in enumerate(datagrams):
        size = plain if number < len(datagrams) - 1 else last
        rows.message(number, size)[0][:] = packet.ljust(size, b"\0")
    writes, at = [], 0
    while at < len(datagrams):
        used, merged = merger.merge(rows, at, len(datagrams) - at, last)
        assert used >= 1
        if merged is None:
            for index in range(at, at + used):
                view = rows.plaintexts[index]
                writes.append([bytes(view[: len(datagrams[index])])])
        else:
            vnet = VNET.unpack(bytes(merged[:VNET_SIZE]))
            writes.append(oracle.cut(vnet, bytes(merged[VNET_SIZE:])))
        at += used
    return writes


def flat(writes: list[list[bytes]]) -> list[bytes]:
    return [packet for write in writes for packet in write]


def train(whole: Packet, width: int) -> list[bytes]:
    return [piece.build() for piece in whole.segments(width)]


WHOLE = Packet(payload=bytes(range(250)) * 40, options=b"\1\1\x08\x0a" + bytes(8))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("width", [1000, 999, 1368, 37])
def test_segments_of_one_packet_become_one_write(
    version: int, protocol: int, width: int
) -> None:
    payload = WHOLE.payload[: width * 9 + 5]
    whole = replace(WHOLE, version=version, protocol=protocol, payload=payload)
    came = train(whole, width)
    assert run(came) == [came]


def test_udp_is_left_alone_where_the_device_takes_no_uso() -> None:
    came = train(replace(WHOLE, protocol=17), 1000)
    assert run(came, udp=False) == [[p] for p in came]


@pytest.mark.parametrize("flags", [ACK | FIN, ACK | PSH, ACK | FIN | PSH])
def test_the_end_of_a_super_packet_may_be_marked(flags: int) -> None:
    came = train(replace(WHOLE, flags=flags), 1000)
    assert run(came) == [came]


def test_two_super_packets_in_one_train_become_two_writes() -> None:
    first = train(replace(WHOLE, flags=ACK | PSH), 1000)
    second = train(replace(WHOLE, sequence=len(WHOLE.payload), identification=11), 1000)
    assert run(first + second) == [first, second]


def changed(index: int, **fields: object) -> list[bytes]:
    pieces = WHOLE.segments(1000)
    pieces[index] = replace(pieces[index], **fields)
    return [p.build() for p in pieces]


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": ACK | SYN},
        {"flags": ACK | URG},
        {"flags": ACK | CWR},
        {"flags": 0},
        {"sequence": 1},
        {"identification": 999},
        {"tos": 1},
        {"tos": 2},
        {"tos": 3},
        {"ttl": 63},
        {"fragment": 0},
        {"fragment": 0x6000},
        {"fragment": 0x4001},
        {"window": 501},
        {"ack": 8},
        {"urgent": 1},
        {"options": b"\1\1\x08\x0a" + bytes(7) + b"\1"},
        {"options": b"\1" * 12},
        {"options": b""},
        {"ports": (1234, 5202)},
        {"source": bytes([10, 0, 0, 9])},
        {"ip_options": b"\x94\4\0\0"},
        {"bad_l4": True},
        {"bad_ip": True},
        {"payload": b"x" * 999},
        {"payload": b""},
        {"protocol": 17},
        {"version": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("index", [0, 1, 5, 9])
def test_an_odd_segment_is_never_smoothed_over(index: int, fields: dict[str, object]) -> None:
    came = changed(index, **fields)
    writes = run(came)
    assert flat(writes) == came
    assert max(map(len, writes)) >= 4, "the others are still merged"
    assert max(map(len, writes)) < 10 or "payload" in fields


def test_constant_identification_goes_out_packet_by_packet() -> None:
    came = [replace(p, identification=0).build() for p in WHOLE.segments(1000)]
    assert run(came) == [[p] for p in came]


def test_flows_that_alternate_stay_in_order() -> None:
    one = train(WHOLE, 1000)
    two = train(replace(WHOLE, ports=(9, 9)), 1000)
    came = [p for pair in zip(one, two, strict=True) for p in pair]
    assert run(came) == [[p] for p in came]


def test_udp_without_a_checksum_stays_so() -> None:
    came = train(replace(WHOLE, protocol=17, udp_checksum=False), 1000)
    assert run(came) == [[p] for p in came]


def test_no_super_packet_beyond_what_ip_can_say() -> None:
    whole = replace(WHOLE, payload=os.urandom(65_000))
    pieces = train(whole, 1300) + train(replace(whole, sequence=65_000, identification=51), 1300)
    writes = run(pieces[:90])
    assert flat(writes) == pieces[:90]
    assert [len(w) for w in writes] == [50, 40]


@settings(max_examples=150)
@given(st.data())
def test_any_train_of_any_packets_comes_out_unchanged(data: st.DataObject) -> None:
    whole = data.draw(packets())
    width = data.draw(st.integers(max(1, len(whole.payload) // 12), 1400))
    pieces = whole.segments(width)
    for index in data.draw(st.lists(st.integers(0, len(pieces) - 1), max_size=3)):
        what = data.draw(st.sampled_from(("bad_l4", "bad_ip", "sequence", "flags", "swap", "cut")))
        if what == "swap":
            pieces[index], pieces[0] = pieces[0], pieces[index]
        elif what == "cut":
            pieces[index] = replace(pieces[index], payload=pieces[index].payload[:-1])
        else:
            value = {"sequence": 5, "flags": data.draw(st.integers(0, 255))}.get(what, True)
            pieces[index] = replace(pieces[index], **{what: value})
    came = [p.build() for p in pieces]
    assert flat(run(came)) == came


@given(st.lists(st.binary(min_size=16, max_size=80), min_size=1, max_size=6))
def test_garbage_inside_the_tunnel_is_never_merged(came: list[bytes]) -> None:
    assert run(came) == [[p] for p in came]


@given(st.binary(min_size=1, max_size=80))
def test_examine_reads_or_refuses_but_never_raises(data: bytes) -> None:
    found = examine(memoryview(data))
    if found is not None:
        assert found.shape.length + found.payload <= len(data)

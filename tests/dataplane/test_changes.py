"""What a running tunnel is told holds from the answer on, and no counter is used twice."""

from __future__ import annotations

import struct
from dataclasses import replace

from tests.dataplane.differential import AWAY, HOME, BothPaths, public
from tests.dataplane.oracle import Packet
from tests.dataplane.toolbox import kit  # noqa: F401
from wgpy.protocol.constants import NS
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

WHOLE = Packet(payload=bytes(range(250)) * 40)


def apply(both: BothPaths, change: PeerChange) -> None:
    for one in (both.batch, both.readable):
        one.apply(DeviceChange(peers=(change,)), now=both.now)


def arriving(both: BothPaths, packet: Packet) -> list[bytes]:
    both.remote.send([p.build() for p in packet.segments(1000)], now=both.now)
    return [bytes(d.data) for d in both.remote.pull_datagrams()]


def test_allowed_ips_that_were_taken_away() -> None:
    """Flows that were known in both directions."""
    both = BothPaths()
    assert len(both.read_from_tun([WHOLE.offloaded(1, 1000)])) == 10
    assert len(both.arrive([arriving(both, WHOLE)])) == 10
    other = (AllowedIp(Prefix.parse("172.16.0.0/12")),)
    apply(both, PeerChange(public("away"), allowed_ips=other, replace_allowed_ips=True))
    assert both.read_from_tun([WHOLE.offloaded(1, 1000)]) == []
    assert both.arrive([arriving(both, WHOLE)]) == []
    assert both.batch.drops == {DropReason.NO_PEER: 10, DropReason.SOURCE_NOT_ALLOWED: 10}


def test_a_peer_that_was_removed() -> None:
    both = BothPaths()
    assert len(both.read_from_tun([WHOLE.offloaded(1, 1000)])) == 10
    train = arriving(both, WHOLE)
    apply(both, PeerChange(public("away"), remove=True))
    assert both.read_from_tun([WHOLE.offloaded(1, 1000)]) == []
    assert both.arrive([train]) == []
    assert both.batch.drops == {DropReason.NO_PEER: 10, DropReason.UNKNOWN_INDEX: 10}


def rekey(both: BothPaths, initiator: bool) -> None:
    """New keys by a handshake that one side begins, and the time that it takes."""
    both.now += 6 * NS
    ours = (both.batch, both.readable)
    if initiator:
        for one in ours:
            assert one.rekey(now=both.now) == 1
    else:
        assert both.remote.rekey(now=both.now) == 1
    for _ in range(3):
        sent, same = (one.pull_datagrams() for one in ours)
        assert sent == same
        both.remote.receive([Datagram(d.data, HOME) for d in sent], now=both.now)
        replies = [Datagram(d.data, AWAY) for d in both.remote.pull_datagrams()]
        for one in ours:
            one.receive(replies, now=both.now)
            one.pull_packets()


def test_no_counter_is_used_twice_while_keys_change() -> None:
    """By super-packets, runs and lone packets, on the batch path and the readable one."""
    both = BothPaths()
    seen: list[tuple[int, int]] = []
    run = [replace(WHOLE, payload=b"x" * 64, identification=n).offloaded(0, 0) for n in range(9)]
    for number in range(6):
        for reads in ([WHOLE.offloaded(1, 1000)], run, [run[0]], [run[0], run[1]]):
            for datagram in both.read_from_tun(list(reads)):
                kind, index, counter = struct.unpack_from("<IIQ", datagram.data)
                assert kind == 4
                seen.append((index, counter))
        # Packets that wait for a session take the readable path, in the midst of the others.
        for one in (both.batch, both.readable):
            one.send([WHOLE.segments(1000)[0].build()], now=both.now)
        lone, same = (one.pull_datagrams() for one in (both.batch, both.readable))
        assert lone == same
        seen += [struct.unpack_from("<4xIQ", d.data) for d in lone]
        rekey(both, initiator=bool(number % 2))
    assert len(seen) == len(set(seen)) == 6 * (10 + 9 + 1 + 2 + 1)
    assert len({index for index, _ in seen}) == 6

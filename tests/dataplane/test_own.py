"""Self-encapsulation: a tunnel's own datagrams, led back into it, end there under a name.

Each case runs on the readable path and on the batch path with either set of tools, whose
books must agree.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.dataplane.differential import AWAY, START, BothPaths, engine, public
from tests.dataplane.oracle import Packet
from tests.dataplane.toolbox import kit  # noqa: F401
from wgpy.protocol.constants import DEFAULT_PARAMETERS, NS
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

PLAIN = (0, 0, 0, 0, 0, 0)
PING = Packet(protocol=17, payload=b"x" * 100)
ROAMED = Endpoint.parse("198.51.100.7:4000")


def sent(both: BothPaths, *packets: Packet) -> list[bytes]:
    """What leaves when the host sends packets."""
    return [bytes(d.data) for d in both.read_from_tun([(PLAIN, p.build()) for p in packets])]


def outer(data: bytes, to: Endpoint = AWAY, **changes) -> Packet:
    """The datagram as the host would route it."""
    version = 4 if len(to.ip) == 4 else 6
    made = Packet(
        version=version, protocol=17, payload=data, destination=to.ip, ports=(51820, to.port)
    )
    return replace(made, **changes)


def looping(both: BothPaths, *endpoints: Endpoint) -> BothPaths:
    """The peer's endpoints are within its allowed IPs."""
    allowed = tuple(AllowedIp(Prefix(e.ip, 8 * len(e.ip))) for e in endpoints or (AWAY,))
    change = PeerChange(public("away"), allowed_ips=allowed)
    for one in (both.batch, both.readable):
        one.apply(DeviceChange(peers=(change,)), now=both.now)
    return both


def own(both: BothPaths) -> int:
    return both.batch.drops.get(DropReason.OWN_DATAGRAM, 0)


def test_a_sealed_packet_does_not_go_around() -> None:
    both = looping(BothPaths())
    (data,) = sent(both, PING)
    for count in (1, 2, 3):
        assert sent(both, outer(data)) == []
        assert own(both) == count


def test_a_train_that_comes_back_as_a_super_packet() -> None:
    both = looping(BothPaths())
    run = sent(both, *[replace(PING, identification=n) for n in range(8)])
    packet = outer(b"".join(run))
    assert both.read_from_tun([packet.offloaded(5, len(run[0]))]) == []
    assert own(both) == 8


@pytest.mark.parametrize("family", [4, 6])
def test_wherever_the_peer_is_now(family: int) -> None:
    """A flow that was learnt as harmless is looked at again when the peer moves there."""
    there = ROAMED if family == 4 else Endpoint.parse("[2001:db8::99]:1")
    both = looping(BothPaths(), there)
    assert len(sent(both, outer(b"something else", there))) == 1
    both.remote.send([PING.build()], now=both.now)
    both.arrive([[bytes(d.data)] for d in both.remote.pull_datagrams()], there)
    (data,) = sent(both, PING)
    assert sent(both, outer(data, there)) == []
    assert own(both) == 1


def test_initiations_do_not_go_around() -> None:
    both = looping(BothPaths())
    both.now += 121 * NS
    data, initiation = sorted(sent(both, PING), reverse=True)
    assert (initiation[0], len(initiation)) == (1, 148)
    assert sent(both, outer(initiation)) == []
    assert sent(both, outer(data)) == []
    assert own(both) == 2


def test_responses_do_not_go_around() -> None:
    both = looping(BothPaths())
    both.now += 121 * NS
    both.remote.rekey(now=both.now)
    (initiation,) = (bytes(d.data) for d in both.remote.pull_datagrams())
    for one in (both.batch, both.readable):
        one.receive([Datagram(initiation, AWAY)], now=both.now)
    (response,), (same,) = (
        [bytes(d.data) for d in one.pull_datagrams()] for one in (both.readable, both.batch)
    )
    assert response == same and response[0] == 2
    assert sent(both, outer(response)) == []
    assert own(both) == 1


def test_of_a_datagram_in_fragments_the_first_ends_and_the_rest_is_one_packet() -> None:
    both = looping(BothPaths(), ROAMED)
    both.remote.send([PING.build()], now=both.now)
    both.arrive([[bytes(d.data)] for d in both.remote.pull_datagrams()], ROAMED)
    (data,) = sent(both, PING)
    whole = outer(data, ROAMED)
    assert sent(both, replace(whole, payload=data[:80], fragment=0x2000)) == []
    rest = whole.build()[20 + 88 :]
    header = replace(whole, payload=rest[8:], fragment=11).build()[:20]
    assert len(both.read_from_tun([(PLAIN, header + rest)])) == 1
    assert own(both) == 1


STRANGERS = {
    "another port": lambda data: outer(data, AWAY._replace(port=1)),
    "another address": lambda data: outer(data, AWAY._replace(ip=b"\xfd" + bytes(15))),
    "a counter that was not used yet": lambda data: outer(
        data[:8] + (1 << 40).to_bytes(8, "little") + data[16:]
    ),
    "another index": lambda data: outer(data[:4] + bytes(4) + data[8:]),
    "another's initiation": lambda _: outer(b"\1\0\0\0" + bytes(144)),
    "another's response": lambda _: outer(b"\2\0\0\0" + bytes(88)),
    "a cookie reply": lambda _: outer(b"\3\0\0\0" + bytes(60)),
    "too short": lambda data: outer(data[:15]),
    "not WireGuard": lambda _: outer(b"\0\1\0\0" + bytes(40)),
    "TCP": lambda data: outer(data, protocol=6),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_only_looks_like_it_passes(name: str) -> None:
    both = looping(BothPaths())
    (data,) = sent(both, PING)
    packet = STRANGERS[name](data)
    (sealed,) = sent(both, packet)
    both.remote.receive([Datagram(sealed, AWAY)], now=both.now)
    assert own(both) == 0


class Onion:
    """One device with sessions with two peers."""

    OUTER, INNER = Endpoint.parse("192.0.2.10:1"), Endpoint.parse("192.0.2.20:2")

    def __init__(self, *, outer_allowed: str, inner_allowed: str) -> None:
        self.now = START
        self.device = engine("home", "outer", self.OUTER, DEFAULT_PARAMETERS, 1420)
        for name, endpoint, allowed in (
            ("outer", self.OUTER, outer_allowed),
            ("inner", self.INNER, inner_allowed),
        ):
            ips = tuple(AllowedIp(Prefix.parse(text)) for text in allowed.split())
            change = PeerChange(
                public(name), endpoint=endpoint, allowed_ips=ips, replace_allowed_ips=True
            )
            self.device.apply(DeviceChange(peers=(change,)), now=self.now)
            self._shake_hands(name, endpoint)

    def _shake_hands(self, name: str, endpoint: Endpoint) -> None:
        """The peer begins."""
        other = engine(name, "home", AWAY, DEFAULT_PARAMETERS, 1420)
        other.send([PING.build()], now=self.now)
        for _ in range(2):
            made = [Datagram(d.data, endpoint) for d in other.pull_datagrams()]
            self.device.receive(made, now=self.now)
            answers = [Datagram(d.data, AWAY) for d in self.device.pull_datagrams()]
            other.receive(answers, now=self.now)
        self.device.pull_packets()
        self.device.device.drops.clear()
        assert self.device.device.peers[public(name)].current is not None

    def route(self, packet: bytes) -> list[Datagram]:
        """The host sends a packet, and then each datagram that is routed back; at most 50."""
        rounds = [Datagram(packet, AWAY)]
        for _ in range(50):
            self.device.send([bytes(rounds[-1].data)], now=self.now)
            made = self.device.pull_datagrams()
            if not made:
                return rounds[1:]
            (datagram,) = made
            inside = outer(datagram.data, datagram.endpoint).build()
            rounds.append(Datagram(inside, datagram.endpoint))
            if self.device.device.allowed_ips.lookup(datagram.endpoint.ip) is None:
                return rounds[1:]
        raise AssertionError("it goes around for ever")


def test_a_datagram_inside_of_another_peers_tunnel_passes() -> None:
    """Onion routing: the inner peer's endpoint is behind the outer peer."""
    onion = Onion(outer_allowed="192.0.2.20/32", inner_allowed="10.0.0.0/24")
    ends = [d.endpoint for d in onion.route(PING.build())]
    assert ends == [onion.INNER, onion.OUTER]
    assert not onion.device.drops


def test_a_peer_for_everything_may_carry_the_others() -> None:
    """The first datagram that must leave outside of all tunnels is known by coming back."""
    onion = Onion(outer_allowed="0.0.0.0/0", inner_allowed="10.0.0.0/24")
    ends = [d.endpoint for d in onion.route(PING.build())]
    assert ends == [onion.INNER, onion.OUTER]
    assert onion.device.drops == {DropReason.OWN_DATAGRAM: 1}


def test_two_peers_that_carry_each_other_are_a_circle() -> None:
    onion = Onion(outer_allowed="192.0.2.20/32", inner_allowed="10.0.0.0/24 192.0.2.10/32")
    ends = [d.endpoint for d in onion.route(PING.build())]
    assert ends == [onion.INNER]
    assert onion.device.drops == {DropReason.OWN_DATAGRAM: 1}

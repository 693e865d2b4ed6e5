"""G. Cryptokey routing (§2, §3)."""

from __future__ import annotations

from wgspec.case import case
from wgspec.lab import Lab
from wgspec.peer import Peer, Session
from wgspec.target import Capability, PeerConfig
from wgspec.wire import INITIATION

IN, OUT, CONFIGURE = Capability.INNER_IN, Capability.INNER_OUT, Capability.CONFIGURE


async def ready(lab: Lab, *allowed: str) -> tuple[Peer, Session]:
    """A peer with these allowed IPs, with a session the target uses."""
    peer = await lab.peer(allowed=allowed)
    session = await peer.handshake()
    await peer.lab.advance(lab.quiet() / 2)
    return peer, session


async def routed(to: str, right: tuple[Peer, Session], *others: Peer) -> None:
    """A packet to `to` must come out at `right` and at no other."""
    peer, session = right
    packet = peer.outbound(to=to, family=6 if ":" in to else 4)
    await peer.lab.inner_send(packet)
    _, plaintext = await peer.expect_data(session)
    peer.is_packet(plaintext, packet)
    for other in others:
        await other.silence(f"{to} is not routed here", 0.05)


@case(
    "R-87",
    level="M",
    cost="q",
    paper="2",
    text="Outbound packets go to the peer with the longest matching prefix; a prefix that is given "
    "to a second peer moves to it.",
    needs=[OUT, CONFIGURE],
)
async def longest_prefix(lab: Lab) -> None:
    wide = await ready(lab, "10.87.0.0/16", "fd87::/32")
    narrow = await ready(lab, "10.87.5.0/24", "10.87.5.128/32", "fd87:0:5::/48")
    await routed("10.87.5.1", narrow, wide[0])
    await routed("10.87.6.1", wide, narrow[0])
    await routed("fd87:0:5::1", narrow, wide[0])
    await routed("fd87:0:6::1", wide, narrow[0])
    await lab.configure(
        PeerConfig(wide[0].public, allowed_ips=("10.87.5.0/24",), add_allowed_ips=True)
    )
    await routed("10.87.5.1", wide, narrow[0])
    await routed("10.87.5.128", narrow, wide[0])


async def refused_source(lab: Lab, mine: tuple[Peer, Session], source: str, why: str) -> None:
    peer, session = mine
    packet = peer.inbound(source=source, family=6 if ":" in source else 4)
    peer.send(peer.seal_packet(session, packet.packet))
    await lab.not_delivered([packet], why)


@case(
    "R-88",
    level="M",
    cost="q",
    paper="3",
    text="An inbound packet whose source is not among the peer's allowed IPs, or is another "
    "peer's, is dropped.",
    needs=[IN, CONFIGURE],
)
async def source_not_allowed(lab: Lab) -> None:
    mine = await ready(lab, "10.88.1.0/24", "fd88:1::/32")
    await ready(lab, "10.88.2.0/24", "fd88:2::/32")
    peer, session = mine
    await peer.delivers(session, peer.inbound(source="10.88.1.9"))
    await peer.delivers(session, peer.inbound(source="fd88:1::9", family=6))
    for source, why in (
        ("10.88.3.9", "nobody's address"),
        ("10.88.2.9", "another peer's address"),
        ("fd88:3::9", "nobody's address"),
        ("fd88:2::9", "another peer's address"),
    ):
        await refused_source(lab, mine, source, why)
    # Inside a burst, which a target may take as one batch.
    sources = [f"10.88.{1 + i % 3}.{i}" for i in range(1, 31)]
    packets = [peer.inbound(source=source) for source in sources]
    peer.port.train([peer.seal_packet(session, p.packet) for p in packets])
    for packet, source in zip(packets, sources, strict=True):
        if source.startswith("10.88.1."):
            await lab.delivered(packet)
    wrong = [p for p, s in zip(packets, sources, strict=True) if not s.startswith("10.88.1.")]
    await lab.not_delivered(wrong, "another source in a burst")
    await peer.delivers(session, peer.inbound(source="10.88.1.9"))
    await lab.configure(PeerConfig(peer.public, allowed_ips=("10.88.4.0/24",)))
    await refused_source(lab, mine, "10.88.1.9", "it was allowed until now")
    await peer.delivers(session, peer.inbound(source="10.88.4.9"))


@case(
    "R-89",
    level="M",
    cost="q",
    paper="3",
    text="An inbound source inside the peer's range that a longer prefix gives to another peer is "
    "dropped: the lookup is over all peers.",
    known={"GT": "fixed in 0.7.2", "B": "checks the peer's own list only"},
    needs=[IN, CONFIGURE],
)
async def source_of_another(lab: Lab) -> None:
    wide = await ready(lab, "10.89.0.0/16", "fd89::/32")
    narrow = await ready(lab, "10.89.5.0/24", "fd89:0:5::/48")
    await refused_source(lab, wide, "10.89.5.7", "a longer prefix is another peer's")
    await refused_source(lab, wide, "fd89:0:5::7", "a longer prefix is another peer's")
    await wide[0].delivers(wide[1], wide[0].inbound(source="10.89.6.7"))
    await narrow[0].delivers(narrow[1], narrow[0].inbound(source="10.89.5.7"))
    await refused_source(lab, wide, "10.89.5.7", "it was just accepted of another peer")


@case(
    "R-90",
    level="M",
    cost="q",
    paper="3",
    text="A packet that matches no peer is not sent.",
    known={"K": "answers ICMP unreachable inside", "G": "drops"},
    needs=[OUT],
    fresh=True,
)
async def no_peer(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    session = await peer.session_by_target()
    strays = [peer.outbound(to="10.90.0.1"), peer.outbound(to="fd90::1", family=6)]
    await lab.inner_send(*strays)
    await peer.silence("no peer has the address")
    await peer.receives(session)


@case(
    "R-91",
    level="M",
    cost="q",
    paper="2.1",
    text="To a peer without an endpoint nothing is sent; the first authenticated packet teaches "
    "the endpoint.",
    needs=[OUT, CONFIGURE],
)
async def no_endpoint(lab: Lab) -> None:
    peer = await lab.peer()
    await peer.provoke()
    await peer.silence("no endpoint is known", max(0.5, lab.quiet()))
    session = await peer.handshake(allow={INITIATION})
    packet = await peer.provoke()
    for _ in range(4):  # the queue may come first
        _, plaintext = await peer.expect_data(session, allow={INITIATION})
        if packet.token in plaintext:
            return
    peer.is_packet(plaintext, packet)


@case(
    "R-92",
    level="D",
    cost="q",
    paper="2",
    text="Prefixes of every kind work both ways: /0, /32 and /128, IPv4 inside IPv6 and the other "
    "way round; allowed IPs change while running, one by one with the `-` form too.",
    known={"G22": "has no `-` form, which dates from 2025"},
    needs=[IN, OUT, CONFIGURE, Capability.IPV6],
    fresh=True,
)
async def prefixes(lab: Lab) -> None:
    rest = await ready(lab, "0.0.0.0/0", "::/0")
    one = await lab.peer(family=6, allowed=("10.92.0.1/32", "fd92::1/128"))
    session = await one.handshake()
    await lab.advance(lab.quiet() / 2)
    both = (one, session)
    await routed("10.92.0.1", both, rest[0])
    await routed("fd92::1", both, rest[0])
    await routed("10.92.0.2", rest, one)
    await routed("fd92::2", rest, one)
    await rest[0].delivers(rest[1], rest[0].inbound(source="192.0.2.7"))
    await one.delivers(session, one.inbound(source="10.92.0.1"))
    await lab.configure(PeerConfig(one.public, allowed_ips=("10.92.0.3/32", "10.92.0.4/32")))
    await routed("10.92.0.1", rest, one)
    await routed("10.92.0.3", both, rest[0])
    minus = PeerConfig(one.public, allowed_ips=("-10.92.0.3/32",), add_allowed_ips=True)
    await lab.configure(minus)
    await routed("10.92.0.3", rest, one)
    await routed("10.92.0.4", both, rest[0])

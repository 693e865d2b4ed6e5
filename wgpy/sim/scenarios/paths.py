"""Scenarios about the path: loss, reordering, addresses that change, translators."""

from __future__ import annotations

from dataclasses import replace

from wgpy.protocol.constants import MS, NS
from wgpy.protocol.endpoint import Endpoint
from wgpy.sim.link import Fate
from wgpy.sim.scenario import Run, scenario


@scenario("loss", "A fifth of all datagrams is lost; the handshake repeats until it works", "§6.4")
def loss(run: Run) -> None:
    """A ping each second for a minute."""
    alice, bob = run.pair(replace(run.link, loss=run.link.loss or 0.2))
    run.ping_every(NS, 60, alice, bob)
    run.world.run_for(65 * NS)
    lost = run.world.network.fates[Fate.LOST]
    run.check("the network did lose datagrams", lost > 0, lost)
    run.check(
        "both sides have a session",
        {e.node for e in run.entries("SessionEstablished")} == {"alice", "bob"},
        run.times("SessionEstablished"),
    )
    for node in (alice, bob):
        gaps = run.gaps("initiation", node)
        run.check(
            f"{node.name}'s initiations keep Rekey-Timeout apart",
            all(gap * NS >= run.parameters.rekey_timeout for gap in gaps),
            [f"{gap:.2f} s" for gap in gaps],
        )
    share = len(alice.answered)
    run.check("about two thirds of the pings come back", 25 <= share <= 60, f"{share}/60")


@scenario("reorder", "Duplicates and late packets: each is delivered once", "§5.4.6")
def reorder(run: Run) -> None:
    """Two hundred pings over a path that shuffles and repeats."""
    alice, bob = run.pair(replace(run.link, reorder=0.3, reorder_delay=45 * MS, duplicate=0.3))
    alice.ping(bob, 0)
    run.world.run_for(6 * NS)
    before = bob.received
    run.ping_every(10 * MS, 200, alice, bob)
    run.world.run_for(10 * NS)
    got = bob.received - before
    run.check("every packet arrived exactly once", got == 200, f"{got} of 200")
    replayed = len(run.entries("REPLAYED", bob))
    run.check("the replay window refused the copies", replayed > 20, replayed)


@scenario("blackhole", "Nobody answers: attempts for 90 s, then silence", "§6.1, §6.4")
def blackhole(run: Run) -> None:
    """Bob's wire is cut before Alice says anything."""
    alice, bob = run.pair()
    assert bob.access is not None
    bob.access.downlink.cut = True
    for number in range(3):
        alice.ping(bob, number)
    run.world.run_for(300 * NS)
    starts = run.times("initiation", alice)
    gaps = run.gaps("initiation", alice)
    low = run.parameters.rekey_timeout / NS
    high = (run.parameters.rekey_timeout + run.parameters.rekey_timeout_jitter) / NS
    run.check(
        "the attempts are Rekey-Timeout and a random bit apart",
        all(low <= gap <= high + 0.001 for gap in gaps) and len({*gaps}) > len(gaps) // 2,
        f"{min(gaps):.3f} to {max(gaps):.3f} s, {len(starts)} attempts",
    )
    gave_up = run.times("HandshakeGaveUp", alice)
    limit = run.parameters.rekey_attempt_time / NS
    run.check(
        "they end at Rekey-Attempt-Time",
        len(gave_up) == 1 and limit <= gave_up[0] <= limit + high,
        gave_up,
    )
    dropped = len(run.entries("HANDSHAKE_GAVE_UP", alice))
    run.check("the packets that waited are dropped under that name", dropped == 3, dropped)
    late = [at for at in starts if gave_up and at > gave_up[0]]
    run.check("then silence", not late, len(late))


@scenario("roam", "Alice moves; Bob follows her with the first authentic packet", "§2.1")
def roam(run: Run) -> None:
    """A ping each second while Alice changes her address twice."""
    alice, bob = run.pair()
    run.ping_every(NS, 30, alice, bob)
    places = [Endpoint(bytes([203, 0, 113, 9]), 4000), Endpoint(bytes(15) + b"\7", 7)]
    for number, place in enumerate(places):
        run.world.at(10 * NS * (number + 1) + NS // 2, lambda p=place: alice.move(p))  # type: ignore[misc]
    run.world.run_for(32 * NS)
    moved = [str(e.details["new"]) for e in run.entries("EndpointMoved", bob)]
    run.check("Bob follows", moved == [str(place) for place in places], moved)
    run.check("no ping is lost", len(alice.answered) == 30, f"{len(alice.answered)}/30")
    run.check("no handshake was needed", len(run.times("initiation")) == 1, 1)


@scenario("nat", "A translator forgets; a persistent keepalive keeps it from it", "§2.1, §6.5")
def nat(run: Run) -> None:
    """Alice and Carol sit behind translators that forget after 30 s; only Carol keeps hers open."""
    world = run.world
    bob = world.add("bob", link=run.link)
    alice = world.add("alice", link=run.link, nat=world.nat("home", timeout=30 * NS))
    carol = world.add("carol", link=run.link, nat=world.nat("office", timeout=30 * NS))
    for inside in (alice, carol):
        world.join(inside, bob, b_knows_a=False)
        inside.ping(bob, 1)
    world.keepalive(carol, bob, 25)
    world.run_for(100 * NS)
    bob.ping(alice, 2)
    bob.ping(carol, 3)
    world.run_for(2 * NS)
    blocked = run.world.network.fates[Fate.NO_NAT_MAPPING]
    run.check(
        "Alice's translator has forgotten her", 2 not in bob.answered and blocked > 0, blocked
    )
    run.check("Carol can be reached", 3 in bob.answered, sorted(bob.answered))
    alice.ping(bob, 4)
    world.run_for(8 * NS)
    ports = [str(e.details["new"]) for e in run.entries("EndpointMoved", bob)]
    run.check("Alice comes back from another port: Bob sees her roam", 4 in alice.answered, ports)


@scenario("simultaneous", "Both begin at the same moment: one working tunnel", "§6.3")
def simultaneous(run: Run) -> None:
    """Two pings cross, and so do two initiations."""
    alice, bob = run.pair()
    alice.ping(bob, 1)
    bob.ping(alice, 2)
    run.world.run_for(11 * NS)
    sent = run.times("initiation")
    run.check("two initiations crossed", len(sent) >= 2 and sent[0] == sent[1], sent)
    both = 1 in alice.answered and 2 in bob.answered
    run.check("both pings were answered", both, {**alice.answered, **bob.answered})
    run.ping_every(NS, 5, alice, bob)
    run.world.run_for(7 * NS)
    run.check("and the tunnel goes on", len(alice.answered) >= 5, sorted(alice.answered))


@scenario("mtu", "Full packets fit the outer MTU exactly; larger ones never get there", "§5.4.6")
def mtu(run: Run) -> None:
    """The outer link takes 1480 bytes: IPv4 20, UDP 8, WireGuard 32, so 1420 inside."""
    link = replace(run.link, mtu=1480)
    alice = run.world.add("alice", link=link)
    bob = run.world.add("bob", link=link)
    run.world.join(alice, bob)
    headers = 28
    alice.ping(bob, 1, size=1420 - headers)
    run.world.run_for(NS)
    run.check("1420 bytes pass, with no byte of padding too many", 1 in alice.answered, "answered")
    alice.ping(bob, 2, size=1421 - headers)
    run.world.run_for(NS)
    too_big = run.world.network.fates[Fate.TOO_BIG]
    run.check("1421 bytes do not", 2 not in alice.answered and too_big > 0, too_big)

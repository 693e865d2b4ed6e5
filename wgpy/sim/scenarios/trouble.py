"""Scenarios about load, wrong keys, wrong clocks, and very many nodes."""

from __future__ import annotations

from dataclasses import replace

from wgpy.protocol.constants import NS
from wgpy.protocol.keys import PresharedKey
from wgpy.protocol.settings import PeerChange
from wgpy.sim.scenario import Run, scenario


@scenario("cookie", "Under load Bob asks for proof of address first", "§5.3, §5.4.7, §6.6")
def cookie(run: Run) -> None:
    """Bob is always under load: a backlog of nothing is too much for him."""
    loaded = replace(run.parameters, under_load_backlog=0)
    alice = run.world.add("alice", link=run.link)
    bob = run.world.add("bob", link=run.link, parameters=loaded)
    run.world.join(alice, bob)
    alice.ping(bob, 1)
    run.world.run_for(8 * NS)
    sent = run.entries("initiation", alice)
    replies = run.entries("cookie-reply", bob)
    run.check("Bob answers the first initiation with a cookie", len(replies) == 1, len(replies))
    gap = sent[1].at - sent[0].at if len(sent) > 1 else 0
    run.check(
        "Alice does not hurry: she waits for Rekey-Timeout",
        len(sent) == 2 and gap >= run.parameters.rekey_timeout,
        f"{gap / NS:.2f} s",
    )
    proofs = [entry.details["mac2"] for entry in sent]
    run.check("her second initiation carries mac2", proofs == [False, True], proofs)
    run.check("and is served", 1 in alice.answered, sorted(alice.answered))


@scenario("wrong-psk", "One bit of the preshared key differs: no session", "§5.2")
def wrong_psk(run: Run) -> None:
    """Everything else is right."""
    alice, bob = run.pair()
    alice.change(PeerChange(bob.public_key, preshared_key=PresharedKey(bytes([1] * 32))))
    bob.change(PeerChange(alice.public_key, preshared_key=PresharedKey(bytes([2] * 32))))
    alice.ping(bob, 1)
    run.world.run_for(12 * NS)
    run.check(
        "Bob answers: the preshared key comes in last",
        len(run.entries("response", bob)) > 1,
        len(run.entries("response", bob)),
    )
    refused = len(run.entries("RESPONSE_INVALID", alice))
    run.check("Alice refuses each response", refused == len(run.entries("response", bob)), refused)
    established = len(run.entries("SessionEstablished"))
    run.check("nobody has a session", established == 0, established)


@scenario("clock", "A wall clock that jumps back an hour does no harm", "§5.1")
def clock(run: Run) -> None:
    """Timestamps only have to grow: they go on from the greatest one given out."""
    alice, bob = run.pair()
    alice.ping(bob, 1)
    run.world.run_for(NS)
    run.world.step_wall_clock(alice, -3600 * NS)
    run.world.run_for(run.parameters.reject_after_time)
    alice.ping(bob, 2)
    run.world.run_for(NS)
    refused = len(run.entries("TIMESTAMP_REPLAYED"))
    run.check("Bob refuses no timestamp", refused == 0, refused)
    run.check("the new handshake works", 2 in alice.answered, sorted(alice.answered))


@scenario("collision", "Two engines with one identity take the peer from each other", "§2.1, §5.1")
def collision(run: Run) -> None:
    """A laptop and its clone use the same private key, from two places."""
    world = run.world
    bob = world.add("bob", link=run.link)
    alice = world.add("alice", link=run.link)
    clone = world.add("clone", link=run.link, inner=alice.inner)
    clone.change(private_key=alice.private_key)
    clone.public_key = alice.public_key
    world.join(alice, bob)
    world.join(clone, bob, b_knows_a=False)
    alice.ping(bob, 1)
    world.run_for(NS)
    clone.ping(bob, 2)
    world.run_for(NS)
    run.check("the clone is served", 2 in clone.answered, sorted(clone.answered))
    bob.ping(alice, 3)
    world.run_for(NS)
    where = [str(e.details["new"]) for e in run.entries("EndpointMoved", bob)]
    run.check("Bob now talks to the clone alone", 3 in bob.answered, where)
    run.check("Alice hears nothing", alice.received == 1, alice.received)


@scenario("swarm", "Two thousand nodes in a ring, all at once", "scale", traced=False)
def swarm(run: Run) -> None:
    """Every node pings its neighbour; no time-line is kept."""
    nodes = [run.world.add(f"n{number}", link=run.link) for number in range(2000)]
    for number, node in enumerate(nodes):
        run.world.join(node, nodes[(number + 1) % len(nodes)])
    for number, node in enumerate(nodes):
        node.ping(nodes[(number + 1) % len(nodes)], 1)
    run.world.run_for(20 * NS)
    answered = sum(1 in node.answered for node in nodes)
    run.check("every ping was answered", answered == len(nodes), f"{answered} of {len(nodes)}")

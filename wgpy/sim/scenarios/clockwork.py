"""Scenarios about time (§6): what happens when, if nothing goes wrong on the way."""

from __future__ import annotations

from itertools import pairwise

from wgpy.protocol.constants import MS, NS
from wgpy.sim.scenario import Run, scenario


@scenario("handshake", "One round trip, and the packet that waited goes out", "§5.4, §6.4")
def handshake(run: Run) -> None:
    """Alice pings Bob; nobody has keys."""
    alice, bob = run.pair()
    alice.ping(bob, 1)
    run.world.run_for(2 * NS)
    initiations, responses = run.entries("initiation"), run.entries("response")
    sizes = [entry.details["size"] for entry in initiations + responses]
    run.check("one initiation of 148 and one response of 92 bytes", sizes == [148, 92], sizes)
    run.check(
        "both sides have a session",
        len(run.entries("SessionEstablished")) == 2,
        len(run.entries("SessionEstablished")),
    )
    took = alice.answered.get(1)
    limit = 5 * (run.link.delay + run.link.jitter)
    run.check(
        "the ping was answered after two round trips",
        took is not None and took < limit,
        "never" if took is None else f"{took / MS:.1f} ms",
    )


@scenario("idle", "Silence means silence: one keepalive, then nothing", "§6.5")
def idle(run: Run) -> None:
    """One ping and its answer, then nobody says anything."""
    alice, bob = run.pair()
    alice.ping(bob, 1)
    run.world.run_for(70 * NS)
    answered = alice.answered[1]
    keepalives = run.entries("keepalive", alice)
    expected = answered + run.parameters.keepalive_timeout
    run.check(
        "Keepalive-Timeout after Bob's answer, Alice shows that she lives",
        [entry.at for entry in keepalives] == [expected],
        [f"{entry.at / NS:.2f} s" for entry in keepalives],
    )
    late = run.datagrams_between(expected + 1, 70 * NS)
    run.check("after that not one datagram", late == 0, late)


@scenario("persistent-keepalive", "A keepalive each 25 s, postponed by traffic", "not in the paper")
def persistent_keepalive(run: Run) -> None:
    """Alice keeps a hole open through something stateful."""
    alice, bob = run.pair()
    run.world.keepalive(alice, bob, 25)
    run.world.run_for(80 * NS)
    first = run.times("keepalive", alice)[:1]
    run.check("the first leaves at once, with the handshake", bool(first) and first[0] < 1, first)
    due = _persistent(run)
    gaps = [round(later - earlier, 3) for earlier, later in pairwise(due)]
    run.check("then one each 25 s", all(25 <= gap < 26 for gap in gaps) and len(due) == 3, due)
    run.ping_every(5 * NS, 8, alice, bob)
    run.world.run_for(40 * NS)
    more = len(_persistent(run)) - len(due)
    run.check("none is due while there is other traffic", more == 0, more)


def _persistent(run: Run) -> list[float]:
    return [e.at / NS for e in run.entries("deadline") if "persistent" in e.text]


@scenario("rekey", "New keys after 120 s, and no packet notices", "§6.2, §6.3")
def rekey(run: Run) -> None:
    """A ping each second, for as long as two sessions last."""
    alice, bob = run.pair()
    period = run.parameters.rekey_after_time
    count = 5 * period // (2 * NS)
    run.ping_every(NS, count, alice, bob)
    run.world.run_for((count + 2) * NS)
    starts = run.times("initiation", alice)
    gaps = run.gaps("initiation", alice)
    limit = period / NS
    run.check(
        "the initiator begins anew at the first packet after Rekey-After-Time",
        len(gaps) == 2 and all(limit <= gap <= limit + 1.1 for gap in gaps),
        [f"{at:.2f} s" for at in starts],
    )
    run.check("the responder never does", not run.times("initiation", bob), 0)
    run.check(
        "every ping was answered", len(alice.answered) == count, f"{len(alice.answered)}/{count}"
    )


@scenario("late-rekey", "Who only receives renews keys that are 165 s old", "§6.2")
def late_rekey(run: Run) -> None:
    """Alice initiated, long ago; only Bob has something to say.

    Between 120 and 165 s it would be Alice's own passive keepalive that renews the keys:
    it is a transport message, and she is the initiator.
    """
    alice, bob = run.pair()
    alice.echo = bob.echo = False
    alice.ping(bob, 1)
    run.world.run_for(NS)
    born = run.entries("SessionEstablished", alice)[0].at
    age = run.parameters.receive_rekey_time
    run.world.run_until(born + age - NS)
    bob.ping(alice, 2)
    run.world.run_for(NS // 2)
    early = len(run.times("initiation", alice))
    run.check("a packet a second before changes nothing yet", early == 1, early)
    run.world.run_until(born + age)
    bob.ping(alice, 3)
    bob.ping(alice, 4)
    run.world.run_for(NS)
    starts = run.times("initiation", alice)
    run.check(
        "the first packet that finds her keys that old makes Alice initiate, once",
        len(starts) == 2 and starts[1] * NS >= born + age,
        [f"{at:.2f} s" for at in starts],
    )
    run.check("nothing was lost", alice.received == 3, f"{alice.received} of 3")


@scenario("reject", "Keys older than 180 s neither send nor receive", "§6.2")
def reject(run: Run) -> None:
    """A packet that is on its way when the keys expire, and one after that."""
    alice, bob = run.pair()
    alice.echo = bob.echo = False
    alice.ping(bob, 1)
    run.world.run_for(NS)
    age = run.parameters.reject_after_time
    born = run.entries("ResponseSent", bob)[0].at
    # Alice's keys are half a round trip younger than Bob's: her last packet finds his gone.
    run.world.run_until(born + age - run.link.delay // 2)
    alice.ping(bob, 2)
    run.world.run_until(born + age + run.link.delay)
    expired = run.entries("SESSION_EXPIRED", bob)
    run.check("Bob refuses a packet under expired keys", len(expired) == 1, len(expired))
    delivered = bob.received
    run.check("and does not deliver it", delivered == 1, f"{delivered} delivered")
    run.world.run_for(20 * NS)
    before = len(run.entries("data", bob))
    bob.ping(alice, 3)
    run.world.run_for(NS)
    got = [e.at for e in run.entries("delivered", alice)]
    run.check(
        "Bob's next packet waits for new keys and arrives",
        len(got) == 1 and len(run.entries("data", bob)) == before + 1,
        got,
    )


@scenario("zeroing", "After 540 s nothing of the old keys is left", "§6.3")
def zeroing(run: Run) -> None:
    """One ping, then nothing, for a long time."""
    alice, bob = run.pair()
    alice.ping(bob, 1)
    run.world.run_for(run.parameters.zero_after_time + NS)
    erased = run.times("KeysErased")
    limit = run.parameters.zero_after_time / NS
    run.check(
        "both sides erase all key material after 3 × Reject-After-Time",
        len(erased) == 2 and all(limit <= at <= limit + 1 for at in erased),
        [f"{at:.2f} s" for at in erased],
    )
    left = len(alice.engine.device.indices) + len(bob.engine.device.indices)
    run.check("no receiver index means anything any more", left == 0, left)
    bob.ping(alice, 2)
    run.world.run_for(NS)
    run.check("a later packet simply makes new keys", 2 in bob.answered, sorted(bob.answered))

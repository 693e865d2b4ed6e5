"""The machine reaches what it is there to judge: a seeded walk meets every kind of event.

A property test whose runs never establish a session would pass for the wrong reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from tests.state.machine import ADMINISTRATION, Pair
from wgpy.protocol.constants import MS, NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint

WALKS = 60
STEPS = 120

MET = {
    DropReason.LENGTH_INVALID, DropReason.TYPE_UNKNOWN, DropReason.MAC1_INVALID,
    DropReason.MAC2_REQUIRED, DropReason.RATE_LIMITED, DropReason.UNKNOWN_INITIATOR,
    DropReason.TIMESTAMP_REPLAYED, DropReason.UNKNOWN_INDEX, DropReason.RESPONSE_INVALID,
    DropReason.COOKIE_UNEXPECTED, DropReason.COOKIE_INVALID, DropReason.SESSION_EXPIRED,
    DropReason.TAG_INVALID, DropReason.REPLAYED, DropReason.COUNTER_TOO_OLD,
    DropReason.SOURCE_NOT_ALLOWED, DropReason.NO_PEER, DropReason.QUEUE_FULL,
    DropReason.HANDSHAKE_GAVE_UP, DropReason.PEER_REMOVED, DropReason.DEVICE_DOWN,
}  # fmt: skip


def walk(seed: int) -> Pair:
    """Mostly traffic, now and then something else."""
    random = Random(seed)
    pair = Pair(seed, batched=(seed % 3 == 0, seed % 6 == 0))
    for _ in range(STEPS):
        side = random.choice(pair.sides)
        roll = random.random()
        if roll < 0.25:
            count = random.choice([1, 1, 1, 2, 12])
            pair.send(side, spoof=random.random() < 0.1, count=count)
        elif roll < 0.65 and pair.flying:
            strange_delivery(pair, random)
        elif roll < 0.75 and pair.flying:
            pair.arrive(*[pair.flying.pop(0) for _ in pair.flying[:6]])
        elif roll < 0.9:
            pair.advance(random.choice([MS, NS, 5 * NS, 15 * NS, 121 * NS, 181 * NS]))
        elif roll < 0.97:
            if pair.history:
                old = pair.history[-random.randint(1, 30) :][: random.choice([1, 1, 12])]
                thief = random.choice([None, Endpoint(bytes(4), 1)])
                pair.arrive(*[replace(f, source=thief or f.source) for f in old])
        else:
            pair.administer(side, random.choice(ADMINISTRATION))
    return pair


def strange_delivery(pair: Pair, random: Random) -> None:
    """Deliver something, rarely as it was."""
    roll = random.random()
    flight = pair.flying.pop(random.randrange(len(pair.flying)) if roll < 0.2 else 0)
    data = bytearray(flight.data)
    if roll > 0.95:
        pair.flying.append(flight)
    if 0.9 < roll < 0.95:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    if 0.88 < roll < 0.9:
        del data[random.randrange(len(data)) :]
    pair.arrive(replace(flight, data=bytes(data)))


def test_a_walk_meets_everything() -> None:
    drops: Counter[DropReason] = Counter()
    delivered = 0
    for seed in range(WALKS):
        pair = walk(seed)
        for side in pair.sides:
            drops.update(side.engine.drops)
            delivered += len(side.delivered)
        pair.heal()
    assert set(drops) >= MET, f"never met: {MET - set(drops)}"
    assert delivered > 2 * WALKS

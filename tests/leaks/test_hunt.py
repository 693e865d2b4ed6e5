"""A bounded part of the hunt, and what shows that it would find something.

`make leak-hunt` goes on for an hour with seeds that nobody has tried.
"""

from __future__ import annotations

import functools
import random
import struct

import pytest

from testbed.topology import parse_topology
from tests.leaks.hunt import describe, hunt, life_of, play, scene_of
from tests.leaks.meddling import MEDDLINGS, fits
from tests.leaks.shots import SHAPES, TOPOLOGY, Range, build, draw
from tests.leaks.wire import MAGIC, UNIT, Marks, number_at

COMBINATIONS = 1000
SEED = 31


@functools.cache
def where():
    return Range(parse_topology(TOPOLOGY.format(mode="strict", masquerade="true",
                                                node_encryption="false")))  # fmt: skip


@pytest.mark.root
@pytest.mark.xdist_group("leaks")
@pytest.mark.timeout(240)
def test_no_combination_leaks_in_strict_mode():
    outcome = hunt(SEED, count=COMBINATIONS, duration=40)
    assert not outcome.trouble and not outcome.refused
    assert outcome.secret > COMBINATIONS / 3 and outcome.open_seen > 50
    assert not outcome.finds, "\n".join(map(str, outcome.finds))


NEVER_ON_THE_WIRE = {
    "ttl 1": "the pod's own node answers, to the pod",
    "ttl 2": "so it does: towards the unknown it forwards twice, into the tunnel device and out",
    "vlan": "a node has no device for that tag",
    "qinq": "the same",
    "to all stations": "a host does not forward what was sent to all stations",
    "longer than it is": "a host drops what was cut",
    "route header": "a host refuses source routes",
}


@pytest.mark.root
@pytest.mark.xdist_group("leaks")
@pytest.mark.timeout(240)
def test_sanity_in_default_mode_every_shape_is_seen():
    """The same combinations to a pod that is not known: what can be on the wire is."""
    with life_of(SEED, "default", masquerade=False, node_encryption=False) as life, life.paused():
        fired = [life.fire(sender="alpha/client", target="unknown", version=version, shape=shape,
                           transport="udp")
                 for version in (4, 6) for shape in dict.fromkeys(SHAPES)]  # fmt: skip
        life.settle()
        seen = {(shot.version, shot.shape) for shot in fired if shot.number in life.wire.secret}
        missing = {shot.shape for shot in fired if (shot.version, shot.shape) not in seen}
        # `missing` has a reason, each time; what is refused in one family only is seen here.
        assert missing == set(NEVER_ON_THE_WIRE), missing
        assert all(shot.secret for shot in fired)


@pytest.mark.root
@pytest.mark.xdist_group("leaks")
@pytest.mark.timeout(240)
def test_sanity_the_hunt_finds_what_default_mode_leaks():
    """The promise of strict mode, asked of a cluster in default mode, is broken at once."""
    with life_of(SEED, "default", node_encryption=False) as life:
        life.lenient = False
        play(life, [(MEDDLINGS["a foreign masquerade rule"], "alpha")])
        life.settle()
        assert life.leaks()
        senders = life.seen("sender")
    assert {"alpha/client", "beta/server"} <= set(senders)


# The parts that need no cluster.


def test_any_16_bytes_of_a_payload_are_recognised():
    marks = Marks()
    payload = marks.payload(True, 0x123456, 200)
    for start in range(100):
        piece = b"zz" + payload[start : start + 16]
        place = piece.find(marks.secret)
        assert place >= 0
        assert number_at(piece, place) == 0x123456
    assert marks.open not in payload
    assert UNIT == 8 and MAGIC == 5


def test_the_seed_fixes_the_combinations_and_the_scenes():
    def drawn(seed):
        chance, marks = random.Random(seed), Marks()
        marks.secret, marks.open = b"abcde", b"fghij"
        shots = [draw(chance, number, where(), ()) for number in range(60)]
        packets = [build(shot, where(), marks, chance) for shot in shots]
        return shots, packets, [describe(scene_of(chance)) for _ in range(20)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_every_shape_can_be_built_and_is_what_it_says():
    chance, marks = random.Random(0), Marks()
    shots = [draw(chance, number, where(), ()) for number in range(4000)]
    assert {shot.shape for shot in shots} == set(SHAPES)
    for shot in shots:
        for packet in build(shot, where(), marks, chance):
            assert packet[0] >> 4 == shot.version
            assert len(packet) <= 1500
            if shot.shape == "longer than it is":
                continue
            length = struct.unpack("!H", packet[2:4] if shot.version == 4 else packet[4:6])[0]
            assert length == len(packet) - (0 if shot.version == 4 else 40), shot


def test_scenes_never_take_everything_away_at_once():
    chance = random.Random(3)
    for _ in range(500):
        scene = [each for each, _node in scene_of(chance)]
        agents = {each.agent for each in scene}
        assert not {"kills", "needs"} <= agents
        assert len({each.name for each in scene}) == len(scene)
        layers = [each.layer for each in scene]
        assert layers == sorted(layers, key=("", "backstop", "tunnel").index)
    assert not fits([MEDDLINGS["nft flush ruleset"]],
                    MEDDLINGS["the agent is killed and another adopts"])  # fmt: skip

"""Every leak that the hunt has found, by name: seen in default mode, not in strict mode.

Each is a combination that some seed drew; here it is fired again, by itself.
"""

from __future__ import annotations

import threading
import time

import pytest

from testbed.namespaces import wait_until
from tests.leaks.hunt import life_of
from tests.leaks.life import AGENT, Gun
from tests.leaks.meddling_kernel import SRCNAT
from tests.leaks.shots import Shot, build

pytestmark = [
    pytest.mark.root, pytest.mark.timeout(240), pytest.mark.xdist_group("leaks found"),
]  # fmt: skip
SEED = 1

FOUND = {
    "the far node's error quotes: time exceeded": ("alpha/client", "pod", "ttl 2"),
    "the far node's error quotes: nobody has that address": ("alpha/client", "unused", "plain"),
    "the far node's error quotes: the pod is gone": ("alpha/client", "gone", "plain"),
    "the far node's error quotes: too big": ("alpha/client", "small mtu", "big df"),
    "wrapped once": ("alpha/client", "node", "same family in IP"),
    "wrapped in the other family": ("alpha/client", "world", "other family in IP"),
    "wrapped twice": ("alpha/client", "node", "IP in IP twice"),
    "wrapped twice, to the world": ("alpha/client", "world", "IP in IP twice"),
    "wrapped, in fragments": ("alpha/client", "node", "IP in IP in fragments"),
    "an error in IP": ("alpha/client", "world", "error in IP"),
    "an error in an error": ("alpha/client", "node", "error in error"),
    "an error in fragments": ("alpha/client", "node", "error in fragments"),
    "a pod's own error": ("alpha/client", "node", "error"),
    "an error about a node's packet that wraps a pod's": ("alpha", "unused", "same family in IP"),
}


def fire_all(life):
    """All of them, both families; those that a rate limit may hold back are fired again."""
    fired = {}
    for _ in range(3):
        for name, (sender, target, shape) in FOUND.items():
            for version in (4, 6):
                shot = life.fire(sender=sender, target=target, shape=shape, version=version,
                                 transport="udp")  # fmt: skip
                fired.setdefault((name, version), []).append(shot.number)
                time.sleep(0.03)
        time.sleep(1)
    life.settle()
    seen = set(life.wire.secret)
    return {key for key, numbers in fired.items() if seen & set(numbers)}


@pytest.mark.parametrize("masquerade", [False, True])
def test_none_is_seen_in_strict_mode(masquerade):
    with life_of(SEED, masquerade=masquerade, node_encryption=False) as life, life.paused():
        life.wire.secret.clear()
        assert fire_all(life) == set()


def test_sanity_every_one_is_seen_in_default_mode():
    with life_of(SEED, "default", masquerade=False, node_encryption=False) as life, life.paused():
        wanted = {(name, version) for name in FOUND for version in (4, 6)}
        seen = fire_all(life)
        assert seen >= wanted, wanted - seen


def burst(life, changes):
    """Pods send all the while, somebody masquerades, and the agent writes its rules again."""
    gun, stop, sent = Gun(life.cluster, "beta/server"), threading.Event(), [0]
    shots = []
    for number in range(1000, 1060):
        shot = Shot(number, "beta/server", "own", "pod", 4 + 2 * (number % 2), "udp", "plain", True)
        life.shots[number], life.scene[number] = shot, "burst"
        shots.append((shot, build(shot, life.where, life.marks, life.chance)[0]))

    def work():
        while not stop.wait(0.002):
            for shot, packet in shots:
                gun.shoot(shot, packet)
            sent[0] += len(shots)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(changes):
            life.nft("beta", "plugin", SRCNAT.format("srcnat") + "\nmasquerade")
            time.sleep(0.4)
            life.run("beta", "nft delete table inet plugin; conntrack -F")
            time.sleep(0.3)
    finally:
        stop.set()
        thread.join()
        gun.close()
    life.settle()
    return sent[0]


def rewritten(life):
    return life.run("beta", "nft list counter inet wgpy_wg0 rewritten")


def test_a_change_of_the_rules_opens_no_window():
    """A set that comes with a transaction is empty for some packets: no dropping rule needs one.

    That somebody's masquerade was at work meanwhile is seen by what it rewrote.
    """
    with life_of(SEED, masquerade=False, node_encryption=False, pace=1000) as life:
        assert burst(life, 14) > 5000
        assert "packets 0 " not in rewritten(life)
        assert not life.leaks()
        assert not life.refused


def test_sanity_the_same_burst_is_seen_in_default_mode():
    with life_of(SEED, "default", masquerade=False, node_encryption=False, pace=1000) as life:
        life.lenient = False
        burst(life, 1)
        assert life.leaks()


def test_an_agent_that_adopts_knows_the_devices_of_pods():
    """Killed; the cluster's file is broken; the next one checks pods' sources all the same."""
    with life_of(SEED, masquerade=False, node_encryption=False) as life, life.paused():
        file = life.cluster.node_folder("alpha") / "cluster.toml"
        life.kill("alpha", AGENT)
        file.write_text("[[node]]\nnonsense\n")
        start = len(life.log("alpha"))
        life.start("alpha")
        assert wait_until(lambda: "the backstop is in place" in life.log("alpha")[start:], 30)
        rules = life.run("alpha", "nft list chain inet wgpy_wg0 sources")
        assert "podclient" in rules
        life.cluster.publish("alpha")

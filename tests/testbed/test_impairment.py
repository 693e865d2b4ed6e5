"""Loss, delay and rate of links: in virtual time, and on real frames by their counts."""

from __future__ import annotations

import random

import pytest

from testbed.cluster import Cluster
from testbed.impairment import QUEUE_LIMIT, Direction, Impairment
from testbed.load import ping
from testbed.namespaces import wait_until
from testbed.topology import parse_topology

MS = 1_000_000


def test_loss_is_a_share_of_the_frames():
    link = Direction(Impairment(loss=0.25), random.Random(1).random)
    gone = [link.admit(100, 0) is None for _ in range(4000)]
    assert link.frames == 4000 and link.lost == sum(gone)
    assert 900 < link.lost < 1100
    again = Direction(Impairment(loss=0.25), random.Random(1).random)
    assert gone == [again.admit(100, 0) is None for _ in range(4000)]


def test_delay_is_added_once():
    link = Direction(Impairment(delay=20 * MS), lambda: 0.0)
    assert [link.admit(1500, at) for at in (0, 0, 5)] == [20 * MS, 20 * MS, 20 * MS + 5]


def test_rate_spaces_frames_and_its_queue_is_bounded():
    link = Direction(Impairment(rate=8e6, delay=MS), lambda: 0.0)
    # A thousand bytes at a byte a microsecond.
    assert [link.admit(1000, 0) for _ in range(3)] == [2 * MS, 3 * MS, 4 * MS]
    assert link.admit(1000, 10 * MS) == 12 * MS
    full = [link.admit(1000, 10 * MS) for _ in range(200)]
    assert full.count(None) == link.overflowed > 0
    assert sum(size is not None for size in full) == QUEUE_LIMIT // 1000 - 1
    assert link.lost == 0


def test_a_perfect_link_passes_all_at_once():
    link = Direction(Impairment(), lambda: 0.0)
    assert link.admit(9000, 7) == 7


LOSSY = """\
mode: plain
underlays: {lan: {delay: 1ms}}
nodes:
  alpha: {links: {lan: {loss: 100%}}}
  beta: {links: {lan: {loss: 20%, rate: 50mbit}}}
  gamma:
"""


@pytest.mark.root
def test_frames_on_real_links_are_counted_and_the_sniffer_sees_the_lost_ones():
    with Cluster.up(parse_topology(LOSSY), start=False) as cluster, cluster.sniffer() as sniffer:
        beta = cluster.namespaces["beta"]
        done = ping(beta, "172.20.0.13", count=60, interval=0.01)
        assert 0 < done.received < 60
        assert ping(cluster.namespaces["alpha"], "172.20.0.13", count=1, patience=0.3).received == 0
        cluster.settle(sniffer)  # also from alpha, of which nothing arrives
        counted = {row["link"]: row for row in cluster.link_counts()}

        def reported():
            counted.update({row["link"]: row for row in cluster.link_counts()})
            return counted["beta.0"]["frames"] >= 60

        assert wait_until(reported)
        assert counted["alpha.0"]["lost"] == counted["alpha.0"]["frames"] > 0
        assert 0 < counted["beta.0"]["lost"] < counted["beta.0"]["frames"]
        assert counted["gamma.0"]["lost"] == 0 < counted["gamma.0"]["frames"]
        # Whole frames of TCP come through as well, cut to the wire's size.
        server = beta.popen("iperf3", "-s", "-1")
        assert wait_until(lambda: b":5201" in beta.run("ss", "-Hltn").stdout.encode())
        beta_address = str(cluster.topology.node("beta").addresses[0])
        cluster.namespaces["gamma"].run(
            "iperf3", "-c", beta_address, "-n", "200K", timeout=60
        )
        server.wait()
    assert not cluster.folder.exists()

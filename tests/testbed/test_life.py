"""Clusters come up, are found again, and go away without a trace, whatever happens."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed import dataplane, namespaces, network
from testbed.classify import Kind
from testbed.cluster import DATA_PLANE, Cluster, ClusterError, registered
from testbed.load import ping
from testbed.namespaces import NamespaceError, wait_until
from testbed.sniffer import SnifferBlind, send_frame
from testbed.topology import parse_topology

pytestmark = pytest.mark.root

PLAIN = "name: plain\nmode: plain\nnodes: {alpha: {pods: [one]}, beta: {pods: [two]}}\n"
BARE = "name: bare\nworld: true\nnodes: {alpha: {pods: [one]}, beta: {pods: [two, three]}}\n"


def numbers(cluster):
    return [space.inode for space in cluster.namespaces.values()]


def test_plain_cluster_talks_in_ciphertext():
    topology = parse_topology(PLAIN)
    with Cluster.up(topology) as cluster, cluster.sniffer() as sniffer:
        secret = secrets.token_bytes(16)
        sniffer.look_for(secret)
        for target in (*topology.nodes[1].tunnel, *topology.pod("beta/two").addresses):
            space = "alpha/one" if target in topology.pod("beta/two").addresses else "alpha"
            pings = ping(cluster.namespaces[space], str(target), count=3, secret=secret)
            assert pings.received == 3, target
        cluster.settle(sniffer)
        assert sniffer.count(Kind.WIREGUARD) >= 24
        assert sniffer.count(Kind.NODE, Kind.POD_TO_POD, Kind.POD_TO_OTHER) == 0
        assert sniffer.marked[secret] == 0
        # The same on the bare underlay is seen: the sniffer is not blind.
        ping(cluster.namespaces["alpha"], "172.20.0.12", count=3, secret=secret)
        cluster.settle(sniffer)
        assert sniffer.count(Kind.NODE) == 6
        assert sniffer.marked[secret] >= 6


def test_pods_reach_each_other_and_the_world_without_any_tunnel():
    topology = parse_topology(BARE)
    with Cluster.up(topology, start=False) as cluster, cluster.sniffer() as sniffer:
        one = cluster.namespaces["alpha/one"]
        for pod in ("beta/two", "beta/three"):
            for address in topology.pod(pod).addresses:
                assert ping(one, str(address), count=2).received == 2, address
        cluster.settle(sniffer)
        assert sniffer.count(Kind.POD_TO_POD) == 16
        for address in topology.world.addresses:
            assert ping(one, str(address), count=2).received == 2, address
        assert ping(cluster.namespaces["alpha"], "10.244.2.10", count=2).received == 2
        cluster.settle(sniffer)
        assert sniffer.count(Kind.POD_TO_POD) == 16
        assert sniffer.count(Kind.POD_TO_OTHER) == 8 + 4 - 4  # the world's answers come by no node


def test_nothing_stays_after_down():
    with Cluster.up(parse_topology(PLAIN)) as cluster:
        inside = numbers(cluster)
        folder = cluster.folder
        assert len(set(inside)) == 5
        assert namespaces.inside(inside)
        assert registered() == [cluster.name]
    assert namespaces.inside(inside) == []
    assert not folder.exists() and registered() == []
    cluster.down()


def test_a_failure_on_the_way_up_leaves_nothing(monkeypatch, state):
    seen = []

    def refuse(_topology, _node, pids):
        seen.extend(pids.values())
        return ["link add nonsense type nonsense"]

    monkeypatch.setattr(network, "node_lines", refuse)
    with pytest.raises(ClusterError, match="ip -batch"):
        Cluster.up(parse_topology(BARE), start=False)
    assert seen and not any(Path(f"/proc/{pid}").exists() for pid in seen)
    assert list(state.iterdir()) == []


def test_sigkill_of_the_owner_leaves_nothing(tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(
        "import time\nfrom testbed.cluster import Cluster\n"
        "from testbed.topology import parse_topology\n"
        f"cluster = Cluster.up(parse_topology({PLAIN!r}))\n"
        "print(*(space.inode for space in cluster.namespaces.values()), flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as owner:  # fmt: skip
        inside = [int(word) for word in owner.stdout.readline().split()]
        assert namespaces.inside(inside)
        owner.kill()
    assert wait_until(lambda: not namespaces.inside(inside), 20)
    # What is left on disk is swept by whoever comes next.
    assert len(registered()) == 1
    Cluster.up(parse_topology(BARE), start=False).down()
    assert registered() == []


def test_a_cluster_is_found_again_by_name():
    topology = parse_topology(PLAIN)
    made = Cluster.up(topology, name="again", owned=False, start=False)
    try:
        found = Cluster.load("again")
        assert found.alive() and found.topology == topology
        assert {n: s.pid for n, s in found.namespaces.items()} == {
            n: s.pid for n, s in made.namespaces.items()
        }
        assert found.keys == made.keys
        with pytest.raises(ClusterError, match="already up"):
            Cluster.up(topology, name="again", owned=False)
    finally:
        made.down()
    with pytest.raises(ClusterError, match="no cluster 'again'"):
        Cluster.load("again")


def test_killing_a_data_plane_and_starting_it_again():
    topology = parse_topology(PLAIN)
    with Cluster.up(topology) as cluster:
        alpha = cluster.namespaces["alpha"]
        assert ping(alpha, "10.9.0.2", count=1).received == 1
        pid = cluster.kill("beta", DATA_PLANE)
        assert not Path(f"/proc/{pid}/fd").exists() or namespaces.start_time(pid) is None
        assert cluster.pid("beta", DATA_PLANE) is None
        assert ping(alpha, "10.9.0.2", count=2, patience=0.3).received == 0
        with pytest.raises(ClusterError, match="no dataplane runs on beta"):
            cluster.kill("beta", DATA_PLANE, signal.SIGTERM)
        cluster.start_data_plane("beta")
        cluster.wait_ready("beta")
        cluster.configure_plain("beta")
        assert dataplane.snapshot(cluster.namespaces["beta"]).peers
        # alpha still holds the dead session and starts anew when nothing comes back.
        assert ping(cluster.namespaces["beta"], "10.9.0.1", count=2).received >= 1


def test_sniffer_says_when_it_missed_frames():
    with (
        Cluster.up(parse_topology(BARE), start=False) as cluster,
        cluster.sniffer(slots=256) as small,
        cluster.sniffer() as wide,
    ):
        flood(cluster, 2000)
        cluster_settled(cluster, wide)
        assert wide.count(Kind.UNKNOWN) == 2000 and wide.missed == 0
        with pytest.raises(SnifferBlind, match="were missed"):
            small.check()


def flood(cluster, count):
    frame = b"\xff" * 6 + b"\x02flood" + struct.pack("!H", 0x88B6) + bytes(200)
    wire = cluster.namespaces["alpha"].socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with wire:
        wire.bind(("eth0", 0))
        for _ in range(count):
            wire.send(frame)


def cluster_settled(cluster, sniffer):
    cluster.settle(sniffer)
    sniffer.check()


def test_sniffer_keeps_up_for_a_while_from_a_thread():
    with (
        Cluster.up(parse_topology(BARE), start=False) as cluster,
        cluster.sniffer(slots=8192) as sniffer,
    ):
        sniffer.start(interval=0.01)
        for _ in range(20):
            flood(cluster, 1000)
            time.sleep(0.02)
        cluster_settled(cluster, sniffer)
        assert sniffer.count(Kind.UNKNOWN) == 20_000


def test_sniffer_without_its_canary_is_blind():
    with Cluster.up(parse_topology(BARE), start=False) as cluster, cluster.sniffer() as sniffer:
        cluster.namespaces["underlay"].ip(["link set alpha.0 down"])
        with pytest.raises(SnifferBlind, match="canary"):
            sniffer.settle([(cluster.namespaces["beta"], "podtwo")], seconds=0.3)


def test_a_marker_is_found_wherever_it_is():
    with Cluster.up(parse_topology(BARE), start=False) as cluster, cluster.sniffer() as sniffer:
        secret = secrets.token_bytes(16)
        sniffer.look_for(secret)
        frame = b"\xff" * 6 + b"\x02xxxxx\x88\xb6" + bytes(40) + b"odd offset!" + secret
        send_frame(cluster.namespaces["alpha"], "eth0", frame)
        cluster.settle(sniffer)
        assert sniffer.marked[secret] == 1
        with pytest.raises(ValueError, match="8 bytes"):
            sniffer.look_for(b"short")


def test_commands_that_fail_say_where_and_why():
    with (
        Cluster.up(parse_topology(BARE), start=False) as cluster,
        pytest.raises(NamespaceError, match=r"alpha: ip link set nowhere up: .*nowhere"),
    ):
        cluster.namespaces["alpha"].run("ip", "link", "set", "nowhere", "up")

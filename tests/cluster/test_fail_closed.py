"""Whatever is killed, removed or taken down: silence, never plaintext.

Every test here runs under load, and each way of failing is shown to be a real one: with all
of the protections gone at once, the same packets do leak (`test_sanity_…`).
"""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from testbed import control
from testbed.cluster import AGENT, DATA_PLANE
from testbed.load import finish_ping, start_ping
from testbed.namespaces import wait_until
from tests.cluster.craft import KINDS, Flow, Injector, build, mac_of
from tests.cluster.harness import every, shooting_range

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster fail_closed")]

CLUSTER = """
name: failing
mode: strict
masquerade: false
nodes:
  alpha: {pods: [client]}
  beta: {pods: [server]}
"""
NONE = every(KINDS, 0)


@pytest.fixture(scope="module")
def cluster_range():
    with shooting_range(CLUSTER) as made:
        yield made


@pytest.fixture
def firing_range(cluster_range):
    """Healthy before and after each test."""
    r = cluster_range
    assert_works(r)
    r.log_start = len(r.cluster.daemons["alpha", AGENT].log.read_text())
    yield r
    if r.cluster.pid("alpha", AGENT) is None:
        r.cluster.start_agent("alpha")
        r.cluster.wait_ready("alpha")
    assert_works(r)


def server(r, version=4):
    return r.pod("beta/server", version)


def assert_works(r):
    for version in (4, 6):
        target = server(r, version)
        assert wait_until(lambda t=target: r.ping("alpha/client", t, count=1) == 1, 20), target


@contextlib.contextmanager
def load(r):
    """Packets of every kind and family from alpha's pod, all the while; yields their number."""
    shoot = Injector(r.cluster.namespaces["alpha/client"], "eth0",
                     mac_of(r.cluster.namespaces["alpha"], "podclient"))  # fmt: skip
    stop, sent = threading.Event(), [0]
    with r.marker() as marker:
        packets = [
            build(kind, Flow(r.pod("alpha/client", version), server(r, version)), marker)
            for version in (4, 6)
            for kind in KINDS
        ]

        def work():
            while not stop.wait(0.01):
                shoot(packets[sent[0] % len(packets)])
                sent[0] += 1

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield sent
        finally:
            stop.set()
            thread.join()
            shoot.close()
        r.cluster.settle(r.sniffer)
        assert r.sniffer.marked[marker] == 0, "readable on the underlay"


def at_least(sent, number):
    """Until so many more packets have been shot."""
    goal = sent[0] + number
    assert wait_until(lambda: sent[0] >= goal, 20)


def flush_routes(alpha):
    """By hand; a route that vanishes by itself meanwhile is no failure."""
    for family in ("-4", "-6"):
        for _ in range(2):
            alpha.run("ip", family, "route", "flush", "table", "51871", check=False)


def said(r, words):
    """Whether alpha's agents said it since the test began."""
    return words in r.cluster.daemons["alpha", AGENT].log.read_text()[r.log_start :]


def test_sigkill_of_the_agent_loses_no_packet(firing_range):
    r = firing_range
    client = r.cluster.namespaces["alpha/client"]
    with load(r) as sent:
        pings = start_ping(client, server(r), count=150, interval=0.01)
        time.sleep(0.4)
        r.cluster.kill("alpha", AGENT)
        assert r.cluster.pid("alpha", DATA_PLANE) is not None
        assert finish_ping(pings, 150).received == 150
        at_least(sent, 50)
    # Nothing became less strict: an undiscovered pod is still dropped.
    unknown = Flow(r.pod("alpha/client", 4), "10.244.77.77")
    seen = r.volley("alpha", "client", unknown)
    assert seen.readable == NONE and seen.dropped["UNENCRYPTED_TRAFFIC"] == seen.sent
    # The next agent adopts what runs, again without losing any.
    pings = start_ping(client, server(r), count=150, interval=0.02)
    pid = r.cluster.pid("alpha", DATA_PLANE)
    r.cluster.start_agent("alpha")
    r.cluster.wait_ready("alpha")
    counted = control.backstop(r.cluster, "alpha")
    assert finish_ping(pings, 150).received == 150, counted
    assert r.cluster.pid("alpha", DATA_PLANE) == pid


def test_sigkill_of_the_data_plane_is_silence_and_heals_itself(firing_range):
    r = firing_range
    with load(r) as sent:
        old = r.cluster.kill("alpha", DATA_PLANE)
        at_least(sent, 60)
        assert wait_until(lambda: r.cluster.pid("alpha", DATA_PLANE) not in (None, old), 20)
        assert wait_until(lambda: r.ping("alpha/client", server(r), count=1) == 1, 20)
        at_least(sent, 60)
    assert said(r, "the data plane is gone")


def test_both_dead_is_silence(firing_range):
    r = firing_range
    with load(r) as sent:
        r.cluster.kill("alpha", AGENT)
        r.cluster.kill("alpha", DATA_PLANE)
        at_least(sent, 100)
        assert r.ping("alpha/client", server(r), count=2, patience=0.3) == 0
        r.cluster.start_agent("alpha")
        at_least(sent, 100)
        r.cluster.wait_ready("alpha")
        assert wait_until(lambda: r.ping("alpha/client", server(r), count=1) == 1, 20)


def test_nft_tables_removed_by_hand_are_restored(firing_range):
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    with load(r) as sent:
        alpha.run("nft", "flush", "ruleset")
        assert control.backstop(r.cluster, "alpha") == {} or said(r, "restored")
        assert wait_until(lambda: "egress_pods" in control.backstop(r.cluster, "alpha"), 15)
        at_least(sent, 30)
    assert wait_until(lambda: said(r, "removed or changed: restored"), 5)


def test_routes_flushed_by_hand_are_restored(firing_range):
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    with load(r) as sent:
        flush_routes(alpha)
        at_least(sent, 30)
        assert wait_until(lambda: r.ping("alpha/client", server(r), count=1) == 1, 20)
    assert wait_until(lambda: said(r, "routes were removed or changed: restored"), 5)


def test_policy_rules_deleted_by_hand_are_restored(firing_range):
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    with load(r) as sent:
        for family in ("-4", "-6"):
            for _ in range(8):
                alpha.run("ip", family, "rule", "del", "table", "51871", check=False)
        at_least(sent, 30)
        assert wait_until(lambda: r.ping("alpha/client", server(r), count=1) == 1, 20)


def test_without_agent_routes_and_rules_the_backstop_holds(firing_range):
    """The kernel alone: the packets take the default route, and nft drops each of them."""
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    r.cluster.kill("alpha", AGENT)
    flush_routes(alpha)
    before = control.backstop(r.cluster, "alpha")
    with load(r) as sent:
        at_least(sent, 2 * len(KINDS) + 5)
    after = control.backstop(r.cluster, "alpha")
    caught = sum(after[name] - before[name] for name in ("egress_pods", "before_nat"))
    assert caught >= 2 * len(KINDS)


def test_the_check_comes_before_source_nat(firing_range):
    """A careless masquerade of everything: no leak under the node's name."""
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    r.cluster.kill("alpha", AGENT)
    flush_routes(alpha)
    alpha.nft(CARELESS_NAT)
    before = control.backstop(r.cluster, "alpha")["before_nat"]
    try:
        with load(r) as sent:
            at_least(sent, 2 * len(KINDS) + 5)
        assert control.backstop(r.cluster, "alpha")["before_nat"] > before
    finally:
        alpha.run("nft", "delete", "table", "inet", "careless")


CARELESS_NAT = """
table inet careless {
  chain out {
    type nat hook postrouting priority srcnat;
    oifname "eth0" masquerade
  }
}
"""


def test_sanity_with_every_protection_gone_it_does_leak(request, firing_range):
    """What all the tests above are worth: no agent, no data plane, no routes, no nft."""
    request.node.add_marker("leaks")
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    r.cluster.kill("alpha", AGENT)
    r.cluster.kill("alpha", DATA_PLANE)
    flush_routes(alpha)
    alpha.run("nft", "flush", "ruleset")
    with pytest.raises(AssertionError, match="readable on the underlay"), load(r) as sent:
        at_least(sent, 30)
    # And under the node's name, where only the marker tells.
    alpha.nft(CARELESS_NAT)
    with pytest.raises(AssertionError, match="readable on the underlay"), load(r) as sent:
        at_least(sent, 30)
    alpha.run("nft", "flush", "ruleset")


def test_before_the_data_plane_ever_starts(firing_range):
    """The agent alone, told not to start one: backstop and unreachable routes are there."""
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    r.cluster.kill("alpha", AGENT)
    r.cluster.kill("alpha", DATA_PLANE)
    flush_routes(alpha)
    alpha.run("nft", "flush", "ruleset")
    path = r.cluster.write_config("alpha")
    path.write_text(path.read_text() + "\n[dataplane]\nstart = false\n")
    r.cluster.start_agent("alpha")
    try:
        assert wait_until(lambda: said(r, "backstop is in place"), 15)
        assert "egress_pods" in control.backstop(r.cluster, "alpha")
        assert wait_until(lambda: "unreachable 10.244.0.0/16" in alpha.run(
            "ip", "route", "show", "table", "51871").stdout, 10)  # fmt: skip
        with load(r) as sent:
            at_least(sent, 60)
        assert r.cluster.pid("alpha", DATA_PLANE) is None
        assert r.ping("alpha/client", server(r), count=2, patience=0.3) == 0
    finally:
        r.cluster.write_config("alpha")
        r.cluster.kill("alpha", AGENT)


def test_without_its_discovery_file_a_node_goes_on_with_what_it_knows(firing_range):
    r = firing_range
    path = r.cluster.node_folder("alpha") / "cluster.toml"
    text = path.read_text()
    path.unlink()
    try:
        assert wait_until(lambda: bool(r.cluster.agent_status("alpha")["problems"]), 10)
        with load(r) as sent:
            assert r.ping("alpha/client", server(r), count=20, interval=0.05) == 20
            at_least(sent, 20)
    finally:
        path.write_text(text)
    assert wait_until(lambda: not r.cluster.agent_status("alpha")["problems"], 10)


def test_the_largest_packet_fits_and_a_larger_one_is_told(firing_range):
    """Inner MTU: a whole packet with padding fits into the underlay's 1500 bytes."""
    r = firing_range
    client = r.cluster.namespaces["alpha/client"]
    for version, headers in ((4, 28), (6, 48)):
        def shoot(size, target=server(r, version), headers=headers):
            return client.run("ping", "-M", "do", "-c", "2", "-i", "0.2", "-W", "1", "-s",
                              str(size - headers), target, check=False).stdout  # fmt: skip

        assert "2 received" in shoot(1408)
        assert "mtu" in shoot(1409).lower()
    r.cluster.settle(r.sniffer)
    pings = [rec for rec in r.sniffer.latest if rec.packet.detail == "data" and rec.length > 1400]
    assert pings and all(rec.length <= 14 + 1500 for rec in pings)


def test_underlay_down_and_up(firing_range):
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    addresses = ["fd00:20::b/64 dev eth0", "default via fd00:20::ffff:ffff:ffff:fffe dev eth0"]
    with load(r) as sent:
        alpha.run("ip", "link", "set", "eth0", "down")
        at_least(sent, 40)
        alpha.run("ip", "link", "set", "eth0", "up")
        # The kernel forgets IPv6 addresses and default routes of a device that went down.
        alpha.run("ip", "address", "replace", *addresses[0].split(), "nodad")
        alpha.run("ip", "-6", "route", "replace", *addresses[1].split())
        alpha.run("ip", "route", "replace", "default", "via", "172.20.0.254")
        at_least(sent, 40)
        assert wait_until(lambda: r.ping("alpha/client", server(r), count=1) == 1, 20)


def test_a_data_plane_without_settings_lets_nothing_through(firing_range):
    """Started by hand, before any agent has spoken to it."""
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    r.cluster.kill("alpha", AGENT)
    r.cluster.kill("alpha", DATA_PLANE)
    from testbed import dataplane

    process = alpha.popen(dataplane.program("wireguard-py"), "-f", "--policy", "strict", "wg0")
    try:
        assert wait_until(lambda: dataplane_answers(r), 15)
        alpha.ip(["link set wg0 up", "route replace 10.244.0.0/16 dev wg0 table 51871",
                  "route replace fd10:244::/48 dev wg0 table 51871"])  # fmt: skip
        seen = r.volley("alpha", "client", Flow(r.pod("alpha/client", 4), server(r)),
                        expect="nothing")  # fmt: skip
        assert wait_until(lambda: control.drops(r.cluster, "alpha").get("POLICY_NOT_LOADED", 0)
                          >= seen.sent, 5)  # fmt: skip
        assert seen.readable == NONE and seen.sealed == 0
    finally:
        process.kill()
        process.wait()


def dataplane_answers(r):
    try:
        return bool(control.status(r.cluster, "alpha"))
    except control.ControlFailed:
        return False

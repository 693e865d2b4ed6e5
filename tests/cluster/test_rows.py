"""Rows 1 to 7 of the verdict table on real packets, each also where it must leak.

docs/strict-mode.md has the table.  Node encryption (rows 8 and 9) has its own module.
"""

from __future__ import annotations

import socket

import pytest

from testbed import control
from testbed.namespaces import wait_until
from testbed.sniffer import send_frame
from tests.cluster.craft import KINDS, MALFORMED, Flow
from tests.cluster.harness import EACH, every, shooting_range

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster rows")]

CLUSTER = """
name: rows
mode: strict
masquerade: false
world: true
nodes:
  alpha: {pods: [client, neighbour]}
  beta: {pods: [server]}
  gamma: {pods: [stranger]}
unknown: {alpha: [gamma]}
"""
ALL, NONE = every(KINDS, EACH), every(KINDS, 0)
in_default_mode = pytest.mark.usefixtures("default_mode")
both = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module")
def firing_range():
    with shooting_range(CLUSTER) as made:
        yield made


@pytest.fixture
def default_mode(firing_range):
    """alpha in default mode for one test."""
    firing_range.mode("default", "alpha")
    yield
    firing_range.mode("strict", "alpha")


def client(r, version, destination):
    return Flow(r.pod("alpha/client", version), destination)


def inject_malformed(r):
    """Every malformed packet straight into the tunnel device: no kernel would route one."""
    alpha = r.cluster.namespaces["alpha"]
    with alpha.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as wire:
        for packet in MALFORMED.values():
            wire.sendto(packet, ("wg0", 0x86DD if packet[0] >> 4 == 6 else 0x0800))


def test_row_1_malformed_is_dropped(firing_range):
    r = firing_range
    before = control.drops(r.cluster, "alpha").get("MALFORMED", 0)
    given_back = r.given_back("alpha")
    inject_malformed(r)
    assert wait_until(lambda: control.drops(r.cluster, "alpha").get("MALFORMED", 0)
                      >= before + len(MALFORMED), 5)  # fmt: skip
    assert control.drops(r.cluster, "alpha")["MALFORMED"] == before + len(MALFORMED)
    assert r.given_back("alpha") == given_back


@in_default_mode
def test_row_1_sanity(firing_range):
    """As Cilium: the table lets it go.  (The host then refuses to route it, in either mode.)"""
    r = firing_range
    dropped = control.drops(r.cluster, "alpha").get("MALFORMED", 0)
    given_back = r.given_back("alpha")
    inject_malformed(r)
    assert wait_until(lambda: r.given_back("alpha") >= given_back + len(MALFORMED), 5)
    assert control.drops(r.cluster, "alpha").get("MALFORMED", 0) == dropped


@pytest.mark.leaks
@pytest.mark.parametrize("name", MALFORMED)
def test_row_1_from_a_pod_nothing_malformed_gets_out(firing_range, name):
    """Through the whole host; that the sniffer would see it is shown by sending it outside."""
    r = firing_range
    head = MALFORMED[name]
    with r.marker() as marker:
        r.from_pod("alpha/client", head + marker)
        r.cluster.settle(r.sniffer)
        assert r.sniffer.marked[marker] == 0
        underlay = r.cluster.namespaces["alpha"]
        frame = b"\xff" * 6 + b"\x02rogue\x88\xb7" + head + marker
        send_frame(underlay, "eth0", frame)
        r.cluster.settle(r.sniffer)
        assert r.sniffer.marked[marker] == 1


@both
def test_row_2_same_node_is_delivered_there(firing_range, version):
    r = firing_range
    flow = client(r, version, r.pod("alpha/neighbour", version))
    seen = r.volley("alpha", "client", flow, receiver=("alpha/neighbour", "eth0"), expect="arrived")
    assert seen.arrived == ALL
    assert seen.readable == NONE and seen.sealed == 0 and not seen.dropped


@both
def test_row_4_pod_cidr_of_a_known_node_encrypts(firing_range, version):
    r = firing_range
    flow = client(r, version, r.pod("beta/server", version))
    seen = r.volley("alpha", "client", flow, receiver=("beta/server", "eth0"), expect="arrived")
    assert seen.arrived == ALL
    assert seen.readable == NONE and seen.sealed >= len(KINDS)


@in_default_mode
@pytest.mark.leaks
@both
def test_row_4_sanity(firing_range, version):
    r = firing_range
    r.hide("alpha", "beta")
    destination = r.pod("beta/server", version)
    flow = client(r, version, destination)
    r.until("alpha", flow.source, destination, "plaintext")
    try:
        seen = r.volley("alpha", "client", flow, expect="readable")
        assert seen.readable == ALL
    finally:
        r.show("alpha", "beta")
        r.until("alpha", flow.source, destination, "encrypted")


@both
def test_row_3_an_entry_alone_encrypts(firing_range, version):
    r = firing_range
    flow = client(r, version, r.pod("beta/server", version))
    with without_pod_cidrs(r, "beta", flow, "encrypted"):
        seen = r.volley("alpha", "client", flow, receiver=("beta/server", "eth0"), expect="arrived")
        assert seen.arrived == ALL
        assert seen.readable == NONE and seen.sealed >= len(KINDS)


@both
def test_row_5_known_node_but_no_entry_is_dropped(firing_range, version):
    r = firing_range
    flow = client(r, version, r.pod("beta/server", version))
    with without_pod_cidrs(r, "beta", flow, "dropped", hide="beta/server"):
        assert_dropped(r.volley("alpha", "client", flow))


@in_default_mode
@pytest.mark.leaks
@both
def test_row_5_known_node_but_no_entry_sanity(firing_range, version):
    r = firing_range
    flow = client(r, version, r.pod("beta/server", version))
    with without_pod_cidrs(r, "beta", flow, "plaintext", hide="beta/server"):
        assert r.volley("alpha", "client", flow, expect="readable").readable == ALL


@both
def test_row_5_unknown_node_is_dropped(firing_range, version):
    r = firing_range
    flow = client(r, version, r.pod("gamma/stranger", version))
    assert_dropped(r.volley("alpha", "client", flow))


@in_default_mode
@pytest.mark.leaks
@both
def test_row_5_unknown_node_sanity(firing_range, version):
    r = firing_range
    flow = client(r, version, r.pod("gamma/stranger", version))
    seen = r.volley("alpha", "client", flow, expect="readable")
    assert seen.readable == ALL and not seen.dropped


@both
def test_row_5_node_without_key_is_dropped(firing_range, version):
    r = firing_range
    flow = client(r, version, r.pod("beta/server", version))
    with keyless(r, "beta", flow, "dropped"):
        assert_dropped(r.volley("alpha", "client", flow))


@in_default_mode
@pytest.mark.leaks
@both
def test_row_5_node_without_key_sanity(firing_range, version):
    r = firing_range
    flow = client(r, version, r.pod("beta/server", version))
    with keyless(r, "beta", flow, "plaintext"):
        assert r.volley("alpha", "client", flow, expect="readable").readable == ALL


@both
def test_row_6_the_world_is_plaintext(firing_range, version):
    r = firing_range
    seen = r.volley("alpha", "client", client(r, version, r.world(version)), expect="readable")
    assert seen.readable == ALL and not seen.dropped and seen.sealed == 0


@in_default_mode
@both
def test_row_6_is_the_same_in_default_mode(firing_range, version):
    r = firing_range
    seen = r.volley("alpha", "client", client(r, version, r.world(version)), expect="readable")
    assert seen.readable == ALL and not seen.dropped and seen.sealed == 0


@pytest.mark.parametrize("mode", ["strict", "default"])
@both
def test_row_7_node_traffic_is_plaintext_without_node_encryption(firing_range, version, mode):
    r = firing_range
    if mode == "default":
        r.mode("default", "alpha")
    try:
        pod_to_node = client(r, version, r.node("beta", version))
        node_to_pod = Flow(r.node("alpha", version), r.pod("beta/server", version))
        node_to_node = Flow(r.node("alpha", version), r.node("beta", version))
        for pod, flow in (("client", pod_to_node), ("", node_to_pod), ("", node_to_node)):
            seen = r.volley("alpha", pod, flow, expect="readable")
            assert seen.readable == ALL, flow
            assert not seen.dropped
    finally:
        if mode == "default":
            r.mode("strict", "alpha")


def assert_dropped(seen):
    """Nothing readable, nothing sealed, and every packet dropped under its name."""
    assert seen.readable == NONE
    assert seen.dropped == {"UNENCRYPTED_TRAFFIC": seen.sent}
    assert not seen.backstop, "the table must decide before the backstop has to"


class without_pod_cidrs:
    """alpha knows a node's pods one by one only, and `hide` not even that."""

    def __init__(self, r, node, flow, outcome, hide=""):
        self.r, self.node, self.flow, self.outcome, self.hidden = r, node, flow, outcome, hide
        self.view = r.cluster.views["alpha"]

    def __enter__(self):
        entry = self.view.nodes[self.node]
        entry["allowed_ips"] = entry.pop("pod_cidrs")
        if self.hidden:
            self.view.hide(self.hidden)
        self.r.cluster.publish("alpha")
        self.r.until("alpha", self.flow.source, self.flow.destination, self.outcome)
        if self.outcome == "encrypted":
            wait_for_row(self.r, self.flow, 3)

    def __exit__(self, *_):
        entry = self.view.nodes[self.node]
        entry["pod_cidrs"] = entry.pop("allowed_ips")
        if self.hidden:
            self.view.show(self.hidden)
        self.r.cluster.publish("alpha")
        self.r.until("alpha", self.flow.source, self.flow.destination, "encrypted")


class keyless:
    """A node whose key alpha does not have yet."""

    def __init__(self, r, node, flow, outcome):
        self.r, self.node, self.flow, self.outcome = r, node, flow, outcome

    def __enter__(self):
        self.r.cluster.views["alpha"].keyless.add(self.node)
        self.r.cluster.publish("alpha")
        self.r.until("alpha", self.flow.source, self.flow.destination, self.outcome)

    def __exit__(self, *_):
        self.r.cluster.views["alpha"].keyless.discard(self.node)
        self.r.cluster.publish("alpha")
        self.r.until("alpha", self.flow.source, self.flow.destination, "encrypted")


def wait_for_row(r, flow, row):
    def there():
        return control.explain(r.cluster, "alpha", flow.source, flow.destination)["rule"] == row

    assert wait_until(there, 10)

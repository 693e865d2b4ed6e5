"""Plaintext that comes in by the underlay, and sources that lie inside the tunnel."""

from __future__ import annotations

import socket

import pytest

from testbed import control
from testbed.namespaces import wait_until
from tests.cluster.craft import KINDS, Flow, Injector, build, mac_of
from tests.cluster.harness import EACH, Tap, every, shooting_range

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster ingress")]

CLUSTER = """
name: ingress
mode: strict
masquerade: false
world: true
nodes:
  alpha: {pods: [client]}
  beta: {pods: [server]}
  gamma: {pods: [third]}
unknown: {alpha: [gamma]}
"""
both = pytest.mark.parametrize("version", [4, 6])
modes = pytest.mark.parametrize("mode", ["strict", "default"])


@pytest.fixture(scope="module")
def firing_range():
    with shooting_range(CLUSTER) as made:
        yield made


@pytest.fixture
def in_mode(firing_range, mode):
    """alpha in `mode` for one test."""
    if mode == "default":
        firing_range.mode("default", "alpha")
    yield mode
    if mode == "default":
        firing_range.mode("strict", "alpha")


def throw_at_alpha(r, flow):
    """From the wire itself, past every node's own backstop; what reaches alpha's pod or host."""
    underlay = r.cluster.namespaces["underlay"]
    alpha = r.cluster.namespaces["alpha"]
    to_pod = flow.destination in map(str, r.topology.pod("alpha/client").addresses)
    tap = Tap(r.cluster.namespaces["alpha/client"], "eth0") if to_pod else HostTap(alpha, flow)
    shoot = Injector(underlay, "br-lan", mac_of(alpha, "eth0"))
    before = control.backstop(r.cluster, "alpha").get("ingress_pods", 0)
    markers = {}
    kinds = KINDS if to_pod else ("udp",)
    with r.marker() as marker:
        for number, kind in enumerate(kinds):
            markers[kind] = marker[:-1] + bytes([number])
            for _ in range(EACH):
                shoot(build(kind, flow, markers[kind]))
        wait_until(lambda: all(tap.count(m) >= EACH for m in markers.values()), 0.4)
        arrived = {kind: tap.count(m) for kind, m in markers.items()}
    shoot.close()
    tap.close()
    counted = control.backstop(r.cluster, "alpha")["ingress_pods"] - before
    return arrived, counted, len(kinds) * EACH


class HostTap:
    """Datagrams that the host's own stack accepts."""

    def __init__(self, space, flow):
        family = socket.AF_INET if flow.version == 4 else socket.AF_INET6
        self._socket = space.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((flow.destination, 80))
        self._socket.setblocking(False)
        self._got = []

    def count(self, marker):
        try:
            while True:
                self._got.append(self._socket.recv(2048))
        except BlockingIOError:
            return sum(data.count(marker) for data in self._got)

    def close(self):
        self._socket.close()


@modes
@both
@pytest.mark.parametrize("who", ["known pod", "unknown pod", "own pod", "world"])
def test_spoofed_plaintext_for_a_pod(request, firing_range, in_mode, version, who):
    """Known source or not: nothing that has a pod's address comes in outside of the tunnel."""
    r = firing_range
    if in_mode == "default" and who == "unknown pod":
        request.node.add_marker("leaks")  # the pod's answers to a pod that alpha does not know
    source = {
        "known pod": r.pod("beta/server", version),
        "unknown pod": r.pod("gamma/third", version),
        "own pod": r.pod("alpha/client", version),
        "world": r.world(version),
    }[who]
    flow = Flow(source, r.pod("alpha/client", version))
    arrived, counted, sent = throw_at_alpha(r, flow)
    assert counted == sent
    if in_mode == "strict":
        assert not any(arrived.values())
    elif who != "own pod":  # the kernel itself refuses its own pod's address from outside
        assert arrived == every(KINDS, EACH)


@pytest.mark.usefixtures("in_mode")
@modes
@both
def test_spoofed_pod_source_for_the_host(firing_range, version):
    """Pod to node: row 7's plaintext with node encryption off, from whatever pod it says."""
    r = firing_range
    flow = Flow(r.pod("beta/server", version), r.node("alpha", version))
    arrived, counted, _sent = throw_at_alpha(r, flow)
    assert arrived == {"udp": EACH} and counted == 0


@both
def test_a_lying_source_inside_the_tunnel_is_dropped(firing_range, version):
    """beta sends in the name of gamma's pod: cryptokey routing on alpha refuses.

    A pod of beta's cannot do that, its own node drops it; so beta itself lies.
    """
    r = firing_range
    lie = Flow(r.pod("gamma/third", version), r.pod("alpha/client", version))
    truth = Flow(r.pod("beta/server", version), r.pod("alpha/client", version))
    before = control.drops(r.cluster, "alpha").get("SOURCE_NOT_ALLOWED", 0)
    checked = control.backstop(r.cluster, "beta")["pod_source"]
    seen = r.volley("beta", "server", lie, receiver=("alpha/client", "eth0"), expect="nothing")
    assert seen.arrived == every(KINDS, 0) and seen.readable == every(KINDS, 0)
    assert wait_until(lambda: control.backstop(r.cluster, "beta")["pod_source"]
                      == checked + seen.sent, 5)  # fmt: skip
    seen = r.volley("beta", "server", lie, receiver=("alpha/client", "eth0"), expect="nothing",
                    into_tunnel=True)  # fmt: skip
    assert wait_until(lambda: control.drops(r.cluster, "alpha").get("SOURCE_NOT_ALLOWED", 0)
                      >= before + seen.sent, 5)  # fmt: skip
    assert seen.arrived == every(KINDS, 0) and seen.readable == every(KINDS, 0)
    # The same in its own name arrives: it is the source that was refused.
    seen = r.volley("beta", "server", truth, receiver=("alpha/client", "eth0"), expect="arrived")
    assert seen.arrived == every(KINDS, EACH)


@both
def test_a_source_that_the_ipcache_puts_on_another_node_is_dropped(firing_range, version):
    """Allowed to beta's tunnel as a range, but known to live on gamma."""
    r = firing_range
    view = r.cluster.views["alpha"]
    moved = r.pod("beta/server", version)
    to_client = Flow(moved, r.pod("alpha/client", version))
    view.show("gamma")
    view.endpoints["moved"] = [{"ip": moved, "node": "gamma", "source": "kvstore"}]
    r.cluster.publish("alpha")
    try:
        assert wait_until(lambda: control.explain(r.cluster, "alpha", to_client.destination, moved)
                          ["node"] == "gamma", 10)  # fmt: skip
        before = refused(r)
        seen = r.volley("beta", "server", to_client, receiver=("alpha/client", "eth0"),
                        expect="nothing")  # fmt: skip
        assert wait_until(lambda: refused(r) >= before + seen.sent, 5)
        assert seen.arrived == every(KINDS, 0)
    finally:
        del view.endpoints["moved"]
        view.hide("gamma")
        r.cluster.publish("alpha")
        r.until("alpha", to_client.destination, r.pod("gamma/third", version), "dropped")
    seen = r.volley("beta", "server", to_client, receiver=("alpha/client", "eth0"),
                    expect="arrived")  # fmt: skip
    assert seen.arrived == every(KINDS, EACH)


def refused(r):
    drops = control.drops(r.cluster, "alpha")
    return drops.get("SOURCE_NOT_ALLOWED", 0) + drops.get("SOURCE_NOT_ON_NODE", 0)


@both
def test_a_pod_cannot_become_a_peers_endpoint(firing_range, version):
    """A tunnel packet of beta's, replayed from a pod: the endpoint stays a node's address."""
    r = firing_range
    assert r.ping("alpha/client", r.pod("beta/server", version)) == 3
    before = endpoints(r)
    sealed = next(rec for rec in reversed(r.sniffer.latest)
                  if rec.port == "beta.0" and rec.packet.detail == "data")  # fmt: skip
    message = sealed.head[42:] if sealed.head[12:14] == b"\x08\x00" else sealed.head[62:]
    space = r.cluster.namespaces["alpha/client"]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with space.socket(family, socket.SOCK_DGRAM) as sender:
        for _ in range(EACH):
            sender.sendto(message, (r.node("alpha", version), 51871))
    assert wait_until(lambda: control.backstop(r.cluster, "alpha")["endpoint_in_pods"] >= EACH, 5)
    assert endpoints(r) == before


def endpoints(r):
    from testbed.dataplane import snapshot

    return {str(peer.endpoint) for peer in snapshot(r.cluster.namespaces["alpha"]).peers}

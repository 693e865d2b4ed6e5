"""`wgpy strict explain --matrix` says what the eavesdropper then sees, class by class."""

from __future__ import annotations

import json

import pytest

from testbed import dataplane
from tests.cluster.craft import Flow, Injector, build, mac_of
from tests.cluster.harness import EACH, Tap, every, shooting_range

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster matrix")]

CLUSTER = """
name: matrix
mode: strict
masquerade: false
world: true
node_encryption: {encryption}
nodes:
  alpha: {{pods: [client, neighbour]}}
  beta: {{pods: [server]}}
  gamma: {{pods: [stranger]}}
unknown: {{alpha: [gamma]}}
"""
KINDS = ("tcp", "udp", "icmp")
WAIT = {"plaintext": "readable", "encrypted": "arrived", "local": "arrived", "dropped": "dropped"}


@pytest.fixture(scope="module", params=["false", "true"], ids=["nodes plain", "nodes encrypted"])
def firing_range(request):
    with shooting_range(CLUSTER.format(encryption=request.param)) as made:
        yield made


def printed_matrix(r):
    """As a person asks for it, on alpha."""
    done = r.cluster.namespaces["alpha"].run(
        dataplane.program("wgpy"), "strict", "explain", "--matrix", "--json"
    )
    return json.loads(done.stdout)["classes"]


@pytest.mark.parametrize("mode", ["strict", "default"])
def test_the_matrix_is_what_is_sniffed(request, firing_range, mode):
    r = firing_range
    if mode == "default":
        request.node.add_marker("leaks")
        r.mode("default", "alpha")
    try:
        rows = printed_matrix(r)
        assert len(rows) == 14
        for row in rows:
            for side in ("known", "unknown"):
                assert sniffed(r, row, side) == row[side], (row, side)
    finally:
        r.mode("strict", "alpha")


def sniffed(r, row, side):
    """The outcome of one class as seen on the wire and at the receiver."""
    version, traffic = row["family"], row["traffic"]
    if traffic == "world → pod":
        return from_the_world(r, version, row[side])
    node, pod = ("beta", "server") if side == "known" else ("gamma", "stranger")
    client = r.pod("alpha/client", version)
    shooter, flow, receiver = {
        "pod → pod, same node": (
            "client", Flow(client, r.pod("alpha/neighbour", version)), ("alpha/neighbour", "eth0"),
        ),
        "pod → pod": (
            "client", Flow(client, r.pod(f"{node}/{pod}", version)), (f"{node}/{pod}", "eth0"),
        ),
        "pod → node": ("client", Flow(client, r.node(node, version)), (node, "wg0")),
        "node → pod": (
            "", Flow(r.node("alpha", version), r.pod(f"{node}/{pod}", version)),
            (f"{node}/{pod}", "eth0"),
        ),
        "node → node": ("", Flow(r.node("alpha", version), r.node(node, version)), (node, "wg0")),
        "pod → world": ("client", Flow(client, r.world(version)), None),
    }[traffic]  # fmt: skip
    seen = r.volley("alpha", shooter, flow, receiver=receiver, kinds=KINDS, expect=WAIT[row[side]])
    if seen.readable == every(KINDS, EACH):
        return "plaintext"
    assert seen.readable == every(KINDS, 0), "some of it leaked"
    if seen.arrived == every(KINDS, EACH):
        return "encrypted" if seen.sealed else "local"
    assert seen.arrived == every(KINDS, 0)
    return "dropped"


def from_the_world(r, version, expected):
    """Plaintext for a pod that comes in by the underlay, from outside of the cluster."""
    tap = Tap(r.cluster.namespaces["alpha/client"], "eth0")
    mac = mac_of(r.cluster.namespaces["alpha"], "eth0")
    shoot = Injector(r.cluster.namespaces["underlay"], "br-lan", mac)
    flow = Flow(r.world(version), r.pod("alpha/client", version))
    with r.marker() as marker:
        for _ in range(EACH):
            shoot(build("udp", flow, marker))
        r.ping("alpha/client", r.pod("alpha/neighbour", version), count=1)
        r.cluster.settle(r.sniffer)
        arrived = tap.count(marker)
    shoot.close()
    tap.close()
    assert arrived in (0, EACH), expected
    return "plaintext" if arrived else "dropped"

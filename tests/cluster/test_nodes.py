"""Rows 8 and 9: node encryption on, with the etcd exception and every way to fake it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, IPOption
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN
from scapy.packet import Raw

from tests.cluster.craft import KINDS, Flow
from tests.cluster.harness import EACH, every, shooting_range
from tests.cluster.test_ingress import throw_at_alpha

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster nodes")]

CLUSTER = """
name: nodes
mode: strict
masquerade: false
node_encryption: true
opt_out: ""
nodes:
  alpha: {pods: [client]}
  beta: {pods: [server]}
  control: {control_plane: true}
"""
ALL, NONE = every(KINDS, EACH), every(KINDS, 0)
both = pytest.mark.parametrize("version", [4, 6])
etcd = pytest.mark.parametrize("port", [2379, 2380])


@pytest.fixture(scope="module")
def firing_range():
    with shooting_range(CLUSTER) as made:
        yield made


@pytest.fixture(params=["strict", "default"])
def keyless(request, firing_range):
    """alpha does not have the keys of beta and control yet; both modes in turn."""
    r = firing_range
    view = r.cluster.views["alpha"]
    outcome = "dropped" if request.param == "strict" else "plaintext"
    if request.param == "default":
        r.mode("default", "alpha")
    view.keyless.update(("beta", "control"))
    r.cluster.publish("alpha")
    for node in ("beta", "control"):
        r.until("alpha", r.node("alpha", 4), r.node(node, 4), outcome)
    yield request.param
    view.keyless.clear()
    r.cluster.publish("alpha")
    r.mode("strict", "alpha")
    for node in ("beta", "control"):
        r.until("alpha", r.node("alpha", 4), r.node(node, 4), "encrypted")


def flows(r, version):
    """Pod to node, node to pod, node to node; with the shooter's pod and the receiver."""
    alpha, beta = r.node("alpha", version), r.node("beta", version)
    client, server = r.pod("alpha/client", version), r.pod("beta/server", version)
    return [
        ("client", Flow(client, beta), ("beta", "wg0")),
        ("", Flow(alpha, server), ("beta/server", "eth0")),
        ("", Flow(alpha, beta), ("beta", "wg0")),
    ]


@both
def test_row_8_encrypts_node_traffic(firing_range, version):
    r = firing_range
    for pod, flow, receiver in flows(r, version):
        seen = r.volley("alpha", pod, flow, receiver=receiver, expect="arrived")
        assert seen.readable == NONE, flow
        assert seen.arrived == ALL, flow
        assert not seen.dropped and seen.sealed >= len(KINDS)


@both
def test_plaintext_between_node_and_pod_does_not_come_in(firing_range, version):
    """With node encryption on it can only be forged."""
    r = firing_range
    forged = [
        Flow(r.node("beta", version), r.pod("alpha/client", version)),
        Flow(r.pod("beta/server", version), r.node("alpha", version)),
    ]
    for flow in forged:
        arrived, counted, sent = throw_at_alpha(r, flow)
        assert not any(arrived.values()), flow
        assert counted == sent, flow


@both
def test_row_9_peer_unknown(firing_range, keyless, version):
    r = firing_range
    for pod, flow, _receiver in flows(r, version):
        if keyless == "strict":
            seen = r.volley("alpha", pod, flow)
            assert seen.readable == NONE, flow
            assert seen.dropped["UNENCRYPTED_TRAFFIC"] == seen.sent, flow
        else:
            seen = r.volley("alpha", pod, flow, expect="readable")
            assert seen.readable == ALL, flow


@pytest.mark.usefixtures("keyless")
@etcd
@both
def test_row_9_etcd_on_the_control_plane_passes(firing_range, version, port):
    r = firing_range
    flow = Flow(r.node("alpha", version), r.node("control", version))
    seen = r.volley("alpha", "", flow, kinds=("tcp",), port=port, expect="readable")
    assert seen.readable == {"tcp": EACH} and not seen.dropped


@both
def test_row_9_etcd_of_other_nodes_does_not(firing_range, keyless, version):
    r = firing_range
    flow = Flow(r.node("alpha", version), r.node("beta", version))
    expect = "dropped" if keyless == "strict" else "readable"
    seen = r.volley("alpha", "", flow, kinds=("tcp",), port=2379, expect=expect)
    assert seen.readable == {"tcp": 0 if keyless == "strict" else EACH}


@both
def test_row_9_only_where_the_port_can_really_be_read(firing_range, keyless, version):
    """UDP on that port, a later fragment, a cut header, a source route: all dropped."""
    r = firing_range
    flow = Flow(r.node("alpha", version), r.node("control", version))
    kinds = ("udp", "sctp", "icmp", "later fragment", "truncated tcp", "bad tcp offset")
    expect = "dropped" if keyless == "strict" else "readable"
    seen = r.volley("alpha", "", flow, kinds=kinds, port=2379, expect=expect)
    assert seen.readable == every(kinds, 0 if keyless == "strict" else EACH)
    assert seen.dropped["UNENCRYPTED_TRAFFIC"] == (seen.sent if keyless == "strict" else 0)


def disguised(version, flow, marker):
    """TCP to 2379 behind options or extension headers (readable) and tricks (not)."""
    tcp = TCP(sport=40000, dport=2379) / Raw(marker)
    if version == 4:
        ip = {"src": flow.source, "dst": flow.destination}
        return {
            True: [
                IP(**ip, options=[IPOption(b"\x01\x01\x01\x01")]) / tcp,
                IP(**ip, options=[IPOption(b"\x07\x0b\x04" + bytes(8))]) / tcp,
            ],
            # The bytes where the ports would be without options say 2379; TCP's say 80.
            False: [
                IP(**ip, options=[IPOption(b"\x9e\x04\x09\x4b"), IPOption(b"\x9e\x04\x09\x4b")])
                / TCP(sport=40000, dport=80) / Raw(marker),
            ],
        }  # fmt: skip
    ip = {"src": flow.source, "dst": flow.destination}
    return {
        True: [IPv6(**ip) / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]) / tcp],
        False: [
            IPv6(**ip) / IPv6ExtHdrFragment(offset=1, nh=6) / tcp,
            IPv6(**ip) / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\x09\x4b\x09\x4b")])
            / TCP(sport=40000, dport=80) / Raw(marker),
        ],
    }  # fmt: skip


@both
def test_row_9_reads_the_port_behind_options(firing_range, keyless, version):
    r = firing_range
    if keyless != "strict":
        return  # everything passes there; the other tests have shown it
    flow = Flow(r.node("alpha", version), r.node("control", version))
    for readable in (True, False):
        for number in range(len(disguised(version, flow, b"")[readable])):
            with r.marker() as marker:
                packet = bytes(disguised(version, flow, marker)[readable][number])
                r.from_node("alpha", flow, packet)
                r.let_through("alpha", flow)
                assert r.sniffer.marked_at[marker, "alpha.0"] == int(readable), number

"""The seams between table and kernel: what a Linux node does by itself with pods' packets.

Each leak here was once seen in strict mode.  A marker in every pod's payload is looked for in
whole frames on the underlay, wherever it turns up: in what an ICMP error quotes, behind a
changed source address, on a device that nobody named.  Each test has its sanity form, in
which default mode (or a table without the mechanism) does show the marker.
"""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from testbed import control
from testbed.cluster import AGENT, DATA_PLANE, wait_until
from tests.cluster.craft import Flow, Injector, build, mac_of
from tests.cluster.harness import shooting_range
from tests.cluster.seams import Eavesdropper, Errors, client, works

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster seams")]

CLUSTER = """
name: seams
mode: strict
masquerade: false
world: true
nodes:
  alpha: {pods: [client, neighbour]}
  beta: {pods: [server, gone]}
"""
both = pytest.mark.parametrize("version", [4, 6])
modes = pytest.mark.parametrize("mode", ["strict", "default"])
@pytest.fixture(scope="module")
def firing_range():
    with shooting_range(CLUSTER) as made:
        yield made


@pytest.fixture
def wire(firing_range):
    made = Eavesdropper(firing_range)
    yield made
    made.close()


@pytest.fixture
def in_mode(firing_range, mode):
    """Both nodes in `mode` for one test."""
    if mode == "default":
        firing_range.mode("default")
    yield mode
    if mode == "default":
        firing_range.mode("strict")


# 1. ICMP errors that the receiving node's kernel makes about a pod's packet.


def expired(r, version, marker):
    packet = bytearray(build("udp", client(r, version, r.pod("beta/server", version)), marker))
    if version == 6:
        packet[7] = 2
        return bytes(packet)
    packet[8], packet[10:12] = 2, b"\0\0"
    total = sum(packet[i] << 8 | packet[i + 1] for i in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    packet[10:12] = (~(total + (total >> 16)) & 0xFFFF).to_bytes(2)
    return bytes(packet)


def unused(r, version, marker):
    cidrs = r.topology.node("beta").pod_cidrs
    cidr = next(c for c in cidrs if c.version == version)
    return build("udp", client(r, version, str(cidr[-3])), marker)


def too_big(r, version, marker):
    """For a pod device of 1300 bytes; with DF in IPv4."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.packet import Raw

    flow = client(r, version, r.pod("beta/server", version))
    ends = {"src": flow.source, "dst": flow.destination}
    head = IP(**ends, flags="DF") if version == 4 else IPv6(**ends)
    return bytes(head / UDP(sport=40000, dport=80) / Raw(marker.ljust(1330, b"-")))


EXPECTED = {
    expired: {4: 11, 6: 3},
    unused: {4: 3, 6: 1},
    too_big: {4: 3, 6: 2},
}


@modes
@both
@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_errors_of_the_far_node_come_through_the_tunnel(
    firing_range, wire, in_mode, version, make
):
    r = firing_range
    works(r)
    beta = r.cluster.namespaces["beta"]
    beta.run("ip", "link", "set", "podserver", "mtu", "1300")
    errors = Errors(r, "alpha/client", version)
    try:
        with r.marker() as marker:
            kind = EXPECTED[make][version]

            def arrived():
                r.from_pod("alpha/client", make(r, version, marker))
                return kind in {found for found, _ in errors.got(marker)}

            assert wait_until(arrived, 15, interval=0.3), errors.got(marker)
            assert (kind, r.node("beta", version)) in errors.got(marker)
            seen = wire.count(marker)
        assert seen == 0 if in_mode == "strict" else seen > 0
    finally:
        errors.close()
        beta.run("ip", "link", "set", "podserver", "mtu", "1500")


@both
def test_traceroute_shows_every_hop(firing_range, version):
    r = firing_range
    works(r)
    hops = []
    for ttl in (1, 2, 3):
        space = r.cluster.namespaces["alpha/client"]
        done = space.run("ping", "-c", "3", "-i", "0.4", "-t", str(ttl), "-W", "2",
                         r.pod("beta/server", version), check=False)  # fmt: skip
        hops.append(done.stdout)
    assert r.node("alpha", version) in hops[0] or "exceeded" in hops[0], hops
    assert f"From {r.node('beta', version)}" in hops[1], hops
    assert "bytes from" in hops[2], hops


@both
def test_path_mtu_discovery_works(firing_range, version):
    """A pod behind a small MTU: the other's stack learns it, and the data arrives."""
    r = firing_range
    works(r)
    r.cluster.namespaces["beta"].run("ip", "link", "set", "podserver", "mtu", "1300")
    try:
        target, headers = r.pod("beta/server", version), 28 if version == 4 else 48

        def told():
            done = r.cluster.namespaces["alpha/client"].run(
                "ping", "-M", "do", "-c", "2", "-i", "0.3", "-W", "1", "-s", str(1380 - headers),
                target, check=False)  # fmt: skip
            return "mtu=1300" in done.stdout or "mtu = 1300" in done.stdout or (
                "mtu: 1300" in done.stdout + done.stderr)  # fmt: skip

        assert wait_until(told, 15, interval=0.3)
    finally:
        r.cluster.namespaces["beta"].run("ip", "link", "set", "podserver", "mtu", "1500")


REJECT = """
table inet rejecting {
  chain pass {
    type filter hook forward priority 0;
    tcp dport 81 reject with tcp reset
    tcp dport 82 reject
  }
}
"""


@both
def test_port_and_host_unreachable_and_reset(firing_range, wire, version):
    """The pod's own refusal, the node's REJECT in both forms: all arrive, none is seen."""
    r = firing_range
    works(r)
    beta = r.cluster.namespaces["beta"]
    beta.nft(REJECT)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        before = len(wire.frames) + wire.count(b"nothing of this")
        assert before >= 0
        wire.frames.clear()
        for port in (80, 81, 82):
            with r.cluster.namespaces["alpha/client"].socket(family, socket.SOCK_STREAM) as s:
                s.settimeout(10)
                with pytest.raises(OSError) as refused:
                    s.connect((r.pod("beta/server", version), port))
                assert not isinstance(refused.value, TimeoutError), port
        wire.count(b"nothing of this")
        source = socket.inet_pton(family, r.pod("alpha/client", version))
        assert not any(source in frame for frame in wire.frames)
    finally:
        beta.run("nft", "delete", "table", "inet", "rejecting")


@both
def test_a_forged_error_does_not_come_in(firing_range, version):
    """From the wire, by a node's address, with a pod's packet inside: counted and dropped."""
    from scapy.layers.inet import ICMP, IP, UDP
    from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6

    r = firing_range
    flow = client(r, version, r.pod("beta/server", version))
    nested = Flow(r.node("beta", version), flow.source)
    errors = Errors(r, "alpha/client", version)
    shoot = Injector(r.cluster.namespaces["underlay"], "br-lan",
                     mac_of(r.cluster.namespaces["alpha"], "eth0"))  # fmt: skip
    outer = {"src": nested.source, "dst": flow.source}
    with r.marker() as marker:
        quoted = (IP if version == 4 else IPv6)(build("udp", flow, marker))
        error = (IP(**outer) / ICMP(type=3, code=1) if version == 4
                 else IPv6(**outer) / ICMPv6DestUnreach())  # fmt: skip
        harmless = (IP if version == 4 else IPv6)(build(
            "udp", Flow(flow.source, r.node("beta", version)), marker))  # fmt: skip
        forged = [bytes(error / quoted), bytes(error / error / quoted)]
        assert UDP in quoted
        before = control.backstop(r.cluster, "alpha")["ingress_errors"]
        for packet in forged:
            shoot(packet)
        assert wait_until(
            lambda: control.backstop(r.cluster, "alpha")["ingress_errors"] == before + 2, 5)
        assert not errors.got(marker)
        # Sanity: what quotes row 7's own plaintext does arrive.
        shoot(bytes(error / harmless))
        assert wait_until(lambda: bool(errors.got(marker)), 5)
    shoot.close()
    errors.close()


# 2. The order at start.


@both
@modes
def test_three_starts_with_forwarding_off(request, firing_range, wire, mode, version):
    """Pods send all the while; forwarding comes on only when the backstop is there.

    Sanity: the same with forwarding on before.
    """
    r = firing_range
    if mode == "default":
        request.node.add_marker("leaks")
    alpha = r.cluster.namespaces["alpha"]
    config = r.cluster.node_folder("alpha") / "agent.toml"
    shown = 0
    with r.marker() as marker:
        packet = build("udp", client(r, version, r.pod("beta/server", version)), marker)
        for _ in range(3 if mode == "strict" else 1):
            take_down(r, config)
            alpha.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
            r.from_pod("alpha/client", packet)
            assert wire.count(marker) == 0, "nothing is forwarded"
            if mode == "default":
                alpha.run("sysctl", "-qw", "net.ipv4.ip_forward=1",
                          "net.ipv6.conf.all.forwarding=1")  # fmt: skip
                r.from_pod("alpha/client", packet)
                wait_until(lambda: wire.count(marker) > 0, 5)
            r.cluster.start_agent("alpha")
            deadline = time.monotonic() + 30
            while not r.cluster._strict_ready("alpha") and time.monotonic() < deadline:
                r.from_pod("alpha/client", packet)
            r.cluster.wait_ready("alpha")
            shown = wire.count(marker)
    assert shown == 0 if mode == "strict" else shown > 0
    works(r)


def take_down(r, config):
    """As a person does: the agent, then `down`; forwarding is what it was before."""
    with contextlib.suppress(Exception):
        r.cluster.kill("alpha", AGENT)
    from testbed import dataplane

    r.cluster.namespaces["alpha"].run(
        dataplane.program("wgpy"), "strict", "down", "--config", str(config))  # fmt: skip
    assert r.cluster.pid("alpha", DATA_PLANE) is None


def test_where_nft_fails_nothing_is_forwarded(firing_range, tmp_path):
    r = firing_range
    alpha = r.cluster.namespaces["alpha"]
    take_down(r, r.cluster.node_folder("alpha") / "agent.toml")
    broken = tmp_path / "nft"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    alpha.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    from testbed import dataplane

    config = r.cluster.node_folder("alpha") / "agent.toml"
    done = alpha.run("env", f"PATH={tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin",
                     dataplane.program("wgpy"), "strict", "run", "--config", str(config),
                     check=False)  # fmt: skip
    try:
        assert "nft refused the backstop" in done.stderr
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            assert alpha.run("sysctl", "-n", name).stdout.strip() == "0"
    finally:
        r.cluster.start_agent("alpha")
        r.cluster.wait_ready("alpha")
    assert alpha.run("sysctl", "-n", "net.ipv4.ip_forward").stdout.strip() == "1"
    works(r)

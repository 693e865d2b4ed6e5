"""Others at work on the same host: NAT, devices, nftables, a second agent, broken files.

As in `test_seams`: a marker in each pod's packet, whole frames searched, each form of
meddling shown to be one by default mode or by what is counted under a name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from testbed import control, dataplane
from testbed.cluster import AGENT, wait_until
from tests.cluster.craft import Flow, build, mac_of
from tests.cluster.harness import shooting_range
from tests.cluster.seams import Eavesdropper, client, works

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster meddling")]

CLUSTER = """
name: meddling
mode: strict
masquerade: false
world: true
nodes:
  alpha: {pods: [client, neighbour]}
  beta: {pods: [server]}
  gamma: {pods: [stranger]}
unknown: {alpha: [gamma]}
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
    if mode == "default":
        firing_range.mode("default", "alpha")
    yield mode
    if mode == "default":
        firing_range.mode("strict", "alpha")


def counted(r, name, node="alpha"):
    return control.backstop(r.cluster, node).get(name, 0)


def problems(r):
    return r.cluster.agent_status("alpha").get("problems", {})


# 3. Somebody's NAT.


def wait_for_nat_to_be_seen(alpha):
    """Until the agent has seen the rule, what it rewrites is dropped under a name."""
    def seen():
        table = alpha.run("nft", "list", "table", "inet", "wgpy_wg0", check=False)
        return "chain keep" in table.stdout

    assert wait_until(seen, 10)


MASQUERADES = {
    "masquerade": 'oifname != "lo" {family} saddr {pods} masquerade',
    "fixed": 'oifname != "lo" {family} saddr {pods} snat {family} to {node}',
}


@modes
@both
@pytest.mark.parametrize("rule", MASQUERADES)
@pytest.mark.parametrize("kind", ["udp", "icmp", "tcp"])
def test_a_masquerade_of_pods_does_not_lead_past_the_tunnel(
    firing_range, wire, in_mode, version, rule, kind
):
    """A CNI plugin's or an administrator's; what is sent arrives by the tunnel as it was."""
    r = firing_range
    works(r)
    alpha = r.cluster.namespaces["alpha"]
    family = "ip" if version == 4 else "ip6"
    cidr = next(c for c in r.topology.node("alpha").pod_cidrs if c.version == version)
    text = MASQUERADES[rule].format(family=family, pods=cidr, node=r.node("alpha", version))
    alpha.nft("table inet plugin { chain out { type nat hook postrouting priority srcnat; "
              + text + "; }; }")  # fmt: skip
    try:
        if in_mode == "strict":
            wait_for_nat_to_be_seen(alpha)
        flow = client(r, version, r.pod("beta/server", version))
        tap = r.cluster.namespaces["beta/server"].socket(
            socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # fmt: skip
        tap.settimeout(5)
        with r.marker() as marker, tap:
            r.from_pod("alpha/client", build(kind, flow, marker, port=7000 + version))
            while marker not in (packet := tap.recv(1 << 16)):
                pass
            seen = wire.count(marker)
        start = 12 if version == 4 else 8
        source = packet[start : start + len(socket.inet_pton(
            socket.AF_INET if version == 4 else socket.AF_INET6, flow.source))]  # fmt: skip
        text = socket.inet_ntop(socket.AF_INET if version == 4 else socket.AF_INET6, source)
        if in_mode == "strict":
            assert seen == 0 and text == flow.source
        else:
            assert seen > 0 and text == r.node("alpha", version)
    finally:
        alpha.run("nft", "delete", "table", "inet", "plugin")
        alpha.run("conntrack", "-F", check=False)


@both
def test_what_was_masqueraded_in_spite_of_all_is_dropped_under_a_name(
    firing_range, wire, version
):
    """By a NAT rule that comes before any of ours."""
    r = firing_range
    works(r)
    alpha = r.cluster.namespaces["alpha"]
    family = "ip" if version == 4 else "ip6"
    alpha.nft('table inet plugin { chain out { type nat hook postrouting priority -199; '
              f'{family} saddr {r.pod("alpha/client", version)} oifname "wg0" '
              f"snat {family} to {r.node('alpha', version)}; }}; }}")  # fmt: skip
    # At the same priority the chain that was added last comes first.
    try:
        before = counted(r, "rewritten")
        with r.marker() as marker:
            flow = client(r, version, r.pod("beta/server", version))
            r.from_pod("alpha/client", build("udp", flow, marker, port=7100))
            assert wait_until(lambda: counted(r, "rewritten") > before, 5)
            assert wire.count(marker) == 0
    finally:
        alpha.run("nft", "delete", "table", "inet", "plugin")


@both
def test_a_service_address_leads_through_the_tunnel(firing_range, wire, version):
    """DNAT to a remote pod, as kube-proxy does, together with a masquerade."""
    r = firing_range
    works(r)
    family, port = ("ip", 7200) if version == 4 else ("ip6", 7200)
    service = "10.96.0.10" if version == 4 else "fd00:96::10"
    target = r.pod("beta/server", version)
    to = f"{target}:{port}" if version == 4 else f"[{target}]:{port}"
    alpha = r.cluster.namespaces["alpha"]
    alpha.nft("table inet proxy { chain in { type nat hook prerouting priority dstnat; "
              f"{family} daddr {service} udp dport 53 dnat {family} to {to}; }}; "
              "chain out { type nat hook postrouting priority srcnat; masquerade; }; }")
    kind = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        wait_for_nat_to_be_seen(alpha)
        with (
            r.cluster.namespaces["beta/server"].socket(kind, socket.SOCK_DGRAM) as server,
            r.cluster.namespaces["alpha/client"].socket(kind, socket.SOCK_DGRAM) as pod,
            r.marker() as marker,
        ):
            server.bind((target, port))
            server.settimeout(5)
            pod.settimeout(5)
            pod.connect((service, 53))
            pod.send(marker)
            data, sender = server.recvfrom(100)
            assert (data, sender[0]) == (marker, r.pod("alpha/client", version))
            server.sendto(marker, sender)
            assert pod.recv(100) == marker, "the answer finds back through the service"
            assert wire.count(marker) == 0
    finally:
        alpha.run("nft", "delete", "table", "inet", "proxy")


# 4. Rules, agents and modes changed by hand.


def test_flushing_chains_in_a_loop_is_repaired_each_time(firing_range):
    r = firing_range
    works(r)
    alpha = r.cluster.namespaces["alpha"]
    rules = alpha.run("nft", "list", "table", "netdev", "wgpy_wg0").stdout.count("counter name")
    stop = threading.Event()

    def flush():
        while not stop.wait(0.02):
            alpha.run("nft", "flush", "chain", "netdev", "wgpy_wg0", "egress_0", check=False)
            alpha.run("nft", "flush", "chain", "inet", "wgpy_wg0", "leaving", check=False)

    thread = threading.Thread(target=flush)
    thread.start()
    time.sleep(3)
    stop.set()
    thread.join()

    def whole():
        listed = alpha.run("nft", "list", "table", "netdev", "wgpy_wg0", check=False).stdout
        return listed.count("counter name") == rules and not problems(r)

    assert wait_until(whole, 20), problems(r)


def test_nobody_else_changes_the_mode_while_an_agent_runs(firing_range):
    r = firing_range
    with control.connection(r.cluster, "alpha") as other:
        with pytest.raises(control.ControlFailed) as refused:
            other.request("set_mode", mode="default")
        assert refused.value.code == "held"
    assert control.status(r.cluster, "alpha")["policy"]["config"]["mode"] == "strict"
    # Sanity: without the agent it is changed, and the next agent puts it right.
    r.cluster.kill("alpha", AGENT)

    def changed():
        with control.connection(r.cluster, "alpha") as other:
            try:
                other.request("set_mode", mode="default")
            except control.ControlFailed:
                return False
        return control.status(r.cluster, "alpha")["policy"]["config"]["mode"] == "default"

    assert wait_until(changed, 5)
    r.cluster.start_agent("alpha")
    r.cluster.wait_ready("alpha")
    assert control.status(r.cluster, "alpha")["policy"]["config"]["mode"] == "strict"


def test_a_second_agent_is_refused_whatever_is_removed(firing_range):
    r = firing_range
    for path in r.cluster.run_folder("alpha").glob("*.lock"):
        path.unlink()
    config = r.cluster.node_folder("alpha") / "agent.toml"
    done = r.cluster.namespaces["alpha"].run(
        dataplane.program("wgpy"), "strict", "run", "--config", str(config), check=False)
    assert "another agent keeps wg0 (process " in done.stderr


@both
def test_a_foreign_mark_leads_no_pod_past_the_tunnel(firing_range, wire, version):
    """The mark of the tunnel's own UDP on pods' packets: a rule of another program's."""
    r = firing_range
    works(r)
    alpha = r.cluster.namespaces["alpha"]
    alpha.nft("table inet marks { chain in { type filter hook prerouting priority -310; "
              "meta mark set 0xe00; }; }")  # fmt: skip
    try:
        before = counted(r, "before_nat")
        with r.marker() as marker:
            flow = client(r, version, r.pod("beta/server", version))
            r.from_pod("alpha/client", build("udp", flow, marker))
            assert wait_until(lambda: counted(r, "before_nat") > before, 5)
            assert wire.count(marker) == 0
    finally:
        alpha.run("nft", "delete", "table", "inet", "marks")


# 5. Devices.


@both
@modes
def test_a_device_that_was_added_or_renamed_a_moment_ago(firing_range, wire, in_mode, version):
    """A route by a device that nobody named; with the agent stopped, so that it cannot help."""
    r = firing_range
    works(r)
    alpha, underlay = r.cluster.namespaces["alpha"], r.cluster.namespaces["underlay"]
    pid = r.cluster.pid("alpha", AGENT)
    target = r.pod("gamma/stranger", version)
    width, space = (32, "-4") if version == 4 else (128, "-6")
    os.kill(pid, signal.SIGSTOP)
    try:
        underlay.ip([f"link add late type veth peer name new0 netns {alpha.pid}",
                     "link set late master br-lan up"])  # fmt: skip
        alpha.ip(["link set new0 up", "link set new0 name newer0"])
        alpha.run("ip", space, "rule", "add", "to", f"{target}/{width}", "priority", "50",
                  "table", "777")  # fmt: skip
        alpha.ip([f"route add {target}/{width} dev newer0 table 777"])
        mac = mac_of(r.cluster.namespaces["gamma"], "eth0").hex(":")
        alpha.ip([f"neighbour add {target} lladdr {mac} dev newer0"])
        with r.marker() as marker:
            for _ in range(5):
                r.from_pod("alpha/client", build("udp", client(r, version, target), marker))
                time.sleep(0.1)
            # This link enters the bridge by a port of its own.
            seen = wire.count(marker)
            assert seen == 0 if in_mode == "strict" else seen > 0
    finally:
        alpha.run("ip", space, "rule", "del", "priority", "50", check=False)
        os.kill(pid, signal.SIGCONT)
        underlay.run("ip", "link", "del", "late")


def test_a_renamed_underlay_is_followed_and_is_a_problem(firing_range):
    r = firing_range
    works(r)
    alpha = r.cluster.namespaces["alpha"]
    restore = alpha.run("ip", "-6", "route", "show", "default").stdout
    alpha.ip(["link set eth0 down", "link set eth0 name eth9", "link set eth9 up"])
    try:
        assert wait_until(lambda: "eth0 is called eth9" in problems(r).get("underlay", ""), 15)
        chains = alpha.run("nft", "list", "table", "netdev", "wgpy_wg0").stdout
        assert 'device "eth9"' in chains and 'device "eth0"' not in chains
    finally:
        alpha.ip(["link set eth9 down", "link set eth9 name eth0", "link set eth0 up"])
        addresses(r, alpha, restore)
    assert wait_until(lambda: not problems(r), 15), problems(r)
    works(r)


def addresses(r, alpha, default6):
    """The kernel forgets IPv6 addresses and routes of a device that went down."""
    alpha.run("ip", "address", "replace", f"{r.node('alpha', 6)}/64", "dev", "eth0", "nodad")
    if default6:
        alpha.run("ip", "-6", "route", "replace", *default6.split()[:5], check=False)
    alpha.run("ip", "route", "replace", "default", "via", "172.20.0.254", check=False)


# 6. Adoption.


def test_strict_rules_do_not_wait_for_the_cluster_file(firing_range):
    """Killed in default mode, configured to strict, and the cluster file cannot be read."""
    r = firing_range
    works(r)
    r.mode("default", "alpha")
    r.cluster.kill("alpha", AGENT)
    cluster = r.cluster.node_folder("alpha") / "cluster.toml"
    text = cluster.read_text()
    cluster.write_text("[[node]]\nnonsense\n")
    r.cluster.write_config("alpha", mode="strict")
    log = r.cluster.daemons["alpha", AGENT].log
    start = len(log.read_text())
    alpha = r.cluster.namespaces["alpha"]
    assert "drop" not in alpha.run("nft", "list", "chain", "inet", "wgpy_wg0", "leaving").stdout
    r.cluster.start_agent("alpha")
    try:
        said = "the backstop is in place: pods' plaintext is dropped"
        assert wait_until(lambda: said in log.read_text()[start:], 15)
        listed = alpha.run("nft", "list", "chain", "inet", "wgpy_wg0", "leaving").stdout
        assert 'counter name "before_nat" drop' in listed and "accept" in listed
        assert wait_until(lambda: control.status(r.cluster, "alpha")["policy"]["config"]["mode"]
                          == "strict", 15)  # fmt: skip
        # What the old agent knew still works.
        works(r)
        assert r.ping("alpha/client", r.pod("alpha/neighbour", 4), count=1) == 1
    finally:
        part = cluster.with_suffix(".part")
        part.write_text(text)
        part.replace(cluster)
    r.cluster.wait_ready("alpha")


# Sources, tunnels in packets, everybody's addresses.


@modes
@both
@pytest.mark.parametrize("who", ["node", "neighbour", "remote pod", "world"])
def test_a_pod_sends_from_its_own_address_alone(firing_range, wire, in_mode, version, who):
    r = firing_range
    works(r)
    source = {
        "node": r.node("beta", version),
        "neighbour": r.pod("alpha/neighbour", version),
        "remote pod": r.pod("beta/server", version),
        "world": r.world(version),
    }[who]
    before = counted(r, "pod_source")
    with r.marker() as marker:
        r.from_pod("alpha/client", build("udp", Flow(source, r.node("beta", version)), marker))
        assert wait_until(lambda: counted(r, "pod_source") == before + 1, 5)
        if in_mode == "strict":
            assert wire.count(marker) == 0
        else:
            assert wait_until(lambda: wire.count(marker) > 0, 3)
    # Its own address is not counted.
    with r.marker() as marker:
        own = client(r, version, r.node("beta", version))
        r.from_pod("alpha/client", build("udp", own, marker))
        assert wait_until(lambda: wire.count(marker) > 0, 3)
    assert counted(r, "pod_source") == before + 1


@modes
@both
def test_ip_in_ip_to_a_node_with_a_pods_packet_inside(firing_range, wire, in_mode, version):
    """Pod to node is row 7; with pod to pod inside, in either family, it is not."""
    r = firing_range
    works(r)
    outer = client(r, version, r.node("beta", version))
    ends = {"src": outer.source, "dst": outer.destination}
    before = counted(r, "before_nat")
    for inner in (4, 6):
        flow = client(r, inner, r.pod("gamma/stranger", inner))
        protocol = 4 if inner == 4 else 41
        head = IP(**ends, proto=protocol) if version == 4 else IPv6(**ends, nh=protocol)
        with r.marker() as marker:
            r.from_pod("alpha/client", bytes(head / Raw(build("udp", flow, marker))))
            if in_mode == "strict":
                assert wait_until(lambda b=before: counted(r, "before_nat") > b, 5)
                assert wire.count(marker) == 0
            else:
                assert wait_until(lambda: wire.count(marker) > 0, 3)
        before = counted(r, "before_nat")


@both
def test_broadcast_and_multicast_of_pods_stay(firing_range, wire, version):
    """Not even where somebody put the frame on the underlay itself."""
    from testbed.sniffer import send_frame

    r = firing_range
    everybody = ["224.0.0.251", "255.255.255.255"] if version == 4 else ["ff02::fb"]
    alpha = r.cluster.namespaces["alpha"]
    kind = b"\x08\x00" if version == 4 else b"\x86\xdd"
    for address in everybody:
        packet_of = Flow(r.pod("alpha/client", version), address)
        before = counted(r, "egress_pods")
        with r.marker() as marker:
            packet = build("udp", packet_of, marker)
            r.from_pod("alpha/client", packet)
            with contextlib.suppress(OSError):
                send_frame(alpha, "eth0", b"\xff" * 6 + b"\x02leaky" + kind + packet)
            assert wait_until(lambda b=before: counted(r, "egress_pods") > b, 5)
            assert wire.count(marker) == 0

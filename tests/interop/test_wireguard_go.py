"""wgpy and Debian's wireguard-go at the two ends of a tunnel, driven by the real `wg`."""

from __future__ import annotations

import pytest

from tests.interop.tunnel import PORT, connect, iperf, make_end, make_ends, start_program, wg
from tests.support.netns import wait_until

pytestmark = pytest.mark.root

PAIRS = [("py", "go"), ("go", "py"), ("py", "py")]
MIXED = PAIRS[:2]
ROAMED = {4: ("192.0.2.77", 24), 6: ("2001:db8::77", 64)}


@pytest.mark.parametrize("psk", [False, True], ids=["plain", "psk"])
@pytest.mark.parametrize("outer", [4, 6], ids=["outer4", "outer6"])
@pytest.mark.parametrize("pair", MIXED, ids="-".join)
def test_handshake_and_data(lab, pair, outer, psk):
    """The first of the pair initiates; the second cannot, for it has no endpoint."""
    left, right = make_ends(lab, *pair)
    connect(left, right, family=outer, psk=wg("genpsk") if psk else "")
    left.ping(right, "-c2", "-i0.2")
    left.ping(right, "-c2", "-i0.2", family=6)
    right.ping(left, "-c2", "-i0.2")
    right.ping(left, "-fc300", family=6)
    assert left.handshake_time() and abs(left.handshake_time() - right.handshake_time()) <= 1
    assert right.peer_endpoint() == left.endpoint(outer)
    assert left.transfer() == right.transfer()[::-1]


@pytest.mark.parametrize("pair", MIXED, ids="-".join)
def test_link_local_outer_addresses(lab, pair):
    """An endpoint with a zone, and answers that leave from a link-local source."""
    left, right = make_ends(lab, *pair)
    devices = {}
    for end in (left, right):
        shown = end.namespace.run("ip", "-br", "link", "show", "type", "veth").stdout
        devices[end.name] = shown.split("@")[0]
        command = ["ip", "-br", "-6", "address", "show", "scope", "link", "dev", devices[end.name]]
        assert wait_until(lambda e=end, c=command: "fe80" in e.namespace.run(*c).stdout)
        end.outer[6] = end.namespace.run(*command).stdout.split()[2].split("/")[0]
    left.configure(right, "endpoint", f"[{right.outer[6]}%{devices[left.name]}]:{PORT}")
    right.configure(left)
    for end in (left, right):
        end.up()
    left.ping(right, "-c2", "-i0.2")
    right.ping(left, "-c2", "-i0.2", family=6)
    assert right.peer_endpoint().startswith(f"[{left.outer[6]}")  # the zone: ours only


def test_a_wrong_preshared_key_lets_nothing_through(lab):
    left, right = make_ends(lab, "py", "go")
    connect(left, right, psk=wg("genpsk"))
    right.wg(
        "set",
        right.name,
        "peer",
        left.public_key,
        "preshared-key",
        "/dev/stdin",
        stdin=wg("genpsk"),
    )
    lost = left.namespace.run("ping", "-nq", "-c2", "-W1", right.inner[4], check=False)
    assert "100% packet loss" in lost.stdout
    assert left.handshake_time() == 0


@pytest.mark.parametrize("pair", MIXED, ids="-".join)
def test_bulk_traffic(lab, pair):
    left, right = make_ends(lab, *pair)
    connect(left, right)
    left.ping(right, "-fc1000", "-s1300")
    for direction in ((), ("--reverse",)):
        sums = iperf(left, right, "--time", "1", *direction)
        assert sums["sum_received"]["bytes"] > 1 << 20
    sums = iperf(left, right, "--udp", "--bitrate", "10M", "--length", "1300", "--time", "1")
    assert sums["sum"]["packets"] > 500
    assert sums["sum"]["lost_packets"] < sums["sum"]["packets"] / 2


@pytest.mark.parametrize("pair", MIXED, ids="-".join)
@pytest.mark.parametrize("family", [4, 6], ids=["outer4", "outer6"])
@pytest.mark.parametrize("mover", ["initiator", "responder"])
def test_roaming_under_traffic(lab, pair, family, mover):
    """One end's outer address changes under a running ping; the other end follows."""
    left, right = make_ends(lab, *pair)
    connect(left, right, family=family)
    moving, staying = (left, right) if mover == "initiator" else (right, left)
    left.ping(right, "-c1")
    home, (new, length) = moving.namespace, ROAMED[family]
    device = home.run("ip", "-br", "link", "show", "type", "veth").stdout.split("@")[0]
    traffic = home.start("ping", "-nq", "-i0.05", "-c40", staying.inner[4])
    nodad = "nodad" if family == 6 else ""
    home.run("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")
    home.ip(f"address add {new}/{length} dev {device} {nodad}")
    home.ip(f"address delete {moving.outer[family]}/{length} dev {device}")
    if family == 4 and pair[left is not moving] == "go":
        # wireguard-go 0.0.20220316 is silent when its IPv4 source is gone (between two of
        # its own as well) until it is told the endpoint again, which makes it forget.
        moving.wg(
            "set", moving.name, "peer", staying.public_key, "endpoint", staying.endpoint(family)
        )
    output, _ = traffic.communicate(timeout=30)
    moving.outer[family] = new
    assert staying.peer_endpoint() == moving.endpoint(family)
    assert " received" in output and " 100% packet loss" not in output
    staying.ping(moving, "-c2", "-i0.2")


@pytest.mark.parametrize("pair", MIXED, ids="-".join)
def test_behind_nat_with_keepalive(lab, pair):
    """client - masquerading router - server: the keepalive opens the way in, and reopens it."""
    client_home, router, server_home = (lab.namespace(n) for n in ("client", "router", "server"))
    lab.veth(client_home, router, "192.168.7.2/24", "192.168.7.1/24")
    _, outside = lab.veth(server_home, router, "198.51.100.9/24", "198.51.100.1/24")
    client_home.ip("route add default via 192.168.7.1")
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    router.run("nft", "-f", "-", stdin=masquerade(outside, 40000))
    client = make_end(lab, client_home, 1, "192.168.7.2", "")
    server = make_end(lab, server_home, 2, "198.51.100.9", "")
    for end, program in zip((client, server), pair, strict=True):
        start_program(end.namespace, program, end.name)
    client.configure(server, "endpoint", server.endpoint(4), "persistent-keepalive", "1")
    server.configure(client)
    server.up()
    client.up()
    assert wait_until(lambda: server.handshake_time() > 0)
    assert server.peer_endpoint() == "198.51.100.1:40000"
    server.ping(client, "-c2", "-i0.2")
    # The router forgets its mapping (a reboot): the next keepalive makes another one, and
    # the server follows it.
    router.run("nft", "-f", "-", stdin=masquerade(outside, 41000))
    router.run("conntrack", "--flush")
    assert wait_until(lambda: server.peer_endpoint() == "198.51.100.1:41000")
    server.ping(client, "-c2", "-i0.2")


def masquerade(device: str, port: int) -> str:
    """An nft script: what leaves through `device` does so from its address and `port`."""
    return f"""
        flush ruleset
        table ip nat {{
            chain post {{
                type nat hook postrouting priority 100;
                oifname "{device}" udp sport {PORT} masquerade to :{port}
            }}
        }}
    """

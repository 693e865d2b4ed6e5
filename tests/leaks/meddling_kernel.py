"""Somebody else's hands on rules, routes, settings and devices: the kernel's part of `meddling`."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator

from testbed import control, dataplane, network
from tests.leaks.life import Life
from tests.leaks.meddling import BACKSTOP, DWELL, GRACE, TUNNEL, lenient, meddling


@meddling("nft flush ruleset", BACKSTOP, "needs")
def _flush(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    with lenient(life, GRACE):
        life.change(node, "nft flush ruleset")
    yield


@meddling("chains are flushed in a loop for a while", BACKSTOP, "needs")
def _flush_loop(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    stop = threading.Event()
    chains = [line.split() for line in life.run(
        node, "nft list ruleset | awk '/^table/{t=$2\" \"$3} /chain/{print t, $2}'"
    ).splitlines()]  # fmt: skip

    def flush() -> None:
        while not stop.wait(0.01):
            family, table, chain = chance.choice(chains)
            life.run(node, f"nft flush chain {family} {table} {chain}")

    thread = threading.Thread(target=flush)
    with lenient(life, GRACE):
        thread.start()
        try:
            life.dwell(2 * DWELL)
        finally:
            stop.set()
            thread.join()
    yield


@meddling("rules are replaced by accept", BACKSTOP, "needs")
def _accept(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    """A table of another's that accepts everything before ours, and our chains changed."""
    with lenient(life, GRACE):
        life.nft(node, "first", "type filter hook postrouting priority -400;\naccept")
        for family, chain in (("netdev", "egress_0"), ("inet", "leaving")):
            life.run(node, f"nft insert rule {family} wgpy_wg0 {chain} accept")
    yield
    life.run(node, "nft delete table inet first")


@meddling("the data plane is told to be in default mode", BACKSTOP, "needs")
def _set_mode(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    with contextlib.suppress(Exception), control.connection(life.cluster, node) as other:
        other.request("set_mode", mode="default")
    yield
    with contextlib.suppress(Exception), control.connection(life.cluster, node) as other:
        other.request("set_mode", mode="strict")


@meddling("a second agent, in default mode", BACKSTOP, "needs")
def _second(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    folder = life.cluster.node_folder(node)
    for path in life.cluster.run_folder(node).glob("*.lock"):
        path.unlink()
    text = (folder / "agent.toml").read_text().replace('"strict"', '"default"')
    (folder / "second.toml").write_text(text)
    with (folder / "second.log").open("ab") as log:
        process = life.space(node).popen(
            dataplane.program("wgpy"), "strict", "run", "--config", str(folder / "second.toml"),
            stdout=log)  # fmt: skip
    try:
        time.sleep(1.5)
        yield
    finally:
        process.kill()
        process.wait()


POLICY = {
    "everything looks in main first": "rule add pref 50 lookup main",
    "a table of another's": "rule add pref 50 lookup 777; ip {f} route add default {v} table 777",
}


@meddling("a foreign policy rule", TUNNEL)
def _policy(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    command = POLICY[chance.choice(list(POLICY))]
    via = life.run(node, "ip route show default; ip -6 route show default").splitlines()
    for family, line in zip(("-4", "-6"), via, strict=False):
        words = " ".join(line.split()[1:5])
        life.change(node, f"ip {family} " + command.format(f=family, v=words))
    try:
        yield
    finally:
        for family in ("-4", "-6"):
            life.run(node, f"ip {family} rule del pref 50; ip {family} route flush table 777")


@meddling("routes to pods past the tunnel", TUNNEL)
def _routes(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    """In the tunnel's own table, better than ours."""
    via = life.run(node, "ip route show default; ip -6 route show default").splitlines()
    for family, line, pods in zip(("-4", "-6"), via, ("10.244.2.0/24", "fd10:244:0:2::/64"),
                                  strict=False):  # fmt: skip
        words = " ".join(line.split()[1:5])
        life.change(node, f"ip {family} route add {pods} {words} metric 1 table 51871")
    try:
        yield
    finally:
        for family, pods in (("-4", "10.244.2.0/24"), ("-6", "fd10:244:0:2::/64")):
            life.run(node, f"ip {family} route del {pods} metric 1 table 51871")


@meddling("routes are flushed", TUNNEL, "needs")
def _flush_routes(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    for family in ("-4", "-6"):
        life.run(node, f"ip {family} route flush table 51871; ip {family} route flush table 51872")
        life.run(node, f"ip {family} rule del pref 103; ip {family} rule del pref 100")
    yield


NAT = {
    "masquerade all": "masquerade",
    "masquerade pods": "{f} saddr {pods} masquerade",
    "masquerade what goes outside": "{f} saddr {pods} {f} daddr != {pods} masquerade",
    "masquerade into the tunnel": 'oifname "wg0" masquerade',
    "snat": "{f} saddr {pods} snat {f} to {node}",
}
CIDR = {"alpha": ("10.244.1.0/24", "fd10:244:0:1::/64"),
        "beta": ("10.244.2.0/24", "fd10:244:0:2::/64")}  # fmt: skip


SRCNAT = "type nat hook postrouting priority {};"


@meddling("a foreign masquerade rule")
def _masquerade(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    name = chance.choice(list(NAT))
    priority = chance.choice(("srcnat", "-199", "-150", "90"))
    here = life.cluster.topology.node(node)
    rules = [NAT[name].format(f=family, pods=pods, node=here.address(version))
             for family, version, pods in zip(("ip", "ip6"), (4, 6), CIDR[node], strict=True)]
    life.nft(node, "foreign", "\n".join((SRCNAT.format(priority), *dict.fromkeys(rules))))
    try:
        yield
    finally:
        life.run(node, "nft delete table inet foreign")
        if chance.random() < 0.5:
            # What is tracked stays tracked, otherwise.
            life.run(node, "conntrack -F")


@meddling("iptables masquerades")
def _iptables(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    for program, pods in zip(("iptables", "ip6tables"), CIDR[node], strict=True):
        life.change(node, f"{program} -t nat -A POSTROUTING -s {pods} -j MASQUERADE")
    try:
        yield
    finally:
        for program in ("iptables", "ip6tables"):
            life.run(node, f"{program} -t nat -F")


@meddling("connections tracked while pods were masqueraded")
def _tracked(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.nft(node, "foreign", SRCNAT.format("srcnat") + "\nmasquerade")
    life.dwell(DWELL)
    life.run(node, "nft delete table inet foreign")
    yield
    life.run(node, "conntrack -F")


@meddling("a service's address leads to a remote pod")
def _service(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    other = "beta" if node == "alpha" else "alpha"
    pod = "beta/server" if other == "beta" else "alpha/client"
    four, six = life.cluster.topology.pod(pod).addresses
    into = (f"type nat hook prerouting priority dstnat;\nip daddr 10.96.0.10 dnat ip to {four}\n"
            f"ip6 daddr fd00:96::a dnat ip6 to {six}")  # fmt: skip
    out = SRCNAT.format("srcnat") + "\nmasquerade"
    life.nft(node, "service", into, *chance.choice(((), (out,))))
    # What was tracked before the rule was there is not translated.
    life.run(node, "conntrack -F")
    life.services |= {node}
    try:
        yield
    finally:
        life.services -= {node}
        time.sleep(0.05)
        life.run(node, "nft delete table inet service")
        life.run(node, "conntrack -F")


@meddling("a REJECT rule")
def _reject(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    how = chance.choice(("reject", "meta l4proto tcp reject with tcp reset",
                         "reject with icmpx admin-prohibited"))  # fmt: skip
    hook = chance.choice(("forward", "input"))
    life.nft(node, "refusing", f"type filter hook {hook} priority 0;\nudp dport 51871 accept\n"
             "icmp type echo-request accept\nicmp type echo-reply accept\n"
             f"meta l4proto ipv6-icmp accept\n{how}")  # fmt: skip
    yield
    life.run(node, "nft delete table inet refusing")


@meddling("a foreign mark on everything")
def _mark(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.nft(node, "marking",
             "type filter hook prerouting priority -310;\nmeta mark set 0xe00",
             "type route hook output priority -310;\nmeta mark set 0xe00")  # fmt: skip
    yield
    life.run(node, "nft delete table inet marking")


SYSCTLS = {
    "ipv4/ip_forward": "0", "ipv6/conf/all/forwarding": "0", "ipv4/conf/all/rp_filter": "1",
    "ipv4/conf/wg0/rp_filter": "1", "ipv4/conf/wg0/accept_local": "0",
    "ipv4/conf/all/send_redirects": "1", "ipv4/conf/wg0/send_redirects": "1",
    "ipv4/conf/eth0/send_redirects": "1", "ipv4/conf/all/proxy_arp": "1",
    "ipv4/conf/all/route_localnet": "1", "ipv4/conf/all/accept_source_route": "1",
    "ipv6/conf/all/accept_source_route": "1", "ipv4/icmp_errors_use_inbound_ifaddr": "1",
    "ipv4/conf/all/bc_forwarding": "1", "ipv4/conf/all/mc_forwarding": "1",
    "ipv6/conf/all/proxy_ndp": "1", "ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0",
    "ipv4/ip_no_pmtu_disc": "1", "ipv4/ip_forward_use_pmtu": "1",
    "ipv6/conf/wg0/addr_gen_mode": "0", "ipv4/ip_default_ttl": "2",
}  # fmt: skip


@meddling("sysctls are set back")
def _sysctls(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    chosen = chance.sample(sorted(SYSCTLS), 6)
    before = {key: life.run(node, f"cat /proc/sys/net/{key}").strip() for key in chosen}
    for key in chosen:
        life.change(node, f"echo {SYSCTLS[key]} > /proc/sys/net/{key}")
    yield
    for key, value in before.items():
        life.run(node, f"echo {value} > /proc/sys/net/{key}")


# Devices and addresses.


@meddling("the underlay device is renamed")
def _rename(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.change(node, "ip link set eth0 down; ip link set eth0 name net9; ip link set net9 up")
    addresses(life, node, "net9")
    yield
    life.run(node, "ip link set net9 down; ip link set net9 name eth0; ip link set eth0 up")
    addresses(life, node, "eth0")


@meddling("the underlay device is replaced")
def _replace(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    """As by DHCP and hot-plug: another device of the same name."""
    life.change(node, "ip link delete eth0")
    life.cluster.namespaces[network.UNDERLAY].ip([
        f"link add {node}.0 type veth peer name eth0 netns {life.space(node).pid}",
        f"link set {node}.0 master br-lan up",
    ])  # fmt: skip
    life.run(node, "ip link set eth0 up")
    addresses(life, node, "eth0")
    yield


@meddling("a second device to the underlay")
def _second_device(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    """With an address, or a route to pods, or both."""
    life.cluster.namespaces[network.UNDERLAY].ip([
        f"link add {node}.9 type veth peer name new9 netns {life.space(node).pid}",
        f"link set {node}.9 master br-lan up",
    ])  # fmt: skip
    life.change(node, "ip link set new9 up")
    if chance.random() < 0.7:
        life.change(node, "ip address add 172.20.0.77/24 dev new9; "
                       "ip address add fd00:20::77/64 dev new9 nodad")  # fmt: skip
    other = life.cluster.topology.node("beta" if node == "alpha" else "alpha")
    for cidr in other.pod_cidrs:
        via = other.address(cidr.version)
        life.change(node, f"ip route replace {cidr} via {via} dev new9 onlink")
    yield
    life.run(node, "ip link delete new9")


@meddling("the underlay is down for a moment")
def _underlay_down(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.change(node, "ip link set eth0 down")
    life.dwell(20)
    life.run(node, "ip link set eth0 up")
    addresses(life, node, "eth0")
    yield


@meddling("the node's address changes")
def _address(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    four, six = (life.cluster.topology.node(node).address(version) for version in (4, 6))
    life.change(node, f"ip address del {four}/24 dev eth0; ip address del {six}/64 dev eth0; "
                      "ip address add 172.20.0.88/24 dev eth0; "
                      "ip address add fd00:20::88/64 dev eth0 nodad; "
                      "ip route add default via 172.20.0.254 dev eth0")  # fmt: skip
    yield
    addresses(life, node, "eth0")
    life.run(node, "ip address del 172.20.0.88/24 dev eth0; "
                   "ip address del fd00:20::88/64 dev eth0")  # fmt: skip
    addresses(life, node, "eth0")


@meddling("MTUs change")
def _mtus(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    pod = "client" if node == "alpha" else "server"
    changes = {"eth0": chance.choice((1280, 1400, 1492)), f"pod{pod}": chance.choice((1280, 1300)),
               "wg0": chance.choice((576, 1280, 9000))}  # fmt: skip
    chosen = chance.sample(sorted(changes), 2)
    before = {name: life.run(node, f"cat /sys/class/net/{name}/mtu").strip() for name in chosen}
    for name in chosen:
        life.change(node, f"ip link set {name} mtu {changes[name]}")
    yield
    for name, mtu in before.items():
        life.run(node, f"ip link set {name} mtu {mtu or 1500}")


def addresses(life: Life, node: str, device: str) -> None:
    """A node's addresses and routes as they were made, where the kernel forgot them."""
    here = life.cluster.topology.node(node)
    lines = network.node_lines(life.cluster.topology, here, {p.path: 0 for p in here.pods})
    wanted = [line.replace(" add ", " replace ", 1).replace("eth0", device) for line in lines
              if line.startswith(("address add", "route add"))]  # fmt: skip
    life.run(node, "ip -force -batch - <<'X'\n" + "\n".join(wanted) + "\nX\n")

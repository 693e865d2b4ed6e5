"""The table against a naive oracle: the verdict table read aloud, nothing shared with it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from strict.labels import Selector
from strict.nodes import Node
from strict.settings import Mode
from strict.table import StrictTable
from tests.strict.helpers import CONTROL, a, config, entry, key, p

POD_NETS = ["10.244.0.0/20", "fd10::/60"]
NODE_NETS = ["192.168.5.0/28", "fd05::/124"]


def oracle(mode, encrypt_nodes, nodes, entries, src, dst):
    """Rows 2 to 9, no readable port; nodes: name → (addresses, keyed, cidrs, opted out)."""
    within = lambda ip, nets: any(ip in ip_network(n) for n in nets if ip_network(n).version == ip.version)  # noqa: E731, E501
    owner = lambda ip: next((n for n, v in nodes.items() if str(ip) in v[0]), None)  # noqa: E731
    kind = lambda ip: "node" if owner(ip) or within(ip, NODE_NETS) else "pod" if within(ip, POD_NETS) else "world"  # noqa: E731, E501
    known = [(ip_network(n).prefixlen, 1, where, enc) for n, (where, enc) in entries.items() if within(dst, [n])]  # noqa: E501
    known += [(ip_network(c).prefixlen, 0, n, True) for n, v in nodes.items() for c in v[2] if within(dst, [c])]  # noqa: E501
    where, may = (owner(dst), True) if kind(dst) == "node" else max(known, default=(0, 0, None, True))[2:]  # noqa: E501
    if where == "here":
        return 2, "plaintext"
    keyed, drop = where in nodes and nodes[where][1] and may, "drop" if mode is Mode.STRICT else "plaintext"  # noqa: E501
    if kind(dst) == "node" or (kind(src) == "node" and (kind(dst) == "pod" or where)):
        if kind(src) == "world":
            return 6, "plaintext"
        places = ["here", owner(src) or placed(src, nodes, entries, within), where]
        if not encrypt_nodes or any(n in nodes and nodes[n][3] for n in places):
            return 7, "plaintext"
        return (8, "encrypt") if keyed else (9, drop)
    if keyed:
        return (3 if max(known)[1] else 4), "encrypt"
    return (5, drop) if kind(dst) == "pod" or where else (6, "plaintext")


def placed(ip, nodes, entries, within):
    """The node of a pod, by entry or pod CIDR, the longer prefix."""
    known = [(ip_network(n).prefixlen, 1, where) for n, (where, _) in entries.items() if within(ip, [n])]  # noqa: E501
    known += [(ip_network(c).prefixlen, 0, n) for n, v in nodes.items() for c in v[2] if within(ip, [c])]  # noqa: E501
    return max(known, default=(0, 0, None))[2]


pods4 = st.integers(0, 40).map(lambda n: f"10.244.{n // 10}.{n % 10}")
pods6 = st.integers(0, 40).map(lambda n: f"fd10:0:0:{n // 10}::{n % 10}")
nodes4 = st.integers(1, 6).map(lambda n: f"192.168.5.{n}")
nodes6 = st.integers(1, 6).map(lambda n: f"fd05::{n}")
v4 = st.one_of(pods4, nodes4, st.sampled_from(["8.8.8.8", "172.16.0.1"]))
v6 = st.one_of(pods6, nodes6, st.sampled_from(["2001:db8::8"]))
names = ["here", "b", "c", "d"]


@st.composite
def clusters(draw):
    nodes = {}
    for number, name in enumerate(draw(st.lists(st.sampled_from(names), unique=True)), 1):
        third = number % 4
        slices = [f"10.244.{third}.0/24", f"10.244.{third}.0/29", f"fd10:0:0:{third}::/64"]
        cidrs = draw(st.sets(st.sampled_from(slices)))
        addresses = {f"192.168.5.{number}", f"fd05::{number}"}
        nodes[name] = addresses, draw(st.booleans()), cidrs, draw(st.booleans())
    place = st.tuples(st.sampled_from([*names, "nobody"]), st.booleans())
    prefixes = st.one_of(pods4.map(lambda ip: f"{ip}/32"), pods6.map(lambda ip: f"{ip}/128"),
                         st.sampled_from(["10.244.1.0/26", "10.244.0.0/20", "fd10:0:0:1::/66",
                                          "172.16.0.0/12"]))
    return nodes, draw(st.dictionaries(prefixes, place, max_size=12))


@settings(max_examples=400, deadline=None)
@given(clusters(), st.sampled_from(list(Mode)), st.booleans(),
       st.one_of(st.tuples(v4, v4), st.tuples(v6, v6)))
def test_table_and_oracle_agree(cluster, mode, encrypt_nodes, flow) -> None:
    nodes, entries = cluster
    made = StrictTable(config(
        mode, pod_cidrs=tuple(map(p, POD_NETS)), node_cidrs=tuple(map(p, NODE_NETS)),
        node_encryption=encrypt_nodes,
        node_encryption_opt_out=Selector.parse("node-role.kubernetes.io/control-plane"),
    ))
    # A control-plane node opens the etcd exception, but not for a packet without ports.
    for number, (name, (addresses, keyed, cidrs, out)) in enumerate(nodes.items(), 1):
        made.upsert_node(Node(
            name, tuple(map(a, sorted(addresses))), key(number) if keyed else None,
            tuple(map(p, sorted(cidrs))), CONTROL if out else {}))
    for prefix, (where, encrypt) in entries.items():
        made.upsert_entry(entry(prefix, where, encrypt=encrypt))
    source, destination = map(ip_address, flow)
    decision = made.decide(a(flow[0]), a(flow[1]))
    expected = oracle(mode, encrypt_nodes, nodes, entries, source, destination)
    assert (int(decision.rule), decision.verdict.action.value) == expected

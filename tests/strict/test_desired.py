"""Allowed IPs from the table: complete, never on the wrong peer, and no window on the way."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from strict.dataplane import PREFIXES_PER_REQUEST, _bounded
from strict.desired import Desired, PeerPlan, difference
from strict.ipcache import Entry, Source
from strict.nodes import Node
from strict.verdicts import Rule
from tests.strict.helpers import a, entry, key, node, p, table
from wgpy.protocol.allowedips import PrefixTable
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.policy import Action
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange


class Device:
    """What a WireGuard device makes of changes."""

    def __init__(self, state: Desired) -> None:
        self.peers = dict(state.endpoints)
        self.owners = dict(state.owners)

    def apply(self, change: DeviceChange) -> None:
        for peer in change.peers:
            if peer.remove:
                del self.peers[peer.public_key]
                self.owners = {q: k for q, k in self.owners.items() if k != peer.public_key}
                continue
            if peer.public_key not in self.peers:
                assert not peer.update_only
                self.peers[peer.public_key] = None
            if peer.endpoint is not None:
                self.peers[peer.public_key] = peer.endpoint
            for allowed in peer.allowed_ips:
                if not allowed.remove:
                    self.owners[allowed.prefix] = peer.public_key
                elif self.owners.get(allowed.prefix) == peer.public_key:
                    del self.owners[allowed.prefix]


endpoints = st.integers(1, 3).map(lambda n: Endpoint(bytes([192, 0, 2, n]), 51820))
states = st.dictionaries(st.integers(1, 5).map(key), endpoints).flatmap(
    lambda peers: st.builds(
        Desired, st.just(peers),
        st.dictionaries(st.integers(0, 12).map(lambda n: p(f"10.0.0.{n}")),
                        st.sampled_from(sorted(peers)), max_size=12)
        if peers else st.just({}),
    )
)


@settings(max_examples=300, deadline=None)
@given(states, states)
def test_no_prefix_is_ever_without_an_owner(old: Desired, new: Desired) -> None:
    device = Device(old)
    add, remove = difference(old, new)
    for change in (add, remove):
        for peer in change.peers:
            device.apply(DeviceChange(peers=(peer,)))
            for prefix in old.owners.keys() & new.owners.keys():
                assert device.owners[prefix] in (old.owners[prefix], new.owners[prefix])
                if old.owners[prefix] == new.owners[prefix]:
                    assert device.owners[prefix] == new.owners[prefix]
    assert device.peers == new.endpoints and device.owners == new.owners
    assert difference(new, new) == (DeviceChange(), DeviceChange())


def test_what_a_peer_gets() -> None:
    made = table(node_encryption=True)
    made.upsert_node(node("pods", 3, allowed=("10.244.3.0/28",), endpoint="192.0.2.3:9"))
    made.upsert_entry(entry("10.244.2.9", "there"))
    made.upsert_entry(entry("10.244.2.10", "pods"))
    made.upsert_entry(entry("10.244.3.99", "pods"))
    plan = PeerPlan(made, 51871).whole()
    assert plan.endpoints == {
        key(2): Endpoint(a("192.168.5.2"), 51871), key(3): Endpoint(a("192.0.2.3"), 9)}
    assert {str(q) for q, k in plan.owners.items() if k == key(2)} == {
        "10.244.2.0/24", "fd00:10:0:2::/64", "192.168.5.2/32", "fd00:5::2/128"}
    assert {str(q) for q, k in plan.owners.items() if k == key(3)} == {
        "10.244.3.0/28", "10.244.2.10/32", "10.244.3.99/32", "fd00:10:0:3::7/128",
        "192.168.5.3/32", "fd00:5::3/128"}


def test_node_addresses_are_allowed_without_node_encryption_too() -> None:
    """A node's errors about pods' packets come through its tunnel, from its own address."""
    plan = PeerPlan(table(), 51871).whole()
    assert plan.owners[p("192.168.5.2")] == plan.owners[p("fd00:5::2")] == key(2)
    assert not any(a("192.168.5.1") in q for q in plan.owners), "this node itself"


def test_a_contested_pod_cidr_goes_to_its_latest_claimant() -> None:
    made = table()
    made.upsert_node(Node("fresh", (a("192.168.5.8"),), key(8), (p("10.244.2.0/24"),)))
    assert PeerPlan(made, 1).whole().owners[p("10.244.2.0/24")] == key(8)


numbers = st.integers(1, 4)
pods = st.integers(0, 20).map(lambda n: f"10.244.{n % 5}.{n}")
changes = st.one_of(
    st.tuples(st.just("node"), numbers, st.booleans(), st.sets(numbers, max_size=2)),
    st.tuples(st.just("entry"), pods, numbers),
    st.tuples(st.just("forget"), pods),
    st.tuples(st.just("gone"), numbers),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(changes, max_size=25), st.lists(st.tuples(pods, pods), min_size=1, max_size=5))
def test_what_the_table_encrypts_reaches_the_node_it_means(history, flows) -> None:
    """Whatever was learnt in whatever order: allowed IPs lead to the very node of the verdict."""
    made = table()
    for change in history:
        match change:
            case ("node", number, keyed, cidrs):
                slices = tuple(f"10.244.{n}.0/24" for n in sorted(cidrs))
                made.upsert_node(node(f"n{number}", 10 + number, with_key=keyed, cidrs=slices))
            case ("entry", pod, number):
                made.upsert_entry(entry(pod, f"n{number}"))
            case ("forget", pod):
                made.delete_entry(p(pod), Source.CUSTOM_RESOURCE)
            case ("gone", number):
                made.delete_node(f"n{number}")
    whole = PeerPlan(made, 51871).whole()
    routing: PrefixTable[PublicKey] = PrefixTable()
    for prefix, owner in whole.owners.items():
        routing.insert(prefix, owner)
    for source, destination in flows:
        decision = made.decide(a(source), a(destination))
        if decision.verdict.action is Action.ENCRYPT:
            assert decision.rule in (Rule.KNOWN_ENDPOINT, Rule.KNOWN_POD_CIDR)
            assert decision.node is not None
            assert routing.lookup(a(destination)) == decision.node.public_key
            assert decision.node.public_key in whole.endpoints


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(pods, st.integers(1, 3), st.booleans()), max_size=20))
def test_single_prefixes_as_the_whole(history: list[tuple[str, int, bool]]) -> None:
    made = table()
    plan = PeerPlan(made, 51871)
    has = plan.whole()
    for pod, number, add in history:
        found: Entry = entry(pod, ("here", "there", "pods")[number - 1])
        if add:
            made.upsert_entry(found)
        else:
            made.delete_entry(found.prefix, found.source)
        has.replace_part({found.prefix}, plan.part({found.prefix}))
        assert has.owners == plan.whole().owners


def test_requests_are_bounded() -> None:
    many = tuple(AllowedIp(Prefix(n.to_bytes(4), 32)) for n in range(5 * PREFIXES_PER_REQUEST))
    change = DeviceChange(peers=(PeerChange(key(1), allowed_ips=many), PeerChange(key(2))))
    requests = list(_bounded(change))
    assert all(sum(1 + len(peer.allowed_ips) for peer in r.peers) <= 2 * PREFIXES_PER_REQUEST
               for r in requests)
    device = Device(Desired())
    for request in requests:
        device.apply(request)
    assert len(device.owners) == len(many) and set(device.peers) == {key(1), key(2)}
    assert list(_bounded(DeviceChange())) == []

"""From pairs and events to updates: differences only, bad keys alone, bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from strict.discovery import EntryDelete, EntryUpsert, NodeDelete, NodeUpsert, Refused
from strict.discovery.etcd import mirror as mirror_module
from strict.discovery.etcd.layout import Layout, encode, entry_fields, node_fields
from strict.discovery.etcd.mirror import MAX_PER_NODE, Leaving, Mirror, Said, Touched
from strict.discovery.etcd.settings import EtcdSettings
from strict.discovery.etcd.store import Backoff, Pair
from strict.ipcache import Entry, Source
from strict.nodes import Node
from tests.strict.helpers import a, node, p

LAYOUT = Layout(EtcdSettings(("http://127.0.0.1:2379",)))
HERE, THERE = node("here", 1), node("there", 2)


def node_pair(it: Node, revision: int, created: int = 0) -> Pair:
    return Pair(LAYOUT.nodes + it.name, encode(node_fields(it, "default")), revision, created)


def pod_pair(prefix: str, host: str, revision: int) -> Pair:
    entry = Entry(p(prefix), host, source=Source.KVSTORE)
    return Pair(LAYOUT.address_key(p(prefix)), encode(entry_fields(entry, a(host))), revision)


def made() -> Mirror:
    mirror = Mirror(LAYOUT, "here")
    mirror.own(HERE.addresses)
    return mirror


def listed(mirror: Mirror, nodes: Iterable[Pair], entries: Iterable[Pair]) -> list[Said]:
    seen: set[str] = set()
    said = [*mirror.list_nodes(nodes), *mirror.list_entries(entries, seen), *mirror.list_end(seen)]
    return [item for item in said if not isinstance(item, Touched)]


def named(said: Iterable[Said]) -> list[str]:
    """In short: +there, -there, +10.0.0.1/32, ?key."""
    found = []
    for item in said:
        match item:
            case NodeUpsert(it):
                found.append(f"+{it.name}")
            case NodeDelete(name):
                found.append(f"-{name}")
            case EntryUpsert(entry):
                found.append(f"+{entry.prefix}")
            case EntryDelete(prefix):
                found.append(f"-{prefix}")
            case Refused(what, reason):
                found.append(f"{'?' if reason else '!'}{what.rpartition('/')[2]}")
            case Touched(key):
                found.append(f"~{key.rpartition('/')[2]}")
            case Leaving(name):
                found.append(f"<{name}")
    return found


def test_a_second_listing_gives_differences_only() -> None:
    mirror = made()
    first = listed(mirror, [node_pair(THERE, 5)], [pod_pair("10.0.0.1", "192.168.5.2", 6)])
    assert named(first) == ["+there", "+10.0.0.1/32"]
    same = [node_pair(THERE, 5)], [pod_pair("10.0.0.1", "192.168.5.2", 6)]
    assert listed(mirror, *same) == []
    third = node("third", 3)
    found = listed(mirror, [node_pair(third, 9)], [pod_pair("10.0.0.2", "192.168.5.3", 9)])
    assert named(found) == ["-there", "+third", "+10.0.0.2/32", "-10.0.0.1/32"]


def test_who_claimed_first_comes_first() -> None:
    pairs = [node_pair(node(n, i), 9, created) for n, i, created in
             (("a", 2, 7), ("b", 3, 3), ("c", 4, 5))]  # fmt: skip
    assert named(listed(made(), pairs, [])) == ["+b", "+c", "+a"]


def test_a_bad_value_is_refused_alone_and_the_last_good_one_stays() -> None:
    mirror = made()
    bad = node_pair(node("bad", 4), 5)._replace(value=b"{")
    first = listed(mirror, [node_pair(THERE, 5), bad], [pod_pair("10.0.0.1", "192.168.5.2", 6)])
    assert named(first) == ["+there", "?bad", "+10.0.0.1/32"]
    spoiled = [node_pair(THERE, 7)._replace(value=b"x" * 100_000),
               pod_pair("10.0.0.1", "192.168.5.2", 8)._replace(value=b"[]")]  # fmt: skip
    said = [item for pair in spoiled for item in mirror.event(pair)]
    assert named(said) == ["?there", "?10.0.0.1"]
    assert named(mirror.event(node_pair(THERE, 9))) == ["!there", "+there"]
    assert named(mirror.event(node_pair(THERE, 10)._replace(value=None))) == ["-there"]
    gone = pod_pair("10.0.0.1", "192.168.5.2", 11)._replace(value=None)
    assert named(mirror.event(gone)) == ["!10.0.0.1", "-10.0.0.1/32"]
    assert named(mirror.event(bad._replace(value=None))) == ["!bad"]


def test_other_clusters_and_other_keys_are_nobodys_business() -> None:
    mirror = made()
    for key in ("cilium/state/nodes/v1/east/n", "cilium/state/ip/v1/east/10.0.0.1",
                "cilium/state/identities/v1/id/5", "cilium/state/nodes/v1/default2/n"):  # fmt: skip
        assert list(mirror.event(Pair(key, b"{}", 5))) == []


def test_own_keys_are_told_apart() -> None:
    mirror = made()
    assert named(mirror.list_nodes([node_pair(HERE, 3)])) == ["~here"]
    assert named(mirror.event(node_pair(HERE, 4)._replace(value=None))) == ["~here"]
    own = pod_pair("10.0.0.1", "192.168.5.1", 5)
    assert named(mirror.event(own)) == ["~10.0.0.1"]
    stolen = pod_pair("10.0.0.1", "192.168.5.2", 6)
    assert named(mirror.event(stolen)) == ["~10.0.0.1", "+10.0.0.1/32"]
    assert named(mirror.event(own)) == ["~10.0.0.1", "-10.0.0.1/32"]
    assert named(mirror.event(own._replace(value=b"junk"))) == ["~10.0.0.1", "?10.0.0.1"]
    seen: set[str] = set()
    assert "~10.0.0.1" in named([*mirror.list_entries([], seen), *mirror.list_end(seen)])


def test_who_leaves_is_heard_after_its_keys() -> None:
    mirror = made()
    listed(mirror, [node_pair(THERE, 5)], [])
    events = [node_pair(THERE, 6)._replace(value=None), Pair(LAYOUT.drains + "there", b"{}", 6)]
    assert named(item for pair in events for item in mirror.event(pair)) == ["-there", "<there"]
    assert named(mirror.event(Pair(LAYOUT.drains + "here", b"{}", 7))) == []


def test_a_flood_of_one_node_takes_no_others_place() -> None:
    mirror = made()
    listed(mirror, [node_pair(THERE, 5), node_pair(node("flood", 9), 5)], [])
    flood = [pod_pair(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", "192.168.5.9", 6)
             for n in range(MAX_PER_NODE + 500)]  # fmt: skip
    said = [item for pair in flood for item in mirror.event(pair)]
    assert sum(isinstance(item, EntryUpsert) for item in said) == MAX_PER_NODE
    reasons = [item.reason for item in said if isinstance(item, Refused)]
    assert len(reasons) == 500 and "more than 4096 addresses of node 'flood'" in reasons[0]
    assert named(mirror.event(pod_pair("10.9.9.9", "192.168.5.2", 7))) == ["+10.9.9.9/32"]
    assert not mirror.overfull
    # Room again as soon as one of them goes.
    assert len(list(mirror.event(flood[0]._replace(value=None)))) == 1
    assert named(mirror.event(pod_pair("10.8.8.8", "192.168.5.9", 8))) == ["+10.8.8.8/32"]


def test_a_flood_of_nobody_shares_one_place() -> None:
    mirror = made()
    listed(mirror, [node_pair(THERE, 5)], [])
    for n in range(MAX_PER_NODE + 10):
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        list(mirror.event(pod_pair(address, f"172.16.{n >> 8}.{n & 255}", 6)))
    assert len(mirror._entries) == MAX_PER_NODE and mirror.overfull and not mirror.relist
    assert named(mirror.event(pod_pair("10.9.9.9", "192.168.5.2", 7))) == ["+10.9.9.9/32"]
    list(mirror.event(node_pair(THERE, 8)))
    assert not mirror.relist
    list(mirror.event(node_pair(node("late", 4), 9)))
    assert mirror.relist, "what was left out may be its own"


def test_nodes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "MAX_NODES", 2)
    pairs = [node_pair(node(f"n{i}", i), 5, i) for i in (3, 4, 5)]
    assert named(listed(made(), pairs, [])) == ["+n3", "+n4", "?n5"]


def test_the_backoff_grows_is_bounded_and_jitters() -> None:
    pauses = [Backoff(lambda: 0.5).pause()]
    backoff = Backoff(lambda: 0.5)
    pauses = [backoff.pause() for _ in range(10)]
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0] and pauses[-1] == 30.0
    assert [Backoff(lambda low=low: low).pause() for low in (0.0, 1.0)] == [0.125, 0.375]
    backoff.succeeded()
    assert backoff.pause() == 0.25


def test_values_are_json() -> None:
    assert json.loads(node_pair(HERE, 1).value or b"")["Name"] == "here"

"""What others write to a shared store takes nobody's traffic, whichever order it comes in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from strict.desired import PeerPlan
from strict.discovery import EntryDelete, EntryUpsert, NodeDelete, NodeUpsert, Refused, Update
from strict.ipcache import Entry, Source
from strict.nodes import Node
from strict.state import MAX_REFUSED, Changes, ClusterState
from tests.strict.helpers import a, config, key, node, p
from wgpy.protocol.policy import Action

HERE = node("here", 1, with_key=False, cidrs=("10.244.1.0/24", "fd00:10:0:1::/64"))
VICTIM = node("victim", 2, cidrs=("10.244.2.0/24", "fd00:10:0:2::/64"))
OTHER = node("other", 3, cidrs=("10.244.3.0/24",))
THIEF = node("thief", 9, cidrs=("10.244.9.0/24",))


def pod(prefix: str, where: str, **more: object) -> Entry:
    return Entry(p(prefix), where, source=Source.KVSTORE)._replace(**more)


def state(*shared: Update, files: Iterable[Update] = (NodeUpsert(HERE),)) -> ClusterState:
    made = ClusterState(config(), key(1))
    made.take("file", files)
    made.take("etcd", shared, shared=True)
    return made


def told(made: ClusterState, *updates: Update) -> Changes:
    return made.take("etcd", updates, shared=True)


def carrier(made: ClusterState, destination: str, source: str = "10.244.1.5") -> str:
    """Who gets a packet from a pod here: by the table, and by the peers' allowed IPs."""
    if ":" in destination:
        source = "fd00:10:0:1::5"
    decision = made.table.decide(a(source), a(destination))
    if decision.verdict.action is not Action.ENCRYPT:
        return decision.verdict.action.value
    assert decision.node is not None
    owners = PeerPlan(made.table, 51871).whole().owners
    longest = max(
        (prefix for prefix in owners if a(destination) in prefix), key=lambda found: found.length)
    assert owners[longest] == decision.node.public_key, "the table and the peers agree"
    return decision.node.name


ATTACKS = {
    "another node's key": replace(THIEF, public_key=key(2)),
    "another node's address": replace(THIEF, addresses=(a("192.168.5.2"),)),
    "our own address": replace(THIEF, addresses=(a("192.168.5.1"),)),
    "another node's pod CIDR": replace(THIEF, pod_cidrs=(p("10.244.2.0/24"),)),
    "a part of it": replace(THIEF, pod_cidrs=(p("10.244.2.0/28"),)),
    "two halves of it": replace(THIEF, pod_cidrs=(p("10.244.2.0/25"), p("10.244.2.128/25"))),
    "one around it": replace(THIEF, pod_cidrs=(p("10.244.2.0/23"),)),
    "all pods": replace(THIEF, pod_cidrs=(p("10.244.0.0/16"),)),
    "the world": replace(THIEF, pod_cidrs=(p("0.0.0.0/0"),)),
    "half of the world": replace(THIEF, pod_cidrs=(p("0.0.0.0/1"), p("::/1"))),
    "all of IPv6": replace(THIEF, pod_cidrs=(p("::/0"),)),
    "our own pods": replace(THIEF, pod_cidrs=(p("10.244.1.128/25"),)),
    "somebody else's range": replace(THIEF, pod_cidrs=(p("192.0.2.0/24"),)),
    "allowed IPs": replace(THIEF, allowed_ips=(p("10.244.2.7"),)),
    "an address among the pods": replace(THIEF, addresses=(a("10.244.2.7"),)),
    "an endpoint among the pods": replace(THIEF, endpoint=None, addresses=(a("fd00:10:0:2::7"),)),
    "a zero key": replace(THIEF, public_key=key(0)),
}
ENTRIES = {
    "another node's pod": pod("10.244.2.7", "192.168.5.9"),
    "its IPv6 pod": pod("fd00:10:0:2::7", "192.168.5.9"),
    "half of its pods": pod("10.244.2.0/25", "192.168.5.9"),
    "all pods": pod("10.244.0.0/16", "192.168.5.9"),
    "the world": pod("0.0.0.0/0", "192.168.5.9"),
    "all of IPv6": pod("::/0", "192.168.5.9"),
    "an address of the world": pod("1.1.1.1", "192.168.5.9"),
    "a node's address": pod("192.168.5.2", "192.168.5.9"),
    "our address": pod("192.168.5.1", "192.168.5.9"),
    "our pod": pod("10.244.1.5", "192.168.5.9"),
    "a pod for us that we do not know": pod("10.244.7.7", "192.168.5.1"),
    "another's pod on nobody": pod("10.244.2.7", "192.168.5.77"),
    "another's pod, not to be encrypted": pod("10.244.2.7", "192.168.5.2", encrypt=False),
    "more than its node's range": pod("10.244.2.0/23", "192.168.5.2"),
    "another's pod, on us": pod("10.244.2.7", "192.168.5.1"),
}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("name", ATTACKS)
def test_nodes_that_claim_what_is_not_theirs(name: str, order: tuple[int, ...]) -> None:
    """Whether they come first as part of a change of the thief, or after everybody else."""
    made = state(NodeUpsert(VICTIM), NodeUpsert(THIEF))
    for number in order:
        told(made, NodeUpsert((OTHER, ATTACKS[name])[number]))
    assert "thief" in made.refused and made.refusals["node"] >= 1
    for destination in ("10.244.2.7", "10.244.2.200", "fd00:10:0:2::7"):
        assert carrier(made, destination) == "victim"
    assert carrier(made, "10.244.3.7") == "other"
    assert carrier(made, "1.1.1.1") == "plaintext", "the world is nobody's"
    assert made.table.decide(a("10.244.2.7"), a("10.244.1.5")).rule.name == "LOCAL"
    told(made, NodeUpsert(THIEF))
    assert not made.refused and carrier(made, "10.244.9.7") == "thief"


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("first", [False, True])
def test_entries_that_say_what_is_not_so(name: str, first: bool) -> None:
    """Also where the entry was there before the node that it robs."""
    bad = EntryUpsert(ENTRIES[name])
    made = state(NodeUpsert(THIEF), *([bad] if first else []))
    told(made, NodeUpsert(VICTIM), NodeUpsert(OTHER), *([] if first else [bad]))
    for destination in ("10.244.2.7", "10.244.2.200", "fd00:10:0:2::7"):
        assert carrier(made, destination) == "victim", name
    assert carrier(made, "1.1.1.1") == "plaintext"
    assert carrier(made, "10.244.1.5", "10.244.1.6") == "plaintext", "on this node"
    assert str(ENTRIES[name].prefix) in made.refused and made.refusals["entry"] >= 1
    assert not made.local_pods
    told(made, EntryDelete(ENTRIES[name].prefix, Source.KVSTORE))
    assert not made.refused


def test_what_was_refused_is_taken_when_its_rival_goes() -> None:
    """A new machine gets the address and the range of one whose lease has run out."""
    heir = replace(VICTIM, name="heir", public_key=key(7))
    made = state(NodeUpsert(VICTIM), EntryUpsert(pod("10.244.2.7", "192.168.5.2")))
    told(made, NodeUpsert(heir))
    assert "until that one is gone" in made.refused["heir"]
    changes = told(made, NodeDelete("victim"))
    assert changes.nodes == {"victim": None, "heir": heir} and not made.refused
    assert carrier(made, "10.244.2.7") == "heir"


def test_an_entry_that_came_before_its_node() -> None:
    made = state(EntryUpsert(pod("10.244.50.7", "192.168.5.2")))
    assert carrier(made, "10.244.50.7") == "drop" and not made.refused
    told(made, NodeUpsert(VICTIM))
    assert carrier(made, "10.244.50.7") == "victim"


def test_a_dead_node_leaves_drops_behind() -> None:
    """Its lease has run out: pods of it are dropped, never plaintext."""
    made = state(NodeUpsert(VICTIM), EntryUpsert(pod("10.244.50.7", "192.168.5.2")))
    told(made, NodeDelete("victim"))
    assert carrier(made, "10.244.50.7") == carrier(made, "10.244.2.9") == "drop"


def test_files_are_believed_and_stores_are_not() -> None:
    """A file's node of the same name, address, key, range or pod outranks the store's."""
    for other in (
        replace(VICTIM, public_key=key(8)),
        replace(VICTIM, name="filed", public_key=key(8)),
        replace(OTHER, name="filed", addresses=(a("192.168.5.8"),), public_key=key(2)),
        replace(OTHER, name="filed", addresses=(a("192.168.5.8"),), public_key=key(8),
                pod_cidrs=(p("10.244.2.0/23"),)),
    ):  # fmt: skip
        made = state(NodeUpsert(VICTIM))
        changes = made.take("file", [NodeUpsert(other)])
        assert changes.nodes[other.name] == other
        if other.name != "victim":
            assert "victim" in made.refused and changes.nodes["victim"] is None
        if other.pod_cidrs[0].ip.startswith(a("10.244.2.0")[:3]):
            assert carrier(made, "10.244.2.7") == other.name
        made.take("file", [NodeDelete(other.name)])
        assert carrier(made, "10.244.2.7") == "victim", "it was only outranked"


def test_a_deletion_in_the_store_leaves_the_file_alone() -> None:
    files = [NodeUpsert(HERE), NodeUpsert(VICTIM)]
    made = state(NodeUpsert(VICTIM), files=files)
    told(made, NodeDelete("victim"))
    assert carrier(made, "10.244.2.7") == "victim"


def test_a_pod_of_a_file_stays_where_the_file_says() -> None:
    filed = Entry(p("10.244.60.7"), "victim")
    for source in (Source.KVSTORE, Source.CUSTOM_RESOURCE):
        bad = EntryUpsert(pod("10.244.60.7", "192.168.5.9", source=source))
        made = state(NodeUpsert(VICTIM), NodeUpsert(THIEF), bad)
        made.take("file", [EntryUpsert(filed)])
        assert carrier(made, "10.244.60.7") == "victim"
        told(made, bad)
        assert carrier(made, "10.244.60.7") == "victim" and "10.244.60.7/32" in made.refused
        told(made, EntryDelete(p("10.244.60.7"), source))
        assert carrier(made, "10.244.60.7") == "victim"


def test_this_node_is_not_described_by_others() -> None:
    made = state(NodeUpsert(Node("here", (a("192.168.5.66"),), key(6), (p("10.244.66.0/24"),))))
    assert made.local() == replace(HERE, public_key=key(1))
    told(made, NodeDelete("here"))
    assert made.local().addresses == HERE.addresses


def test_this_node_is_not_described_by_others_where_no_file_does() -> None:
    made = state(NodeUpsert(replace(VICTIM, name="here")), files=())
    assert made.local() == Node("here", public_key=key(1)) and len(made.table.nodes) == 0


def test_a_node_among_the_pods_is_no_pod() -> None:
    """With allow_remote_node_identities: its address is on it, whoever says where it is."""
    made = ClusterState(config(allow_remote_node_identities=True), key(1))
    made.take("file", [NodeUpsert(HERE)])
    told(made, NodeUpsert(replace(VICTIM, addresses=(a("10.244.70.2"),), pod_cidrs=())))
    told(made, NodeUpsert(THIEF), EntryUpsert(pod("10.244.70.2", "192.168.5.9")))
    assert "it is a node's address" in made.refused["10.244.70.2/32"]


def test_refusals_are_bounded_and_counted() -> None:
    made = state(NodeUpsert(VICTIM))
    told(made, *(EntryUpsert(pod(f"10.244.2.{n % 256}", f"192.168.6.{n // 256}"))
                 for n in range(1000)))  # fmt: skip
    told(made, *(Refused(f"key {n}", "broken") for n in range(1000)))
    assert len(made.refused) == MAX_REFUSED
    assert made.refusals == {"entry": 1000, "key": 1000}
    told(made, *(Refused(f"key {n}", "") for n in range(1000)))
    assert not any(name.startswith("key") for name in made.refused)


def test_the_first_claim_holds_and_its_renewal_does_not_lose_it() -> None:
    made = state(NodeUpsert(VICTIM), NodeUpsert(replace(THIEF, pod_cidrs=VICTIM.pod_cidrs)))
    told(made, NodeUpsert(replace(VICTIM, boot_id="again")))
    told(made, NodeUpsert(replace(VICTIM, public_key=key(4))))
    assert carrier(made, "10.244.2.7") == "victim" and "thief" in made.refused

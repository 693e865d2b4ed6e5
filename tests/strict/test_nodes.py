"""Nodes that come in any order and contradict each other; label selectors."""

from __future__ import annotations

import pytest

from strict.labels import Selector, SelectorError
from strict.nodes import Node, NodeRefused, NodeRegistry
from tests.strict.helpers import a, key, node, p
from wgpy.protocol.keys import PublicKey


def test_the_key_may_come_later() -> None:
    nodes = NodeRegistry()
    assert nodes.upsert(node("n", 1, with_key=False))
    assert nodes.with_key(key(1)) is None
    assert nodes.upsert(node("n", 1))
    assert nodes.with_key(key(1)) == node("n", 1)
    assert not nodes.upsert(node("n", 1)), "saying it again changes nothing"


def test_a_new_key_replaces_the_old() -> None:
    nodes = NodeRegistry()
    nodes.upsert(node("n", 1))
    nodes.upsert(Node("n", (a("192.168.5.1"),), key(9)))
    assert nodes.with_key(key(1)) is None
    assert nodes.with_key(key(9)) is not None


def test_two_nodes_with_one_key() -> None:
    nodes = NodeRegistry()
    nodes.upsert(node("first", 1))
    nodes.upsert(node("second", 2))
    with pytest.raises(NodeRefused, match=r"'first' and 'second' both claim the key AQEB"):
        nodes.upsert(Node("second", (a("192.168.5.2"),), key(1)))
    assert nodes.get("second") == node("second", 2), "a refusal changes nothing"
    nodes.delete("first")
    assert nodes.upsert(Node("second", (a("192.168.5.2"),), key(1)))


def test_the_all_zero_key() -> None:
    with pytest.raises(NodeRefused, match="all-zero key"):
        NodeRegistry().upsert(Node("n", (), PublicKey(bytes(32))))
    with pytest.raises(NodeRefused, match="name"):
        NodeRegistry().upsert(Node("", ()))


def test_an_address_belongs_to_its_latest_claimant() -> None:
    nodes = NodeRegistry()
    nodes.upsert(node("dead", 1, cidrs=("10.1.0.0/24",)))
    nodes.upsert(Node("fresh", (a("192.168.5.1"),), key(7), (p("10.1.0.0/24"),)))
    owner = nodes.at(a("192.168.5.1"))
    assert owner is not None and owner.name == "fresh"
    assert nodes.covering(a("10.1.0.9")) == (p("10.1.0.0/24"), nodes.get("fresh"))
    assert nodes.owns_cidr("fresh", p("10.1.0.0/24"))
    assert not nodes.owns_cidr("dead", p("10.1.0.0/24"))
    assert len(nodes.warnings()) == 2 and "fresh, the latest" in nodes.warnings()[0]
    nodes.upsert(node("dead", 1, cidrs=("10.1.0.0/24",), labels={"x": "y"}))
    assert nodes.at(a("192.168.5.1")) == nodes.get("fresh"), "an old claim said again stays old"
    nodes.delete("fresh")
    owner = nodes.at(a("192.168.5.1"))
    assert owner is not None and owner.name == "dead"
    assert not nodes.warnings()


def test_covering_forgets_lengths() -> None:
    nodes = NodeRegistry()
    nodes.upsert(node("wide", 1, cidrs=("10.0.0.0/8",)))
    nodes.upsert(node("narrow", 2, cidrs=("10.1.0.0/24",)))
    assert nodes.covering(a("10.1.0.1")) == (p("10.1.0.0/24"), nodes.get("narrow"))
    nodes.delete("narrow")
    assert nodes.covering(a("10.1.0.1")) == (p("10.0.0.0/8"), nodes.get("wide"))
    nodes.delete("wide")
    assert nodes.covering(a("10.1.0.1")) is None and not nodes.delete("wide")


@pytest.mark.parametrize(
    ("text", "labels", "selected"),
    [
        ("", {"a": "1"}, False),
        ("a", {"a": "1"}, True),
        ("a", {"b": "1"}, False),
        ("!a", {"b": "1"}, True),
        ("!a", {"a": ""}, False),
        ("a=1", {"a": "1"}, True),
        ("a==1", {"a": "2"}, False),
        ("a!=1", {"a": "2"}, True),
        ("a!=1", {}, True),
        ("a in (1, 2)", {"a": "2"}, True),
        ("a notin (1,2)", {"a": "2"}, False),
        ("a notin (1,2)", {}, True),
        ("a=1,b", {"a": "1", "b": "x"}, True),
        ("a=1, !b", {"a": "1", "b": "x"}, False),
        ("node-role.kubernetes.io/control-plane", {"node-role.kubernetes.io/control-plane": ""},
         True),
    ],
)
def test_selectors(text: str, labels: dict[str, str], selected: bool) -> None:
    assert Selector.parse(text).selects(labels) is selected


@pytest.mark.parametrize("text", ["=1", "a,", "a b", "a in 1", "a=1 b", "!", "a in (1", ",a"])
def test_bad_selectors(text: str) -> None:
    with pytest.raises(SelectorError, match="not a label selector"):
        Selector.parse(text)

"""Topology files: what is assigned, and what a mistake is told."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from testbed.impairment import Impairment
from testbed.topology import TopologyError, parse_topology

TWO = """\
mode: strict
nodes:
  alpha: {pods: [client], control_plane: true}
  beta:
    pods: {server: [10.244.7.7]}
    labels: {zone: b}
"""


def test_addresses_follow_the_order_of_the_file():
    topology = parse_topology(TWO)
    alpha, beta = topology.nodes
    assert alpha.addresses == (ip_address("172.20.0.11"), ip_address("fd00:20::b"))
    assert beta.addresses == (ip_address("172.20.0.12"), ip_address("fd00:20::c"))
    assert alpha.pod_cidrs == (ip_network("10.244.1.0/24"), ip_network("fd10:244:0:1::/64"))
    assert topology.pod("alpha/client").addresses[0] == ip_address("10.244.1.10")
    assert topology.pod("beta/server").addresses == (ip_address("10.244.7.7"),)
    assert alpha.control_plane and beta.labels == (("zone", "b"),)
    assert parse_topology(TWO) == topology


def test_unknown_is_per_viewer():
    topology = parse_topology(TWO + "unknown: {alpha: [beta/server], all: [beta]}\n")
    assert topology.unknown_to("alpha") == {"beta/server", "beta"}
    assert topology.unknown_to("beta") == {"beta"}


def test_two_underlays_and_a_world():
    topology = parse_topology(
        "underlays:\n"
        "  lan: {networks: [192.0.2.0/24]}\n"
        "  wan: {networks: [198.51.100.0/24], mtu: 1400}\n"
        "world: true\n"
        "nodes: {alpha: {underlays: [wan, lan]}}\n"
    )
    alpha = topology.nodes[0]
    assert alpha.addresses == (ip_address("198.51.100.11"), ip_address("192.0.2.11"))
    assert topology.world is not None
    assert str(topology.underlay("wan").router(topology.underlay("wan").networks[0])) == (
        "198.51.100.254"
    )


def test_links_are_as_their_underlay_or_as_they_say():
    topology = parse_topology(
        "underlays:\n  lan: {delay: 20ms, loss: 1.5%}\n  wan: {networks: [192.0.2.0/24]}\n"
        "nodes:\n  alpha: {underlays: [lan, wan], links: {lan: {loss: 0%, rate: 10 mbit}}}\n"
        "  beta:\n"
    )
    alpha, beta = topology.nodes
    assert alpha.links == (Impairment(0, 20_000_000, 10e6), Impairment())
    assert beta.links == (Impairment(0.015, 20_000_000),)
    assert str(beta.links[0]) == "loss 1.500%, delay 20 ms"


MISTAKES = [
    ("nodes: {a: {pod: [x]}}\n", "f.yaml:1", "a.pod", "did you mean 'pods'?"),
    ("nodes:\n  a:\nmode: strikt\n", "f.yaml:3", "strikt", "did you mean 'strict'?"),
    ("nodes: {a: }\nmode: strict\nmode: plain\n", "f.yaml:3", "duplicate key", "keep one"),
    ("nodes:\n  a:\npod_cidrs:\n  - 10.0.0.1/8\n", "f.yaml:4", "host bits", "write 10.0.0.0/8"),
    ("nodes: {a: }\npod_cidrs: [172.20.0.0/16]\n", "f.yaml:2", "overlaps", "allow_overlap: true"),
    ("nodes: {Alpha: }\n", "f.yaml:1", "'Alpha'", "lower-case"),
    ("nodes: {world: }\n", "f.yaml:1", "'world'", "not all, world or underlay"),
    ("nodes: {a: }\nunknown: [b]\n", "f.yaml:2", "'b'", "one of a"),
    ("nodes: {a: {pods: {x: [10.9.9.9]}}}\n", "f.yaml:1", "outside the pod CIDRs", "inside"),
    ("nodes: {a: {implementation: wireguard-go}}\n", "f.yaml:1", "control socket", "plain"),
    ("nodes:\n a: {addresses: [172.20.0.5]}\n b: {addresses: [172.20.0.5]}\n", "f.yaml:3",
     "of node a", "its own"),
    ("nodes: {a: {addresses: [10.9.9.9]}}\n", "f.yaml:1", "outside its underlays", "172.20"),
    ("nodes: {a: }\nnode_encryption: maybe\n", "f.yaml:2", "neither", "true or false"),
    ("nodes: {a: }\nunderlays: {lan: {mtu: 900}}\n", "f.yaml:2", "out of range", "1280"),
    ("nodes: {a: {links: {wan: {loss: 1%}}}}\n", "f.yaml:1", "a.links.wan: unknown", "one of lan"),
    ("nodes: {a: {links: {lan: {loss: 101%}}}}\n", "f.yaml:1", "out of range", "0% to 100%"),
    ("nodes: {a: {links: {lan: {loss: 0.1}}}}\n", "f.yaml:1", "number with a unit", "20%"),
    ("nodes: {a: }\nunderlays: {lan: {delay: nan ms}}\n", "f.yaml:2", "out of range", "0ms"),
    ("nodes: {a: }\nunderlays: {lan: {rate: 1kbit}}\n", "f.yaml:2", "range", "from 0.008mbit"),
    ("nodes: {a: &a {pods: *a}}\n", "f.yaml:1", "aliases", "quotes"),
    (f"nodes: {{a: }}\nseed: {'1' * 5000}\n", "f.yaml:2", "cannot be read as int", "quotes"),
    ("nodes: [\n", "f.yaml", "not YAML", "indentation"),
    ("", "f.yaml:1", "empty", "labs"),
    ("mode: strict\n", "f.yaml:1", "no nodes", "add nodes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "what", "fix"), MISTAKES)
def test_a_mistake_is_named_with_its_place_and_fix(text, where, what, fix):
    with pytest.raises(TopologyError) as caught:
        parse_topology(text, "f.yaml")
    message = str(caught.value)
    assert message.startswith(where)
    assert what in message
    assert fix in message.partition("fix:")[2]

"""The topology of a cluster: one YAML file, read strictly into frozen values.

The file names the underlays (each one bridge), the nodes on them, the pods of each node,
an optional host outside the cluster, the mode, and what the nodes have *not* discovered
yet.  Addresses that the file leaves out are assigned in the order of the file, so the same
file always gives the same cluster.  Nothing here touches the system: `cluster` does.

Modes: `plain` is two or more nodes with a bare WireGuard between them and no agent (its
pods are reached by routes, with no table in front); `default` and `strict` put the
strict-mode agent in front (docs/strict-mode.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path

from testbed.impairment import PERFECT, Impairment
from testbed.topology_file import TopologyError, Value, load, parse

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MODES = ("plain", "default", "strict")
IMPLEMENTATIONS = ("wireguard-py", "wireguard-go")
LISTEN_PORT = 51871
"""The UDP port of every node's WireGuard, the one Cilium uses."""

_NAME = re.compile(r"[a-z][a-z0-9]{0,9}\Z")
_DEFAULT_PODS = ("10.244.0.0/16", "fd10:244::/48")
_DEFAULT_UNDERLAY = ("172.20.0.0/24", "fd00:20::/64")
_DEFAULT_WORLD = ("203.0.113.0/24", "2001:db8:113::/64")
_DEFAULT_TUNNEL = ("10.9.0.0/24", "fd00:9::/64")


@dataclass(frozen=True, slots=True)
class Underlay:
    """One bridge; at most one network per family, whose last address is the router's."""

    name: str
    networks: tuple[Network, ...]
    mtu: int = 1500
    impairment: Impairment = PERFECT
    """Default of every node's link to it."""

    def router(self, network: Network) -> Address:
        """The router's address in `network`."""
        return network[-2]


@dataclass(frozen=True, slots=True)
class Pod:
    """One workload namespace, at most one address per family."""

    name: str
    node: str
    addresses: tuple[Address, ...]

    @property
    def path(self) -> str:
        """`NODE/POD`, how people name it."""
        return f"{self.node}/{self.name}"


@dataclass(frozen=True, slots=True)
class Node:
    """One machine.  `addresses` holds one address per underlay network, first is primary."""

    name: str
    underlays: tuple[str, ...]
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]
    pods: tuple[Pod, ...]
    tunnel: tuple[Address, ...] = ()
    control_plane: bool = False
    node_encryption: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    implementation: str = "wireguard-py"
    links: tuple[Impairment, ...] = ()
    """Loss, delay and rate of each of its links, in the order of `underlays`."""

    def address(self, version: int) -> Address | None:
        """The primary address of IP `version`, or None."""
        return next((a for a in self.addresses if a.version == version), None)


@dataclass(frozen=True, slots=True)
class World:
    """A host outside the cluster, behind the router."""

    networks: tuple[Network, ...]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The host's own addresses, one per network."""
        return tuple(network[9] for network in self.networks)


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole cluster as described."""

    name: str
    mode: str
    underlays: tuple[Underlay, ...]
    nodes: tuple[Node, ...]
    pod_cidrs: tuple[Network, ...] = ()
    world: World | None = None
    node_encryption: bool = False
    masquerade: bool = True
    slices: bool = True
    opt_out: str | None = None
    """Label selector of nodes without node encryption; None leaves it to the agent."""
    allow_overlap: bool = False
    """Build a cluster whose nodes live inside the pod CIDRs; the agents refuse it."""
    allow_remote_node_identities: bool = False
    """And tell the agents not to."""
    unknown: tuple[tuple[str, tuple[str, ...]], ...] = ()
    summary: str = ""
    seed: int = 1
    """Of the losses on links."""
    source: str = field(default="", compare=False, repr=False)
    """The file's text."""

    @property
    def pods(self) -> tuple[Pod, ...]:
        """All pods, in the order of the file."""
        return tuple(pod for node in self.nodes for pod in node.pods)

    def node(self, name: str) -> Node:
        """The node called `name`; KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def pod(self, path: str) -> Pod:
        """The pod called `NODE/POD`; KeyError when there is none."""
        for pod in self.pods:
            if pod.path == path:
                return pod
        raise KeyError(path)

    def underlay(self, name: str) -> Underlay:
        """The underlay called `name`; KeyError when there is none."""
        for underlay in self.underlays:
            if underlay.name == name:
                return underlay
        raise KeyError(name)

    def unknown_to(self, node: str) -> frozenset[str]:
        """The nodes and pods (`NODE/POD`) that `node` has not discovered at start."""
        return frozenset(
            name for viewer, names in self.unknown if viewer in (node, "all") for name in names
        )


_TOP = (
    "name", "summary", "mode", "pod_cidrs", "underlays", "nodes", "world", "node_encryption",
    "masquerade", "slices", "opt_out", "allow_remote_node_identities", "allow_overlap",
    "unknown", "tunnel", "seed",
)  # fmt: skip
_NODE = (
    "underlays", "addresses", "pods", "pod_cidrs", "control_plane", "node_encryption", "labels",
    "implementation", "links",
)  # fmt: skip
_LINK = ("loss", "delay", "rate")
_LOSS = {"%": 0.01}
_DELAY = {"ms": 1e6, "us": 1e3, "s": 1e9}
_RATE = {"mbit": 1e6, "kbit": 1e3, "gbit": 1e9}


def read_topology(path: Path) -> Topology:
    """The topology in `path`.  Raises `TopologyError` naming file, line and the fix."""
    root = load(path)
    return replace(_build(root, path.stem), source=path.read_text(encoding="utf-8"))


def parse_topology(text: str, file: str = "topology.yaml") -> Topology:
    """Like `read_topology`, for a given text."""
    return replace(_build(parse(text, file), Path(file).stem), source=text)


def _build(root: Value, stem: str) -> Topology:
    top = root.fields(_TOP)
    if "nodes" not in top:
        raise root.error("no nodes", "add nodes: with at least one name below it")
    name = _name(top["name"]) if "name" in top else re.sub(r"[^a-z0-9]", "", stem)[:10]
    mode = top["mode"].expect_choice(MODES) if "mode" in top else "strict"
    pod_cidrs = _networks(top.get("pod_cidrs"), _DEFAULT_PODS)
    underlays = _underlays(top.get("underlays"))
    tunnel = _networks(top.get("tunnel"), _DEFAULT_TUNNEL) if mode == "plain" else ()
    slices = _flag(top, "slices", True)
    topology = Topology(
        name=name or "cluster",
        mode=mode,
        underlays=underlays,
        nodes=(),
        pod_cidrs=pod_cidrs,
        world=_world(top.get("world")),
        node_encryption=_flag(top, "node_encryption", False),
        masquerade=_flag(top, "masquerade", True),
        slices=slices,
        allow_remote_node_identities=_flag(top, "allow_remote_node_identities", False),
        opt_out=top["opt_out"].expect_text() if "opt_out" in top else None,
        allow_overlap=_flag(top, "allow_overlap", False),
        summary=top["summary"].expect_text() if "summary" in top else "",
        seed=top["seed"].expect_int(0, 999_999_999) if "seed" in top else 1,
    )
    _check_overlap(topology, top.get("pod_cidrs", root))
    nodes: list[Node] = []
    for index, (node_name, located) in enumerate(top["nodes"].fields().items()):
        nodes.append(_node(topology, nodes, index, node_name, located, tunnel))
    if not nodes:
        raise top["nodes"].error("no nodes", "name at least one")
    topology = replace(topology, nodes=tuple(nodes))
    return replace(topology, unknown=_unknown(topology, top.get("unknown")))


def _flag(fields: dict[str, Value], key: str, default: bool) -> bool:
    return fields[key].expect_bool() if key in fields else default


def _name(located: Value, text: str | None = None) -> str:
    name = located.expect_text() if text is None else text
    if not _NAME.match(name) or name in ("all", "world", "underlay"):
        raise located.error(
            f"{name!r} cannot be a name",
            "use up to ten lower-case letters and digits, a letter first; "
            "not all, world or underlay",
        )
    return name


def _network(located: Value) -> Network:
    text = located.expect_text()
    try:
        return ip_network(text)
    except ValueError as error:
        try:
            fixed = f"write {ip_network(text, strict=False)}"
        except ValueError:
            fixed = "write a prefix such as 10.244.0.0/16 or fd10:244::/48"
        raise located.error(f"{text!r} is not a prefix: {error}", fixed) from error


def _networks(located: Value | None, default: tuple[str, ...]) -> tuple[Network, ...]:
    if located is None:
        return tuple(ip_network(text) for text in default)
    return tuple(_network(item) for item in located.items())


def _address(located: Value) -> Address:
    text = located.expect_text()
    try:
        return ip_address(text)
    except ValueError as error:
        fix = "write one such as 172.20.0.7"
        raise located.error(f"{text!r} is not an address", fix) from error


def _underlays(located: Value | None) -> tuple[Underlay, ...]:
    default = tuple(ip_network(text) for text in _DEFAULT_UNDERLAY)
    if located is None:
        return (Underlay("lan", default),)
    found = []
    for name, here in located.fields().items():
        fields = here.fields(("networks", "mtu", *_LINK))
        networks = _networks(fields.get("networks"), _DEFAULT_UNDERLAY)
        if len({n.version for n in networks}) != len(networks) or not networks:
            raise here.error("needs one network per family", "networks: [172.20.0.0/24]")
        for network in networks:
            if network.num_addresses < 8:
                raise here.error(f"{network} is too small", "use a /29 or wider")
        mtu = fields["mtu"].expect_int(1280, 65535) if "mtu" in fields else 1500
        found.append(Underlay(_name(here, name), networks, mtu, _impairment(fields)))
    if not found:
        raise located.error("no underlay", "name one, or leave the key out")
    return tuple(found)


def _impairment(fields: dict[str, Value], default: Impairment = PERFECT) -> Impairment:
    """`loss: 1%`, `delay: 20ms`, `rate: 10mbit`; what is left out is as in `default`."""
    loss, delay, rate = default.loss, float(default.delay), default.rate
    if "loss" in fields:
        loss = fields["loss"].expect_measure(_LOSS, 0, 1)
    if "delay" in fields:
        delay = fields["delay"].expect_measure(_DELAY, 0, 60e9)
    if "rate" in fields:
        rate = fields["rate"].expect_measure(_RATE, 8e3, 100e9)
    return Impairment(loss, round(delay), rate)


def _links(
    topology: Topology, on: tuple[str, ...], located: Value | None
) -> tuple[Impairment, ...]:
    """`links: {lan: {loss: 1%}}`: a node's own links, the rest as its underlays say."""
    own = {} if located is None else located.fields(on)
    return tuple(
        _impairment(own[name].fields(_LINK) if name in own else {},
                    topology.underlay(name).impairment)
        for name in on
    )  # fmt: skip


def _world(located: Value | None) -> World | None:
    if located is None or located.text == "false":
        return None
    if located.text == "true":
        return World(tuple(ip_network(text) for text in _DEFAULT_WORLD))
    networks = _networks(located, ())
    for network in networks:
        if network.num_addresses < 16:
            raise located.error(f"{network} is too small", "use a /28 or wider")
    return World(networks)


def _check_overlap(topology: Topology, located: Value) -> None:
    """Node addresses inside the pod CIDRs need an explicit `allow_overlap`."""
    if topology.allow_overlap:
        return
    taken = [n for underlay in topology.underlays for n in underlay.networks]
    taken += topology.world.networks if topology.world else ()
    for cidr in topology.pod_cidrs:
        for network in taken:
            if cidr.version == network.version and cidr.overlaps(network):
                raise located.error(
                    f"pod CIDR {cidr} overlaps {network}",
                    "move one of them, or set allow_overlap: true to see what happens",
                )


def _node(
    topology: Topology,
    before: list[Node],
    index: int,
    name: str,
    located: Value,
    tunnel: tuple[Network, ...],
) -> Node:
    _name(located, name)
    fields = located.fields(_NODE)
    names = [underlay.name for underlay in topology.underlays]
    if "underlays" in fields:
        on = tuple(item.expect_choice(names) for item in fields["underlays"].items())
    else:
        on = (names[0],)
    if not on:
        raise located.error("is on no underlay", "leave the key out to join the first one")
    if "pod_cidrs" in fields:
        cidrs = _networks(fields["pod_cidrs"], ())
    else:
        cidrs = tuple(_slice(cidr, index) for cidr in topology.pod_cidrs)
    node = Node(
        name=name,
        underlays=on,
        addresses=_node_addresses(topology, on, index, fields.get("addresses")),
        pod_cidrs=cidrs,
        pods=(),
        tunnel=tuple(network[index + 1] for network in tunnel),
        control_plane=_flag(fields, "control_plane", False),
        node_encryption=_flag(fields, "node_encryption", topology.node_encryption),
        labels=_labels(fields.get("labels")),
        implementation=_implementation(topology, fields.get("implementation")),
        links=_links(topology, on, fields.get("links")),
    )
    _refuse_twice(located, before, node)
    return replace(node, pods=_pods(topology, node, fields.get("pods")))


def _implementation(topology: Topology, located: Value | None) -> str:
    if located is None:
        return IMPLEMENTATIONS[0]
    chosen = located.expect_choice(IMPLEMENTATIONS)
    if chosen != IMPLEMENTATIONS[0] and topology.mode != "plain":
        raise located.error(
            "the agent needs the control socket of wireguard-py", "use mode: plain"
        )
    return chosen


def _slice(cidr: Network, index: int) -> Network:
    """The `index`-th node's own part: a /24 of IPv4, a /64 of IPv6 (at least 8 bits longer)."""
    width = max(24 if cidr.version == 4 else 64, cidr.prefixlen)
    if width == cidr.prefixlen:
        return cidr
    step = 1 << (cidr.max_prefixlen - width)
    return ip_network((int(cidr.network_address) + (index + 1) * step, width))


def _node_addresses(
    topology: Topology, on: tuple[str, ...], index: int, located: Value | None
) -> tuple[Address, ...]:
    networks = [n for name in on for n in topology.underlay(name).networks]
    if located is None:
        return tuple(network[11 + index] if network.num_addresses > 32 else network[index + 1]
                     for network in networks)  # fmt: skip
    found = []
    for item in located.items():
        address = _address(item)
        if not any(address in network for network in networks):
            listed = ", ".join(str(network) for network in networks)
            raise item.error(f"{address} is outside its underlays", f"choose one of {listed}")
        found.append(address)
    return tuple(found)


def _labels(located: Value | None) -> tuple[tuple[str, str], ...]:
    if located is None:
        return ()
    return tuple((key, value.expect_text()) for key, value in located.fields().items())


def _refuse_twice(located: Value, before: list[Node], node: Node) -> None:
    for other in before:
        both = set(other.addresses) & set(node.addresses)
        if both:
            raise located.error(
                f"has address {both.pop()} of node {other.name}", "give each node its own"
            )


def _pods(topology: Topology, node: Node, located: Value | None) -> tuple[Pod, ...]:
    if located is None:
        return ()
    if located.is_mapping():
        wanted = {name: tuple(_address(a) for a in here.items()) for name, here in
                  located.fields().items()}  # fmt: skip
    else:
        wanted = {item.expect_text(): () for item in located.items()}
    pods = []
    for index, (name, addresses) in enumerate(wanted.items()):
        _name(located, name)
        given = addresses or tuple(cidr[index + 10] for cidr in node.pod_cidrs)
        for address in given:
            if not any(address in cidr for cidr in topology.pod_cidrs):
                raise located.error(
                    f"pod {name} has {address}, outside the pod CIDRs", "choose one inside"
                )
        pods.append(Pod(name, node.name, given))
    return tuple(pods)


def _unknown(
    topology: Topology, located: Value | None
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """`unknown: [beta]` for all, or `unknown: {alpha: [beta/server]}` for one viewer."""
    if located is None:
        return ()
    viewers = ["all", *(node.name for node in topology.nodes)]
    names = [*(node.name for node in topology.nodes), *(pod.path for pod in topology.pods)]
    if located.is_mapping():
        fields = located.fields(viewers)
    else:
        fields = {"all": located}
    return tuple(
        (viewer, tuple(item.expect_choice(names) for item in here.items()))
        for viewer, here in fields.items()
    )


__all__ = [
    "LISTEN_PORT", "Address", "Network", "Node", "Pod", "Topology", "TopologyError", "Underlay",
    "World", "parse_topology", "read_topology",
]  # fmt: skip

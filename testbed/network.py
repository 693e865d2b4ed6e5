"""From topology to commands: which `ip`, `sysctl` and `nft` lines each namespace gets.

    pod eth0 ── podNAME  NODE  eth0 ── NODE.0  UNDERLAY  br-lan ── router ── world ── eth0  WORLD

* The underlay namespace holds one bridge per underlay and is the router between them, to
  the world, and to every pod's address: an undiscovered pod's packet that leaves a node in
  plaintext does arrive, as in a cloud that routes pod addresses.  That is what makes the
  leak real.
* Every pod has host routes on both ends of its veth pair (gateway 169.254.1.1, fe80::1).
* The agent, not this module, makes the routes into the tunnel; in plain mode the device
  is configured by `dataplane`.

Pure: builds text, runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from testbed.impairment import PERFECT, inner_end, outer_end
from testbed.topology import Address, Network, Node, Pod, Topology

UNDERLAY = "underlay"
WORLD = "world"
GATEWAY4 = "169.254.1.1"
GATEWAY6 = "fe80::1"

FORWARDING: dict[str, str | int] = {
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/default/forwarding": 1,
}
QUIET: dict[str, str | int] = {
    "ipv6/conf/all/accept_dad": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/all/router_solicitations": 0,
    "ipv6/conf/default/router_solicitations": 0,
    "ipv4/ping_group_range": "0 0",
}


def names(topology: Topology) -> list[str]:
    """All namespaces of the cluster, the underlay first."""
    outside = [WORLD] if topology.world else []
    nodes = [node.name for node in topology.nodes]
    return [UNDERLAY, *outside, *nodes, *(pod.path for pod in topology.pods)]


def sysctls(topology: Topology, name: str) -> dict[str, str | int]:
    """The kernel settings of a namespace, to be set before it gets any device."""
    routes = name == UNDERLAY or any(node.name == name for node in topology.nodes)
    return QUIET | (FORWARDING if routes else {})


def port(node: Node, index: int) -> str:
    """The bridge port of a node's `index`-th underlay device."""
    return f"{node.name}.{index}"


def impaired(node: Node, index: int) -> bool:
    """Whether the forwarder is in the node's `index`-th link."""
    return node.links[index] != PERFECT


def tap(node: Node, index: int) -> str:
    """The underlay's device where all frames of a node's `index`-th device arrive."""
    here = port(node, index)
    return outer_end(here) if impaired(node, index) else here


def underlay_lines(topology: Topology, pids: Mapping[str, int]) -> list[str]:
    """Bridges, ports (whose other ends land in the nodes), the router and its routes."""
    lines = ["link set lo up"]
    for underlay in topology.underlays:
        bridge = f"br-{underlay.name}"
        lines.append(f"link add {bridge} mtu {underlay.mtu} type bridge mcast_snooping 0")
        lines.append(f"link set {bridge} up")
        for network in underlay.networks:
            lines.append(_address(bridge, underlay.router(network), network.prefixlen))
    for node in topology.nodes:
        for index, name in enumerate(node.underlays):
            mtu, here = topology.underlay(name).mtu, port(node, index)
            outside = here
            if impaired(node, index):
                outside = outer_end(here)
                lines += _cut(here, mtu)
            lines.append(
                f"link add {outside} mtu {mtu} type veth peer name eth{index} mtu {mtu} "
                f"netns {pids[node.name]}"
            )
            if impaired(node, index):
                lines.append(f"link set {outside} arp off addrgenmode none")
            lines.append(f"link set {outside} up")
            lines.append(f"link set {here} master br-{name} up")
    if topology.world:
        lines.append(f"link add world type veth peer name eth0 netns {pids[WORLD]}")
        lines.append("link set world up")
        for network in topology.world.networks:
            lines.append(_address("world", network[-2], network.prefixlen))
    return lines + [line for node in topology.nodes for line in _routes_to(node)]


def _cut(port: str, mtu: int) -> list[str]:
    """The bridge port's own cable, to the forwarder.

    The forwarder's ends are not interfaces of the router, so they must not answer for it.
    """
    inside = inner_end(port)
    return [
        f"link add {port} mtu {mtu} type veth peer name {inside} mtu {mtu}",
        f"link set {port} gso_max_segs 1",
        f"link set {inside} arp off addrgenmode none up",
    ]


def _routes_to(node: Node) -> Iterator[str]:
    for pod in node.pods:
        for address in pod.addresses:
            via = node.address(address.version)
            if via is not None:
                yield f"route add {_host(address)} via {via}"


def world_lines(topology: Topology) -> list[str]:
    """The outside host: one address per family, the router for everything else."""
    lines = ["link set lo up", "link set eth0 up"]
    for network in topology.world.networks if topology.world else ():
        lines.append(_address("eth0", network[9], network.prefixlen))
        lines.append(f"route add default via {network[-2]}")
    return lines


def node_lines(topology: Topology, node: Node, pids: Mapping[str, int]) -> list[str]:
    """Underlay devices, default routes, and one veth pair per pod."""
    lines = ["link set lo up"]
    for index, name in enumerate(node.underlays):
        if impaired(node, index):
            lines.append(f"link set eth{index} gso_max_segs 1")
        lines.append(f"link set eth{index} up")
        for address, network in _on(topology, node, name):
            lines.append(_address(f"eth{index}", address, network.prefixlen))
    for version in (4, 6):
        router = _router(topology, node, version)
        if router is not None:
            lines.append(f"route add default via {router} dev eth0")
    for pod in node.pods:
        lines += _pod_on_node(node, pod, pids[pod.path])
    return lines


def _on(topology: Topology, node: Node, underlay: str) -> Iterator[tuple[Address, Network]]:
    for address in node.addresses:
        for network in topology.underlay(underlay).networks:
            if address.version == network.version and address in network:
                yield address, network


def _router(topology: Topology, node: Node, version: int) -> Address | None:
    underlay = topology.underlay(node.underlays[0])
    return next((underlay.router(n) for n in underlay.networks if n.version == version), None)


def _pod_on_node(node: Node, pod: Pod, pid: int) -> Iterator[str]:
    device = f"pod{pod.name}"
    yield f"link add {device} type veth peer name eth0 netns {pid}"
    yield f"link set {device} up"
    yield f"address add {GATEWAY4}/32 dev {device} scope link"
    yield f"address add {GATEWAY6}/64 dev {device} nodad"
    for address in pod.addresses:
        # The kernel drops a route with the address it names as source: not where nodes roam.
        own = node.address(address.version) if len(node.underlays) == 1 else None
        yield f"route add {_host(address)} dev {device}" + (f" src {own}" if own else "")


def pod_lines(pod: Pod) -> list[str]:
    """A pod's addresses and its default route."""
    lines = ["link set lo up", "link set eth0 up"]
    for address in pod.addresses:
        lines.append(_address("eth0", address, address.max_prefixlen))
        if address.version == 4:
            lines.append(f"route add {GATEWAY4}/32 dev eth0")
            lines.append(f"route add default via {GATEWAY4} dev eth0 src {address}")
        else:
            lines.append(f"route add default via {GATEWAY6} dev eth0 src {address}")
    return lines


def _address(device: str, address: Address, width: int) -> str:
    return f"address add {address}/{width} dev {device}" + (
        " nodad" if address.version == 6 else ""
    )


def _host(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"

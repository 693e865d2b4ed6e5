"""From the merged state of the cluster to the desired state of the host's kernel.

Pure: `backstop_of` gives what nftables drops, `routes_of` what is routed where.
`strict.firewall` and `strict.routes` carry it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from strict.config import AgentConfig
from strict.devices import Devices
from strict.nodes import Node
from strict.routes import RoutePlan
from strict.ruleset import Backstop
from strict.settings import Mode, TableConfig
from strict.state import ClusterState
from strict.table import StrictTable
from wgpy.protocol.endpoint import AddressBytes, Prefix


def encrypts_node_traffic(table: StrictTable) -> bool:
    """Node encryption is on, and this node did not opt out of it."""
    config = table.config
    if config is None or not config.node_encryption:
        return False
    return not table.opted_out(table.nodes.get(config.node))


def backstop_of(config: AgentConfig, state: ClusterState, devices: Devices) -> Backstop:
    """The rules for the nodes and devices known now."""
    table, settings = state.table, state.config
    known = list(table.nodes)
    nodes = (*settings.node_cidrs, *_hosts(known))
    encrypts = encrypts_node_traffic(table)
    plain = _hosts(node for node in known if table.opted_out(node))
    control = _hosts(node for node in known if node.control_plane)
    return Backstop(
        interface=config.node.interface,
        underlay=devices.underlay,
        pod_devices=devices.pods,
        mark=config.node.fwmark,
        port=config.node.listen_port,
        drop=settings.mode is Mode.STRICT,
        pods=settings.pod_cidrs,
        nodes=_sorted(nodes),
        nodes_in_pods=_sorted(p for p in _hosts(known) if settings.is_pod(p.ip)),
        plain_nodes=_sorted(plain if encrypts else nodes),
        control_plane=_sorted((*settings.control_plane, *control)),
        local=local_pods(state),
        etcd_ports=settings.etcd_ports,
        ingress=settings.ingress,
        node_encryption=encrypts,
        masquerade=config.routing.masquerade,
    )


def routes_of(
    state: ClusterState, addresses: Mapping[AddressBytes, Prefix], mtu: int
) -> RoutePlan:
    """What goes into the tunnel; `addresses` are the host's own with their networks,
    `mtu` the tunnel routes'.
    """
    settings, local = state.config, state.local()
    tunnel = set(settings.pod_cidrs)
    others = [node for node in state.table.nodes if node.name != settings.node]
    for node in others:
        tunnel.update(cidr for cidr in node.pod_cidrs if not _within(cidr, settings))
    if encrypts_node_traffic(state.table):
        tunnel.update(settings.node_cidrs)
        tunnel.update(host for host in _hosts(others) if not _within(host, settings))
    sources: dict[int, AddressBytes] = {}
    for address in local.addresses:
        if address in addresses:
            sources.setdefault(len(address), address)
    return RoutePlan(
        tunnel=_sorted(tunnel),
        local=local_pods(state),
        mtu=mtu,
        sources=sources,
        direct=dict(_direct(state, others, [addresses[own] for own in sources.values()])),
    )


def local_pods(state: ClusterState) -> tuple[Prefix, ...]:
    """This node's own pods: its ranges, and entries outside of those."""
    local = state.local()
    ranges = {*local.pod_cidrs, *local.allowed_ips}
    return _sorted(ranges | {p for p in state.local_pods if not _covered(p, ranges)})


def _direct(
    state: ClusterState, others: Iterable[Node], networks: Sequence[Prefix]
) -> Iterator[tuple[Prefix, AddressBytes]]:
    """Pod ranges of the nodes on the same network as this one."""
    for node in others:
        for cidr in (*node.pod_cidrs, *node.allowed_ips):
            for address in node.addresses:
                owned = cidr in node.allowed_ips or state.table.nodes.owns_cidr(node.name, cidr)
                if owned and len(address) == len(cidr.ip) and any(address in n for n in networks):
                    yield cidr, address
                    break


def _hosts(nodes: Iterable[Node]) -> tuple[Prefix, ...]:
    return tuple(
        Prefix(address, len(address) * 8) for node in nodes for address in node.addresses
    )


def _within(prefix: Prefix, settings: TableConfig) -> bool:
    return _covered(prefix, (*settings.pod_cidrs, *settings.node_cidrs))


def _covered(prefix: Prefix, ranges: Iterable[Prefix]) -> bool:
    return any(prefix.ip in cidr and cidr.length <= prefix.length for cidr in ranges)


def _sorted(prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
    return tuple(sorted(set(prefixes)))


def needs_ipv6(state: ClusterState) -> bool:
    """Whether anything inside the tunnel is IPv6."""
    return any(len(cidr.ip) == 16 for cidr in _inner(state))


def _inner(state: ClusterState) -> Iterator[Prefix]:
    yield from state.config.pod_cidrs
    for node in state.table.nodes:
        yield from node.pod_cidrs
    if state.config.node_encryption:
        yield from state.config.node_cidrs

"""From a node's file to the sources its agent learns from."""

from __future__ import annotations

from strict.config import AgentConfig
from strict.discovery import Discovery
from strict.discovery.static import StaticDiscovery, read_cluster
from strict.document import DocumentRefused, load
from strict.nodes import Node


class SourceMissing(Exception):
    """A source needs a library that is not installed; says which command installs it."""


def open_sources(config: AgentConfig) -> list[Discovery]:
    """The file first: it is believed.  Raises `DocumentRefused`, `SourceMissing`."""
    sources: list[Discovery] = [StaticDiscovery(config.cluster)]
    if config.etcd is not None:
        own = own_node(config)
        try:
            from strict.discovery.etcd.source import EtcdDiscovery
        except ModuleNotFoundError as error:
            raise SourceMissing(
                f"discovery through etcd needs {error.name}: pip install 'wgpy[etcd]'"
            ) from error
        sources.append(EtcdDiscovery(config.etcd, own))
    return sources


def own_node(config: AgentConfig) -> Node:
    """What the file says about this node, which is what a store is told.

    Raises `DocumentRefused`: others could neither reach it nor know its pods without.
    """
    document = load(config.cluster)
    own = read_cluster(document).nodes.get(config.node.name)
    if own is None and not document.problems:
        document.problem(
            (),
            f"etcd is told about this node, and there is no [[node]] with name = "
            f"{config.node.name!r}: write one with its addresses and pod_cidrs",
        )
    document.check()
    if own is None:
        raise DocumentRefused(document.problems)
    return own

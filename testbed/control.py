"""Queries a node's data plane about its table and its drops, from outside.

One short connection per question to the control socket (docs/control-socket.md), through
/proc/PID/root, because each node has its own /run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from strict.client import StrictClient
from strict.ruleset import table_name
from testbed.cluster import DATA_PLANE, Cluster
from testbed.dataplane import DEVICE, snapshot
from testbed.namespaces import wait_until
from wgpy.control.client import ControlFailed

__all__ = ["ControlFailed", "backstop", "connection", "drops", "status", "wait_known", "wait_mode"]


@contextmanager
def connection(cluster: Cluster, node: str) -> Iterator[StrictClient]:
    """A control connection to `node`; raises `ControlFailed` if there is no answer."""
    with StrictClient(DEVICE, cluster.run_folder(node)) as client:
        yield client


def status(cluster: Cluster, node: str) -> dict[str, Any]:
    """The data plane's `status`."""
    with connection(cluster, node) as client:
        return client.request("status")


NONE, SILENT = "none", "no answer"
"""`live_mode` of a node without a data plane, and of one that does not answer."""


def live_mode(cluster: Cluster, node: str) -> str:
    """The current mode: of the table in the data plane, or `plain`; `NONE` or `SILENT`."""
    if cluster.pid(node, DATA_PLANE) is None:
        return NONE
    try:
        if cluster.topology.mode == "plain":
            snapshot(cluster.namespaces[node])
            return "plain"
        return str(status(cluster, node)["policy"]["config"]["mode"])
    except (OSError, ControlFailed, KeyError, TypeError):
        return SILENT


def drops(cluster: Cluster, node: str) -> dict[str, int]:
    """Packets dropped so far, by the name of the reason, both directions together."""
    with connection(cluster, node) as client:
        return dict(client.request("counters")["drops"])


def explain(cluster: Cluster, node: str, source: str, destination: str) -> dict[str, Any]:
    """Which row of the verdict table decides on `node`."""
    with connection(cluster, node) as client:
        return client.request("explain", source=source, destination=destination)


def backstop(cluster: Cluster, node: str) -> dict[str, int]:
    """Packets counted by the nftables backstop, by counter; empty when it is not there."""
    done = cluster.namespaces[node].run("nft", "-j", "list", "counters", check=False)
    found: dict[str, int] = {}
    for item in json.loads(done.stdout or "{}").get("nftables", []):
        counter = item.get("counter")
        if counter and counter["table"] == table_name(DEVICE):
            found[counter["name"]] = int(counter["packets"])
    return found


def wait_mode(cluster: Cluster, node: str, mode: str, seconds: float = 15) -> None:
    """Until the table of `node` is in `mode`; raises TimeoutError."""

    def there() -> bool:
        return bool(status(cluster, node)["policy"]["config"]["mode"] == mode)

    if not wait_until(there, seconds):
        raise TimeoutError(f"{node} is not in {mode} mode")


def wait_known(
    cluster: Cluster, node: str, source: str, destination: str, outcome: str, seconds: float = 15
) -> None:
    """Until `node` would do `outcome` with a packet; raises TimeoutError."""
    last: dict[str, Any] = {}

    def there() -> bool:
        last.update(explain(cluster, node, source, destination))
        return bool(last.get("outcome") == outcome or last.get("action") == outcome)

    if not wait_until(there, seconds):
        raise TimeoutError(f"{node}: {source} to {destination} is not {outcome} but {last}")

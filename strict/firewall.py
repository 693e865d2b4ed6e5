"""The kernel backstop: nftables that count and drop what must not pass in plaintext.

The data plane decides; this holds while it is down, starting, crashed or replaced.  Two
tables of one name, `netdev` on the underlay devices and `inet` around the host's stack:

* egress on the underlay: pods to pods is dropped, with node encryption also what goes
  between nodes and pods or nodes; the tunnel's own UDP passes by its mark;
* ingress on the underlay: whatever has a pod's address on either side is dropped, known
  or not, for the tunnel's packets are UDP between nodes; row 7's traffic passes;
* before any source NAT: pods to pods never leaves by the underlay;
* a pod's address is never the outer source of a tunnel packet: endpoints stay on nodes;
* pods leave the cluster under the node's address (masquerade), if asked for.

In default mode the same rules count and let pass: that is the measured leak.

Invariants: each change is one nft transaction; no other table is read or written; the
counters survive a change.  Works in the network namespace of the calling process.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from wgpy.protocol.endpoint import Prefix

NEIGHBOURS: Final = (
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, "
    "nd-router-solicit, nd-router-advert } accept"
)
COUNTERS: Final = {
    "egress_pods": "plaintext from pod to pod, about to leave by the underlay",
    "egress_nodes": "plaintext between nodes or node and pod, node encryption on",
    "ingress_pods": "plaintext with a pod's address that came in by the underlay",
    "before_nat": "plaintext from pod to pod, caught before source NAT",
    "endpoint_in_pods": "tunnel packets with a pod's address as outer source",
}
_PRIORITY: Final = -300
"""Before everything else on the hook."""
_BEFORE_NAT: Final = -160


class FirewallError(Exception):
    """nft refused; the ruleset is what it was."""


class Count(NamedTuple):
    """What a counter has seen."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Backstop:
    """What the tables shall say; equal values make equal tables."""

    interface: str
    underlay: tuple[str, ...]
    mark: int
    port: int
    drop: bool
    """False: count only (default mode)."""
    pods: tuple[Prefix, ...]
    nodes: tuple[Prefix, ...] = ()
    """Node CIDRs and known node addresses."""
    nodes_in_pods: tuple[Prefix, ...] = ()
    """Known node addresses inside the pod CIDRs, let through where they are allowed there."""
    plain_nodes: tuple[Prefix, ...] = ()
    """Nodes whose own traffic is plaintext: all, or those that opted out."""
    control_plane: tuple[Prefix, ...] = ()
    etcd_ports: tuple[int, ...] = ()
    ingress: bool = True
    node_encryption: bool = False
    """On, and this node did not opt out of it."""
    masquerade: bool = False

    @property
    def name(self) -> str:
        """Of both tables."""
        return table_name(self.interface)


def table_name(interface: str) -> str:
    """The tables' name; nft takes letters, digits and ``_``."""
    return "wgpy_" + re.sub(r"[^A-Za-z0-9]", "_", interface)


class Firewall:
    """Keeps the tables of one interface as a `Backstop` says."""

    def __init__(self, interface: str) -> None:
        self._name = table_name(interface)
        self._wanted: Backstop | None = None
        self._fingerprint = ""

    def apply(self, backstop: Backstop) -> bool:
        """Make the tables so; True when something had to change.  Raises `FirewallError`."""
        if backstop == self._wanted and self.intact():
            return False
        _nft(render(backstop, self.counts()))
        self._wanted, self._fingerprint = backstop, self._look()
        return True

    def restore(self) -> bool:
        """Put back what somebody removed or changed; True when there was something."""
        if self._wanted is None or self.intact():
            return False
        _nft(render(self._wanted, self.counts()))
        self._fingerprint = self._look()
        return True

    def intact(self) -> bool:
        """Whether the tables are still as they were written."""
        return self._look() == self._fingerprint != ""

    def counts(self) -> dict[str, Count]:
        """What the counters have seen; empty when the tables are not there."""
        counts: dict[str, Count] = {}
        for item in _objects(self._name):
            if counter := item.get("counter"):
                counts[counter["name"]] = Count(counter["packets"], counter["bytes"])
        return counts

    def remove(self) -> None:
        """Remove the tables, if they are there: the last step of taking a node down."""
        _nft("".join(_forget(family, self._name) for family in ("netdev", "inet")))
        self._wanted, self._fingerprint = None, ""

    def _look(self) -> str:
        """The tables without what changes by itself."""
        items = list(_objects(self._name))
        for item in items:
            for content in item.values():
                content.pop("handle", None)
                if "counter" in item:
                    content.pop("packets", None)
                    content.pop("bytes", None)
        return json.dumps(items, sort_keys=True) if items else ""


def counts(interface: str) -> dict[str, Count]:
    """The counters of an interface's backstop, for whoever only reads."""
    return Firewall(interface).counts()


def render(backstop: Backstop, counts: Mapping[str, Count]) -> str:
    """The transaction that replaces both tables, the counters going on from `counts`."""
    name = backstop.name
    netdev = [*_counters(("egress_pods", "egress_nodes", "ingress_pods"), counts), *_sets(backstop)]
    for index, device in enumerate(backstop.underlay):
        netdev += _chain(f"egress_{index}", f'egress device "{device}"', _egress(backstop))
        if backstop.ingress:
            netdev += _chain(f"ingress_{index}", f'ingress device "{device}"', _ingress(backstop))
    inet = [*_counters(("before_nat", "endpoint_in_pods"), counts), *_sets(backstop)]
    inet += _chain("before_nat", "postrouting", _before_nat(backstop), _BEFORE_NAT)
    inet += _chain("endpoints", "input", _endpoints(backstop))
    if backstop.masquerade:
        inet += _nat_chain(backstop)
    return (
        _forget("netdev", name)
        + _forget("inet", name)
        + _table("netdev", name, netdev)
        + _table("inet", name, inet)
    )


def _egress(backstop: Backstop) -> Iterator[str]:
    """Rules of the underlay's egress hook."""
    # Later fragments have no port to look at: the mark, which only root can set, decides.
    yield f"meta mark {backstop.mark:#x} meta l4proto udp accept"
    yield from _both("saddr @nodes_in_pods", "accept")
    yield from _both("daddr @nodes_in_pods", "accept")
    yield from _pairs("pods", "pods", f"counter name egress_pods {_verdict(backstop)}")
    if not backstop.node_encryption:
        return
    yield NEIGHBOURS
    for side in ("saddr", "daddr"):
        yield from _both(f"{side} @plain_nodes", "accept")
    ports = ", ".join(map(str, backstop.etcd_ports))
    if ports:
        yield from _both("daddr @control_plane", f"tcp dport {{ {ports} }} accept")
        yield from _both("saddr @control_plane", f"tcp sport {{ {ports} }} accept")
    for source, destination in (("nodes", "nodes"), ("nodes", "pods"), ("pods", "nodes")):
        yield from _pairs(source, destination, f"counter name egress_nodes {_verdict(backstop)}")


def _ingress(backstop: Backstop) -> Iterator[str]:
    """Rules of the underlay's ingress hook."""
    yield from _both("saddr @nodes_in_pods", "accept")
    yield from _both("daddr @nodes_in_pods", "accept")
    yield from _pairs("plain_nodes", "pods", "accept")
    yield from _pairs("pods", "plain_nodes", "accept")
    for side in ("saddr", "daddr"):
        yield from _both(f"{side} @pods", f"counter name ingress_pods {_verdict(backstop)}")


def _before_nat(backstop: Backstop) -> Iterator[str]:
    """Pods to pods, before anything can rewrite the source."""
    devices = ", ".join(f'"{device}"' for device in backstop.underlay)
    yield f"meta oifname != {{ {devices} }} accept"
    yield from _both("saddr @nodes_in_pods", "accept")
    yield from _both("daddr @nodes_in_pods", "accept")
    yield from _pairs("pods", "pods", f"counter name before_nat {_verdict(backstop)}")


def _endpoints(backstop: Backstop) -> Iterator[str]:
    """A pod that replays a tunnel packet would become the peer's endpoint."""
    yield f"udp dport != {backstop.port} accept"
    yield "meta l4proto != udp accept"
    yield from _both("saddr @nodes_in_pods", "accept")
    yield from _both("saddr @pods", "counter name endpoint_in_pods drop")


def _nat_chain(backstop: Backstop) -> list[str]:
    devices = ", ".join(f'"{device}"' for device in backstop.underlay)
    rules = [f"meta oifname != {{ {devices} }} accept"]
    rules += _both("daddr @pods", "accept")
    rules += _both("daddr @nodes", "accept")
    rules += _both("saddr @pods", "masquerade")
    return [
        "chain outward {",
        "  type nat hook postrouting priority srcnat; policy accept;",
        *(f"  {rule}" for rule in rules),
        "}",
    ]


_DIGIT: Final = {"ip": 4, "ip6": 6}


def _verdict(backstop: Backstop) -> str:
    return "drop" if backstop.drop else "accept"


def _both(match: str, action: str) -> Iterator[str]:
    """A rule for each family; `match` is ``saddr @set``."""
    for family, digit in _DIGIT.items():
        yield f"{family} {match}{digit} {action}"


def _pairs(source: str, destination: str, action: str) -> Iterator[str]:
    for family, digit in _DIGIT.items():
        yield f"{family} saddr @{source}{digit} {family} daddr @{destination}{digit} {action}"


def _chain(name: str, hook: str, rules: Iterable[str], priority: int = _PRIORITY) -> list[str]:
    head = f"  type filter hook {hook} priority {priority}; policy accept;"
    return [f"chain {name} {{", head, *(f"  {rule}" for rule in rules), "}"]


def _counters(names: Iterable[str], counts: Mapping[str, Count]) -> Iterator[str]:
    for name in names:
        seen = counts.get(name, Count(0, 0))
        yield f"counter {name} {{ packets {seen.packets} bytes {seen.bytes} }}"


def _sets(backstop: Backstop) -> Iterator[str]:
    content = {
        "pods": backstop.pods,
        "nodes": backstop.nodes,
        "nodes_in_pods": backstop.nodes_in_pods,
        "plain_nodes": backstop.plain_nodes,
        "control_plane": backstop.control_plane,
    }
    for name, prefixes in content.items():
        for size, digit in ((4, 4), (16, 6)):
            elements = _widest(prefix for prefix in prefixes if len(prefix.ip) == size)
            filled = f"elements = {{ {', '.join(map(str, elements))} }};" if elements else ""
            yield f"set {name}{digit} {{ type ipv{digit}_addr; flags interval; {filled} }}"


def _widest(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Without those inside of others: nft refuses intervals that overlap."""
    found: list[Prefix] = []
    for prefix in sorted(set(prefixes), key=lambda prefix: (prefix.length, prefix.ip)):
        if not prefix.overlaps(found):
            found.append(prefix)
    return found


def _table(family: str, name: str, lines: Iterable[str]) -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return f"table {family} {name} {{\n{body}}}\n"


def _forget(family: str, name: str) -> str:
    """Delete a table that may not be there: made first, so that deleting it cannot fail."""
    return f"table {family} {name} {{ }}\ndelete table {family} {name}\n"


def _objects(name: str) -> Iterator[dict[str, Any]]:
    """Everything in both tables, as nft's JSON."""
    for family in ("netdev", "inet"):
        command = ["nft", "-j", "list", "table", family, name]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            for item in json.loads(listed.stdout)["nftables"]:
                if "metainfo" not in item:
                    yield item


def _nft(text: str) -> None:
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise FirewallError("nft is not installed: apt-get install nftables") from error
    if done.returncode:
        raise FirewallError(f"nft refused the backstop: {done.stderr.strip()}")

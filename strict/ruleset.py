"""The backstop as nftables rules: what must not pass in plaintext.

Two tables of one name, `netdev` on the underlay devices and `inet` around the host's stack:

* egress on the underlay: pods to pods is dropped, and what quotes or wraps that (the
  kernel's ICMP errors, IP-in-IP); with node encryption also what goes between nodes and
  pods or nodes; the tunnel's own UDP passes by its mark;
* ingress on the underlay: whatever has a pod's address on either side is dropped, known
  or not, for the tunnel's packets are UDP between nodes; row 7's traffic passes;
* after routing, before any source NAT: the same as egress for every device but the tunnel,
  unless it goes to one of this node's own pods.  No device needs a name for that, so one
  that was renamed, replaced or added a moment ago is covered;
* pods to pods that a NAT rule rewrote on the way into the tunnel, or past it, are dropped:
  the original addresses count.  Where there is NAT, they keep their addresses;
* a pod sends from its own address: from where the route back leads to its device;
* a pod's address is never the outer source of a tunnel packet: endpoints stay on nodes;
* pods leave the cluster under the node's address (masquerade), if asked for.

In default mode the same rules only count: that measures the leak.  Pure: creates text;
`strict.firewall` applies it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from strict.inside import DIGIT, ERRORS, ERRORS6, inside, look_inside, widest
from wgpy.protocol.endpoint import Prefix

NEIGHBOURS: Final = (
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, "
    "nd-router-solicit, nd-router-advert } accept"
)
COUNTERS: Final = {
    "egress_pods": "plaintext from pod to pod, about to leave by the underlay",
    "egress_errors": "plaintext with a packet from pod to pod inside, about to leave",
    "egress_nodes": "plaintext between nodes or node and pod, node encryption on",
    "ingress_pods": "plaintext with a pod's address that came in by the underlay",
    "ingress_errors": "plaintext with a packet from pod to pod inside that came in",
    "before_nat": "the same as egress, caught after routing, on whatever device",
    "rewritten": "from pod to pod, before NAT changed an address",
    "pod_source": "sent by a pod from an address that is not its own",
    "endpoint_in_pods": "tunnel packets with a pod's address as outer source",
}
_NETDEV_COUNTERS: Final = (
    "egress_pods", "egress_errors", "egress_nodes", "ingress_pods", "ingress_errors",
)  # fmt: skip
_FIRST: Final = -300
"""Before everything else on the hook."""
_BEFORE_NAT: Final = -160
_FIRST_NAT: Final = -199
"""The lowest that a NAT chain may have: the first NAT rule that matches settles it."""
_AFTER_NAT: Final = 250
_WAS_PODS: Final = 0x0200_0000
"""A bit of the mark, between routing and the tunnel device: from pod to pod before NAT."""
_MULTICAST: Final = {"ip": ("224.0.0.0/4", "255.255.255.255"), "ip6": ("ff00::/8",)}


class Count(NamedTuple):
    """What a counter has seen."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Backstop:
    """The content of the tables; equal values give equal tables."""

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
    local: tuple[Prefix, ...] = ()
    """This node's own pods: what is on its way to one of them need not be encrypted."""
    pod_devices: tuple[str, ...] = ()
    """Devices that this node's pods are behind."""
    etcd_ports: tuple[int, ...] = ()
    ingress: bool = True
    node_encryption: bool = False
    """On, and this node did not opt out of it."""
    masquerade: bool = False
    foreign_nat: bool = False
    """There are other NAT rules.  Without any, connections need not be tracked."""

    @property
    def tracks(self) -> bool:
        """Whether conntrack is in use anyway."""
        return self.masquerade or self.foreign_nat

    @property
    def name(self) -> str:
        """Of both tables."""
        return table_name(self.interface)

    def with_nodes_of(
        self, sets: Mapping[str, tuple[Prefix, ...]], encrypts: bool
    ) -> Backstop:
        """The same with what older rules know of nodes and local pods.

        Rules about pods come from the settings and never wait; those about nodes need the
        nodes to be known.
        """
        return replace(
            self,
            nodes=self.nodes + sets.get("nodes", ()),
            plain_nodes=sets.get("plain_nodes", ()),
            control_plane=self.control_plane + sets.get("control_plane", ()),
            local=self.local + sets.get("local", ()),
            node_encryption=encrypts,
        )

    @property
    def sets(self) -> dict[str, tuple[Prefix, ...]]:
        """The named sets of addresses, without the digit of the family."""
        return {
            "nodes": self.nodes,
            "nodes_in_pods": self.nodes_in_pods,
            "plain_nodes": self.plain_nodes,
            "control_plane": self.control_plane,
            "local": self.local,
        }


def table_name(interface: str) -> str:
    """The tables' name; nft takes letters, digits and ``_``."""
    return "wgpy_" + re.sub(r"[^A-Za-z0-9]", "_", interface)


def render(backstop: Backstop, counts: Mapping[str, Count]) -> str:
    """The transaction that replaces both tables, the counters going on from `counts`."""
    name = backstop.name
    return (
        forget("netdev", name)
        + forget("inet", name)
        + _table("netdev", name, _plainly(backstop, _netdev(backstop, counts)))
        + _table("inet", name, _plainly(backstop, _inet(backstop, counts)))
    )


def _plainly(backstop: Backstop, lines: Iterable[str]) -> Iterator[str]:
    """Every rule about `@pods4` or `@pods6` once for each of their CIDRs.

    They are no sets in the kernel: a set that comes with a transaction may be empty for some
    packets more after its rules are in force, and each change of rules would leak these.
    """
    for line in lines:
        found = [line]
        for digit, size in ((4, 4), (6, 16)):
            cidrs = widest(p for p in backstop.pods if len(p.ip) == size)
            while any(f"@pods{digit}" in rule for rule in found):
                found = [
                    rule.replace(f"@pods{digit}", str(cidr), 1) for rule in found for cidr in cidrs
                ]
        yield from found


def forget(family: str, name: str) -> str:
    """Delete a table that may not be there: made first, so that deleting it cannot fail."""
    return f"table {family} {name} {{ }}\ndelete table {family} {name}\n"


def _netdev(backstop: Backstop, counts: Mapping[str, Count]) -> Iterator[str]:
    yield from _counters(_NETDEV_COUNTERS, counts)
    yield from _sets(backstop)
    yield from inside(backstop.pods, "egress", _count(backstop, "egress_errors"))
    if backstop.ingress:
        yield from inside(backstop.pods, "ingress", _count(backstop, "ingress_errors"))
    egress = list(_egress(backstop, "egress", "egress_pods", "egress_nodes"))
    for index, device in enumerate(backstop.underlay):
        yield from _chain(f"egress_{index}", f'egress device "{device}"', egress)
        if backstop.ingress:
            ingress = _ingress(backstop)
            yield from _chain(f"ingress_{index}", f'ingress device "{device}"', ingress)


def _inet(backstop: Backstop, counts: Mapping[str, Count]) -> Iterator[str]:
    yield from _counters((name for name in COUNTERS if name not in _NETDEV_COUNTERS), counts)
    yield from _sets(backstop)
    yield from inside(backstop.pods, "leaving", _count(backstop, "before_nat"))
    yield from _own_pods(backstop)
    yield from _chain("leaving", "postrouting", _leaving(backstop), _BEFORE_NAT)
    if backstop.local:
        yield from _chain("sources", "prerouting", _sources(backstop))
    yield from _chain("rewritten", "postrouting", _rewritten(backstop), _AFTER_NAT)
    yield from _chain("endpoints", "input", _endpoints(backstop))
    if backstop.drop and backstop.tracks:
        yield from _nat_chain("keep", _FIRST_NAT, _keep(backstop))
    if backstop.masquerade and backstop.underlay:
        yield from _nat_chain("outward", "srcnat", _outward(backstop))


def _egress(backstop: Backstop, inside: str, pods: str, nodes: str) -> Iterator[str]:
    """What leaves by the underlay; `inside` is the chain that looks into packets."""
    yield from _both("saddr @nodes_in_pods", "accept")
    yield from _both("daddr @nodes_in_pods", "accept")
    yield from _pairs("pods", "pods", _count(backstop, pods))
    for family, all_of_them in _MULTICAST.items():
        for everybody in all_of_them:
            sent = f"{family} saddr @pods{DIGIT[family]} {family} daddr {everybody}"
            yield f"{sent} {_count(backstop, pods)}"
    yield from look_inside(inside, _count(backstop, pods))
    if not backstop.node_encryption:
        return
    # Later fragments have no port to look at: the mark, which only root can set, decides.
    # It cannot let pods' packets pass: those are judged above.
    yield f"meta mark {backstop.mark:#x} meta l4proto udp accept"
    yield NEIGHBOURS
    for side in ("saddr", "daddr"):
        yield from _both(f"{side} @plain_nodes", "accept")
    ports = ", ".join(map(str, backstop.etcd_ports))
    if ports:
        yield from _both("daddr @control_plane", f"tcp dport {{ {ports} }} accept")
        yield from _both("saddr @control_plane", f"tcp sport {{ {ports} }} accept")
    for source, destination in (("nodes", "nodes"), ("nodes", "pods"), ("pods", "nodes")):
        yield from _pairs(source, destination, _count(backstop, nodes))


def _ingress(backstop: Backstop) -> Iterator[str]:
    """Rules of the underlay's ingress hook."""
    yield from _both("saddr @nodes_in_pods", "accept")
    yield from _both("daddr @nodes_in_pods", "accept")
    yield from look_inside("ingress", _count(backstop, "ingress_errors"))
    yield from _pairs("plain_nodes", "pods", "accept")
    yield from _pairs("pods", "plain_nodes", "accept")
    for side in ("saddr", "daddr"):
        yield from _both(f"{side} @pods", _count(backstop, "ingress_pods"))


def _leaving(backstop: Backstop) -> Iterator[str]:
    """Everything but the tunnel and the way to this node's own pods is an underlay."""
    marked = f"meta mark set meta mark or {_WAS_PODS:#x}"
    yield from _pairs("pods", "pods", marked, f'oifname "{backstop.interface}" ')
    yield f"oifname {_names('lo', backstop.interface)} accept"
    other = f"oifname != {_names(*backstop.underlay)} " if backstop.underlay else ""
    yield from _both("daddr @local", "accept", other)
    # The set may be empty for some packets after a change (`_plainly`); these are not.
    yield from _both("daddr @pods", "jump own_pods", other)
    yield from _egress(backstop, "leaving", "before_nat", "before_nat")


def _own_pods(backstop: Backstop) -> Iterator[str]:
    """A chain that accepts what goes to this node's own pods, one rule for each address."""
    yield "chain own_pods {"
    for family, size in (("ip", 4), ("ip6", 16)):
        for prefix in widest(p for p in backstop.local if len(p.ip) == size):
            yield f"  {family} daddr {prefix} accept"
    yield "}"


def _sources(backstop: Backstop) -> Iterator[str]:
    """By the route back, which for a pod's own address leads to its device.

    Addresses of pods and nodes are checked on every device that is not known to lead to the
    nodes, all others where pods are known to be.
    """
    yield f"iifname {_names('lo', backstop.interface, *backstop.underlay)} accept"
    yield "ip saddr 0.0.0.0 accept"
    yield "ip6 saddr :: accept"
    astray = f"fib saddr . iif oif missing {_count(backstop, 'pod_source')}"
    for of in ("pods", "nodes"):
        yield from _both(f"saddr @{of}", astray)
    if backstop.pod_devices:
        yield f"iifname {_names(*backstop.pod_devices)} {astray}"


def _keep(backstop: Backstop) -> Iterator[str]:
    """A mapping onto itself: NAT is settled, and later rules are not asked."""
    for family, digit in DIGIT.items():
        yield (
            f'oifname "{backstop.interface}" {family} saddr @pods{digit} '
            f"{family} daddr @pods{digit} snat {family} to {family} saddr"
        )


def _rewritten(backstop: Backstop) -> Iterator[str]:
    """Pods to pods that no longer look so, after all NAT.

    Into the tunnel `_leaving` has marked them.  Elsewhere conntrack knows what they were; an
    ICMP error belongs to the connection that it quotes, and is judged by that.
    """
    action = _count(backstop, "rewritten")
    yield f"icmp type {ERRORS} accept"
    for errors in ERRORS6:
        yield f"icmpv6 type {errors} accept"
    yield from _pairs("pods", "pods", "accept")
    yield f"meta mark and {_WAS_PODS:#x} != 0 {action}"
    if not backstop.tracks:
        return
    for family, digit in DIGIT.items():
        yield (
            f"oifname != {_names('lo', backstop.interface)} {family} daddr != @local{digit} "
            f"ct direction original ct original {family} saddr @pods{digit} "
            f"ct original {family} daddr @pods{digit} {action}"
        )


def _endpoints(backstop: Backstop) -> Iterator[str]:
    """A pod that replays a tunnel packet would become the peer's endpoint."""
    yield f"udp dport != {backstop.port} accept"
    yield "meta l4proto != udp accept"
    yield from _both("saddr @nodes_in_pods", "accept")
    yield from _both("saddr @pods", "counter name endpoint_in_pods drop")


def _outward(backstop: Backstop) -> Iterator[str]:
    yield f"oifname != {_names(*backstop.underlay)} accept"
    yield from _both("daddr @pods", "accept")
    yield from _both("daddr @nodes", "accept")
    yield from _both("saddr @pods", "masquerade")


# nft's words.


def _count(backstop: Backstop, counter: str) -> str:
    """Drop or, in default mode, only count."""
    return f"counter name {counter} {'drop' if backstop.drop else 'accept'}"


def _both(match: str, action: str, before: str = "") -> Iterator[str]:
    """A rule for each family; `match` is ``saddr @set``."""
    for family, digit in DIGIT.items():
        yield f"{before}{family} {match}{digit} {action}"


def _pairs(source: str, destination: str, action: str, before: str = "") -> Iterator[str]:
    for family, digit in DIGIT.items():
        pair = f"{family} saddr @{source}{digit} {family} daddr @{destination}{digit}"
        yield f"{before}{pair} {action}"


def _names(*devices: str) -> str:
    return "{ " + ", ".join(f'"{device}"' for device in devices) + " }"


def _chain(
    name: str, hook: str, rules: Iterable[str], priority: int | str = _FIRST, kind: str = "filter"
) -> list[str]:
    head = f"  type {kind} hook {hook} priority {priority}; policy accept;"
    return [f"chain {name} {{", head, *(f"  {rule}" for rule in rules), "}"]


def _nat_chain(name: str, priority: int | str, rules: Iterable[str]) -> list[str]:
    return _chain(name, "postrouting", rules, priority, "nat")


def _counters(names: Iterable[str], counts: Mapping[str, Count]) -> Iterator[str]:
    for name in names:
        seen = counts.get(name, Count(0, 0))
        yield f"counter {name} {{ packets {seen.packets} bytes {seen.bytes} }}"


def _sets(backstop: Backstop) -> Iterator[str]:
    for name, prefixes in backstop.sets.items():
        for size, digit in ((4, 4), (16, 6)):
            elements = widest(prefix for prefix in prefixes if len(prefix.ip) == size)
            filled = f"elements = {{ {', '.join(map(str, elements))} }};" if elements else ""
            yield f"set {name}{digit} {{ type ipv{digit}_addr; flags interval; {filled} }}"


def _table(family: str, name: str, lines: Iterable[str]) -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return f"table {family} {name} {{\n{body}}}\n"

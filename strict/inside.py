"""Packets within packets, in nft's language: what ICMP errors quote and IP-in-IP wraps.

nft has no words for these, so headers are compared where they must be; offsets are bits from
the header behind the outer IP header.  What cannot be judged so (nested deeper, cut short,
fragments) passes only where no pod is concerned.  `strict.headers` does the same for the table.

No interval sets here, neither of prefixes nor of numbers: one that comes with a transaction may
be empty for some packets more after its rules are in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from strict.headers import ICMP_ERRORS
from wgpy.protocol.endpoint import Prefix

Pods = tuple[Prefix, ...]
"""Their CIDRs; `@pods4` and `@pods6` in a rule stand for them."""
DIGIT: Final = {"ip": 4, "ip6": 6}
ERRORS: Final = "{ " + ", ".join(map(str, ICMP_ERRORS)) + " }"
ERRORS6: Final = ("< 128", "137")
"""No set either: one with a range is as late as one of prefixes."""
_ENDS: Final = {"ip": (96, 128), "ip6": (64, 192)}
"""Where source and destination are in an IP header."""
_ICMP_HEADER: Final = 64
_HEADER: Final = {"ip": 20, "ip6": 40}
"""Bytes of an IP header without options."""
_FRAGMENT: Final = {"ip": "ip frag-off & 0x3fff != 0", "ip6": "exthdr frag exists"}
_LATER_FRAGMENT: Final = {"ip": "ip frag-off & 0x1fff != 0", "ip6": "frag frag-off != 0"}
_HEADERS_BEFORE: Final = "{ 0, 4, 41, 43, 44, 51, 60 }"
"""IPv6: what stands before the payload, or wraps it: not read any further."""


def look_inside(name: str, action: str) -> Iterator[str]:
    yield f"meta l4proto {{ icmp, ipv6-icmp, 4, 41 }} jump {name}_inside"
    # Behind the header of a later fragment no protocol is known while there are others.
    hidden = "frag frag-off != 0 frag nexthdr { 0, 43, 51, 60 }"
    yield from _pod_outside("ip6", hidden, action)


def inside(pods: Pods, name: str, action: str) -> Iterator[str]:
    """The chains that `look_inside` needs: ICMP errors and IP-in-IP.

    What a quoted or wrapped header says is compared where it must be.  What cannot be judged
    here (nested, cut short, fragments) passes only where no pod is concerned.
    """
    yield from _regular(f"{name}_quoted4", _quoted4(pods, action))
    yield from _regular(f"{name}_quoted6", _quoted6(pods, action))
    yield from _regular(f"{name}_wrapped4", _wrapped4(pods, action))
    yield from _regular(f"{name}_wrapped6", _wrapped6(pods, action))
    rules = [
        f"icmp type {ERRORS} goto {name}_quoted4",
        *(f"icmpv6 type {errors} goto {name}_quoted6" for errors in ERRORS6),
        *_pod_outside("ip", f"ip protocol icmp {_LATER_FRAGMENT['ip']}", action),
        *_pod_outside("ip6", f"meta l4proto ipv6-icmp {_LATER_FRAGMENT['ip6']}", action),
        *_pod_outside("ip", f"ip protocol {{ 4, 41 }} {_FRAGMENT['ip']}", action),
        *_pod_outside("ip6", f"meta l4proto {{ 4, 41 }} {_FRAGMENT['ip6']}", action),
        # In chains of their own: nft cannot print a raw match behind one of these protocols.
        f"meta l4proto 4 goto {name}_wrapped4",
        f"meta l4proto 41 goto {name}_wrapped6",
    ]
    yield from _regular(f"{name}_inside", rules)


def _wrapped4(pods: Pods, action: str) -> Iterator[str]:
    """IPv4 in IP.  By the addresses inside; what is wrapped once more or is an error about
    something cannot be judged, and no pod may send or be sent it.
    """
    yield from _one_packet("", _pods_at(pods, "ip", 0), action)
    for unreadable in (
        "@th,72,8 { 4, 41 }",
        "@th,72,8 1 @th,4,4 != 5",
        f"@th,72,8 1 @th,160,8 {ERRORS}",
    ):
        for outer in DIGIT:
            yield from _pod_outside(outer, unreadable, action)


def _wrapped6(pods: Pods, action: str) -> Iterator[str]:
    """IPv6 in IP, likewise."""
    yield from _one_packet("", _pods_at(pods, "ip6", 0), action)
    for unreadable in (
        f"@th,48,8 {_HEADERS_BEFORE}",
        *(f"@th,48,8 58 @th,320,8 {errors}" for errors in ERRORS6),
    ):
        for outer in DIGIT:
            yield from _pod_outside(outer, unreadable, action)


def _quoted4(pods: Pods, action: str) -> Iterator[str]:
    at = _ICMP_HEADER
    yield from _one_packet("", _pods_at(pods, "ip", at), action)
    protocol, header = f"@th,{at + 72},8", f"@th,{at + 4},4"
    for family, number in (("ip", 4), ("ip6", 41)):
        wrapped = _pods_at(pods, family, at + 8 * _HEADER["ip"])
        yield from _one_packet(f"{protocol} {number} {header} 5", wrapped, action)
    yield from _one_packet(f"{protocol} {{ 4, 41 }}", _pod_at(pods, "ip", at), action)
    yield f"{protocol} != {{ 1, 4, 41 }} @th,{at + 128},32 != 0 return"
    yield f"{protocol} 1 {header} 5 @th,{at + 160},8 != {ERRORS} return"
    yield from _pod_outside("ip", "", action)


def _quoted6(pods: Pods, action: str) -> Iterator[str]:
    at = _ICMP_HEADER
    yield from _one_packet("", _pods_at(pods, "ip6", at), action)
    protocol = f"@th,{at + 48},8"
    for family, number in (("ip", 4), ("ip6", 41)):
        wrapped = _pods_at(pods, family, at + 8 * _HEADER["ip6"])
        yield from _one_packet(f"{protocol} {number}", wrapped, action)
    yield from _one_packet(f"{protocol} {_HEADERS_BEFORE}", _pod_at(pods, "ip6", at), action)
    plain = f"{_HEADERS_BEFORE[:-2]}, 58 }}"
    yield f"{protocol} != {plain} @th,{at + 192},64 != 0 return"
    yield f"{protocol} 58 @th,{at + 320},8 > 127 @th,{at + 320},8 != 137 return"
    yield from _pod_outside("ip6", "", action)


def _one_packet(before: str, matches: Iterable[str], action: str) -> Iterator[str]:
    for match in matches:
        yield f"{before} {match} {action}".lstrip()


def _pod_outside(family: str, match: str, action: str) -> Iterator[str]:
    """A packet that `match` says cannot be read, with a pod's address on it."""
    for side in ("saddr", "daddr"):
        yield f"{match} {family} {side} @pods{DIGIT[family]} {action}".lstrip()


def _pod_at(pods: Pods, family: str, start: int) -> Iterator[str]:
    """As `_pods_at`, for one end."""
    size = 8 * (4 if family == "ip" else 16)
    for cidr in widest(prefix for prefix in pods if len(prefix.ip) * 8 == size):
        for at in _ENDS[family]:
            if cidr.length:
                number = int.from_bytes(cidr.ip) >> (size - cidr.length)
                yield f"@th,{start + at},{cidr.length} {number:#x}"


def _pods_at(pods: Pods, family: str, start: int) -> Iterator[str]:
    """One match for each pair of pod CIDRs in an IP header that begins at `start`."""
    source, destination = _ENDS[family]
    size = 4 if family == "ip" else 16
    cidrs = widest(prefix for prefix in pods if len(prefix.ip) == size)
    for first in cidrs:
        for second in cidrs:
            yield " ".join(
                f"@th,{start + at},{cidr.length} "
                f"{int.from_bytes(cidr.ip) >> (size * 8 - cidr.length):#x}"
                for at, cidr in ((source, first), (destination, second))
                if cidr.length
            )


def _regular(name: str, rules: Iterable[str]) -> list[str]:
    return [f"chain {name} {{", *(f"  {rule}" for rule in rules), "}"]


def widest(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Without those inside of others: nft refuses intervals that overlap."""
    found: list[Prefix] = []
    for prefix in sorted(set(prefixes), key=lambda prefix: (prefix.length, prefix.ip)):
        if not prefix.overlaps(found):
            found.append(prefix)
    return found

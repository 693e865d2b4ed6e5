"""Notes on files that are valid but probably do not do what was intended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from wgpy.config.model import Config, PeerConfig, Problem
from wgpy.config.values import DEFAULT_TABLES
from wgpy.protocol.endpoint import AddressBytes, Prefix, parse_address

IPV6_MIN_MTU: Final = 1280
"""RFC 8200 §5: below this MTU Linux takes IPv6 away from an interface."""
_MANY: Final = 8


def remarks(
    config: Config, lines: Mapping[str, int], peer_lines: list[dict[str, int]]
) -> Iterator[Problem]:
    """Notes on `config`; the lines are those of its keys and of its peers' keys."""
    if config.mtu is not None and config.mtu < IPV6_MIN_MTU and has_ipv6(config):
        message = f"MTU {config.mtu} is too small for IPv6: {IPV6_MIN_MTU} will be set"
        fix = f"write {IPV6_MIN_MTU}, or leave IPv6 out"
        yield Problem(lines["mtu"], 1, "", message, fix, note=True)
    if config.table not in ("auto", DEFAULT_TABLES["main"]):
        return
    prefixes = {prefix for peer in config.peers for prefix in peer.allowed_ips}
    if config.table == "auto":
        # A default route is kept apart from the tunnel's own datagrams by their mark.
        prefixes = {prefix for prefix in prefixes if prefix.length > 0}
    for peer, of_peer in zip(config.peers, peer_lines, strict=True):
        inside = _holding(peer, prefixes)
        if inside is not None:
            message = (
                f"Endpoint {peer.endpoint} is inside AllowedIPs {inside}: the tunnel's own"
                " datagrams are routed into the tunnel and dropped, unless a more specific"
                " route leads around it"
            )
            yield Problem(of_peer["endpoint"], 1, "", message, _around(peer, inside), note=True)


def has_ipv6(config: Config) -> bool:
    """Whether IPv6 is to pass through the tunnel."""
    inner = [address.ip for address in config.addresses]
    inner += [prefix.ip for peer in config.peers for prefix in peer.allowed_ips]
    return any(len(ip) == 16 for ip in inner)


def _endpoint_address(peer: PeerConfig) -> AddressBytes:
    """Empty for no endpoint and for a name, which only the resolver knows."""
    if peer.endpoint is None:
        return b""
    try:
        return parse_address(peer.endpoint.host.partition("%")[0])
    except ValueError:
        return b""


def _holding(peer: PeerConfig, prefixes: set[Prefix]) -> Prefix | None:
    """The most specific of `prefixes` that contains the peer's endpoint."""
    address = _endpoint_address(peer)
    found = [prefix for prefix in prefixes if address in prefix]
    return max(found, key=lambda prefix: prefix.length, default=None)


def _around(peer: PeerConfig, prefix: Prefix) -> str:
    """How to exclude the endpoint: AllowedIPs without it, if that is short."""
    address = _endpoint_address(peer)
    width = len(address) * 8
    if prefix.length <= 1:
        everything = "0.0.0.0/0" if width == 32 else "::/0"
        return f"write {everything}: a default route keeps the tunnel's own datagrams out of it"
    if prefix.length == width:
        return f"take {prefix} out of AllowedIPs"
    if width - prefix.length > _MANY:
        route = Prefix(address, width)
        return f"add a route around it, such as PreUp = ip route add {route} via GATEWAY"
    rest = ", ".join(map(str, without(prefix, address)))
    return f"write {rest} instead of {prefix}"


def without(prefix: Prefix, address: AddressBytes) -> list[Prefix]:
    """The prefixes that cover `prefix` without `address`."""
    width = len(address) * 8
    number = int.from_bytes(address)
    siblings = []
    for length in range(prefix.length + 1, width + 1):
        sibling = (number ^ 1 << (width - length)).to_bytes(len(address))
        siblings.append(Prefix.masked(sibling, length))
    return siblings

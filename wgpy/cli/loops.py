"""Endpoints whose datagrams the kernel routes back into their own tunnel."""

from __future__ import annotations

from wgpy.linux.netlink import Network
from wgpy.protocol.allowedips import PrefixTable
from wgpy.protocol.endpoint import format_address
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.settings import DeviceSnapshot, PeerSnapshot


def _comes_round(device: DeviceSnapshot, addressee: PeerSnapshot) -> bool:
    """Whether datagrams to `addressee` end in its own tunnel, as `wgpy.protocol.own` decides.

    A peer that is reached inside of another peer's tunnel (onion routing) is not a loop.
    """
    peers = {peer.public_key: peer for peer in device.peers}
    carriers: PrefixTable[PublicKey] = PrefixTable()
    for peer in device.peers:
        for prefix in peer.allowed_ips:
            carriers.insert(prefix, peer.public_key)
    passed: set[PublicKey] = set()
    carrier: PublicKey | None = addressee.public_key
    while carrier is not None and carrier not in passed:
        passed.add(carrier)
        endpoint = peers[carrier].endpoint
        carrier = carriers.lookup(endpoint.ip) if endpoint else None
    return carrier == addressee.public_key


def loop_warnings(interface: str, device: DeviceSnapshot) -> list[str]:
    """A line for each such peer, with the fix; none for an interface of another namespace."""
    peers = [peer for peer in device.peers if peer.endpoint is not None]
    if not peers:
        return []
    with Network() as network:
        if network.index(interface) is None:
            return []
        inside = [
            peer for peer in peers
            if peer.endpoint and network.leads_into(interface, peer.endpoint.ip, device.fwmark)
        ]  # fmt: skip
    looping = [peer.endpoint for peer in inside if peer.endpoint and _comes_round(device, peer)]
    return [
        f"endpoint {endpoint} is routed into {interface} itself, where its datagrams are dropped"
        " (OWN_DATAGRAM): take it out of AllowedIPs, or add a route around the tunnel"
        f" (ip route add {format_address(endpoint.ip)} via GATEWAY)"
        for endpoint in looping
    ]

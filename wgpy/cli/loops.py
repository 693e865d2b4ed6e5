"""Endpoints whose datagrams the kernel routes back into their own tunnel."""

from __future__ import annotations

from wgpy.linux.netlink import Network
from wgpy.protocol.endpoint import format_address
from wgpy.protocol.settings import DeviceSnapshot


def loop_warnings(interface: str, device: DeviceSnapshot) -> list[str]:
    """A line for each such peer, with the fix; none for an interface of another namespace."""
    endpoints = [peer.endpoint for peer in device.peers if peer.endpoint is not None]
    if not endpoints:
        return []
    with Network() as network:
        if network.index(interface) is None:
            return []
        looping = [e for e in endpoints if network.leads_into(interface, e.ip, device.fwmark)]
    return [
        f"endpoint {endpoint} is routed into {interface} itself, where its datagrams are dropped"
        " (OWN_DATAGRAM): take it out of AllowedIPs, or add a route around the tunnel"
        f" (ip route add {format_address(endpoint.ip)} via GATEWAY)"
        for endpoint in looping
    ]

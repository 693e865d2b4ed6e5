"""WireGuard in scapy, decrypted: packets and a key log in, inner packets out.

    from scapy.all import rdpcap
    from wgpy.scapy import decrypt
    inner = decrypt(rdpcap("tunnel.pcap"), open("keys.log").read())

Needs package scapy (``pip install wgpy[scapy]``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from scapy.plist import PacketList

from wgpy.capture.follow import Follower
from wgpy.capture.keylog import Keys
from wgpy.capture.link import Udp
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import Endpoint, parse_address


def decrypt(packets: Iterable[Any], key_log: str) -> PacketList:
    """The inner IP packets of all WireGuard data that the keys open, in order.

    Each has the outer packet's time, the outer packet as `outer`, and what is wrong with it
    as `problems` (names of drop reasons).  Raises `KeyLogError`.
    """
    keys = Keys(backend("openssl"))
    keys.read(key_log)
    follower = Follower(keys)
    opened: list[Packet] = []
    for number, packet in enumerate(packets, 1):
        datagram = _udp(packet)
        if datagram is None:
            continue
        seen = follower.datagram(number, int(packet.time * 10**9), datagram)
        if seen is None or seen.inner is None:
            continue
        inner = (IP if seen.inner[0] >> 4 == 4 else IPv6)(seen.inner)
        inner.time = packet.time
        inner.outer = packet
        inner.problems = [problem.name for problem in seen.problems]
        opened.append(inner)
    return PacketList(opened, "decrypted WireGuard")


def _udp(packet: Any) -> Udp | None:
    if UDP not in packet:
        return None
    outer = packet[IP] if IP in packet else packet[IPv6]
    udp = packet[UDP]
    return Udp(
        Endpoint(parse_address(outer.src), udp.sport),
        Endpoint(parse_address(outer.dst), udp.dport),
        bytes(udp.payload),
    )

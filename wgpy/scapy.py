"""WireGuard in scapy, decrypted: packets and a key log in, inner packets out.

    from scapy.all import rdpcap
    from wgpy.scapy import decrypt
    inner = decrypt(rdpcap("tunnel.pcap"), open("keys.log").read())

Needs package scapy (``pip install wgpy[scapy]``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from scapy.config import conf
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from scapy.plist import PacketList

from wgpy.capture.decrypt import Explainer
from wgpy.capture.frames import Frame
from wgpy.capture.link import ETHERNET, RAW


def decrypt(packets: Sequence[Any], key_log: str) -> PacketList:
    """The inner IP packets of all WireGuard data that the keys open, in order.

    Each has the outer packet's time, the outer packet as `outer`, and what is wrong with it
    as `problems` (names of drop reasons).  Raises `KeyLogError`.
    """
    explainer = Explainer()
    explainer.keys.read(key_log)
    opened: list[Packet] = []
    for seen in explainer.explain(_frames(packets), "packets"):
        if seen.inner is None:
            continue
        packet = packets[seen.frame - 1]
        inner = (IP if seen.inner[0] >> 4 == 4 else IPv6)(seen.inner)
        inner.time = packet.time
        inner.outer = packet
        inner.problems = [problem.name for problem in seen.problems]
        opened.append(inner)
    return PacketList(opened, "decrypted WireGuard")


def _frames(packets: Sequence[Any]) -> Iterator[Frame]:
    """Packets as they were captured, or as they are built where they were not."""
    for number, packet in enumerate(packets, 1):
        data = packet.original or bytes(packet)
        if isinstance(packet, IP | IPv6):
            link_type = RAW
        else:
            link_type = conf.l2types.layer2num.get(type(packet), ETHERNET)
        size = getattr(packet, "wirelen", None) or len(data)
        yield Frame(number, int(packet.time * 10**9), link_type, data, size)

"""The demo's first part on real packets: two machines, one handshake, ciphertext on the wire."""

from __future__ import annotations

import socket
import time

from testbed import catalogue
from testbed.classify import Kind
from testbed.cluster import Cluster
from testbed.demo_view import Story, describe_message
from testbed.load import finish_ping, rate, start_ping, throughput
from testbed.namespaces import Namespace
from testbed.sniffer import Record, Sniffer

SECRET = b"ATTACK AT DAWN! "
HEADERS = 14 + 20 + 8
"""Ethernet, IPv4 and UDP in front of a WireGuard message on this underlay."""


def first_light(story: Story, *, seconds: int = 2) -> None:
    """Run the scenario and store its results in `story`."""
    topology = catalogue.topology_of("firstlight")
    story.step("Two network namespaces, a wire between them, wireguard-py in both")
    begin = time.monotonic()
    with Cluster.up(topology) as cluster, cluster.sniffer(slots=1 << 15) as sniffer:
        taken = time.monotonic() - begin
        for node in topology.nodes:
            story.say(f"{node.name}: {node.addresses[0]} outside, {node.tunnel[0]} inside")
        story.say(f"ready after {taken:.2f} s; an eavesdropper listens on the bridge between them")
        sniffer.start(interval=0.1)
        _handshake(story, cluster, sniffer)
        _ciphertext(story, cluster, sniffer)
        _speed(story, cluster, seconds)
        _nothing_readable(story, cluster, sniffer)


def _handshake(story: Story, cluster: Cluster, sniffer: Sniffer) -> None:
    """Ping once, and show each WireGuard message when it is seen."""
    story.step("alpha pings beta: the handshake as it happens on the wire")
    beta = cluster.topology.node("beta")
    process = start_ping(cluster.namespaces["alpha"], str(beta.tunnel[0]), secret=SECRET)
    shown: list[Record] = []
    while process.poll() is None:
        sniffer.drain()
        seen = [r for r in list(sniffer.records) if r.packet.kind is Kind.WIREGUARD]
        for record in seen[len(shown) : 6]:
            origin = (shown or [record])[0].at
            arrow = "alpha → beta " if record.port.startswith("alpha") else "alpha ← beta "
            size = record.length - HEADERS
            message = describe_message(record.head[HEADERS:])
            story.say(f"{(record.at - origin) / 1e6:7.2f} ms  {arrow}  {size:4} bytes  {message}")
            shown.append(record)
        time.sleep(0.01)
    pings = finish_ping(process, 5)
    names = [record.packet.detail for record in shown]
    good = names[:2] == ["initiation", "response"] and pings.received == pings.sent
    story.say(f"{pings.received} of {pings.sent} pings answered, median {pings.median or 0:.2f} ms")
    story.result("handshake, one round trip", ", ".join(names[:2]), good)
    story.result("ping through the tunnel", f"{pings.received} of {pings.sent}", good)
    story.note(pings=pings.received, ping_ms=pings.median, handshake=names[:2])


def _ciphertext(story: Story, cluster: Cluster, sniffer: Sniffer) -> None:
    """One ping, seen before and after encryption."""
    story.step("The same packet inside the tunnel and on the underlay")
    before = len(_data(sniffer))
    target = str(cluster.topology.nodes[1].tunnel[0])
    inner = _tap(cluster.namespaces["alpha"], "wg0", target)
    cluster.settle(sniffer)
    outer = _data(sniffer)[before]
    story.dump("what alpha's tunnel device receives:", inner, SECRET)
    story.dump(f"what the eavesdropper sees ({outer.packet}):", outer.head[HEADERS:], SECRET)
    readable = SECRET in outer.head
    story.result("the same ping on the underlay", "readable" if readable else "ciphertext",
                 not readable)  # fmt: skip


def _tap(space: Namespace, device: str, target: str) -> bytes:
    """The IP packet of one ping as the tunnel device gets it."""
    with space.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as tap:
        tap.bind((device, 3))
        tap.settimeout(5)
        process = start_ping(space, target, count=1, secret=SECRET)
        packet = tap.recv(2048)
        finish_ping(process, 1)
    return packet


def _data(sniffer: Sniffer) -> list[Record]:
    sniffer.drain()
    return [record for record in list(sniffer.records) if record.packet.detail == "data"]


def _speed(story: Story, cluster: Cluster, seconds: int) -> None:
    story.step(f"iperf3 through the tunnel, {seconds} s of TCP")
    alpha, beta = cluster.namespaces["alpha"], cluster.namespaces["beta"]
    bits = throughput(beta, alpha, str(cluster.topology.nodes[1].tunnel[0]), seconds=seconds)
    story.say(f"{rate(bits)}, encrypted and decrypted by Python on this machine")
    story.result("iperf3, TCP through the tunnel", rate(bits))
    story.note(plain_bits_per_second=bits)


def _nothing_readable(story: Story, cluster: Cluster, sniffer: Sniffer) -> None:
    cluster.settle(sniffer)
    sealed, readable = sniffer.counts[Kind.WIREGUARD], sniffer.counts[Kind.NODE]
    story.result(
        "everything on the underlay",
        f"{sealed} frames of WireGuard, {readable} readable, {sniffer.missed} missed",
        readable == 0 and sniffer.missed == 0,
    )
    story.note(wireguard_frames=sealed, readable_frames=readable, missed_frames=sniffer.missed)

"""The three layers of `wgpy ping`, each tested and explained."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from errno import ECONNREFUSED

from wgpy import typed
from wgpy.cli.common import link_is_down
from wgpy.cli.echo import HostEcho
from wgpy.cli.ping_report import Layer, Status, drop_hints, echo_layer, milliseconds
from wgpy.cli.probe import Probe, ask_port
from wgpy.cli.show_fields import handshake_age
from wgpy.config import Config
from wgpy.linux import uapi_client
from wgpy.protocol.constants import DEFAULT_PARAMETERS, NS
from wgpy.protocol.crypto import backend
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import AddressBytes, Endpoint, format_address
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.settings import AllowedIp, PeerChange, PeerSnapshot

UDP_PATIENCE = 1.0
"""Seconds to wait for an ICMP error or an echo of the outer host."""
ECHO_PATIENCE = 2.0
"""Seconds to wait for one inner echo."""

_NO_TARGET = "no inner address known: give one with --inner ADDRESS"
_NO_REPLY = (
    "the target may be down, or its firewall may drop ICMP echo",
    "the peer may not list this end's address in its AllowedIPs: it then drops silently",
    "the target may have no route back into the tunnel",
)


def ping_udp(endpoint: Endpoint | None, mark: int = 0) -> Layer:
    """Does the outer host answer, and does it refuse the port?  Silence proves nothing."""
    if endpoint is None:
        return Layer("UDP", Status.SKIPPED, "the peer has no endpoint: it must speak first")
    host, trip = _ask_host(endpoint, mark)
    # A refusal takes about as long as the host's echo did.
    patience = UDP_PATIENCE if trip is None else min(UDP_PATIENCE, 0.2 + 3 * trip / NS)
    answer = ask_port(endpoint, patience, mark)
    data = {"port": answer.text, "port_errno": answer.errno, "host_round_trip_ns": trip}
    text = f"{host}; port {endpoint.port}: {answer.text}"
    if not answer.errno:
        return Layer("UDP", Status.UNCLEAR if trip is None else Status.OK, text, data)
    hint = "check routes, firewall and the endpoint's address"
    if answer.errno == ECONNREFUSED:
        hint = "no program listens on this port: check the endpoint, and ListenPort at the peer"
    return Layer("UDP", Status.FAILED, text, data, (hint,))


def _ask_host(endpoint: Endpoint, mark: int) -> tuple[str, int | None]:
    try:
        with HostEcho(endpoint.ip, endpoint.scope_id, mark=mark) as echo:
            trip = echo.ask(UDP_PATIENCE)
    except PermissionError:
        return "host not asked (ICMP echo is not permitted here)", None
    except OSError as error:
        return f"host: {error.strerror}", None
    if trip is None:
        return "host does not answer ICMP echo", None
    return f"host answers in {milliseconds(trip)}", trip


# --- by an engine in this process ------------------------------------------------------


def ping_config(
    config: Config,
    public_key: PublicKey,
    endpoint: Endpoint | None,
    inner: AddressBytes | None,
    count: int,
    timeout: float,
) -> list[Layer]:
    """WireGuard and inner IP through an engine in this process."""
    peer = next(peer for peer in config.peers if peer.public_key == public_key)
    skipped = Layer("inner IP", Status.SKIPPED, "needs a handshake")
    if endpoint is None or config.private_key is None:
        return [Layer("WireGuard", Status.SKIPPED, "needs an endpoint"), skipped]
    allowed = tuple(AllowedIp(prefix) for prefix in peer.allowed_ips)
    change = PeerChange(public_key, preshared_key=peer.preshared_key, allowed_ips=allowed)
    try:
        probe = Probe(config.private_key, change, endpoint)
    except OSError as error:
        return [Layer("WireGuard", Status.FAILED, str(error.strerror)), skipped]
    with probe:
        trip = probe.handshake(timeout)
        if trip is None:
            own = PublicKey(backend().public_key(config.private_key))
            return [_no_handshake(probe, own, timeout), skipped]
        data = {"round_trip_ns": trip}
        done = Layer("WireGuard", Status.OK, f"handshake in {milliseconds(trip)}", data)
        return [done, _inner_of_probe(probe, config, inner, count)]


def _no_handshake(probe: Probe, own: PublicKey, timeout: float) -> Layer:
    text = "no handshake" if probe.refused.errno else f"no handshake in {timeout:g} s"
    data = {"drops": {reason.name: count for reason, count in probe.drops.items() if count}}
    return Layer("WireGuard", Status.FAILED, text, data, _reasons(probe, own))


def _reasons(probe: Probe, own: PublicKey) -> tuple[str, ...]:
    """Why there was no handshake: only the certain reasons, if there are any."""
    drops = probe.drops
    if drops[DropReason.RESPONSE_INVALID]:
        return ("the peer answered, but its answer does not open: the PresharedKey differs",)
    if probe.refused.errno:
        return (f"the network reports: {probe.refused.text}",)
    if probe.cookies:
        return (f"the peer is under load: it sent {probe.cookies} cookie replies; try again",)
    if any(drops.values()):
        return drop_hints(drops)
    return (
        f"the peer may not know this end's public key {own.base64}",
        "the PublicKey in this file may not be the peer's",
        "this clock may be behind the last handshake that the peer saw from this key",
        "UDP may be filtered on the way, in either direction",
        "the peer's interface may be down, or another program may listen there",
    )


def _inner_of_probe(probe: Probe, config: Config, inner: AddressBytes | None, count: int) -> Layer:
    if inner is None:
        return Layer("inner IP", Status.SKIPPED, _NO_TARGET)
    target = format_address(inner)
    sources = [address.ip for address in config.addresses if len(address.ip) == len(inner)]
    if not sources:
        return Layer("inner IP", Status.SKIPPED, f"no Address of the same family as {target}")
    if not any(inner in allowed.prefix for allowed in probe.peer.allowed_ips):
        return Layer("inner IP", Status.FAILED, f"{target} is not in the peer's AllowedIPs")
    trips = [probe.echo(sources[0], inner, n, ECHO_PATIENCE) for n in range(1, count + 1)]
    return echo_layer("inner IP", target, trips, drop_hints(probe.drops) + _NO_REPLY)


# --- through a running interface ------------------------------------------------------


def ping_interface(
    interface: str, public_key: PublicKey, inner: AddressBytes | None, count: int
) -> list[Layer]:
    """WireGuard and inner IP through the interface; its counters show what happened."""
    before = _peer(interface, public_key)
    if inner is None:
        echo = Layer("inner IP", Status.SKIPPED, _NO_TARGET)
    else:
        echo = _inner_of_host(interface, inner, count)
    after = _peer(interface, public_key)
    session = _session(after, Counter(after.drops) - Counter(before.drops), time.time_ns())
    if down := link_is_down(interface):
        session = replace(session, status=Status.FAILED, text=down)
    if session.status is Status.FAILED and echo.status is Status.FAILED:
        echo = replace(echo, hints=("no session to send through",))
    return [session, echo]


def _peer(interface: str, public_key: PublicKey) -> PeerSnapshot:
    for peer in uapi_client.get(interface).peers:
        if peer.public_key == public_key:
            return peer
    raise uapi_client.DeviceUnreachable(f"{interface}: the peer was removed during the test")


def _inner_of_host(interface: str, inner: AddressBytes, count: int) -> Layer:
    target = format_address(inner)
    trips: list[int | None] = []
    try:
        with HostEcho(inner, device=interface) as echo:
            for _ in range(count):
                trips.append(echo.ask(ECHO_PATIENCE))
    except PermissionError:
        text = f"ICMP echo is not permitted here{typed.root_hint()}"
        return Layer("inner IP", Status.SKIPPED, text)
    except OSError as error:
        return Layer("inner IP", Status.FAILED, f"{target}: {error.strerror}")
    return echo_layer("inner IP", target, trips, _NO_REPLY)


def _session(peer: PeerSnapshot, lost: Counter[DropReason], wall: int) -> Layer:
    age = handshake_age(peer, wall)
    data = {
        "latest_handshake_ns": peer.latest_handshake or None,
        "handshake_age_ns": age,
        "rx_bytes": peer.rx_bytes,
        "tx_bytes": peer.tx_bytes,
        "drops": {reason.name: count for reason, count in lost.items()},
    }
    if age is not None and age < DEFAULT_PARAMETERS.reject_after_time:
        text = f"session is {max(0, age) // NS} s old"
        return Layer("WireGuard", Status.OK, text, data, drop_hints(lost))
    hints = list(drop_hints(lost))
    if peer.deadline is not None:
        hints.append(f"next: {peer.deadline.reason} in {peer.deadline.at / NS:.1f} s")
    if age is None:
        test = typed.wgpy("ping", "FILE.conf")
        hints.append(f"there never was a handshake: `{test}` tells likely reasons")
        return Layer("WireGuard", Status.FAILED, "no handshake yet", data, tuple(hints))
    text = f"the last handshake was {age // NS} s ago: no session"
    return Layer("WireGuard", Status.FAILED, text, data, tuple(hints))

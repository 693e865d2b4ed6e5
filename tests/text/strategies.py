"""Hypothesis strategies for configuration values and for the text they are written in."""

from __future__ import annotations

from hypothesis import strategies as st

from wgpy.protocol.constants import NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import (
    AllowedIp,
    DeviceChange,
    DeviceSnapshot,
    PeerChange,
    PeerSnapshot,
)
from wgpy.protocol.timers import Deadline

raw_keys = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
ports = st.integers(0, 65535)
counts = st.integers(0, 2**64 - 1)


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    ip = draw(addresses)
    return Prefix.masked(ip, draw(st.integers(0, len(ip) * 8)))


endpoints = st.builds(
    lambda ip, port, scope: Endpoint(ip, port, scope if len(ip) == 16 else 0),
    addresses,
    ports,
    st.integers(0, 9),
)
optional = st.none()
peer_changes = st.builds(
    PeerChange,
    public_key=raw_keys.map(PublicKey),
    remove=st.booleans(),
    update_only=st.booleans(),
    preshared_key=optional | raw_keys.map(PresharedKey),
    endpoint=optional | endpoints,
    persistent_keepalive=optional | ports,
    replace_allowed_ips=st.booleans(),
    allowed_ips=st.lists(st.builds(AllowedIp, prefixes(), st.booleans()), max_size=4).map(tuple),
)
device_changes = st.builds(
    DeviceChange,
    private_key=optional | raw_keys.map(PrivateKey),
    listen_port=optional | ports,
    fwmark=optional | st.integers(0, 2**32 - 1),
    replace_peers=st.booleans(),
    peers=st.lists(peer_changes, max_size=3, unique_by=lambda peer: peer.public_key).map(tuple),
)
deadlines = st.none() | st.builds(
    Deadline, st.integers(0, 2**62), st.sampled_from(["rekey: §6.2", "keepalive", "two  words"])
)
drop_counts = st.dictionaries(st.sampled_from(DropReason), st.integers(1, 2**40), max_size=3)
peer_snapshots = st.builds(
    PeerSnapshot,
    public_key=raw_keys.map(PublicKey),
    preshared_key=raw_keys.map(PresharedKey),
    endpoint=optional | endpoints,
    persistent_keepalive=ports,
    latest_handshake=st.integers(0, 2**40 * NS),
    rx_bytes=counts,
    tx_bytes=counts,
    allowed_ips=st.lists(prefixes(), max_size=4).map(tuple),
    deadline=deadlines,
    drops=drop_counts,
)
device_snapshots = st.builds(
    DeviceSnapshot,
    private_key=optional | raw_keys.filter(any).map(PrivateKey),
    public_key=st.none(),
    listen_port=ports,
    fwmark=st.integers(0, 2**32 - 1),
    peers=st.lists(peer_snapshots, max_size=3).map(tuple),
    deadline=deadlines,
    drops=drop_counts,
)

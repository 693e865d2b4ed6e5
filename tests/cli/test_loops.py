"""Which endpoints are called loops: those whose datagrams come back, not onion routing."""

from __future__ import annotations

import pytest

from wgpy.cli.loops import _comes_round
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, DeviceSnapshot, PeerChange


def device(*peers: tuple[str, str]) -> DeviceSnapshot:
    """Peers by endpoint and the prefix that each of them carries."""
    engine = Engine(crypto=backend(), entropy=bytes, now=0, wall=0)
    changes = tuple(
        PeerChange(
            PublicKey(bytes([number]) * 32),
            endpoint=Endpoint.parse(f"{endpoint}:51820"),
            allowed_ips=(AllowedIp(Prefix.parse(prefix)),),
        )
        for number, (endpoint, prefix) in enumerate(peers, 1)
    )
    engine.apply(DeviceChange(peers=changes), now=0)
    return engine.snapshot()


@pytest.mark.parametrize(
    ("peers", "loops"),
    [
        ([("192.0.2.1", "0.0.0.0/0")], [True]),
        ([("192.0.2.1", "10.0.0.0/8")], [False]),
        # The second peer is reached through the first, whose endpoint is outside.
        ([("192.0.2.1", "198.51.100.0/24"), ("198.51.100.7", "10.0.0.0/8")], [False, False]),
        # Each is carried by the other.
        ([("192.0.2.1", "198.51.100.0/24"), ("198.51.100.7", "192.0.2.0/24")], [True, True]),
        # A loop of two, and a third that leads into it without being part of it.
        (
            [("192.0.2.1", "198.51.100.0/24"), ("198.51.100.7", "192.0.2.0/24"),
             ("192.0.2.9", "10.0.0.0/8")],
            [True, True, False],
        ),
    ],
)  # fmt: skip
def test_only_what_comes_round_is_a_loop(peers: list[tuple[str, str]], loops: list[bool]) -> None:
    found = device(*peers)
    assert [_comes_round(found, peer) for peer in found.peers] == loops

"""A capture that begins while sessions live, or while a handshake is under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capture.test_record import opened_by_transport_keys
from tests.linux.test_interface import World, packet
from wgpy.capture.record import Recording
from wgpy.protocol.constants import DEFAULT_PARAMETERS

THERE, BACK = packet("10.0.0.1", "10.0.0.2", b"ping"), packet("10.0.0.2", "10.0.0.1", b"pong")


@pytest.fixture
def world() -> Iterator[World]:
    made = World().configured()
    yield made
    for node in (made.left, made.right):
        node.interface.close()
    made.loop.close()


def exchange(world: World) -> None:
    """A packet there and one back."""
    world.left.tun.inject(THERE)
    world.settle()
    world.right.tun.inject(BACK)
    world.settle()


@pytest.mark.parametrize("side", ["left", "right"])
def test_both_directions_of_a_live_session(world: World, tmp_path: Path, side: str) -> None:
    exchange(world)
    path = tmp_path / "x.pcapng"
    recording = Recording(getattr(world, side).interface, path)
    assert recording.counts()["sessions"] == 1
    exchange(world)
    recording.stop()
    assert opened_by_transport_keys(path) == 2


def test_every_file_after_a_rotation_opens(world: World, tmp_path: Path) -> None:
    exchange(world)
    recording = Recording(world.left.interface, tmp_path / "x.pcapng", rotate=1)
    for _ in range(3):
        exchange(world)
    recording.stop()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 3
    assert sum(map(opened_by_transport_keys, files)) == 6


def test_a_handshake_under_way(world: World, tmp_path: Path) -> None:
    """Its ephemeral key was forgotten by all but the peer that waits: the session's are written."""
    world.left.tun.inject(THERE)
    world.left.interface.path.tun_ready()
    path = tmp_path / "x.pcapng"
    recording = Recording(world.left.interface, path)
    assert recording.counts()["sessions"] == 0
    world.settle()
    assert recording.counts()["sessions"] == 1
    exchange(world)
    recording.stop()
    assert world.right.tun.delivered == [THERE, THERE]
    assert opened_by_transport_keys(path) == 3


def test_a_handshake_in_the_file_needs_no_session_keys(world: World, tmp_path: Path) -> None:
    recording = Recording(world.left.interface, tmp_path / "x.pcapng")
    exchange(world)
    recording.stop()
    assert recording.counts()["sessions"] == 0


def test_rekey_begins_one_handshake_per_session(world: World) -> None:
    interface = world.left.interface
    assert interface.rekey() == 0, "without a session there is nothing to renew"
    exchange(world)
    assert interface.rekey() == 0, "Rekey-Timeout has not passed (§6.1)"
    world.clock.advance(DEFAULT_PARAMETERS.rekey_timeout)
    (peer,) = interface.engine.device.peers.values()
    before = peer.current
    assert interface.rekey() == 1
    world.settle()
    assert peer.current is not before and peer.previous is before


def test_no_key_in_a_repr(world: World) -> None:
    exchange(world)
    (peer,) = world.left.interface.engine.device.peers.values()
    session = peer.current
    shown = repr(session) + repr(session.keys) + repr(peer)
    for key in session.keys:
        assert key.hex() not in shown and repr(key) not in shown

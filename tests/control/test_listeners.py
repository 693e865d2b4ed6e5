"""Who listens, logs keys and taps the ports: each comes and goes without minding the others."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wgpy.capture.attach import key_log
from wgpy.capture.record import Recording
from wgpy.dataplane.interface import Interface
from wgpy.dataplane.loop import Loop
from wgpy.linux.clock import LinuxClock, entropy
from wgpy.memory.ports import MemoryTun, Network
from wgpy.protocol.crypto import backend
from wgpy.protocol.device import HandshakeKeys
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey

Stop = Callable[[], None]


@pytest.fixture
def interface() -> Interface:
    clock = LinuxClock()
    engine = Engine(
        crypto=backend(), entropy=entropy, now=clock.monotonic(), wall=clock.wall()
    )
    udp = Network().host("192.0.2.1").udp()
    made = Interface(engine, MemoryTun("wgx"), udp, clock, Loop(clock))
    made.set_link(up=True, mtu=1420)
    return made


def recording(interface: Interface, path: Path) -> Stop:
    return Recording(interface, path).stop


def keys(interface: Interface, path: Path) -> Stop:
    return key_log(str(path), print)(interface)


def listening(interface: Interface, _path: Path) -> Stop:
    """As the control socket and the verbose log do."""
    def listener(_event: object) -> None: ...

    interface.listen(listener)
    return lambda: interface.listen(listener, on=False)


KINDS = (recording, recording, keys, listening)


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(KINDS)))), ids=str)
def test_in_any_order(interface: Interface, tmp_path: Path, order: tuple[int, ...]) -> None:
    """After each change, what is traced, logged and tapped is what those who are left want."""
    ports = interface.tun, interface.udp
    stops = [kind(interface, tmp_path / f"{number}") for number, kind in enumerate(KINDS)]
    left = list(range(len(KINDS)))
    for number in order:
        stops[number]()
        left.remove(number)
        kinds = [KINDS[each] for each in left]
        assert interface.engine.trace_drops is (recording in kinds or listening in kinds)
        assert (interface.engine.keylog is not None) is (recording in kinds or keys in kinds)
        assert (interface.tun is ports[0]) is (recording not in kinds)
    assert (interface.tun, interface.udp) == ports
    assert not interface.listeners and not interface.on_configured


def test_drops_reach_each_recording_while_it_runs(interface: Interface, tmp_path: Path) -> None:
    """The first one's end takes nothing from the second."""
    first = Recording(interface, tmp_path / "first")
    second = Recording(interface, tmp_path / "second")
    noise = b"\x45" + bytes(19)
    for stop in (first.stop, second.stop):
        interface.engine.send([noise], now=interface.now())
        interface.path.flush()
        stop()
    seen = [(tmp_path / name).read_bytes().count(b"MALFORMED:") for name in ("first", "second")]
    assert seen == [1, 2]


# A full disk ends a recording, and nothing else.

HANDSHAKE = HandshakeKeys(
    PrivateKey(bytes(32)), PublicKey(bytes(32)), bytes(32), PresharedKey(bytes(32))
)


def test_a_key_log_that_cannot_be_written_ends_and_packets_go_on(
    interface: Interface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    path = tmp_path / "keys.log"
    stop = key_log(str(path), said.append)(interface)
    assert interface.engine.keylog is not None
    interface.engine.keylog(HANDSHAKE)
    whole = path.read_text()
    with monkeypatch.context() as full:
        # The kernel writes what still fits first, and only then refuses.
        full.setattr(os, "write", lambda *_: 7)
        interface.engine.keylog(HANDSHAKE)
    for _ in range(2):
        interface.engine.keylog(HANDSHAKE)
    assert path.read_text() == whole != ""
    stop()
    assert said == [
        f"the key log {path} ends here: No space left on device; packets go on",
        f"the key log {path} lost 3 handshakes",
    ]


class FullFile:
    """A file on a full disk."""

    def write(self, _data: bytes = b"") -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flush = close = write


@pytest.mark.parametrize("fault", ["write", "rotate"])
def test_a_capture_that_cannot_be_written_ends_and_packets_go_on(
    interface: Interface, tmp_path: Path, fault: str
) -> None:
    said: list[str] = []
    interface.warn = said.append
    path = tmp_path / "folder" / "wg.pcapng"
    path.parent.mkdir()
    ports = interface.tun, interface.udp
    recording = Recording(interface, path, rotate=1 if fault == "rotate" else 0)
    if fault == "rotate":
        shutil.rmtree(path.parent)
    else:
        recording.recorder._file = FullFile()  # type: ignore[assignment]
    for _ in range(3):
        interface.tun.inject(b"\x45" + bytes(19))  # type: ignore[attr-defined]
        interface.path.tun_ready()
    counts = recording.counts()
    assert counts["inner"] + counts["lost"] == 3 and counts["lost"] >= 2
    interface.loop.turn(0)
    assert (interface.tun, interface.udp) == ports and not interface.listeners
    why = "No space left on device" if fault == "write" else "No such file or directory"
    assert said == [f"the capture in {path} ends here: {why}; packets go on"]
    recording.stop()

"""What a scrape of one interface with a peer and a drop gives."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.plane import Plane
from wgpy import sockets
from wgpy.metrics import InterfaceCollector, serve
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

PEER = PublicKey(b"\x22" * 32)


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    """A plain tunnel with one peer and one drop, which this process finds."""
    monkeypatch.setattr(sockets, "SOCKET_FOLDER", tmp_path)
    made = Plane(tmp_path)
    peer = PeerChange(PEER, allowed_ips=(AllowedIp(Prefix.parse("10.0.0.2/32")),))
    change = DeviceChange(private_key=PrivateKey.clamp(b"\x11" * 32), peers=(peer,))
    made.in_loop(lambda: made.interface.configure(change))
    made.send(b"not IP")
    yield made
    made.close()


def scrape(port: int) -> dict[str, float]:
    """Samples by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.fixture
def metric_names(plane: Plane) -> set[str]:
    """Names of all metrics of a plain tunnel."""
    samples = scrape(serve(InterfaceCollector([plane.name]), "127.0.0.1", 0))
    return {name.partition("{")[0] for name in samples}

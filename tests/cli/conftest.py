"""A UAPI socket to talk to, in a folder of the test's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wgpy import sockets
from wgpy.cli.main import main
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.keys import NO_PRESHARED_KEY, PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import DeviceSnapshot, PeerSnapshot
from wgpy.protocol.timers import Deadline
from wgpy.uapi import RequestReader, respond

DEVICE = DeviceSnapshot(
    private_key=PrivateKey.clamp(b"\x11" * 32),
    public_key=None,
    listen_port=51820,
    fwmark=0xCAFE,
    peers=(
        PeerSnapshot(
            public_key=PublicKey(b"\x22" * 32),
            preshared_key=PresharedKey(b"\x33" * 32),
            endpoint=Endpoint.parse("[2001:db8::1]:7"),
            persistent_keepalive=25,
            latest_handshake=1_700_000_000_000_000_000,
            rx_bytes=1536,
            tx_bytes=100,
            allowed_ips=(Prefix.parse("10.0.0.0/8"), Prefix.parse("fd00::/64")),
            deadline=Deadline(5_000_000_000, "persistent keepalive §6.5"),
            drops={DropReason.REPLAYED: 2, DropReason.TAG_INVALID: 7},
        ),
        PeerSnapshot(PublicKey(b"\x44" * 32), NO_PRESHARED_KEY, None, 0, 0, 0, 0, ()),
    ),
    deadline=Deadline(5_000_000_000, "persistent keepalive §6.5"),
    drops={DropReason.MAC1_INVALID: 3},
)

Serve = Callable[..., None]


class _Server:
    """Answers UAPI requests until closed; `plain` hangs up on the extension."""

    def __init__(self, path: Path, device: DeviceSnapshot, plain: bool) -> None:
        self._device, self._plain = device, plain
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        reader = RequestReader()
        while data := client.recv(4096):
            for request in reader.feed(data):
                if self._plain and "wgpy" in request:
                    return
                reply = respond(
                    request, snapshot=lambda: self._device, apply=lambda _: None, now=lambda: 0
                )
                client.sendall(reply.text.encode())


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """``serve(name, device, plain=False)`` makes an interface that only has a UAPI socket."""
    folder = tmp_path / "sockets"
    folder.mkdir()
    monkeypatch.setattr(sockets, "SOCKET_FOLDER", folder)
    servers: list[_Server] = []

    def start(name: str, device: DeviceSnapshot = DEVICE, plain: bool = False) -> None:
        servers.append(_Server(folder / f"{name}.sock", device, plain))

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def run() -> Callable[..., Result]:
    """``run("show", "wg0", input=...)`` invokes the program in this process."""

    def invoke(*words: str, **options: object) -> Result:
        return CliRunner().invoke(main, words, **options)

    return invoke

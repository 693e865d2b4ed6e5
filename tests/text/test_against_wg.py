"""Our codecs against the real `wg`: it reads what we write, and we read what it writes."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.netns import SOCKET_FOLDER, Lab
from tests.text.strategies import device_snapshots
from tests.text.writing import configs, write
from wgpy.cli.show_fields import FIELDS
from wgpy.config import Config, parse_config
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.settings import DeviceSnapshot
from wgpy.uapi import RequestReader, format_get, parse_get, parse_set

pytestmark = pytest.mark.root

FEW = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Interface:
    """A UAPI socket where `wg` looks for it: gives `answer` to get, keeps what set says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answer = ""
        self.requests: list[str] = []
        SOCKET_FOLDER.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(SOCKET_FOLDER / f"{name}.sock"))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wg(self, *words: str) -> str:
        """What ``wg WORDS`` prints."""
        done = subprocess.run(["wg", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)
        (SOCKET_FOLDER / f"{self.name}.sock").unlink()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                reader = RequestReader()
                while data := client.recv(65536):
                    for request in reader.feed(data):
                        self.requests.append(request)
                        reply = self.answer if request.startswith("get") else "errno=0\n\n"
                        client.sendall(reply.encode())


@pytest.fixture
def interface(lab: Lab) -> Iterator[Interface]:
    made = Interface(lab.interface())
    yield made
    made.close()


def without_zones(device: DeviceSnapshot) -> DeviceSnapshot:
    """`wg` prints the name of a zone's interface, which there is none of."""

    def bare(endpoint: Endpoint | None) -> Endpoint | None:
        return Endpoint(endpoint.ip, endpoint.port) if endpoint else None

    peers = tuple(replace(peer, endpoint=bare(peer.endpoint)) for peer in device.peers)
    return replace(device, peers=peers)


@FEW
@given(device=device_snapshots.map(without_zones))
def test_wg_reads_every_device_as_we_do(interface: Interface, device: DeviceSnapshot) -> None:
    interface.answer = format_get(device)
    read = parse_get(interface.answer)
    if read.private_key is not None:
        read = replace(read, public_key=PublicKey(backend().public_key(read.private_key)))
    ours = ["\t".join(row) for row in FIELDS["dump"](read)]
    assert interface.wg("show", interface.name, "dump").splitlines() == ours


@FEW
@given(config=configs, data=st.data())
def test_wg_reads_every_file_as_we_do(
    interface: Interface, tmp_path: Path, config: Config, data: st.DataObject
) -> None:
    """The same file, as `wg setconf` turns it into a request and as we do."""
    text = write(config, data.draw, only_wg=True)
    file = tmp_path / "wg0.conf"
    file.write_text(text)
    interface.requests.clear()
    interface.wg("setconf", interface.name, str(file))
    theirs = parse_set(interface.requests[-1])
    ours = parse_config(text).change(lambda there: Endpoint.parse(str(there)))
    assert theirs == ours


@FEW
@given(config=configs, data=st.data())
def test_a_file_says_what_was_written_into_it(config: Config, data: st.DataObject) -> None:
    assert parse_config(write(config, data.draw)) == config

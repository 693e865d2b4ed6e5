"""A name server that comes up after the tunnel was asked for, or never, or that says no."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.tunnel import WGPY, End, make_ends
from tests.support.netns import Lab

pytestmark = pytest.mark.root

FIRST_TRY = "Trying again in 1.00 seconds"
NO_SUCH_NAME = 3
"""RCODE 3 of RFC 1035 §4.1.1."""


@pytest.fixture
def client(lab: Lab, tmp_path: Path) -> End:
    end, _ = make_ends(lab, tmp_path)
    end.edit("Endpoint = 192.168.9.2", "Endpoint = vpn.example.org")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    return end


def up(client: End, **environment: str) -> list[str]:
    """The command line of `wgpy up` with a resolv.conf of its own."""
    own = client.file.with_name("resolv.conf")
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    env = [f"{name}={value}" for name, value in environment.items()]
    inside = ["unshare", "--mount", "sh", "-c", script, str(own), "env", *env]
    return [*inside, str(WGPY), "up", str(client.file), "--json"]


@contextmanager
def name_server(client: End, code: int = 0) -> Iterator[None]:
    """Answers 192.168.9.2 for whatever name (or with an error code), until the end."""
    with client.namespace.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))

    def serve() -> None:
        while True:
            query, sender = server.recvfrom(512)
            if not query:
                return
            end = query.index(0, 12) + 5  # The name, then type and class.
            question, kind = query[12:end], query[end - 4 : end - 2]
            found = b"" if code or kind != b"\0\1" else (
                b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton("192.168.9.2"))  # fmt: skip
            head = query[:2] + bytes([0x81, 0x80 | code, 0, 1, 0, bool(found), 0, 0, 0, 0])
            server.sendto(head + question + found, sender)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with client.namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", 53))
        thread.join(5)
        server.close()


def test_it_is_waited_for(client: End) -> None:
    words = up(client, WG_QUICK_USERSPACE_IMPLEMENTATION=client.implementation)
    process = client.namespace.start(*words)
    assert process.stdout is not None
    assert FIRST_TRY in process.stdout.readline()
    with name_server(client):
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    endpoints = client.namespace.run("wg", "show", client.interface, "endpoints").stdout
    assert endpoints.split()[-1] == "192.168.9.2:5555"
    client.wgpy("down", client.interface)


def test_the_variable_ends_the_waiting(client: End) -> None:
    before = client.network()
    done = client.namespace.run(*up(client, WG_ENDPOINT_RESOLUTION_RETRIES="1"), check=False)
    assert done.returncode == 1
    assert done.stderr.count("Trying again") == 1
    assert "Error: endpoint vpn.example.org:5555: Temporary failure" in done.stderr
    assert client.network() == before
    assert client.leftovers() == []


def test_a_name_that_does_not_exist_is_said_at_once(client: End) -> None:
    with name_server(client, NO_SUCH_NAME):
        done = client.namespace.run(*up(client), check=False)
    assert done.returncode == 1
    assert "Trying again" not in done.stderr
    assert "Error: endpoint vpn.example.org:5555: Name or service not known" in done.stderr

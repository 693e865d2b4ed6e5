"""wgpy against boringtun, as the Python package mitmproxy-wireguard carries it.

It is a server without a TUN device: it takes inner UDP and TCP out of the tunnel and
answers through Python callbacks.  It has no setting for a preshared key, so the handshake
without one is what can be shown here; that a preshared key on our side alone is refused
is shown too.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.interop.tunnel import make_end, start_program, wg
from tests.support.netns import wait_until

pytestmark = pytest.mark.root

SERVER = """
import asyncio, sys
import mitmproxy_wireguard as wireguard

async def main(private_key, peer):
    async def echo_stream(stream):
        while data := await stream.read(65536):
            stream.write(data)
            await stream.drain()
        stream.close()

    def echo(data, source, destination):
        server.send_datagram(data, destination, source)

    server = await wireguard.start_server("", 51820, private_key, [peer], echo_stream, echo)
    print("ready", flush=True)
    await server.wait_closed()

asyncio.run(main(*sys.argv[1:]))
"""

CLIENT = """
import socket, sys

address, text = sys.argv[1], sys.argv[2].encode()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.settimeout(5)
    udp.sendto(text, (address, 4000))
    print(udp.recv(1000) == text)
with socket.create_connection((address, 4001), 5) as tcp:
    sent = text * 2000
    tcp.sendall(sent)
    received = b""
    while len(received) < len(sent):
        received += tcp.recv(65536)
    print(received == sent)
"""


@pytest.fixture
def pair(lab):
    """Our end, and the namespace in which boringtun serves, with its public key."""
    ours_home, theirs_home = lab.namespace("ours"), lab.namespace("boringtun")
    lab.veth(ours_home, theirs_home, "192.0.2.1/24", "192.0.2.2/24")
    ours = make_end(lab, ours_home, 1, "192.0.2.1", "")
    start_program(ours_home, "py", ours.name)
    key = wg("genkey")
    theirs_home.start(sys.executable, "-c", SERVER, key, ours.public_key)
    assert wait_until(lambda: ":51820" in theirs_home.run("ss", "-Hlun").stdout)
    ours.wg(
        "set",
        ours.name,
        "private-key",
        "/dev/stdin",
        "peer",
        wg("pubkey", stdin=key),
        "allowed-ips",
        "10.77.0.0/24",
        "endpoint",
        "192.0.2.2:51820",
        stdin=ours.private_key,
    )
    ours.namespace.ip(f"address add 10.77.0.1/24 dev {ours.name}")
    ours.namespace.ip(f"link set {ours.name} up")
    return ours, wg("pubkey", stdin=key)


def ask(ours) -> subprocess.CompletedProcess[str]:
    return ours.namespace.run(sys.executable, "-c", CLIENT, "10.77.0.2", "hello", check=False)


def test_handshake_and_data(pair):
    ours, _ = pair
    assert ask(ours).stdout == "True\nTrue\n"
    assert ours.handshake_time() > 0
    received, sent = ours.transfer()
    assert received > 10_000 and sent > 10_000


def test_a_new_session_under_the_same_server(pair):
    """The peer is removed and comes again: a second handshake with a greater timestamp."""
    ours, public_key = pair
    assert ask(ours).stdout == "True\nTrue\n"
    ours.wg("set", ours.name, "peer", public_key, "remove")
    ours.wg(
        "set",
        ours.name,
        "peer",
        public_key,
        "allowed-ips",
        "10.77.0.0/24",
        "endpoint",
        "192.0.2.2:51820",
    )
    assert ask(ours).stdout == "True\nTrue\n"


def test_a_preshared_key_on_our_side_alone_is_no_tunnel(pair):
    ours, public_key = pair
    ours.wg("set", ours.name, "peer", public_key, "preshared-key", "/dev/stdin", stdin=wg("genpsk"))
    assert "timed out" in ask(ours).stderr
    assert ours.handshake_time() == 0

"""Two ends of a tunnel, each by its own program, configured by the real `wg`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.netns import Lab, Namespace, wait_until

WGPY = str(Path(sys.executable).with_name("wireguard-py"))
GO = "wireguard-go"
PROGRAMS = {"py": (WGPY,), "turbo": (WGPY, "--turbo"), "go": (GO,)}
PORT = 51820


def wg(*words: str, stdin: str = "") -> str:
    """`wg WORDS`, without an interface."""
    done = subprocess.run(["wg", *words], input=stdin, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def start_program(namespace: Namespace, program: str, name: str) -> None:
    """Start one of `PROGRAMS`; returns when it is ready."""
    namespace.run(*PROGRAMS[program], name)


@dataclass
class End:
    """One end: its namespace, interface, keys, outer and inner addresses (IPv4, IPv6)."""

    namespace: Namespace
    name: str
    private_key: str
    outer: dict[int, str]
    inner: dict[int, str]

    @property
    def public_key(self) -> str:
        return wg("pubkey", stdin=self.private_key)

    def wg(self, *words: str, stdin: str | None = None) -> str:
        """`wg WORDS` in this end's namespace."""
        return self.namespace.run("wg", *words, stdin=stdin).stdout

    def endpoint(self, family: int) -> str:
        """Outer address and port, as `wg` takes it."""
        return f"[{self.outer[6]}]:{PORT}" if family == 6 else f"{self.outer[4]}:{PORT}"

    def allowed_ips(self) -> str:
        return f"{self.inner[4]}/32,{self.inner[6]}/128"

    def configure(self, peer: End, *words: str, psk: str = "") -> None:
        """Set keys, port and the peer; `words` are more settings of the peer."""
        self.wg(
            "set",
            self.name,
            "listen-port",
            str(PORT),
            "private-key",
            "/dev/stdin",
            stdin=self.private_key,
        )
        settings = ["peer", peer.public_key, "allowed-ips", peer.allowed_ips(), *words]
        if psk:
            settings += ["preshared-key", "/dev/stdin"]
        self.wg("set", self.name, *settings, stdin=psk)

    def up(self) -> None:
        """Addresses, link up; returns when the port is open."""
        self.namespace.ip(f"address add {self.inner[4]}/24 dev {self.name}")
        self.namespace.ip(f"address add {self.inner[6]}/64 dev {self.name} nodad")
        self.namespace.ip(f"link set {self.name} up")
        assert wait_until(lambda: f":{PORT}" in self.namespace.run("ss", "-Hlun").stdout)

    def ping(self, other: End, *words: str, family: int = 4) -> str:
        """`ping WORDS` the other end's inner address; fails when an answer is missing."""
        out = self.namespace.run("ping", "-nq", "-W3", *words, other.inner[family]).stdout
        assert " 0% packet loss" in out, out
        return out

    def handshake_time(self) -> int:
        """Seconds since 1970 of the only peer's latest handshake."""
        return int(self.wg("show", self.name, "latest-handshakes").split()[1])

    def peer_endpoint(self) -> str:
        """Where the only peer is."""
        return self.wg("show", self.name, "endpoints").split()[1]

    def transfer(self) -> tuple[int, int]:
        """Bytes received and sent of the only peer."""
        _, received, sent = self.wg("show", self.name, "transfer").split()
        return int(received), int(sent)


def iperf(client: End, server: End, *words: str) -> dict[str, dict[str, float]]:
    """Run iperf3 from client to server; returns the sums of its report."""
    listener = server.namespace.start("iperf3", "--server", "--one-off")
    address = server.inner[4]
    assert wait_until(lambda: ":5201" in server.namespace.run("ss", "-Hltn").stdout)
    done = client.namespace.run("iperf3", "--json", "--client", address, *words)
    listener.wait(10)
    end: dict[str, dict[str, float]] = json.loads(done.stdout)["end"]
    return end


def make_end(lab: Lab, namespace: Namespace, number: int, outer4: str, outer6: str) -> End:
    """End number 1 or 2, not started yet."""
    return End(
        namespace,
        lab.interface(),
        wg("genkey"),
        {4: outer4, 6: outer6},
        {4: f"10.77.0.{number}", 6: f"fd77::{number}"},
    )


def make_ends(lab: Lab, left: str, right: str) -> tuple[End, End]:
    """Two ends joined by a veth pair, programs running, nothing configured."""
    namespaces = lab.namespace("left"), lab.namespace("right")
    lab.veth(*namespaces, "192.0.2.1/24 2001:db8::1/64", "192.0.2.2/24 2001:db8::2/64")
    ends = []
    for number, (namespace, program) in enumerate(zip(namespaces, (left, right), strict=True), 1):
        end = make_end(lab, namespace, number, f"192.0.2.{number}", f"2001:db8::{number}")
        start_program(namespace, program, end.name)
        ends.append(end)
    return ends[0], ends[1]


def connect(initiator: End, responder: End, *, family: int = 4, psk: str = "") -> None:
    """Configure both so that only `initiator` can begin, and bring them up."""
    initiator.configure(responder, "endpoint", responder.endpoint(family), psk=psk)
    responder.configure(initiator, psk=psk)
    for end in (initiator, responder):
        end.up()

"""Two ends of a tunnel in namespaces, driven by the real `wgpy` program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.netns import Lab, Namespace
from wgpy.protocol.crypto import backend
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.sockets import SOCKET_FOLDER

WGPY = Path(sys.executable).with_name("wgpy")
WIREGUARD_PY = str(WGPY.with_name("wireguard-py"))
PORT = 5555


def key_pair() -> tuple[str, str]:
    """A private key and its public key in base64."""
    private = PrivateKey.clamp(os.urandom(32))
    return private.base64, PublicKey(backend().public_key(private)).base64


@dataclass
class End:
    """One namespace with one configuration file; `implementation` makes the interface."""

    namespace: Namespace
    interface: str
    file: Path
    implementation: str = WIREGUARD_PY

    def wgpy(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `wgpy WORDS` here."""
        env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": self.implementation}
        return self.namespace.run(str(WGPY), *words, check=check, env=env)

    def write(self, text: str) -> None:
        """Replace the file."""
        self.file.write_text(text)
        self.file.chmod(0o600)

    def edit(self, old: str, new: str) -> None:
        """Replace text in the file, which must be there."""
        text = self.file.read_text()
        assert old in text
        self.write(text.replace(old, new))

    def network(self) -> str:
        """All that a tunnel may leave behind, as text to compare."""
        commands = (
            "ip -o link",
            "ip -o address",
            "ip route show table all",
            "ip -6 route show table all",
            "ip rule",
            "ip -6 rule",
            "nft list ruleset",
            "sysctl -n net.ipv4.conf.all.src_valid_mark",
        )
        lines = [line for command in commands for line in self._lines(command)]
        # IPv6 multicast and link-local routes come and go with the seconds, as does the
        # kernel's opinion of a cable that was plugged in just now.
        lines = [line for line in lines if "fe80" not in line and "ff00" not in line]
        return re.sub(r"NO-CARRIER,|,LOWER_UP|state \w+ ", "", "\n".join(lines))

    def _lines(self, command: str) -> list[str]:
        return self.namespace.run(*command.split()).stdout.splitlines()

    def leftovers(self) -> list[str]:
        """Files in the socket folder that carry the interface's name."""
        return [path.name for path in SOCKET_FOLDER.glob(f"{self.interface}*")]


def make_ends(lab: Lab, folder: Path) -> tuple[End, End]:
    """Client (initiates) and server, joined by a veth; nothing is up yet."""
    left, right = lab.namespace("left"), lab.namespace("right")
    lab.veth(left, right, "192.168.9.1/24 fd09::1/64", "192.168.9.2/24 fd09::2/64")
    names = lab.interface(), lab.interface()
    client, server = (
        End(namespace, name, folder / f"{name}.conf")
        for namespace, name in zip((left, right), names, strict=True)
    )
    (private, public), (other_private, other_public) = key_pair(), key_pair()
    psk = PresharedKey(os.urandom(32)).base64
    client.write(
        f"""[Interface]
PrivateKey = {private}
Address = 10.5.0.1/24, fd05::1/64

[Peer]
PublicKey = {other_public}
PresharedKey = {psk}
Endpoint = 192.168.9.2:{PORT}
AllowedIPs = 10.5.0.2/32, fd05::2/128, 172.20.0.0/16
"""
    )
    server.write(
        f"""[Interface]
PrivateKey = {other_private}
Address = 10.5.0.2/24, fd05::2/64, 172.20.0.1/32
ListenPort = {PORT}

[Peer]
PublicKey = {public}
PresharedKey = {psk}
AllowedIPs = 10.5.0.1/32, fd05::1/128
"""
    )
    return client, server

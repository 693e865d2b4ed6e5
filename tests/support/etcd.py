"""A real etcd on loopback ports of its own: started, frozen, killed, compacted by a test."""

from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strict.discovery.etcd.settings import EtcdSettings
from strict.discovery.etcd.store import Store
from testbed.namespaces import wait_until

DAY = datetime.timedelta(days=1)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Etcd:
    """One member; `start` again after `kill` finds its data."""

    folder: Path
    name: str = "one"
    tls: Path | None = None
    """A folder with ca.crt, server.crt and server.key: clients need certificates."""
    port: int = 0
    peer: int = 0
    address: str = "127.0.0.1"
    wrap: Callable[[list[str]], list[str]] = list
    process: subprocess.Popen[bytes] | None = None
    cluster: str = ""
    extra: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if not self.port:
            self.port, self.peer = free_ports(2)

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.address}:{self.port}"

    def start(self, wait: bool = True) -> Etcd:
        program = shutil.which("etcd")
        assert program, "etcd is missing: apt-get install etcd-server"
        peer = f"http://{self.address}:{self.peer}"
        command = [
            program, "--name", self.name, "--data-dir", str(self.folder / self.name),
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", self.cluster or f"{self.name}={peer}",
            "--heartbeat-interval", "50", "--election-timeout", "500",
            "--log-level", "error", *self.extra,
        ]  # fmt: skip
        if self.tls:
            command += ["--trusted-ca-file", f"{self.tls}/ca.crt", "--client-cert-auth",
                        "--cert-file", f"{self.tls}/server.crt",
                        "--key-file", f"{self.tls}/server.key"]  # fmt: skip
        log = (self.folder / f"{self.name}.log").open("ab")
        self.process = subprocess.Popen(self.wrap(command), stdout=log, stderr=log)
        log.close()
        if wait:
            assert wait_until(self.listens, 20), (self.folder / f"{self.name}.log").read_text()
        return self

    def listens(self) -> bool:
        try:
            socket.create_connection((self.address, self.port), 1).close()
        except OSError:
            return False
        return True

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def settings(self, **changes: object) -> EtcdSettings:
        files = {}
        if self.tls:
            files = {"ca": self.tls / "ca.crt", "cert": self.tls / "client.crt",
                     "key": self.tls / "client.key"}  # fmt: skip
        values: dict[str, object] = {"endpoints": (self.url,), "ttl": 60, **files}
        return EtcdSettings(**{**values, **changes})  # type: ignore[arg-type]

    def store(self, **changes: object) -> Store:
        return Store(self.settings(**changes))

    def compact(self) -> None:
        """Forget all history up to now."""
        store = self.store()
        revision = store.request("/kv/range", {"key": "AA=="})["header"]["revision"]
        store.request("/kv/compaction", {"revision": revision, "physical": True})
        store.close()


def leader_of(members: Sequence[Etcd]) -> Etcd:
    """The member that leads now."""
    for member in members:
        request = urllib.request.Request(f"{member.url}/v3/maintenance/status", data=b"{}")
        with urllib.request.urlopen(request, timeout=5) as response:
            answer = json.load(response)
        if answer.get("leader") == answer["header"]["member_id"]:
            return member
    raise AssertionError("no leader")


@contextmanager
def etcd(tls: Path | None = None, **more: object) -> Iterator[Etcd]:
    """One member in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="wgpy-etcd-") as name:
        made = Etcd(Path(name), tls=tls, **more)  # type: ignore[arg-type]
        try:
            yield made.start()
        finally:
            made.kill()


@contextmanager
def three() -> Iterator[list[Etcd]]:
    """A cluster of three members that has elected a leader."""
    with tempfile.TemporaryDirectory(prefix="wgpy-etcd-") as name:
        ports = free_ports(6)
        members = [
            Etcd(Path(name), f"m{i}", port=ports[2 * i], peer=ports[2 * i + 1]) for i in range(3)
        ]
        names = ",".join(f"{m.name}=http://127.0.0.1:{m.peer}" for m in members)
        try:
            for member in members:
                member.cluster = names
                member.start(wait=False)
            assert wait_until(lambda: all(member.listens() for member in members), 20)
            yield members
        finally:
            for member in members:
                member.kill()


class Authority:
    """Makes certificates in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {name}")])
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder().subject_name(self._name).issuer_name(self._name)
            .public_key(self._key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY).not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
            .sign(self._key, hashes.SHA256())
        )  # fmt: skip
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, days: float = 1, hosts: Sequence[str] = ("127.0.0.1",)) -> None:
        """NAME.crt and NAME.key; negative days: it has run out.

        Both uses, because etcd's own HTTP gateway dials etcd with the server's certificate;
        no common name, because the gateway refuses one.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names = [x509.IPAddress(ipaddress.ip_address(host)) for host in hosts]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]))
            .issuer_name(self._name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * DAY).not_valid_after(now + days * DAY)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
            .sign(self._key, hashes.SHA256())
        )  # fmt: skip
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (self.folder / f"{name}.crt").write_bytes(pem)
        (self.folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

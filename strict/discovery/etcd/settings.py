"""The table `[discovery.etcd]` of a node's file."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from strict.document import Section

DEFAULT_TTL: Final = 900
"""Seconds, as Cilium's `--kvstore-lease-ttl`."""
_PART: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*\Z")


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """Where the store is, who we are to it, and where in it the cluster lives."""

    endpoints: tuple[str, ...]
    """`https://HOST:PORT`, tried in this order."""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password_file: Path | None = None
    """Read at each login, so that a changed password is taken without a restart."""
    cluster: str = "default"
    prefix: str = "cilium"
    address_space: str = "default"
    """The part of the key before an address: Cilium writes `default` whatever the cluster."""
    ttl: int = DEFAULT_TTL
    """Seconds that a dead node's keys stay."""


def read_settings(section: Section, folder: Path) -> EtcdSettings:
    """Mistakes are noted in the document; file names are relative to `folder`."""
    plaintext = section.flag("allow_plaintext", False)
    endpoints = section.many("endpoints", lambda text: _endpoint(text, plaintext))
    if not endpoints and not section.document.problems:
        section.problem("", "'endpoints' is missing: a list of \"https://HOST:2379\"")
    files = {name: _file(section, name, folder) for name in ("ca", "cert", "key", "password_file")}
    user = section.text("user")
    for one, other in (("cert", "key"), ("key", "cert")):
        if files[one] and not files[other]:
            section.problem(one, f"needs {other!r} beside it")
    if bool(user) != bool(files["password_file"]):
        section.problem("user" if user else "password_file",
                        "`user` and `password_file` belong together")  # fmt: skip
    cluster = section.parsed("cluster", "default", _part)
    settings = EtcdSettings(
        endpoints=endpoints,
        user=user,
        cluster=cluster,
        prefix=section.parsed("prefix", "cilium", _prefix),
        address_space=section.parsed("address_space", cluster, _part),
        ttl=section.number("ttl", DEFAULT_TTL, 5, 86400),
        **files,
    )
    section.done()
    return settings


def _file(section: Section, name: str, folder: Path) -> Path | None:
    text = section.text(name)
    if not text:
        return None
    path = folder / text
    if not path.is_file():
        section.problem(name, f"no such file: {path}")
    return path


def _endpoint(text: str, plaintext: bool) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.path.strip("/") or parts.scheme not in ("https", "http"):
        raise ValueError(f"{text!r} is not an endpoint: write https://HOST:2379")
    if parts.scheme == "http" and not plaintext and not _is_loopback(host):
        raise ValueError(
            f"{text} is not encrypted, and whoever is on the way could give nodes other keys: "
            "write https:// and `ca`, or set allow_plaintext = true"
        )
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _part(text: str) -> str:
    if not _PART.match(text):
        raise ValueError("must be 1 to 63 letters, digits, or one of _.- inside")
    return text


def _prefix(text: str) -> str:
    if not _PREFIX.match(text):
        raise ValueError("must be names of letters, digits and _.- with / between them")
    return text

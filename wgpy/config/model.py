"""The content of a configuration file as values, and its problems."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from wgpy.protocol.constants import KEY_SIZE
from wgpy.protocol.endpoint import Endpoint, Prefix, format_address
from wgpy.protocol.keys import NO_PRESHARED_KEY, PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

INTERFACE_NAME: Final = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")


class HostPort(NamedTuple):
    """An endpoint as written: `host` is a name or an address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class InterfaceAddress(NamedTuple):
    """An address with the length of its prefix; the host bits stay."""

    ip: bytes
    length: int

    def __str__(self) -> str:
        return f"{format_address(self.ip)}/{self.length}"


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One [Peer] section; `persistent_keepalive` in seconds, 0 is off."""

    public_key: PublicKey
    preshared_key: PresharedKey = NO_PRESHARED_KEY
    endpoint: HostPort | None = None
    persistent_keepalive: int = 0
    allowed_ips: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake (or, with `note`, a note) at `line` and `column`, both from 1.

    `text` is what is wrong, as far as it may be shown; `fix` says what to write.  A
    `replacement`, where there is one, was read by the parser before it is offered.
    """

    line: int
    column: int
    text: str
    message: str
    fix: str = ""
    note: bool = False
    replacement: str = ""

    def located(self, file: str) -> str:
        """``FILE:LINE:COLUMN: message``, as compilers and editors know it."""
        what = f": {self.text}" if self.text else ""
        return f"{file}:{self.line}:{self.column}: {self.message}{what}"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole file.  `table` is "auto", "off" or a number; hooks are shell commands."""

    private_key: PrivateKey | None = None
    listen_port: int = 0
    fwmark: int = 0
    addresses: tuple[InterfaceAddress, ...] = ()
    mtu: int | None = None
    dns: tuple[str, ...] = ()
    table: Literal["auto", "off"] | int = "auto"
    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save_config: bool = False
    peers: tuple[PeerConfig, ...] = ()
    notes: tuple[Problem, ...] = field(default=(), compare=False)

    def change(self, resolve: Callable[[HostPort], Endpoint]) -> DeviceChange:
        """The change that configures a device as this file says, like ``wg setconf``."""
        return DeviceChange(
            private_key=self.private_key or PrivateKey(bytes(KEY_SIZE)),
            listen_port=self.listen_port,
            fwmark=self.fwmark,
            replace_peers=True,
            peers=tuple(
                PeerChange(
                    public_key=peer.public_key,
                    preshared_key=peer.preshared_key,
                    endpoint=resolve(peer.endpoint) if peer.endpoint else None,
                    persistent_keepalive=peer.persistent_keepalive,
                    replace_allowed_ips=True,
                    allowed_ips=tuple(AllowedIp(prefix) for prefix in peer.allowed_ips),
                )
                for peer in self.peers
            ),
        )


class ConfigError(Exception):
    """A file is refused; `problems` has every mistake and note, by line."""

    def __init__(self, file: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(file, problems)
        self.file = file
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(
            problem.located(self.file) + (f" ({problem.fix})" if problem.fix else "")
            for problem in self.problems
            if not problem.note
        )

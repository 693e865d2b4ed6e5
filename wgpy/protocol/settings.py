"""Configuration as values: what to change (`DeviceChange`) and what is (`DeviceSnapshot`).

The UAPI codec, the config file reader, the CLI and the strict agent all speak these.
A change is validated when built; applying one to an engine cannot fail half-way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.timers import Deadline


class AllowedIp(NamedTuple):
    """A prefix to give to a peer, or (`remove`) to take from it if it is the owner."""

    prefix: Prefix
    remove: bool = False


@dataclass(frozen=True, slots=True)
class PeerChange:
    """What changes about one peer; None leaves a value as it is.

    An all-zero `preshared_key` removes it; `persistent_keepalive` is in seconds, 0 is off.
    """

    public_key: PublicKey
    remove: bool = False
    update_only: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: tuple[AllowedIp, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What changes about a device; an all-zero `private_key` removes it.

    `listen_port` and `fwmark` belong to the UDP edge, which acts on them before the
    engine sees the change, so that a port in use leaves everything as it was.
    """

    private_key: PrivateKey | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: tuple[PeerChange, ...] = ()


_NO_DROPS: Mapping[DropReason, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """One peer as it is.  `latest_handshake` is wall-clock ns since 1970, 0 for never.

    `handshake_at` is the same moment in the engine's ns (None: never, or not told): ages come
    from it, since the wall clock may have been set in the meantime.
    """

    public_key: PublicKey
    preshared_key: PresharedKey
    endpoint: Endpoint | None
    persistent_keepalive: int
    latest_handshake: int
    rx_bytes: int
    tx_bytes: int
    allowed_ips: tuple[Prefix, ...]
    deadline: Deadline | None = None
    handshake_at: int | None = None
    drops: Mapping[DropReason, int] = field(default_factory=lambda: _NO_DROPS)


@dataclass(frozen=True, slots=True)
class DeviceSnapshot:
    """The device as it is; peers in the order they were added."""

    private_key: PrivateKey | None
    public_key: PublicKey | None
    listen_port: int
    fwmark: int
    peers: tuple[PeerSnapshot, ...]
    deadline: Deadline | None = None
    drops: Mapping[DropReason, int] = field(default_factory=lambda: _NO_DROPS)

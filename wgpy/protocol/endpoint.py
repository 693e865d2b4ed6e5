"""Outer addresses of peers (endpoints) and prefixes of the inner network.

Addresses are packed network-order bytes (4 or 16): they compare and hash fast, and
come out of packets without conversion.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

AddressBytes = bytes
"""A packed IP address: 4 bytes for IPv4, 16 for IPv6."""
ZoneIndex = Callable[[str], int]
"""Interface name to index (RFC 4007 §11), asked of the host; OSError for an unknown name."""


class AddressFormatError(ValueError):
    """The text is not an IP address, endpoint or prefix."""


def parse_address(text: str) -> AddressBytes:
    """Packed form of an IPv4 or IPv6 address; raises `AddressFormatError`."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError) as error:
        raise AddressFormatError(f"not an IP address: {text!r}") from error


def format_address(packed: AddressBytes) -> str:
    """Text form of a packed address."""
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


def no_zone_names(name: str) -> int:
    """A `ZoneIndex` that knows no interface: a zone must be a number."""
    raise AddressFormatError(f"a zone must be the number of an interface here: {name!r}")


class Endpoint(NamedTuple):
    """A peer's outer address, and the local address it was reached at.

    ``local_ip`` and ``local_ifindex`` make replies leave from the address that the peer
    wrote to ("sticky sockets"); empty and 0 let the kernel choose.
    """

    ip: AddressBytes
    port: int
    scope_id: int = 0
    local_ip: AddressBytes = b""
    local_ifindex: int = 0

    @classmethod
    def parse(cls, text: str, zone: ZoneIndex = no_zone_names) -> Self:
        """From ``1.2.3.4:51820`` or ``[fe80::1%3]:51820``; no host names.

        `zone` finds the index where a zone is a name, as in ``[fe80::1%eth0]:51820``.
        Raises `AddressFormatError`.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or (":" in host) != bracketed:
            raise AddressFormatError(f"not an endpoint (IP:PORT or [IPv6]:PORT): {text!r}")
        host, _, scope = host.strip("[]").partition("%") if bracketed else (host, "", "")
        if not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise AddressFormatError(f"not a port (0-65535): {port!r}")
        if scope and not (scope.isascii() and scope.isdigit()):
            try:
                scope = str(zone(scope))
            except OSError as error:
                raise AddressFormatError(f"no such interface: {scope!r}") from error
        return cls(parse_address(host), int(port), int(scope or 0))

    def __str__(self) -> str:
        host = format_address(self.ip)
        if len(self.ip) == 4:
            return f"{host}:{self.port}"
        zone = f"%{self.scope_id}" if self.scope_id else ""
        return f"[{host}{zone}]:{self.port}"

    def without_source(self) -> Endpoint:
        """The same remote address with the local one forgotten."""
        return Endpoint(self.ip, self.port, self.scope_id)


class Prefix(NamedTuple):
    """An IP prefix with its host bits cleared; ``ip`` packed, ``length`` in bits."""

    ip: AddressBytes
    length: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``10.0.0.0/8`` or ``fd00::/8``; without ``/`` a single host. Host bits are cleared.

        Raises `AddressFormatError`.
        """
        host, slash, bits = text.partition("/")
        ip = parse_address(host)
        width = len(ip) * 8
        if not slash:
            return cls(ip, width)
        if not (bits.isascii() and bits.isdigit() and int(bits) <= width):
            raise AddressFormatError(f"not a prefix length (0-{width}): {bits!r}")
        return cls.masked(ip, int(bits))

    @classmethod
    def masked(cls, ip: AddressBytes, length: int) -> Self:
        """The prefix of `length` bits that holds `ip`."""
        host_bits = len(ip) * 8 - length
        if host_bits == 0:
            return cls(ip, length)
        number = int.from_bytes(ip) >> host_bits << host_bits
        return cls(number.to_bytes(len(ip)), length)

    def __contains__(self, ip: object) -> bool:
        """Whether a packed address of the same family lies inside."""
        if not isinstance(ip, bytes) or len(ip) != len(self.ip):
            return False
        return Prefix.masked(ip, self.length).ip == self.ip

    def __str__(self) -> str:
        return f"{format_address(self.ip)}/{self.length}"

    def overlaps(self, others: Sequence[Prefix]) -> bool:
        """Whether any of `others` shares an address with this prefix."""
        return any(
            len(self.ip) == len(o.ip)
            and Prefix.masked(self.ip, min(self.length, o.length)).ip
            == Prefix.masked(o.ip, min(self.length, o.length)).ip
            for o in others
        )

"""ICMP echo through this host's own network stack: one request, one reply or silence."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from contextlib import suppress
from typing import Final, Self

from wgpy.protocol.constants import NS
from wgpy.protocol.endpoint import AddressBytes, format_address
from wgpy.sim.ping import checksum

_HEADER: Final = struct.Struct(">BBHHH")
_REQUEST: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY: Final = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PAYLOAD: Final = b"wgpy ping".ljust(56, b".")


class HostEcho:
    """Sends echo requests to one address, unprivileged where the host allows it.

    `device` binds to an interface, `mark` sets SO_MARK.  Raises PermissionError when
    neither a ping socket nor a raw socket is allowed.
    """

    def __init__(
        self, target: AddressBytes, scope: int = 0, *, device: str = "", mark: int = 0
    ) -> None:
        self._family = socket.AF_INET if len(target) == 4 else socket.AF_INET6
        self._target = target
        self._identifier = os.getpid() & 0xFFFF
        self._sequence = 0
        self._socket = self._open()
        if device:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if mark:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        zone = (0, scope) if self._family == socket.AF_INET6 else ()
        self._address = (format_address(target), 0, *zone)

    def _open(self) -> socket.socket:
        protocol = socket.IPPROTO_ICMP if self._family == socket.AF_INET else socket.IPPROTO_ICMPV6
        try:
            opened = socket.socket(self._family, socket.SOCK_DGRAM, protocol)
            self._raw = False
        except PermissionError:
            opened = socket.socket(self._family, socket.SOCK_RAW, protocol)
            self._raw = True
        return opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, timeout: float) -> int | None:
        """Send one request; the round trip in ns, None for silence of `timeout` seconds.

        Raises OSError when the host has no route or is told that there is none.
        """
        self._sequence += 1
        started = time.monotonic_ns()
        self._socket.sendto(self._request(), self._address)
        end = started + int(timeout * NS)
        while (left := end - time.monotonic_ns()) > 0:
            if not select.select([self._socket], [], [], left / NS)[0]:
                break
            with suppress(BlockingIOError):
                data, sender = self._socket.recvfrom(2048, socket.MSG_DONTWAIT)
                if self._is_reply(data, str(sender[0])):
                    return time.monotonic_ns() - started
        return None

    def _request(self) -> bytes:
        kind = _REQUEST[self._family]
        message = _HEADER.pack(kind, 0, 0, self._identifier, self._sequence) + _PAYLOAD
        # The kernel fills in the checksum of ICMPv6 and of ping sockets.
        sum_ = checksum(message) if self._family == socket.AF_INET else 0
        return _HEADER.pack(kind, 0, sum_, self._identifier, self._sequence) + _PAYLOAD

    def _is_reply(self, data: bytes, sender: str) -> bool:
        if self._raw and self._family == socket.AF_INET and data:
            data = data[(data[0] & 15) * 4 :]
        if len(data) < _HEADER.size or sender.partition("%")[0] != format_address(self._target):
            return False
        kind, _, _, identifier, sequence = _HEADER.unpack_from(data)
        # A ping socket has an identifier of the kernel's and receives only its own.
        ours = identifier == self._identifier or not self._raw
        return bool(kind == _REPLY[self._family] and ours and sequence == self._sequence)

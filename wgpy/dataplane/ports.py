"""The edges of the data plane as four small interfaces.

`wgpy.linux` implements them on a TUN device and UDP sockets, `wgpy.memory` in memory.
All calls take or return batches and never block.  Nothing here knows about WireGuard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.datagram import Datagram


class Clock(Protocol):
    """Two clocks, both in ns: `monotonic` for timers, `wall` since 1970 for TAI64N."""

    def monotonic(self) -> int: ...
    def wall(self) -> int: ...


class Entropy(Protocol):
    """`size` unpredictable bytes."""

    def __call__(self, size: int, /) -> bytes: ...


class TunPort(Protocol):
    """A device that yields and takes whole IP packets."""

    @property
    def name(self) -> str: ...

    mtu: int
    """Bytes; kept current by whoever watches the link."""

    def fileno(self) -> int: ...

    def read(self, limit: int) -> list[bytes]:
        """Up to `limit` packets that are ready now; empty when there is none.

        Raises `DeviceGone` when the device was deleted.
        """

    def write(self, packets: Iterable[Buffer]) -> int:
        """Deliver packets; returns how many the device refused."""

    def close(self) -> None: ...


class UdpPort(Protocol):
    """UDP on one port number, IPv4 and IPv6; closed until the first `rebind`.

    `port` and `mark` outlive `close`, so that ``rebind(port)`` opens again as it was.
    """

    @property
    def port(self) -> int: ...
    @property
    def mark(self) -> int: ...
    def filenos(self) -> Sequence[int]: ...

    def handshake_filenos(self) -> Sequence[int]:
        """Those of `filenos` at which no transport message comes."""

    def handshake_backlog(self) -> float:
        """How full the fullest of their queues is, 0 to 1."""

    def receive(self, limit: int) -> list[Datagram]:
        """Up to `limit` datagrams that are ready now, from both families in turn."""

    def send(self, datagrams: Iterable[Datagram]) -> int:
        """Send; returns how many the socket refused (unreachable, full)."""

    def rebind(self, port: int) -> None:
        """Listen on `port` (0: the kernel chooses) or raise OSError and stay as before."""

    def probe(self, port: int) -> None:
        """While closed: remember `port`, or raise the OSError that `rebind` would."""

    def set_mark(self, mark: int) -> None:
        """SO_MARK on everything sent; 0 is none."""

    def close(self) -> None: ...


class DeviceGone(Exception):
    """The TUN device was deleted under us."""

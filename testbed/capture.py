"""Whole frames from the underlay, into a file with the keys to decrypt it and onto the screen.

A `Wiretap` captures frames at the bridge's ports, like the sniffer, but whole: what the kernel
would segment later (UDP segmentation) is segmented here, so that each message of WireGuard is
a separate frame.  `SessionKeys` gets the keys from the nodes' data planes: each records
into its own file during the capture, of which only the key log is used.  A data plane without
a key log (wireguard-go) depends on the log of the other side.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from testbed import dataplane
from testbed.cluster import Cluster, ClusterError
from testbed.namespaces import Namespace
from testbed.network import UNDERLAY
from testbed.sniffer import ETH_P_ALL, PACKET_IGNORE_OUTGOING, PACKET_STATISTICS, SOL_PACKET
from wgpy import __version__, secret_files
from wgpy.capture import pcapng
from wgpy.capture.frames import Secrets
from wgpy.capture.link import checksum
from wgpy.control.client import ControlClient, ControlFailed

PACKET_VNET_HDR: Final = 15
VNET: Final = struct.Struct("=BBHHHH")
VNET_GSO_UDP: Final = 5
ETHERNET: Final = 1
SO_TIMESTAMPNS: Final = 35
BUFFER: Final = 1 << 25


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame: `at` in ns since 1970, the bridge `port` it came in on."""

    at: int
    port: str
    data: bytes


class Wiretap:
    """Whole frames at `ports` (ifindex to name) of the bridge.  A context manager.

    Those that enter the bridge there, so that each is seen once; with `both` also those that
    leave it, to watch one link.
    """

    def __init__(self, namespace: Namespace, ports: dict[int, str], *, both: bool) -> None:
        self.missed = 0
        self._names = namespace.call(lambda: {
            socket.if_indextoname(index): name for index, name in ports.items()
        })  # fmt: skip
        self._socket = namespace.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)
        )
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, int(not both))
        self._socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        with contextlib.suppress(PermissionError):  # a user namespace keeps the usual size
            self._socket.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
        self._socket.setblocking(False)

    def __enter__(self) -> Wiretap:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def frames(self, patience: float) -> Iterator[Frame]:
        """What has come; waits up to `patience` seconds for the first."""
        select.select([self._socket], [], [], patience)
        while True:
            try:
                data, ancillary, _flags, address = self._socket.recvmsg(1 << 17, 64)
            except BlockingIOError:
                break
            port = self._names.get(address[0])
            if port is None:
                continue
            seconds, fraction = struct.unpack("=qq", ancillary[0][2][:16])
            for frame in split(data[: VNET.size], data[VNET.size :]):
                yield Frame(seconds * 1_000_000_000 + fraction, port, frame)
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.missed += struct.unpack("=II", statistics)[1]


def split(header: bytes, frame: bytes) -> Iterator[bytes]:
    """The datagrams of a frame whose segmentation was left to the device; else the frame."""
    _flags, kind, _headers, size, _start, _offset = VNET.unpack(header)
    if kind & 0x7F != VNET_GSO_UDP or not size:
        yield frame
        return
    version, ip = frame[14] >> 4, 14
    udp = ip + ((frame[ip] & 15) * 4 if version == 4 else 40)
    payload = frame[udp + 8 :]
    for number, start in enumerate(range(0, len(payload), size)):
        piece = payload[start : start + size]
        head = bytearray(frame[:udp])
        length = 8 + len(piece)
        if version == 4:
            struct.pack_into("!H", head, ip + 2, udp - ip + length)
            (first,) = struct.unpack_from("!H", head, ip + 4)
            struct.pack_into("!HHBBH", head, ip + 4, (first + number) & 0xFFFF,
                             *struct.unpack_from("!HBB", head, ip + 6), 0)  # fmt: skip
            struct.pack_into("!H", head, ip + 10, checksum(bytes(head[ip:udp])))
            pseudo = bytes(head[ip + 12 : ip + 20]) + struct.pack("!HH", 17, length)
        else:
            struct.pack_into("!H", head, ip + 4, length)
            pseudo = bytes(head[ip + 8 : ip + 40]) + struct.pack("!IHH", length, 0, 17)
        ports = frame[udp : udp + 4]
        body = ports + struct.pack("!HH", length, 0) + piece
        total = checksum(pseudo + body) or 0xFFFF
        yield bytes(head) + ports + struct.pack("!HH", length, total) + piece


class SessionKeys:
    """The key log of a cluster's data planes, from now on.  A context manager."""

    def __init__(self, cluster: Cluster) -> None:
        self.without: dict[str, str] = {}
        """Nodes without keys, and why."""
        self._files: list[Path] = []
        self._clients: list[ControlClient] = []
        for node in cluster.topology.nodes:
            path = cluster.node_folder(node.name) / f"keys-{secrets.token_hex(4)}.pcapng"
            try:
                client = ControlClient(dataplane.DEVICE, cluster.run_folder(node.name))
                self._clients.append(client)
                client.request("capture", path=str(path))
                self._files.append(path)
            except (ControlFailed, TimeoutError) as error:
                self.without[node.name] = str(error)

    def __enter__(self) -> SessionKeys:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()
        for path in self._files:
            path.unlink(missing_ok=True)

    def _hang_up(self) -> None:
        for client in self._clients:
            # The data plane closes its file before it hangs up in turn.
            client.end()
        self._clients.clear()

    def take(self) -> list[str]:
        """End the recordings; returns each key log once."""
        self._hang_up()
        found: dict[str, None] = {}
        for path in self._files:
            with path.open("rb") as file:
                for record in pcapng.read(file, path.name):
                    if isinstance(record, Secrets):
                        found[record.key_log] = None
        return list(found)


class CaptureFile:
    """A pcapng file with one interface per port, keys first.  Complete when it is closed."""

    def __init__(self, path: Path, ports: list[str]) -> None:
        """Creates `path` for its owner alone.  Raises OSError."""
        self._file = os.fdopen(secret_files.create(path), "wb")
        self._numbers = {port: number for number, port in enumerate(ports)}
        # Frames wait here, because their keys must precede them in the file.
        self._frames: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self.frames = 0

    def write(self, frame: Frame) -> None:
        """One frame."""
        self._frames.write(pcapng.packet(self._numbers[frame.port], frame.at, frame.data, []))
        self.frames += 1

    def close(self, keys: list[str]) -> None:
        """Write the file."""
        with self._file as out, self._frames as frames:
            comment = "contains the keys of these tunnels: keep it secret" if keys else ""
            out.write(pcapng.section_header(f"wgpy {__version__}", comment))
            for port in self._numbers:
                out.write(pcapng.interface(ETHERNET, port, "frames that enter the bridge here"))
            for text in keys:
                out.write(pcapng.secrets(text))
            frames.seek(0)
            shutil.copyfileobj(frames, out)


def ports_of(cluster: Cluster, where: str | None) -> dict[int, str]:
    """The bridge ports of a node, of an underlay, or one alone (`alpha.0`); all with None.

    Raises `ClusterError`, with what there is.
    """
    ports = cluster.ports()
    if where is None:
        return ports
    nodes = cluster.topology.nodes
    wanted = {where} | {
        f"{node.name}.{index}"
        for node in nodes
        for index, underlay in enumerate(node.underlays)
        if where in (node.name, underlay)
    }
    found = {index: name for index, name in ports.items() if name in wanted}
    if not found:
        known = [*(node.name for node in nodes), *(u.name for u in cluster.topology.underlays),
                 *sorted(ports.values())]  # fmt: skip
        raise ClusterError(f"no node or link {where!r} here: {', '.join(known)}")
    return found


def run(
    cluster: Cluster,
    where: str | None,
    output: Path | None,
    shown: Callable[[Frame], bool],
    more: Callable[[], bool],
    ready: Callable[[], None],
) -> tuple[int, dict[str, str], int]:
    """Capture while `more()`; frames that are `shown` go to `output`.  It has begun: `ready()`.

    Returns frames missed, nodes without keys and why, and how many key logs were written.
    """
    ports = ports_of(cluster, where)
    with contextlib.ExitStack() as stack:
        keys = stack.enter_context(SessionKeys(cluster)) if output else None
        file = CaptureFile(output, sorted(ports.values())) if output else None
        whole = where is None or where in {u.name for u in cluster.topology.underlays}
        wire = cluster.namespaces[UNDERLAY]
        tap = stack.enter_context(Wiretap(wire, ports, both=not whole))
        ready()
        try:
            while more():
                for frame in tap.frames(0.05):
                    if not more():
                        break
                    if shown(frame) and file is not None:
                        file.write(frame)
        except KeyboardInterrupt:
            # What had passed before Ctrl-C still waits in the socket.
            for frame in tap.frames(0):
                if shown(frame) and file is not None:
                    file.write(frame)
        logs = keys.take() if keys else []
        if file is not None:
            file.close(logs)
        return tap.missed, keys.without if keys else {}, len(logs)

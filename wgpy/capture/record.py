"""Record a running interface: inner packets, outer datagrams, keys and drop reasons.

The recorder is inserted between the ports and the data path (`RecordingTun`,
`RecordingUdp`), so that an interface without a recorder has no overhead.  Frames of one
turn of the loop are held until it ends: only then are drop reasons known, which become
comments of the packets they belong to.

Two interfaces: "inner" is what the host sees (super-packets as the TUN device carries
them, their checksums possibly left to it), "outer" what the UDP socket carries, in
IP and UDP headers built for the file.  Writing is synchronous: what passed is in the
file.  An error (a full disk) ends the recording and not the packets: what comes after it is
counted as lost until the recorder is taken away.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from wgpy import __version__, secret_files
from wgpy.capture import keylog, pcapng
from wgpy.capture.link import RAW, Udp, udp_packet
from wgpy.dataplane.interface import Interface
from wgpy.dataplane.interface import Path as DataPath
from wgpy.dataplane.offload import VNET_SIZE
from wgpy.dataplane.ports import TunPort, UdpPort
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import NS, TYPE_INITIATION, TYPE_RESPONSE
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.device import HandshakeKeys
from wgpy.protocol.endpoint import Endpoint, format_address, parse_address
from wgpy.protocol.events import Direction, Event, PacketDropped, ResponseReceived
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.peer import Peer
from wgpy.protocol.session import Session

INNER: Final = 0
OUTER: Final = 1
FLUSH_INTERVAL: Final = NS // 5
"""Maximum age of the last data that a reader of the growing file sees."""
REMEMBERED_HANDSHAKES: Final = 1024
"""Handshakes that are repeated, with their keys, at the start of the next file after a
rotation: without them the data that follows could not be decrypted."""
_HANDSHAKE_TYPES: Final = (bytes([TYPE_INITIATION]), bytes([TYPE_RESPONSE]))


@dataclass(slots=True)
class _Pending:
    """A frame of the present turn; `endpoint` is the remote one of an outer frame."""

    interface: int
    at: int
    data: bytes
    size: int
    endpoint: Endpoint | None = None
    comments: list[str] = field(default_factory=list)

    @property
    def original(self) -> int:
        """Bytes that the packet had; more than are recorded where only its head is known."""
        return self.size if self.interface == INNER else len(self.data)


class Recorder:
    """Writes one pcapng file after another.  Not thread-safe: lives in the loop's thread."""

    def __init__(
        self,
        path: Path,
        wall: Callable[[], int],
        *,
        rotate: int = 0,
        failed: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        """`path` is created with mode 0600; `rotate` is bytes per file, 0 for one file.

        A full file becomes ``NAME-00001.pcapng`` and so on.  Raises OSError.  `failed` is
        told, once, that a later one has ended the recording.
        """
        self.path = path
        self._failed = failed
        self._ended = False
        self.frames = [0, 0]
        self.lost = [0, 0]
        self.sessions = 0
        self._wall = wall
        self._rotate = rotate
        self._statics = ""
        self._handshakes: deque[bytes] = deque(maxlen=3 * REMEMBERED_HANDSHAKES)
        self._pending: list[_Pending] = []
        self._local_ips: dict[bytes, bytes] = {}
        self._rotations = 0
        self._flushed = wall()
        self._size = 0
        self._file = self._create()

    # --- what happens ---

    def inner(self, packet: Buffer) -> None:
        """A packet passed the TUN device."""
        data = bytes(packet)
        self._pending.append(_Pending(INNER, self._wall(), data, len(data)))

    def outer(self, data: Buffer, endpoint: Endpoint, port: int, *, sent: bool) -> None:
        """A datagram passed the UDP socket, which listens on `port`."""
        local = Endpoint(endpoint.local_ip or self._local_ip(endpoint), port)
        remote = endpoint.without_source()
        payload = bytes(data)
        datagram = Udp(local, remote, payload) if sent else Udp(remote, local, payload)
        frame = _Pending(OUTER, self._wall(), udp_packet(datagram), len(payload), remote)
        self._pending.append(frame)
        if self._rotate and payload[:1] in _HANDSHAKE_TYPES:
            note = "repeated from the file before"
            self._handshakes.append(pcapng.packet(OUTER, frame.at, frame.data, [note]))

    def _local_ip(self, endpoint: Endpoint) -> bytes:
        """The address that the kernel sends from to a peer that was not heard yet.

        Wireshark joins a response to its initiation by their addresses, so a guess would
        keep the tunnel closed.
        """
        known = self._local_ips.get(endpoint.ip)
        if known is None:
            known = self._local_ips[endpoint.ip] = _route_source(endpoint)
        return known

    def dropped(self, event: PacketDropped) -> None:
        """Comment the dropped frame; a packet of which only the head is known gets a frame."""
        comment = f"{event.reason.name}: {event.reason.sentence}"
        for frame in self._pending:
            if not frame.comments and _is_about(event, frame):
                frame.comments.append(comment)
                return
        if event.head:
            frame = _Pending(INNER, self._wall(), event.head, event.size)
            frame.comments.append(f"{comment} (only its beginning is known)")
            self._pending.append(frame)

    def handshake(self, keys: HandshakeKeys) -> None:
        """Keys of a handshake; they come before the frames they open."""
        secrets = pcapng.secrets(keylog.format_handshake(keys))
        if self._rotate:
            self._handshakes.append(secrets)
        self._flush_frames()
        self._write(secrets)

    def session(self, session: Session, local_static: bytes) -> None:
        """Keys of a session whose handshake is not in the file, in our own line of a key log."""
        text = keylog.format_session(
            session.keys,
            local_index=session.local_index,
            remote_index=session.remote_index,
            local_static=local_static,
            remote_static=session.peer.public_key,
        )
        secrets = pcapng.secrets(text)
        if self._rotate:
            self._handshakes.append(secrets)
        self.sessions += 1
        self._flush_frames()
        self._write(secrets)

    def configured(self, private: bytes | None, publics: Iterable[bytes]) -> None:
        """The device's own key and its peers; open initiations to it."""
        text = "" if private is None else keylog.format_statics(private, publics)
        if text and text != self._statics:
            self._flush_frames()
            self._write(pcapng.secrets(text))
        self._statics = text

    def end_turn(self) -> None:
        """Write the frames of this turn, and go on to a new file if this one is full."""
        self._flush_frames()
        now = self._wall()
        if now - self._flushed >= FLUSH_INTERVAL:
            self._flushed = now
            self._do(self._flush_file)
        if self._rotate and self._size >= self._rotate:
            self._do(self._next_file)

    def close(self) -> None:
        """Write what is left and how many frames were lost."""
        self._flush_frames()
        self._finish()

    # --- files ---

    def _create(self) -> IO[bytes]:
        file = os.fdopen(secret_files.create(self.path), "wb", buffering=1 << 20)
        start = pcapng.section_header(
            f"wgpy {__version__}", "contains the keys of these tunnels: keep it secret"
        )
        start += pcapng.interface(RAW, "inner", "what the host sends and receives")
        start += pcapng.interface(RAW, "outer", "what the UDP socket carries")
        if self._statics:
            start += pcapng.secrets(self._statics)
        start += b"".join(self._handshakes)
        try:
            file.write(start)
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                file.close()
            raise
        self._size = len(start)
        return file

    def _do(self, work: Callable[[], object]) -> bool:
        """Work on the file; whether it was done.  The first error ends the recording."""
        if self._ended:
            return False
        try:
            work()
        except OSError as error:
            self._ended = True
            self._failed(error)
        return not self._ended

    def _next_file(self) -> None:
        self._finish()
        if self._ended:
            return
        self._rotations += 1
        full = self.path.with_stem(f"{self.path.stem}-{self._rotations:05}")
        self.path.rename(full)
        self._file = self._create()

    def _finish(self) -> None:
        at = self._wall()
        for number in (INNER, OUTER):
            seen = self.frames[number] + self.lost[number]
            self._write(pcapng.statistics(number, at, seen, self.lost[number]))
        try:
            self._file.close()
        except OSError as error:
            if not self._ended:
                self._ended = True
                self._failed(error)

    def _flush_frames(self) -> None:
        frames, self._pending = self._pending, []
        for frame in frames:
            block = pcapng.packet(
                frame.interface, frame.at, frame.data, frame.comments, size=frame.original
            )
            if self._write(block):
                self.frames[frame.interface] += 1
            else:
                self.lost[frame.interface] += 1

    def _flush_file(self) -> None:
        self._file.flush()

    def _write(self, block: bytes) -> bool:
        self._size += len(block)
        return self._do(lambda: self._file.write(block))


def _route_source(endpoint: Endpoint) -> bytes:
    """Ask the routing table by connecting a UDP socket, which sends nothing."""
    family = socket.AF_INET6 if len(endpoint.ip) == 16 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((format_address(endpoint.ip), endpoint.port or 9))
            return parse_address(probe.getsockname()[0].partition("%")[0])
    except OSError:
        return bytes(len(endpoint.ip))


def _is_about(event: PacketDropped, frame: _Pending) -> bool:
    if event.endpoint is not None:
        return frame.endpoint == event.endpoint.without_source() and frame.size == event.size
    if event.direction is Direction.EGRESS and frame.interface == INNER:
        return bool(event.head) and frame.data.startswith(event.head)
    return False


class _RecordingPort:
    """A port that tells a recorder; everything else is the port's own."""

    def __init__(self, port: Any, recorder: Recorder) -> None:
        self.__dict__["_port"] = port
        self.__dict__["_recorder"] = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._port, name, value)


class RecordingTun(_RecordingPort):
    """A TUN port whose packets the recorder sees."""

    def read(self, limit: int) -> list[bytes]:
        """As the port."""
        packets: list[bytes] = self._port.read(limit)
        for packet in packets:
            self._recorder.inner(packet)
        return packets

    def write(self, packets: Iterable[Buffer]) -> int:
        """As the port."""
        packets = list(packets)
        for packet in packets:
            self._recorder.inner(packet)
        refused: int = self._port.write(packets)
        return refused

    def read_into(self, views: Sequence[memoryview], large: int) -> list[int]:
        """As the port; the virtio header is left out."""
        sizes: list[int] = self._port.read_into(views, large)
        for view, size in zip(views, sizes, strict=False):
            if size > VNET_SIZE:
                self._recorder.inner(view[VNET_SIZE:size])
        return sizes

    def write_from(self, view: memoryview) -> bool:
        """As the port; the virtio header is left out."""
        self._recorder.inner(view[VNET_SIZE:])
        written: bool = self._port.write_from(view)
        return written


class RecordingUdp(_RecordingPort):
    """A UDP port whose datagrams the recorder sees."""

    def receive(self, limit: int) -> list[Datagram]:
        """As the port."""
        datagrams: list[Datagram] = self._port.receive(limit)
        for data, endpoint in datagrams:
            self._recorder.outer(data, endpoint, self._port.port, sent=False)
        return datagrams

    def send(self, datagrams: Iterable[Datagram]) -> int:
        """As the port."""
        datagrams = list(datagrams)
        for data, endpoint in datagrams:
            self._recorder.outer(data, endpoint, self._port.port, sent=True)
        refused: int = self._port.send(datagrams)
        return refused

    def receive_train(self, fd: int, buffer: bytearray | memoryview) -> Any:
        """As the port."""
        train = self._port.receive_train(fd, buffer)
        if train is not None:
            whole = memoryview(buffer)[: train.size]
            self._train(whole, train.stride, train.endpoint, sent=False)
        return train

    def send_train(self, train: memoryview, stride: int, endpoint: Endpoint) -> int:
        """As the port."""
        self._train(train, stride, endpoint, sent=True)
        refused: int = self._port.send_train(train, stride, endpoint)
        return refused

    def _train(self, whole: memoryview, stride: int, endpoint: Endpoint, *, sent: bool) -> None:
        for start in range(0, len(whole) or 1, stride or 1):  # An empty datagram is one too.
            self._recorder.outer(
                whole[start : start + stride], endpoint, self._port.port, sent=sent
            )


class _RecordedPath:
    """The data path, with the end of each turn told to the recorder."""

    def __init__(self, path: DataPath, recorder: Recorder) -> None:
        self._path = path
        self._recorder = recorder

    def tun_ready(self) -> None:
        self._path.tun_ready()
        self._recorder.end_turn()

    def udp_ready(self, fd: int) -> None:
        self._path.udp_ready(fd)
        self._recorder.end_turn()

    def flush(self) -> None:
        self._path.flush()
        self._recorder.end_turn()


class Recording:
    """A recorder at work on an interface, until `stop`."""

    def __init__(self, interface: Interface, path: Path, *, rotate: int = 0) -> None:
        """Starts at once; raises OSError when the file cannot be made."""
        self._interface = interface
        self.recorder = Recorder(
            path, interface.clock.wall, rotate=rotate, failed=self._failed
        )
        self._running = True
        interface.on_configured.append(self._configured)
        self._configured()
        self._opened: set[int] = set()
        self._under_way: set[PublicKey] = set()
        """Peers whose handshake began before the file: its ephemeral key is in no block."""
        for peer in interface.engine.device.peers.values():
            self._sessions_of(peer)
            if peer.initiation is not None:
                self._under_way.add(peer.public_key)
        self._attach(True)

    def stop(self) -> None:
        """The interface continues as before; the file is complete.  A second call does nothing."""
        if self._running:
            self._running = False
            self._attach(False)
            self._interface.on_configured.remove(self._configured)
            self.recorder.close()

    def _failed(self, error: OSError) -> None:
        """Not here and now, for this is in the middle of a packet's way."""
        self._interface.warn(
            f"the capture in {self.recorder.path} ends here: {error.strerror}; packets go on"
        )
        self._interface.loop.call(self.stop)

    def _attach(self, on: bool) -> None:
        self._interface.log_keys(self.recorder.handshake, on)
        self._interface.listen(self._event, on)
        self._interface.tap(self, on)

    def tun(self, tun: TunPort) -> TunPort:
        """For the interface: the TUN port, with the recorder before it."""
        return cast(TunPort, RecordingTun(tun, self.recorder))

    def udp(self, udp: UdpPort) -> UdpPort:
        """For the interface: the UDP port, with the recorder before it."""
        return cast(UdpPort, RecordingUdp(udp, self.recorder))

    def path(self, path: DataPath) -> DataPath:
        """For the interface: the data path, whose turns the recorder sees end."""
        return _RecordedPath(path, self.recorder)

    def counts(self) -> dict[str, int]:
        """Frames written and lost so far, and sessions that were opened without handshake."""
        recorder = self.recorder
        return {
            "inner": recorder.frames[INNER],
            "outer": recorder.frames[OUTER],
            "lost": sum(recorder.lost),
            "sessions": recorder.sessions,
        }

    def _configured(self) -> None:
        device = self._interface.engine.device
        self.recorder.configured(device.private_key, list(device.peers))

    def _event(self, event: Event) -> None:
        if isinstance(event, PacketDropped):
            self.recorder.dropped(event)
        elif isinstance(event, ResponseReceived) and event.peer in self._under_way:
            self._under_way.discard(event.peer)
            self._sessions_of(self._interface.engine.device.peers.get(event.peer))

    def _sessions_of(self, peer: Peer | None) -> None:
        """Keys of the sessions that `peer` has, whose handshakes the file does not show."""
        public = self._interface.engine.device.public_key
        if peer is None or public is None:
            return
        for session in peer.sessions():
            if session.local_index not in self._opened:
                self._opened.add(session.local_index)
                self.recorder.session(session, public)

"""An eavesdropper on the underlay, independent of everything that it watches.

It listens in the bridge's namespace, which no node controls: on the nodes' own devices
a packet socket sees frames that an nft ingress rule is about to drop, and never those that
an egress rule did.  Every frame is seen once, where it enters the bridge from a node.

The kernel writes frames into a memory-mapped ring (TPACKET_V2), so nothing is lost while
this program is busy elsewhere; should the ring overflow, `PACKET_STATISTICS` says how many
frames were missed and `check` raises: the counts of a sniffer that missed frames are void.

Two independent signs of a leak: the addresses in the clear, outside and inside of whatever
carries them (`classify`), and the bytes of a marker that a test put into its payloads,
wherever in a frame they turn up, which also finds plaintext behind source NAT or inside of
an encapsulation that nobody knows.
"""

from __future__ import annotations

import mmap
import secrets
import socket
import struct
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from testbed.classify import CANARY_TYPE, Classifier, Kind, Packet
from testbed.namespaces import Namespace

SOL_PACKET: Final = 263
PACKET_RX_RING: Final = 5
PACKET_STATISTICS: Final = 6
PACKET_VERSION: Final = 10
PACKET_IGNORE_OUTGOING: Final = 23
TPACKET_V2: Final = 1
ETH_P_ALL: Final = 3
STATUS_USER: Final = 1

FRAME: Final = 2048
"""Bytes of a ring slot; some 1960 of them hold the frame: a whole one, unless it is a jumbo
or was left to the device to cut up."""
SLOTS: Final = 16384
BLOCK: Final = 1 << 17
KEPT: Final = 20_000
"""Records of plaintext kept, the oldest forgotten first; counts go on beyond."""
KEPT_SEALED: Final = 2_000
"""Records of WireGuard frames kept, the first ones."""
LATEST_SEALED: Final = 200
"""And the last ones, in `latest`."""
LATEST_CANARIES: Final = 1024
"""Canaries remembered, in `canaries`; each is `CANARY_SIZE` bytes."""
CANARY_SIZE: Final = 16

_HEADER = struct.Struct("=IIIHHIIHH4xHHiHBB")

_KEEPALIVES: Final = defaultdict(int, {b"\x08\x00": 74, b"\x86\xdd": 94})
"""Size of the frame of an empty data message (32 bytes, §5.4.6), by EtherType."""


class SnifferBlind(Exception):
    """The sniffer missed frames or does not see its own canary: its counts are void."""


@dataclass(frozen=True, slots=True)
class Record:
    """One frame: `at` in ns since 1970, the bridge `port` it came in on, its first bytes."""

    at: int
    port: str
    packet: Packet
    length: int
    head: bytes

    def __str__(self) -> str:
        return f"{self.port}: {self.packet} ({self.length} bytes)"


class Sniffer:
    """Watches one underlay namespace.  A context manager; `ports` maps ifindex to name."""

    def __init__(
        self,
        namespace: Namespace,
        ports: Mapping[int, str],
        classifier: Classifier,
        *,
        slots: int = SLOTS,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        self.counts: Counter[Kind] = Counter()
        self.marked: Counter[bytes] = Counter()
        self.marked_at: Counter[tuple[bytes, str]] = Counter()
        self.frames = 0
        self.missed = 0
        self._sealed = 0
        self.sealed_at: Counter[str] = Counter()
        """Data messages with a packet inside, by port; handshakes and keepalives do not count."""
        self.latest: deque[Record] = deque(maxlen=LATEST_SEALED)
        self.records: deque[Record] = deque(maxlen=KEPT)
        self.canaries: deque[bytes] = deque(maxlen=LATEST_CANARIES)
        self._ports = dict(ports)
        self._classifier = classifier
        self._on_record = on_record
        self._known: dict[bytes, Packet] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._slots = slots
        self._next = 0
        self._socket = namespace.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)
        )
        self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        blocks = slots * FRAME // BLOCK
        request = struct.pack("=IIII", BLOCK, blocks, FRAME, slots)
        self._socket.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        self._ring = mmap.mmap(self._socket.fileno(), blocks * BLOCK)
        self._view = memoryview(self._ring)

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, interval: float = 0.05) -> Sniffer:
        """Drain from a separate thread from now on; for loads and long observations."""

        def work() -> None:
            while not self._stop.wait(interval):
                self.drain()

        self._thread = threading.Thread(target=work, name="sniffer", daemon=True)
        self._thread.start()
        return self

    def drain(self) -> None:
        """Read what the kernel has written so far."""
        with self._lock:
            while self._take_one():
                pass
            _seen, dropped = struct.unpack(
                "=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
            )
            self.missed += dropped

    def _take_one(self) -> bool:
        at = self._next * FRAME
        status, length, captured, mac, _net, sec, nsec, _tci, _tpid, _family, _protocol, index, (
            _hatype), _pkttype, _halen = _HEADER.unpack_from(self._view, at)  # fmt: skip
        if not status & STATUS_USER:
            return False
        port = self._ports.get(index)
        if port is not None:
            frame = bytes(self._view[at + mac : at + mac + captured])
            self._account(frame, length, port, sec * 1_000_000_000 + nsec)
        struct.pack_into("=I", self._view, at, 0)
        self._next = (self._next + 1) % self._slots
        return True

    def _account(self, frame: bytes, length: int, port: str, at: int) -> None:
        self.frames += 1
        packet = self._classify(frame, length)
        self.counts[packet.kind] += 1
        if packet.kind is Kind.CANARY:
            self.canaries.append(frame[14 : 14 + CANARY_SIZE])
            return
        for marker in self.marked:
            if times := frame.count(marker):
                self.marked[marker] += times
                self.marked_at[marker, port] += times
        if packet.kind is Kind.WIREGUARD:
            self._sealed += 1
            if packet.detail == "data" and length > _KEEPALIVES[frame[12:14]]:
                self.sealed_at[port] += 1
            self.latest.append(Record(at, port, packet, length, frame))
            if self._sealed > KEPT_SEALED and self._on_record is None:
                return
        record = Record(at, port, packet, length, frame)
        self.records.append(record)
        if self._on_record is not None:
            self._on_record(record)

    def _classify(self, frame: bytes, length: int) -> Packet:
        """With a cache for data messages, of which there are hundreds of thousands."""
        if frame[12:14] == b"\x08\x00" and frame[14] == 0x45 and frame[42:46] == b"\4\0\0\0" and (
            length >= 74
        ):
            key = frame[20:24] + frame[26:38]
            known = self._known.get(key)
            if known is None:
                known = self._classifier.classify(frame, length)
                if len(self._known) < 4096:
                    self._known[key] = known
            return known
        return self._classifier.classify(frame, length)

    def look_for(self, marker: bytes) -> None:
        """Count where these bytes appear: in `marked`, and by bridge port in `marked_at`."""
        if len(marker) < 8:
            raise ValueError("a marker needs at least 8 bytes, or chance would find it")
        with self._lock:
            self.marked.setdefault(marker, 0)

    def forget(self, marker: bytes) -> None:
        """Stop looking for a marker."""
        with self._lock:
            del self.marked[marker]

    def count(self, *kinds: Kind) -> int:
        """Frames of these kinds so far (drained now)."""
        self.drain()
        return sum(self.counts[kind] for kind in kinds)

    def plaintext(self, *kinds: Kind) -> list[Record]:
        """The kept records of these kinds, `POD_TO_POD` when none is named."""
        self.drain()
        wanted = kinds or (Kind.POD_TO_POD,)
        return [record for record in list(self.records) if record.packet.kind in wanted]

    def check(self) -> None:
        """Raise `SnifferBlind` when frames were missed."""
        self.drain()
        if self.missed:
            raise SnifferBlind(f"{self.missed} of {self.frames + self.missed} frames were missed")

    def settle(self, senders: Iterable[tuple[Namespace, str]], seconds: float = 10) -> None:
        """Until a canary from each of `senders` (namespace and device) has been seen.

        Whatever those nodes put on the wire before is then counted.  Raises `SnifferBlind`.
        """
        waiting = send_canaries(senders)
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            if waiting <= set(self.canaries):
                return
            if time.monotonic() > deadline:
                raise SnifferBlind("the sniffer does not see its own canary")
            time.sleep(0.005)

    def close(self) -> None:
        """Stop and free the ring."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._view.release()
            self._ring.close()
            self._socket.close()


def send_canaries(senders: Iterable[tuple[Namespace, str]]) -> set[bytes]:
    """A canary from each of `senders`.  Raises `SnifferBlind` when there is none to send from."""
    sent = set()
    for namespace, device in senders:
        canary = secrets.token_bytes(CANARY_SIZE)
        sent.add(canary)
        send_frame(namespace, device, canary_frame(canary))
    if not sent:
        raise SnifferBlind("no node has a device that is up: nothing proves that it hears")
    return sent


def canary_frame(canary: bytes) -> bytes:
    """A broadcast frame of an EtherType that nothing else here uses."""
    return b"\xff" * 6 + b"\x02canry" + struct.pack("!H", CANARY_TYPE) + canary.ljust(46, b"\0")


def send_frame(namespace: Namespace, device: str, frame: bytes) -> None:
    """Put a raw frame on a device of the namespace."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((device, 0))
        wire.send(frame)

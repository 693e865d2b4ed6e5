"""pcapng, written and read: the blocks a WireGuard capture needs.

Section header, interface description, enhanced and simple packets with comments,
interface statistics, and the Decryption Secrets Block of type 0x57474b4c that holds a
WireGuard key log, so that the file opens decrypted.  Unknown blocks are skipped.
Written files are little-endian with nanosecond timestamps.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from wgpy.capture.frames import CaptureError, Frame, Secrets

SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION = 1
_OLD_PACKET = 2
SIMPLE_PACKET = 3
INTERFACE_STATISTICS = 5
ENHANCED_PACKET = 6
DECRYPTION_SECRETS = 10
WIREGUARD_KEY_LOG = 0x57474B4C
BYTE_ORDER_MAGIC = 0x1A2B3C4D

_OPT_COMMENT = 1
_OPT_HARDWARE, _OPT_APPLICATION = 2, 4
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL, _IF_TSOFFSET = 2, 3, 9, 14
_ISB_RECEIVED, _ISB_DROPPED = 4, 5
_NANOSECONDS = 9
_MAX_BLOCK = 1 << 26
_MAX_INTERFACES = 1 << 16

Options = Iterable[tuple[int, bytes]]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _options(pairs: Options) -> bytes:
    out = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in pairs)
    return out + bytes(4) if out else b""


def block(kind: int, body: bytes) -> bytes:
    """One block with its lengths."""
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def section_header(application: str, comment: str = "") -> bytes:
    """The first block of a file."""
    pairs = [(_OPT_APPLICATION, application.encode())]
    if comment:
        pairs.insert(0, (_OPT_COMMENT, comment.encode()))
    return block(SECTION_HEADER, struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1) + _options(pairs))


def interface(link_type: int, name: str, description: str) -> bytes:
    """An interface; they count from 0 in the order of their blocks."""
    pairs = [
        (_IF_NAME, name.encode()),
        (_IF_DESCRIPTION, description.encode()),
        (_IF_TSRESOL, bytes([_NANOSECONDS])),
    ]
    return block(INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, 0) + _options(pairs))


def secrets(key_log: str) -> bytes:
    """Keys for the packets that follow."""
    data = key_log.encode("ascii")
    return block(
        DECRYPTION_SECRETS, struct.pack("<II", WIREGUARD_KEY_LOG, len(data)) + _padded(data)
    )


def packet(
    interface_id: int,
    at: int,
    data: bytes,
    comments: Iterable[str] = (),
    *,
    size: int | None = None,
) -> bytes:
    """A packet at wall-clock ns `at`; `size` where `data` is only its beginning."""
    original = len(data) if size is None else size
    head = struct.pack("<IIIII", interface_id, at >> 32, at & 0xFFFFFFFF, len(data), original)
    pairs = [(_OPT_COMMENT, comment.encode()) for comment in comments]
    return block(ENHANCED_PACKET, head + _padded(data) + _options(pairs))


def statistics(interface_id: int, at: int, received: int, dropped: int) -> bytes:
    """How many packets an interface saw and how many of them the capture lost."""
    pairs = [
        (_ISB_RECEIVED, struct.pack("<Q", received)),
        (_ISB_DROPPED, struct.pack("<Q", dropped)),
    ]
    head = struct.pack("<III", interface_id, at >> 32, at & 0xFFFFFFFF)
    return block(INTERFACE_STATISTICS, head + _options(pairs))


# --- reading ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Interface:
    link_type: int
    snap_length: int
    units: int  # timestamp units per second
    offset: int  # ns to add to timestamps


class _Reader:
    """State of one section: byte order and interfaces."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._number = 0
        self._offset = 0

    def _fail(self, problem: str) -> CaptureError:
        return CaptureError(f"{self._name}: byte {self._offset}: {problem}")

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Type and body of each block; a cut last block ends the file with an error."""
        read = self._file.read
        while head := read(8):
            if len(head) < 8:
                raise self._fail("the file ends inside a block header: it was cut off")
            kind = struct.unpack(self._order + "I", head[:4])[0]
            if kind == SECTION_HEADER:
                magic = read(4)
                self._order = "<" if magic == struct.pack("<I", BYTE_ORDER_MAGIC) else ">"
                if magic != struct.pack(self._order + "I", BYTE_ORDER_MAGIC):
                    raise self._fail("bad byte-order magic: not a pcapng section")
                self._interfaces.clear()
            else:
                magic = b""
            size = struct.unpack(self._order + "I", head[4:])[0]
            if size % 4 or not 12 + len(magic) <= size <= _MAX_BLOCK:
                raise self._fail(f"impossible block length {size}")
            rest = magic + read(size - 8 - len(magic))
            if len(rest) != size - 8:
                raise self._fail("the file ends inside a block: it was cut off")
            yield kind, rest[:-4]
            self._offset += size

    def records(self) -> Iterator[Frame | Secrets]:
        """Packets and secrets, in the order of the file."""
        for kind, body in self.blocks():
            try:
                record = self._record(kind, body)
            except (struct.error, IndexError) as error:
                raise self._fail("a block is shorter than its fields") from error
            if record is not None:
                yield record

    def _record(self, kind: int, body: bytes) -> Frame | Secrets | None:
        if kind == INTERFACE_DESCRIPTION:
            self._add_interface(body)
        elif kind == ENHANCED_PACKET:
            return self._enhanced(body)
        elif kind == SIMPLE_PACKET:
            return self._simple(body)
        elif kind == _OLD_PACKET:
            # As the enhanced one, but for two bytes that count drops.
            number = struct.unpack_from(self._order + "H", body)[0]
            return self._enhanced(struct.pack(self._order + "I", number) + body[4:])
        elif kind == DECRYPTION_SECRETS:
            secret_type, size = struct.unpack_from(self._order + "II", body)
            if secret_type == WIREGUARD_KEY_LOG:
                return Secrets(body[8 : 8 + size].decode("ascii", "replace"))
        return None

    def _add_interface(self, body: bytes) -> None:
        link_type, _, snap_length = struct.unpack_from(self._order + "HHI", body)
        units, offset = 10**6, 0
        for code, value in self._read_options(body[8:]):
            if code == _IF_TSRESOL:
                units = 2 ** (value[0] & 127) if value[0] & 128 else 10 ** value[0]
            elif code == _IF_TSOFFSET:
                offset = struct.unpack(self._order + "q", value)[0]
        if len(self._interfaces) >= _MAX_INTERFACES:
            raise self._fail(f"more than {_MAX_INTERFACES} interfaces")
        self._interfaces.append(_Interface(link_type, snap_length, units, offset * 10**9))

    def _interface(self, number: int) -> _Interface:
        if number >= len(self._interfaces):
            raise self._fail(f"packet on interface {number}, which no block describes")
        return self._interfaces[number]

    def _enhanced(self, body: bytes) -> Frame:
        number, high, low, captured, original = struct.unpack_from(self._order + "IIIII", body)
        described = self._interface(number)
        if captured > len(body) - 20:
            raise self._fail("a packet is longer than its block")
        self._number += 1
        end = 20 + (captured + 3) // 4 * 4
        options = self._read_options(body[end:]) if len(body) > end else []
        return Frame(
            self._number,
            (high << 32 | low) * 10**9 // described.units + described.offset,
            described.link_type,
            body[20 : 20 + captured],
            original,
            number,
            tuple(v.decode("utf-8", "replace") for c, v in options if c == _OPT_COMMENT),
        )

    def _simple(self, body: bytes) -> Frame:
        described = self._interface(0)
        (original,) = struct.unpack_from(self._order + "I", body)
        captured = min(original, described.snap_length or original)
        self._number += 1
        return Frame(
            number=self._number, at=0, link_type=described.link_type,
            data=body[4 : 4 + captured], original_size=original,
        )  # fmt: skip

    def _read_options(self, data: bytes) -> list[tuple[int, bytes]]:
        found, place = [], 0
        while place + 4 <= len(data):
            code, size = struct.unpack_from(self._order + "HH", data, place)
            if code == 0:
                break
            found.append((code, data[place + 4 : place + 4 + size]))
            place += 4 + (size + 3) // 4 * 4
        return found


def read(file: IO[bytes], name: str) -> Iterator[Frame | Secrets]:
    """Frames and secrets of a pcapng file; raises `CaptureError` naming the byte."""
    return _Reader(file, name).records()

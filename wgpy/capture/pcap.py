"""Reading captures: classic pcap here, pcapng in `pcapng`, whichever the file is."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from wgpy import secret_files
from wgpy.capture import pcapng
from wgpy.capture.frames import CaptureError, Frame, Secrets

# Magic number as read little-endian → (byte order, ns per fraction).
_MAGICS = {
    0xA1B2C3D4: ("<", 1_000),
    0xD4C3B2A1: (">", 1_000),
    0xA1B23C4D: ("<", 1),
    0x4D3CB2A1: (">", 1),
}
_MAX_FRAME = 1 << 26
_BUFFER = 1 << 18
LINKTYPE_MASK = 0x0FFFFFFF


class _Unpacked(io.RawIOBase):
    """A gzip stream, read as far as it goes: `GzipFile.read` throws away what precedes an error."""

    def __init__(self, file: Any) -> None:
        self._file = gzip.GzipFile(fileobj=file, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Capture:
    """A file to be read once, from its beginning: pcap or pcapng, plain or gzip.

    ``-`` is the standard input.  Raises `CaptureError`, also when what is whole was given.
    """

    def __init__(self, path: Path) -> None:
        self._name = "standard input" if str(path) == "-" else str(path)
        try:
            self._raw = open(0 if str(path) == "-" else path, "rb", buffering=0)  # noqa: SIM115, PTH123
            status = os.fstat(self._raw.fileno())
        except OSError as error:
            raise CaptureError(f"{self._name}: {error.strerror}") from error
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else 0

    @property
    def progress(self) -> float | None:
        """The part of the file that was read, 0 to 1; None for a pipe or an empty file."""
        return self._raw.tell() / self._size if self._size else None

    def records(self) -> Iterator[Frame | Secrets]:
        """Frames and secrets, in the order of the file; closes it at the end."""
        with self._raw:
            try:
                yield from self._records()
            except EOFError as error:
                raise CaptureError(f"{self._name}: the gzip file was cut off") from error
            except zlib.error as error:
                raise CaptureError(f"{self._name}: the gzip file is damaged") from error
            except OSError as error:
                raise CaptureError(f"{self._name}: {error.strerror or error}") from error

    def _records(self) -> Iterator[Frame | Secrets]:
        # `peek` gives what one read gives, and every writer writes a whole header at once.
        file: Any = io.BufferedReader(self._raw, _BUFFER)
        if file.peek(2)[:2] == b"\x1f\x8b":
            file = io.BufferedReader(_Unpacked(file), _BUFFER)
        if file.peek(4)[:4] == struct.pack("<I", pcapng.SECTION_HEADER):
            yield from pcapng.read(file, self._name)
        else:
            yield from _read_pcap(file, self._name)


def read_capture(path: Path) -> Iterator[Frame | Secrets]:
    """Frames and secrets of a pcap or pcapng file; raises `CaptureError`."""
    yield from Capture(path).records()


def _read_pcap(file: IO[bytes], name: str) -> Iterator[Frame]:
    header = file.read(24)
    known = _MAGICS.get(int.from_bytes(header[:4], "little")) if len(header) == 24 else None
    if known is None:
        raise CaptureError(
            f"{name}: neither pcap nor pcapng (`tshark -r FILE -w OUT.pcapng` converts others)"
        )
    order, fraction = known
    link_type = struct.unpack(order + "I", header[20:])[0] & LINKTYPE_MASK
    record = struct.Struct(order + "IIII")
    number, read = 0, file.read
    while head := read(16):
        number += 1
        if len(head) < 16:
            raise CaptureError(f"{name}: frame {number}: the file ends inside a header: cut off")
        seconds, parts, captured, original = record.unpack(head)
        if captured > _MAX_FRAME:
            raise CaptureError(f"{name}: frame {number}: impossible length {captured}")
        data = read(captured)
        if len(data) < captured:
            raise CaptureError(f"{name}: frame {number}: the file ends inside the frame: cut off")
        yield Frame(number, seconds * 10**9 + parts * fraction, link_type, data, original)


class PcapWriter:
    """A pcap file with nanoseconds that only its owner can read: it may hold plaintext.

    Raises OSError.
    """

    def __init__(self, path: Path, link_type: int) -> None:
        self._file = os.fdopen(secret_files.create(path), "wb")
        self._file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, link_type))

    def write(self, at: int, data: bytes) -> None:
        """One packet at `at` ns since 1970."""
        seconds, rest = divmod(at, 10**9)
        head = struct.pack("<IIII", seconds & 0xFFFFFFFF, rest, len(data), len(data))
        self._file.write(head + data)

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self._file.close()


def write_pcap(path: Path, link_type: int, packets: list[tuple[int, bytes]]) -> None:
    """Write (ns since 1970, bytes) packets as `PcapWriter` does."""
    writer = PcapWriter(path, link_type)
    for at, data in packets:
        writer.write(at, data)
    writer.close()

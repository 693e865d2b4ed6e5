"""Reading captures: classic pcap here, pcapng in `pcapng`, whichever the file is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

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
LINKTYPE_MASK = 0x0FFFFFFF


def read_capture(path: Path) -> Iterator[Frame | Secrets]:
    """Frames and secrets of a pcap or pcapng file; raises `CaptureError`."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == struct.pack("<I", pcapng.SECTION_HEADER):
                yield from pcapng.read(file, str(path))
            else:
                yield from _read_pcap(file, str(path))
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error


def _read_pcap(file: IO[bytes], name: str) -> Iterator[Frame]:
    header = file.read(24)
    known = _MAGICS.get(int.from_bytes(header[:4], "little")) if len(header) == 24 else None
    if known is None:
        raise CaptureError(f"{name}: neither pcap nor pcapng")
    order, fraction = known
    link_type = struct.unpack(order + "I", header[20:])[0] & LINKTYPE_MASK
    number = 0
    while head := file.read(16):
        number += 1
        if len(head) < 16:
            raise CaptureError(f"{name}: frame {number}: the file ends inside a header")
        seconds, parts, captured, original = struct.unpack(order + "IIII", head)
        if captured > _MAX_FRAME:
            raise CaptureError(f"{name}: frame {number}: impossible length {captured}")
        data = file.read(captured)
        if len(data) < captured:
            raise CaptureError(f"{name}: frame {number}: the file ends inside the frame")
        yield Frame(number, seconds * 10**9 + parts * fraction, link_type, data, original)


def write_pcap(path: Path, link_type: int, packets: list[tuple[int, bytes]]) -> None:
    """Write (ns since 1970, bytes) packets as pcap with nanoseconds."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, link_type))
        for at, data in packets:
            seconds, rest = divmod(at, 10**9)
            file.write(struct.pack("<IIII", seconds, rest, len(data), len(data)) + data)

"""Classic pcap files with nanosecond times: the one format that every tool opens."""

from __future__ import annotations

import struct
from pathlib import Path
from types import TracebackType
from typing import Final

MAGIC_NANOSECONDS: Final = 0xA1B23C4D
ETHERNET: Final = 1


class PcapWriter:
    """Writes frames, whole or cut short; a context manager."""

    def __init__(self, path: Path, *, snap: int = 65535) -> None:
        self._file = path.open("wb")
        header = struct.pack("=IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, snap, ETHERNET)
        self._file.write(header)

    def __enter__(self) -> PcapWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, at: int, frame: bytes, length: int) -> None:
        """A frame seen at `at` (ns since 1970), `length` bytes long on the wire."""
        seconds, fraction = divmod(at, 1_000_000_000)
        self._file.write(struct.pack("=IIII", seconds, fraction, len(frame), length) + frame)

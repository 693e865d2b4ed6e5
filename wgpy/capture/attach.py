"""What `wireguard-py` attaches to its interface on request: a key log, a capture.

Each function tries its file at once (raising OSError) and returns what is to be called
with the running interface; that in turn returns what to call at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from wgpy import secret_files
from wgpy.capture.keylog import KeyLogFile
from wgpy.capture.record import Recording
from wgpy.dataplane.interface import Interface
from wgpy.protocol.device import HandshakeKeys

Attachment = Callable[[Interface], Callable[[], None]]


def key_log(path: str, report: Callable[[str], None]) -> Attachment:
    """Append the keys of every handshake to `path` (mode 0600).

    The first that cannot be written ends the log; `report` is told then, and at the end
    how many were lost.  Packets go on.
    """
    target = Path(path).absolute()
    file = KeyLogFile(target)

    def attach(interface: Interface) -> Callable[[], None]:
        lost = 0

        def write(keys: HandshakeKeys) -> None:
            nonlocal lost
            if not lost:
                try:
                    file(keys)
                    return
                except OSError as error:
                    report(f"the key log {target} ends here: {error.strerror}; packets go on")
            lost += 1

        interface.log_keys(write)

        def stop() -> None:
            interface.log_keys(write, on=False)
            file.close()
            if lost:
                report(f"the key log {target} lost {lost} handshakes")

        return stop

    return attach


def capture(path: str, rotate: int, report: Callable[[str], None]) -> Attachment:
    """Record to `path`; `report` is told at the end if frames were lost."""
    target = Path(path).absolute()
    os.close(secret_files.create(target, append=True))

    def attach(interface: Interface) -> Callable[[], None]:
        recording = Recording(interface, target, rotate=rotate)

        def stop() -> None:
            recording.stop()
            if lost := recording.counts()["lost"]:
                report(f"the capture in {target} lost {lost} frames")

        return stop

    return attach

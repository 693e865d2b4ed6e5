"""Files with secrets are their owner's alone, and one that is not is told of."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.tunnel import key_pair
from wgpy import secret_files
from wgpy.capture import attach
from wgpy.capture.keylog import KeyLogFile
from wgpy.capture.link import RAW
from wgpy.capture.pcap import PcapWriter
from wgpy.capture.record import Recorder

WRITERS: dict[str, Callable[[Path], object]] = {
    "capture": lambda path: Recorder(path, lambda: 0).close(),
    "capture from the start": lambda path: attach.capture(str(path), 0, print),
    "key log": lambda path: KeyLogFile(path).close(),
    "plaintext": lambda path: PcapWriter(path, RAW).close(),
}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("before", [None, 0o644])
def test_what_is_written_is_the_owners(
    tmp_path: Path, write: Callable[[Path], object], before: int | None
) -> None:
    path = tmp_path / "secret"
    if before is not None:
        path.touch()
        path.chmod(before)
    old = os.umask(0)
    try:
        write(path)
    finally:
        os.umask(old)
    assert mode(path) == 0o600


def test_a_file_is_emptied_or_continued(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for append, expected in ((False, b"new"), (True, b"newnew")):
        with os.fdopen(secret_files.create(path, append=append), "wb") as file:
            file.write(b"new")
        assert path.read_bytes() == expected


def test_a_device_or_a_pipe_keeps_its_mode(tmp_path: Path) -> None:
    """`--pcap /dev/null` as root must not take /dev/null from everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o666)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.close(secret_files.create(pipe))
    os.close(reader)
    assert mode(pipe) == 0o666


@pytest.mark.parametrize("command", ["config check", "ping", "decrypt --keylog"])
@pytest.mark.parametrize("exposed", [True, False])
def test_a_secret_that_everybody_can_read_is_told_of(
    run: Callable[..., Result], tmp_path: Path, command: str, exposed: bool
) -> None:
    path = tmp_path / "wg0.conf"
    private, public = key_pair()
    path.write_text(f"[Interface]\nPrivateKey = {private}\n[Peer]\nPublicKey = {public}\n")
    if "keylog" in command:
        path.write_text(f"LOCAL_STATIC_PRIVATE_KEY = {private}\n")
    path.chmod(0o644 if exposed else 0o640)
    capture = tmp_path / "empty.pcap"
    PcapWriter(capture, RAW).close()
    words = [*command.split(), str(path), *([str(capture)] if "keylog" in command else [])]
    said = run(*words).stderr
    warning = f"warning: {path} is accessible to everybody (`chmod 600 {path}`)"
    assert (warning in said) == exposed
    assert private not in said

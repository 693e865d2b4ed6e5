"""The node's private key in a file that only its owner can read.

A new key is written beside, synced, and takes its name last: a full disk or a crash leaves
no file that would stand in the way of the next start.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from wgpy import typed
from wgpy.protocol.keys import KeyFormatError, PrivateKey


def read_or_make_key(path: Path) -> PrivateKey:
    """The key in the file, a new one if there is no file; raises like `read_key`."""
    try:
        return read_key(path)
    except FileNotFoundError:
        return _make(path)


def read_key(path: Path) -> PrivateKey:
    """The key in the file (base64); OSError, or ValueError, which never shows the content.

    A file that others may read or write is refused: its key is not a secret any more.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        content = file.read(256)
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ValueError(
            f"{path}: mode {stat.S_IMODE(status.st_mode):04o} lets others at the private key:"
            f" `chmod 600 {path}`, and make a new key if somebody may have read it"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise ValueError(f"{path}: belongs to user {status.st_uid}, who knows the private key:"
                         f" `chown root {path}`")  # fmt: skip
    try:
        key = PrivateKey.from_base64(content.decode("ascii").strip())
    except (UnicodeDecodeError, KeyFormatError):
        raise ValueError(
            f"{path}: not a private key (44 base64 characters): {_how_to_make_one()}"
        ) from None
    if key.is_zero:
        raise ValueError(f"{path}: the all-zero key is not valid: {_how_to_make_one()}")
    return key


def _how_to_make_one() -> str:
    return f"make one with `{typed.wgpy('genkey')}`"


def _make(path: Path) -> PrivateKey:
    key = PrivateKey.clamp(secrets.token_bytes(32))
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key.base64 + "\n")
            file.flush()
            os.fsync(descriptor)
        # Not `rename`, which would replace a key that somebody else made meanwhile.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(beside)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return read_key(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

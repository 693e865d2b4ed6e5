"""The node's private key in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
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
    """The key in the file (base64); ValueError (without showing the content) or OSError."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        text = ""
    try:
        key = PrivateKey.from_base64(text)
    except KeyFormatError:
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
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.base64 + "\n")
    return key

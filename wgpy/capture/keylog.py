"""Wireshark's WireGuard key log: text lines that open captured handshakes.

    LOCAL_STATIC_PRIVATE_KEY = <base64>
    REMOTE_STATIC_PUBLIC_KEY = <base64>
    LOCAL_EPHEMERAL_PRIVATE_KEY = <base64>
    PRESHARED_KEY = <base64>

Order matters: a line belongs to the ones before it.  The same text is the content of a
pcapng Decryption Secrets Block.  Everything here is secret.

One line is specific to wgpy.  It decrypts the data of a session without its handshake:

    TRANSPORT_KEY = 0x<receiver index, 8 hex digits> <key, base64> [<sender, base64>]

It opens data messages with that receiver index: one direction of one session, so a session
has two lines.  The sender's public key is optional.  Its order does not matter, and
Wireshark skips it (tests/capture checks that, in a file and in a block).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wgpy import secret_files
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.device import HandshakeKeys
from wgpy.protocol.keys import (
    Key,
    KeyFormatError,
    PresharedKey,
    PrivateKey,
    PublicKey,
    SecretKey,
)
from wgpy.protocol.noise import TransportKeys

ENVIRONMENT = "WGPY_KEYLOG"
"""Environment variable that names a key log file to write, as SSLKEYLOGFILE does for TLS."""

_NAMES = (
    "LOCAL_STATIC_PRIVATE_KEY",
    "REMOTE_STATIC_PUBLIC_KEY",
    "LOCAL_EPHEMERAL_PRIVATE_KEY",
    "PRESHARED_KEY",
    "TRANSPORT_KEY",
)
_INDEX = re.compile(r"0x[0-9a-fA-F]{1,8}")


class KeyLogError(ValueError):
    """A line that is not a key log line; the message names the line, never a key."""


class TransportKey(NamedTuple):
    """The key of one direction of a session, and who sends on it where that is known."""

    key: SecretKey
    sender: PublicKey | None


def _line(name: str, key: bytes) -> str:
    return f"{name} = {Key(key).base64}\n"


def format_handshake(keys: HandshakeKeys) -> str:
    """The lines that open one handshake."""
    text = _line("LOCAL_STATIC_PRIVATE_KEY", keys.static_private)
    text += _line("REMOTE_STATIC_PUBLIC_KEY", keys.remote_static)
    text += _line("LOCAL_EPHEMERAL_PRIVATE_KEY", keys.ephemeral_private)
    if any(keys.preshared_key):
        text += _line("PRESHARED_KEY", keys.preshared_key)
    return text


def format_statics(private: bytes, publics: Iterable[bytes]) -> str:
    """The lines that open initiations to `private` and name their senders."""
    text = _line("LOCAL_STATIC_PRIVATE_KEY", private)
    return text + "".join(_line("REMOTE_STATIC_PUBLIC_KEY", public) for public in publics)


def format_session(
    keys: TransportKeys,
    *,
    local_index: int,
    remote_index: int,
    local_static: bytes,
    remote_static: bytes,
) -> str:
    """The lines that open a session which is already established, both directions.

    `keys` are from the local side.  A message carries its *receiver's* index: what we receive
    has `local_index`, what we send has `remote_index` (§5.4.6).
    """
    received = (local_index, keys.receive, remote_static)
    sent = (remote_index, keys.send, local_static)
    return "".join(
        f"TRANSPORT_KEY = 0x{index:08x} {Key(key).base64} {Key(sender).base64}\n"
        for index, key, sender in (received, sent)
    )


@dataclass(slots=True)
class Keys:
    """What is known: private keys by their public key, and names of peers.

    `preshared` are tried in order; no preshared key is always tried as well.
    `transport` are keys by receiver index; an index that was used twice has several.
    """

    crypto: Crypto
    statics: dict[bytes, PrivateKey] = field(default_factory=dict, repr=False)
    ephemerals: dict[bytes, PrivateKey] = field(default_factory=dict, repr=False)
    preshared: list[PresharedKey] = field(default_factory=list, repr=False)
    publics: dict[bytes, PublicKey] = field(default_factory=dict)
    transport: dict[int, list[TransportKey]] = field(default_factory=dict, repr=False)

    def read(self, text: str, name: str = "key log") -> None:
        """Add a key log's keys; raises `KeyLogError` and adds nothing of the bad line."""
        for number, line in enumerate(text.splitlines(), 1):
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            kind, equals, value = (part.strip() for part in stripped.partition("="))
            if not equals or kind not in _NAMES:
                raise KeyLogError(
                    f"{name}: line {number}: not a key log line; expected NAME = KEY with NAME"
                    f" one of {', '.join(_NAMES)}"
                )
            try:
                if kind == "TRANSPORT_KEY":
                    self._add_transport(value)
                else:
                    self._add(kind, value)
            except KeyFormatError as error:
                raise KeyLogError(f"{name}: line {number}: {kind}: {error}") from error

    def _add(self, kind: str, value: str) -> None:
        if kind == "REMOTE_STATIC_PUBLIC_KEY":
            public = PublicKey.from_base64(value)
            self.publics[public] = public
        elif kind == "PRESHARED_KEY":
            preshared = PresharedKey.from_base64(value)
            if preshared not in self.preshared:
                self.preshared.append(preshared)
        else:
            private = PrivateKey.from_base64(value)
            public = PublicKey(self.crypto.public_key(private))
            if kind == "LOCAL_STATIC_PRIVATE_KEY":
                self.statics[public] = private
                self.publics[public] = public
            else:
                self.ephemerals[public] = private

    def _add_transport(self, value: str) -> None:
        index, *texts = value.split() or [""]
        if not _INDEX.fullmatch(index) or not 1 <= len(texts) <= 2:
            raise KeyFormatError(
                "expected 0xINDEX KEY [SENDER]: the receiver index in hex, the key and the"
                " sender's public key in base64"
            )
        sender = PublicKey.from_base64(texts[1]) if len(texts) == 2 else None
        found = TransportKey(SecretKey.from_base64(texts[0]), sender)
        known = self.transport.setdefault(int(index, 16), [])
        if found not in known:
            known.append(found)


class KeyLogFile:
    """Appends handshakes to a file that only its owner can read (mode 0600)."""

    def __init__(self, path: Path) -> None:
        self._descriptor = secret_files.create(path, append=True)

    def __call__(self, keys: HandshakeKeys) -> None:
        """An engine's `keylog`; raises OSError when the file takes no more."""
        text = format_handshake(keys).encode("ascii")
        if os.write(self._descriptor, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

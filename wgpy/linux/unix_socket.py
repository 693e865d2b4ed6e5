"""A listening unix socket that only root can reach: its life cycle, not its protocol.

Mode 0600 from the first moment, a stale one (nobody answers) replaced, a live one
refused, removed at the end if it still is ours.  Who connects must be root or our own user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wgpy.control.accept import LIMITS

_CREDENTIALS: Final = struct.Struct("=iII")
"""struct ucred: process, user, group."""

BACKLOG: Final = 64
"""Clients that may wait to be accepted."""


class SocketInUse(Exception):
    """Another process answers on the socket."""


class UnixListener:
    """A listening unix socket at `path` that only root can reach."""

    def __init__(self, path: Path) -> None:
        """Raises `SocketInUse`, or OSError (no permission)."""
        self.path = path
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with _locked(path.parent):
                self._take_place()
                self._identity = _identity(path)
        except BaseException:
            self.socket.close()
            raise

    def fileno(self) -> int:
        """Readable when a client waits."""
        return self.socket.fileno()

    def accept(self) -> socket.socket | None:
        """The next client, non-blocking; None when it is gone, there is none, or not allowed.

        Raises OSError where we may open nothing more (`wgpy.control.accept.LIMITS`).
        """
        try:
            client, _ = self.socket.accept()
        except OSError as error:
            if error.errno in LIMITS:
                raise
            return None
        if not _is_trusted(client):
            client.close()
            return None
        client.setblocking(False)
        return client

    @property
    def in_place(self) -> bool:
        """Whether `path` still is this socket, neither removed nor replaced."""
        return _identity(self.path) == self._identity

    def close(self) -> None:
        """Stop listening and remove the file, if it still is this socket's."""
        if self.in_place:
            self.path.unlink(missing_ok=True)
        self.socket.close()

    def _take_place(self) -> None:
        """Listen under another name, then take the place of a stale socket in one step.

        A socket between `bind` and `listen` looks stale: `wg` would remove it.
        """
        hidden = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        old_mask = os.umask(0o177)
        try:
            self.socket.bind(str(hidden))
        finally:
            os.umask(old_mask)
        try:
            self.socket.listen(BACKLOG)
            if self.path.exists():
                _refuse_live(self.path)
            hidden.rename(self.path)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise


def _is_trusted(client: socket.socket) -> bool:
    """Whether root or our own user connected, whatever the file's mode is by now."""
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(found)
    return user in (0, os.geteuid())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One at a time: two starts must not both find the other's socket stale."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _refuse_live(path: Path) -> None:
    """Raise `SocketInUse` if somebody answers; a socket that nobody answers on is stale."""
    if not path.is_socket():
        raise FileExistsError(errno.EEXIST, "a file that is not a socket is in the way", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            # EAGAIN: somebody listens, with a full backlog.  Anything else is not a socket.
            if error.errno != errno.EAGAIN:
                raise
        raise SocketInUse(f"{path} is in use: another process serves this interface")

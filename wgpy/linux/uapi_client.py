"""Talking to the UAPI sockets of running interfaces, ours and other implementations'."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import replace
from typing import Final

from wgpy import sockets, typed
from wgpy.linux.ports import describe_use
from wgpy.protocol.crypto import backend
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.settings import DeviceChange, DeviceSnapshot
from wgpy.sockets import InterfaceError, socket_path
from wgpy.uapi import (
    GET,
    GET_EXTENDED,
    MAX_REQUEST_SIZE,
    UapiError,
    format_set,
    parse_get,
    parse_set_reply,
)

TIMEOUT: Final = 30.0
"""Seconds to wait for an answer: a device with 100,000 allowed IPs needs some."""


class DeviceUnreachable(InterfaceError):
    """The interface has no socket, or nobody answers at it."""


def interfaces() -> list[str]:
    """Names of the interfaces whose socket somebody listens at; raises `DeviceUnreachable`."""
    try:
        return sockets.answering()
    except PermissionError as error:
        text = f"{sockets.SOCKET_FOLDER}: {error.strerror}"
        raise DeviceUnreachable(text + typed.root_hint()) from error


def ask(interface: str, request: str) -> str:
    """Send one request and return the answer up to its blank line.

    Raises `DeviceUnreachable`; an answer that is cut off comes back as far as it came.
    """
    path = socket_path(interface)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(os.fspath(path))
            # A peer that closes early may still have left an answer to read.
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(request.encode())
            return _read_answer(connection)
        except FileNotFoundError:
            raise DeviceUnreachable(_no_socket(interface)) from None
        except ConnectionRefusedError:
            raise DeviceUnreachable(f"{interface}: nobody listens at {path}") from None
        except TimeoutError:
            raise DeviceUnreachable(f"{interface}: no answer in {TIMEOUT:.0f} s") from None
        except OSError as error:
            hint = typed.root_hint() if isinstance(error, PermissionError) else ""
            raise DeviceUnreachable(f"{interface}: {path}: {error.strerror}{hint}") from error


def _read_answer(connection: socket.socket) -> str:
    answer = bytearray()
    while not answer.endswith(b"\n\n") and len(answer) < MAX_REQUEST_SIZE:
        try:
            chunk = connection.recv(1 << 16)
        except ConnectionResetError:
            break
        if not chunk:
            break
        answer += chunk
    return answer.decode(errors="replace")


def _no_socket(interface: str) -> str:
    running = interfaces()
    known = f"running: {', '.join(running)}" if running else "no interface is running"
    return f"{interface}: no such WireGuard interface ({known})"


def get(interface: str) -> DeviceSnapshot:
    """The interface as it is, with deadlines and drops where the implementation has them.

    Deadlines count from now; the public key is derived when the answer has none.
    """
    try:
        snapshot = parse_get(ask(interface, GET_EXTENDED), zone=socket.if_nametoindex)
    except UapiError:
        # Not ours: other implementations refuse the extension or hang up on it.
        try:
            snapshot = parse_get(ask(interface, GET), zone=socket.if_nametoindex)
        except UapiError as error:
            raise DeviceUnreachable(f"{interface}: {error}") from error
    if snapshot.public_key is None and snapshot.private_key is not None:
        public = PublicKey(backend().public_key(snapshot.private_key))
        snapshot = replace(snapshot, public_key=public)
    return snapshot


def apply(interface: str, change: DeviceChange) -> None:
    """Ask the interface for a change; raises `DeviceUnreachable` or `UapiError`."""
    try:
        parse_set_reply(ask(interface, format_set(change)))
    except UapiError as error:
        if error.errno == errno.EADDRINUSE and change.listen_port:
            text = describe_use(change.listen_port)
            raise UapiError(error.errno, 0, "ListenPort", text) from error
        raise

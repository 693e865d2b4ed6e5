"""A client of the control socket, independent of the policy.

Blocking; answers come in the order of the requests, so several may be outstanding
(`begin_request`, `finish_request`).  Events that arrive meanwhile are queued.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from wgpy import typed
from wgpy.control.framing import SCHEMA, encode
from wgpy.sockets import CONTROL, InterfaceError, answering, socket_path

TIMEOUT: Final = 30.0


class ControlFailed(InterfaceError):
    """The data plane refused a request (`code`), or cannot be reached (code ``"gone"``)."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class ControlClient:
    """One connection.  Closing it ends what was begun through it."""

    @staticmethod
    def how_to_start() -> str:
        """What to do when nobody answers."""
        return f"start it with `{typed.wgpy('up', 'FILE')}` or `{typed.program('wireguard-py')}`"

    def __init__(self, interface: str, folder: Path | None = None) -> None:
        """Says `hello`; raises `ControlFailed` when nobody answers or speaks another schema."""
        self.interface = interface
        path = socket_path(interface, CONTROL, folder)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT)
        self._input = bytearray()
        self._events: deque[Mapping[str, Any]] = deque()
        self._next_id = 0
        try:
            self._socket.connect(str(path))
            self.hello = self.request("hello")
            self.check()
        except OSError as error:
            self.close()
            text = _why_unreachable(interface, path, error, self.how_to_start())
            raise ControlFailed("gone", text) from error
        except ControlFailed:
            self.close()
            raise

    def check(self) -> None:
        """Check the schema in ``hello``; raises `ControlFailed` (``schema``)."""
        if self.hello["schema"] != SCHEMA:
            raise ControlFailed(
                "schema",
                f"{self.interface} speaks schema {self.hello['schema']} of the control socket, "
                f"this program schema {SCHEMA}: use the same version of both",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def end(self) -> None:
        """Hang up, and wait until the data plane has ended what was begun through this one."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(1 << 16):
                pass
        self.close()

    def fileno(self) -> int:
        """Readable when an event or the end is there."""
        return self._socket.fileno()

    def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """The result of one operation; raises `ControlFailed`."""
        return self.finish_request(self.begin_request(op, arguments))

    def begin_request(self, op: str, arguments: Mapping[str, Any]) -> int:
        """Send a request; its number is for `finish_request`."""
        self._next_id += 1
        try:
            self._socket.sendall(encode({"id": self._next_id, "op": op, **arguments}))
        except OSError as error:
            raise ControlFailed("gone", f"{self.interface}: the data plane is gone") from error
        return self._next_id

    def finish_request(self, number: int) -> dict[str, Any]:
        """The result of request `number`; raises `ControlFailed`."""
        return _check(self._answer(number))

    def stream(self, op: str, key: str, **arguments: Any) -> Iterator[Any]:
        """The items of a long answer."""
        number = self.begin_request(op, arguments)
        while True:
            message = self._answer(number)
            if "part" not in message:
                _check(message)
                return
            yield from message["part"][key]

    def subscribe(self, *events: str) -> None:
        """Ask for ``drops`` and/or ``verdicts``."""
        self.request("subscribe", events=list(events))

    def events(self, patience: float | None = None) -> Iterator[Mapping[str, Any]]:
        """Events as they come; ends after `patience` seconds (None: never).

        Raises `ControlFailed` when the data plane is gone.
        """
        end = None if patience is None else time.monotonic() + patience
        while True:
            while self._events:
                yield self._events.popleft()
            wait = None if end is None else end - time.monotonic()
            if wait is not None and wait <= 0:
                return
            self._socket.settimeout(wait)
            try:
                message = self._read()
            except TimeoutError:
                return
            finally:
                self._socket.settimeout(TIMEOUT)
            if "event" in message:
                self._events.append(message)

    def _answer(self, number: int) -> dict[str, Any]:
        """The next line that answers request `number`; answers come in order."""
        while True:
            message = self._read()
            if "event" in message:
                self._events.append(message)
            elif message.get("id") in (number, None):  # None: of the connection as a whole
                return message

    def _read(self) -> dict[str, Any]:
        while (end := self._input.find(b"\n")) < 0:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise
            except OSError:
                data = b""
            if not data:
                raise ControlFailed("gone", f"{self.interface}: the data plane is gone")
            self._input += data
        line = bytes(self._input[:end])
        del self._input[: end + 1]
        message: dict[str, Any] = json.loads(line)
        return message


def _check(message: dict[str, Any]) -> dict[str, Any]:
    if not message["ok"]:
        raise ControlFailed(message["code"], message["error"])
    result: dict[str, Any] = message["result"]
    return result


def _why_unreachable(interface: str, path: Path, error: OSError, how_to_start: str) -> str:
    if isinstance(error, PermissionError):
        return f"{path}: {error.strerror}{typed.root_hint()}"
    if isinstance(error, FileNotFoundError):
        running: list[str] = []
        with contextlib.suppress(OSError):
            running = answering(CONTROL, path.parent)
        known = f"running: {', '.join(running)}" if running else "no interface of wgpy is running"
        return f"{interface}: no wireguard-py is running by this name: no control socket {path} " \
               f"({known}): {how_to_start}"
    return f"{interface}: no process answers at {path}: {error.strerror or error}"

"""A client of the data plane's control socket, for the agent and the command line.

Blocking, one request at a time; events that arrive meanwhile are kept.  `BulkLoad`
streams a whole table with several requests on the way, which keeps both ends busy.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from strict.ipcache import Entry, Source
from strict.nodes import Node
from strict.settings import TableConfig
from strict.wire import SCHEMA, config_to_wire, entry_to_wire, node_to_wire
from wgpy.protocol.endpoint import Prefix

SOCKET_FOLDER: Final = Path("/var/run/wireguard")
TIMEOUT: Final = 30.0
CHUNK: Final = 1000
"""Items per request of a bulk load."""
UPDATE_CHUNK: Final = 250
"""Items per request of a change to the table in force: about a millisecond."""
WINDOW: Final = 8
"""Requests on the way at once."""


class ControlFailed(Exception):
    """The data plane refused a request (`code`), or cannot be reached (code ``"gone"``)."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class ControlClient:
    """One connection.  Closing it drops a transaction that is not committed."""

    def __init__(self, interface: str, folder: Path = SOCKET_FOLDER) -> None:
        """Raises `ControlFailed` when nobody answers or the policy is another one."""
        self.interface = interface
        path = folder / f"{interface}.control"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT)
        self._input = bytearray()
        self._events: deque[Mapping[str, Any]] = deque()
        self._next_id = 0
        try:
            self._socket.connect(str(path))
            self.hello = self.request("hello")
        except OSError as error:
            self.close()
            raise ControlFailed("gone", _why_unreachable(interface, path, error)) from error
        except ControlFailed:
            self.close()
            raise
        policy = self.hello["policy"]
        if (policy["name"], policy["schema"]) != ("strict", SCHEMA):
            self.close()
            raise ControlFailed(
                "schema",
                f"{interface} runs the policy {policy['name']!r} with schema {policy['schema']}; "
                f"this program speaks 'strict' with schema {SCHEMA}: use the same version of both",
            )

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """The result of one operation; raises `ControlFailed`."""
        return self._result(self._ask(op, arguments))

    def stream(self, op: str, key: str, **arguments: Any) -> Iterator[Any]:
        """The items of a long answer."""
        number = self._ask(op, arguments)
        while True:
            message = self._answer(number)
            if "part" not in message:
                _check(message)
                return
            yield from message["part"][key]

    def replace(self, config: TableConfig, nodes: Iterable[Node], entries: Iterable[Entry]) -> None:
        """Put a whole new table in force, all at once or not at all."""
        self.request("begin", config=config_to_wire(config))
        pending: deque[int] = deque()
        for chunk in itertools.chain(_chunks("nodes", map(node_to_wire, nodes)),
                                     _chunks("entries", map(entry_to_wire, entries))):
            pending.append(self._ask("load", chunk))
            if len(pending) >= WINDOW:
                self._result(pending.popleft())
        while pending:
            self._result(pending.popleft())
        self.request("commit")

    def update(
        self,
        *,
        nodes: Sequence[Node] = (),
        entries: Sequence[Entry] = (),
        delete_nodes: Sequence[str] = (),
        delete_entries: Sequence[tuple[Prefix, Source]] = (),
    ) -> list[dict[str, str]]:
        """Change single items, deletions first; returns the nodes that were refused."""
        refused: list[dict[str, str]] = []
        gone = ([str(prefix), source.text] for prefix, source in delete_entries)
        for request in itertools.chain(
            _chunks("delete_entries", gone, UPDATE_CHUNK),
            _chunks("delete_nodes", delete_nodes, UPDATE_CHUNK),
            _chunks("nodes", map(node_to_wire, nodes), UPDATE_CHUNK),
            _chunks("entries", map(entry_to_wire, entries), UPDATE_CHUNK),
        ):
            refused += self.request("update", **request)["refused"]
        return refused

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

    def _ask(self, op: str, arguments: Mapping[str, Any]) -> int:
        self._next_id += 1
        line = json.dumps({"id": self._next_id, "op": op, **arguments}, separators=(",", ":"))
        try:
            self._socket.sendall(line.encode() + b"\n")
        except OSError as error:
            raise ControlFailed("gone", f"{self.interface}: the data plane is gone") from error
        return self._next_id

    def _result(self, number: int) -> dict[str, Any]:
        return _check(self._answer(number))

    def _answer(self, number: int) -> dict[str, Any]:
        """The next line that answers request `number`; answers come in order."""
        while True:
            message = self._read()
            if "event" in message:
                self._events.append(message)
            elif message.get("id") == number:
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


def _chunks(key: str, items: Iterable[Any], size: int = CHUNK) -> Iterator[dict[str, Any]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield {key: chunk}


def _why_unreachable(interface: str, path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"{path}: no permission: run as root"
    if isinstance(error, FileNotFoundError):
        running: list[str] = []
        with contextlib.suppress(OSError):
            running = sorted(found.stem for found in path.parent.glob("*.control"))
        known = f"with one: {', '.join(running)}" if running else "no data plane has one"
        return f"{interface}: no control socket {path} ({known}): start `wireguard-py --policy " \
               f"strict {interface}` or `wgpy strict run`"
    return f"{interface}: nobody answers at {path}: {error.strerror or error}"

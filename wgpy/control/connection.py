"""The server's end of one connection: it reads and writes lines, one step per turn.

Nothing here may delay packets: one request, or one part of an answer, is handled per turn
of the loop.  A client is not read while its work is pending, and a client that does not
read its events loses them; the losses are counted.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from wgpy.control.framing import CHUNK, MAX_LINE, Answer, ControlError, decode, encode
from wgpy.dataplane.loop import READ, WRITE, Loop

OUTPUT_LIMIT: Final = 1 << 20
"""Bytes that may wait for a slow client before its events are lost."""


class Connection:
    """One client, until either side closes."""

    def __init__(
        self,
        client: socket.socket,
        loop: Loop,
        handle: Callable[[Mapping[str, Any]], Answer],
        closed: Callable[[], None],
    ) -> None:
        """`handle` answers a request or raises `ControlError`; `closed` is called once."""
        self._socket = client
        self._loop = loop
        self._handle = handle
        self._on_closed = closed
        self._input = bytearray()
        self._searched = 0
        self._output = bytearray()
        self._parts: Iterator[Mapping[str, Any]] | None = None
        self._id: Any = None
        self._lost = 0
        self._turn_is_due = False
        self._end = False
        self._closed = False
        self._watch()

    def tell(self, line: bytes) -> None:
        """Send an event, unless too much waits already."""
        if len(self._output) + len(line) > OUTPUT_LIMIT:
            self._lost += 1
            return
        if self._lost:
            self._output += encode({"event": "lost", "count": self._lost})
            self._lost = 0
        self._send(line)

    def close(self) -> None:
        """Hang up; what waits is not sent."""
        if not self._closed:
            self._closed = True
            self._loop.release(self._socket)
            self._on_closed()

    def _ready(self) -> None:
        if self._output:
            self._write()
        if not self._closed and not self._busy:
            self._read()

    @property
    def _busy(self) -> bool:
        """Whether a whole request or the rest of an answer waits: then it is not read."""
        return self._parts is not None or self._turn_is_due

    def _read(self) -> None:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self._end = True
        self._input += data
        self._go_on()

    def _go_on(self) -> None:
        """Have a turn if there is work; otherwise read on."""
        if self._closed:
            return
        whole = self._input.find(b"\n", self._searched) >= 0
        if whole or (self._parts is not None and len(self._output) < OUTPUT_LIMIT // 2):
            if not self._turn_is_due:
                self._turn_is_due = True
                self._loop.call(self._turn)
        else:
            if self._parts is None:
                self._searched = len(self._input)
                if self._end and not self._output:
                    self.close()
                    return
            if len(self._input) > MAX_LINE:
                self._refuse_rest()
        if not self._closed:
            self._watch()

    def _refuse_rest(self) -> None:
        self._input.clear()
        self._searched = 0
        self._end = True
        text = f"a request has at most {MAX_LINE} bytes in one line"
        self._send(encode({"id": None, "ok": False, "code": "too_long", "error": text}))

    def _turn(self) -> None:
        """One part of an answer, or one request."""
        self._turn_is_due = False
        if self._closed:
            return
        if self._parts is not None:
            self._answer(self._parts)
        else:
            end = self._input.find(b"\n")
            line = bytes(self._input[:end])
            del self._input[: end + 1]
            self._searched = 0
            if line.strip():
                self._request(line)
        self._go_on()

    def _request(self, line: bytes) -> None:
        self._id = None
        try:
            message = decode(line)
            self._id = message.get("id")
            self._answer(self._handle(message))
        except ControlError as error:
            self._refuse(error)
        except Exception as error:  # A defect in an answer must not end the packets.
            self._refuse(ControlError("internal", f"a defect: {type(error).__name__}: {error}"))

    def _answer(self, answer: Answer) -> None:
        """Send a whole answer, or the next part of a long one."""
        if isinstance(answer, Mapping):
            self._send(encode({"id": self._id, "ok": True, "result": answer}))
            return
        self._parts = answer
        try:
            self._send(encode({"id": self._id, "part": next(answer)}))
        except StopIteration:
            self._parts = None
            self._send(encode({"id": self._id, "ok": True, "result": {}}))
        except Exception as error:
            self._parts = None
            code = error.code if isinstance(error, ControlError) else "internal"
            self._refuse(ControlError(code, str(error)))

    def _refuse(self, error: ControlError) -> None:
        reply = {"id": self._id, "ok": False, "code": error.code, "error": str(error)}
        self._send(encode(reply))

    def _send(self, line: bytes) -> None:
        if self._closed:
            return
        self._output += line
        self._write()

    def _write(self) -> None:
        try:
            while self._output:
                del self._output[: self._socket.send(self._output[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if not self._turn_is_due and (self._parts is not None or self._end):
            self._go_on()
        else:
            self._watch()

    def _watch(self) -> None:
        """Writable while output waits; readable unless busy or at the end."""
        wanted = WRITE if self._output else 0
        if not self._busy and not self._end:
            wanted |= READ
        self._loop.watch(self._socket.fileno(), self._ready, wanted)

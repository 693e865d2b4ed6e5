"""The control socket: what the UAPI has no words for, as JSON lines.

    client → server   {"id": 1, "op": "hello"}
    server → client   {"id": 1, "ok": true, "result": {…}}
                      {"id": 2, "ok": false, "code": "invalid", "error": "what and why"}
                      {"id": 3, "part": {…}} … before the last line of a long answer
                      {"event": "drop", …} to those who subscribed

docs/control-socket.md is the reference.  This server knows `hello`, `status`, `counters`,
`capture`, `subscribe` and `unsubscribe`; every other operation belongs to the policy, which gets a
session per client, so that a transaction dies with the client that began it.

Nothing here may hold up the packets: one request, or one part of an answer, is handled
per turn of the loop; a client is not read while it has work waiting, and one that does
not read its events loses them, counted.  Clients are root: the socket has mode 0600.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from wgpy.dataplane.control_events import describe_drop
from wgpy.dataplane.interface import Interface
from wgpy.dataplane.loop import READ, WRITE
from wgpy.protocol.events import Event, PacketDropped
from wgpy.protocol.policy import EncryptAll, PacketPolicy

SCHEMA: Final = 1
"""Version of the framing and of this server's own operations."""
MAX_LINE: Final = 1 << 20
"""Bytes of one request: the bound of what one turn has to parse."""
CHUNK: Final = 1 << 16
OUTPUT_LIMIT: Final = 1 << 20
"""Bytes that may wait for a slow client before its events are lost."""
EVENTS: Final = ("drops", "verdicts")

Answer = Mapping[str, Any] | Iterator[Mapping[str, Any]]


class ControlError(Exception):
    """A request is refused; `code` is for programs, the text for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class PolicySession(Protocol):
    """One client's conversation with the policy."""

    def request(self, op: str, message: Mapping[str, Any]) -> Answer:
        """Answer one bounded request; an iterator gives a long answer part by part.

        Raises `ControlError`.
        """

    def close(self) -> None:
        """The client is gone: forget what it left half-done."""


class ControlledPolicy(PacketPolicy, Protocol):
    """A policy that a control socket can be put in front of."""

    verdict_listener: Callable[[Mapping[str, Any]], None] | None
    """Told of each verdict asked for (once per flow, by caching), while somebody listens."""

    def describe(self) -> Mapping[str, Any]:
        """Name, schema version and state, for ``hello`` and ``status``."""

    def session(self) -> PolicySession: ...

    def housekeeping(self) -> bool:
        """Do a slice of background work; True while there is more."""


class _NoSession:
    """No policy is in front: there is nothing to talk to."""

    def request(self, op: str, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
        """Always refuses."""
        raise ControlError("unknown_op", f"unknown operation {op!r}: no policy is in front")

    def close(self) -> None:
        """Nothing was begun."""


class NoPolicy(EncryptAll):
    """Plain WireGuard, as a policy with a control socket in front."""

    verdict_listener: Callable[[Mapping[str, Any]], None] | None = None

    def describe(self) -> Mapping[str, Any]:
        """It has no name and no state."""
        return {"name": None}

    def session(self) -> PolicySession:
        """One that refuses everything."""
        return _NoSession()

    def housekeeping(self) -> bool:
        """There is none."""
        return False


class Recording(Protocol):
    """A capture that runs until `stop`."""

    def stop(self) -> None: ...

    def counts(self) -> Mapping[str, int]:
        """Frames written and lost so far."""


Record = Callable[[Interface, str, int], Recording]
"""Starts a capture to a path, in files of so many bytes (0: one file); raises OSError."""


class Listener(Protocol):
    """A listening unix socket (`wgpy.linux.uapi_socket.UnixListener`)."""

    def fileno(self) -> int: ...
    def accept(self) -> socket.socket | None: ...
    def close(self) -> None: ...


class ControlServer:
    """Serves a control socket in the interface's loop; `close` ends it."""

    def __init__(
        self,
        listener: Listener,
        interface: Interface,
        policy: ControlledPolicy | None = None,
        *,
        record: Record | None = None,
    ) -> None:
        self.interface = interface
        self.policy = NoPolicy() if policy is None else policy
        self._record = record
        self._listener = listener
        self._clients: set[_Client] = set()
        self._cleaning = False
        self._traced_before = False
        interface.loop.watch(listener.fileno(), self._accept)

    def close(self) -> None:
        """Drop all clients and remove the socket."""
        self.interface.loop.unwatch(self._listener.fileno())
        for client in list(self._clients):
            client.close()
        self._listener.close()

    def _accept(self) -> None:
        accepted = self._listener.accept()
        if accepted is not None:
            self._clients.add(_Client(accepted, self))

    def forget(self, client: _Client) -> None:
        """The client has closed."""
        self._clients.discard(client)
        self.listen()

    def handle(self, client: _Client, message: Mapping[str, Any]) -> Answer:
        """One request of a client; raises `ControlError`."""
        op = message.get("op")
        match op:
            case "hello":
                return {"schema": SCHEMA, "interface": self.interface.tun.name,
                        "policy": self.policy.describe()}
            case "status":
                return self._status()
            case "counters":
                return self._counters()
            case "capture" if self._record is not None:
                return self._capture(client, message)
            case "subscribe" | "unsubscribe":
                return self._subscribe(client, message, add=op == "subscribe")
            case str():
                try:
                    return client.session.request(op, message)
                finally:
                    self.clean()
                    # Whoever remembers old answers forgets them before the client is told.
                    self.interface.path.flush()
            case _:
                raise ControlError("invalid", '"op" must be a text')

    def _capture(self, client: _Client, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Start the client's capture, or with no path say how it goes; it ends with the client."""
        path, size = message.get("path"), message.get("rotate", 0)
        if path is None and client.recording is not None:
            return client.recording.counts()
        if not isinstance(path, str) or not path.startswith("/") or client.recording is not None:
            raise ControlError("invalid", '"path" must be an absolute path, once per connection')
        if not isinstance(size, int) or size < 0:
            raise ControlError("invalid", '"rotate" must be a number of bytes')
        if any(other.recording is not None for other in self._clients):
            raise ControlError("busy", "this interface is being captured already")
        assert self._record is not None
        try:
            client.recording = self._record(self.interface, path, size)
        except OSError as error:
            raise ControlError("refused", f"{path}: {error.strerror}") from error
        return client.recording.counts()

    def clean(self) -> None:
        """Let the policy do its background work, a slice per turn."""
        if not self._cleaning and self.policy.housekeeping():
            self._cleaning = True
            self.interface.loop.call(self._clean_more)

    def _clean_more(self) -> None:
        self._cleaning = False
        self.clean()

    def _status(self) -> Mapping[str, Any]:
        device = self.interface.engine.device
        return {
            "schema": SCHEMA,
            "interface": self.interface.tun.name,
            "up": device.up,
            "mtu": self.interface.engine.mtu,
            "listen_port": self.interface.udp.port,
            "fwmark": self.interface.udp.mark,
            "public_key": device.public_key.base64 if device.public_key else None,
            "peers": len(device.peers),
            "policy": self.policy.describe(),
        }

    def _counters(self) -> Mapping[str, Any]:
        device = self.interface.engine.device
        forwarded = {
            "encrypted": device.encrypted,
            "plaintext": device.released,
            "delivered": device.delivered,
        }
        return {
            "drops": {reason.name: count for reason, count in device.drops.items()},
            "forwarded": {name: [seen.packets, seen.bytes] for name, seen in forwarded.items()},
        }

    def _subscribe(
        self, client: _Client, message: Mapping[str, Any], *, add: bool
    ) -> Mapping[str, Any]:
        wanted = message.get("events")
        if not isinstance(wanted, list) or not all(name in EVENTS for name in wanted):
            raise ControlError("invalid", f'"events" must be a list of {", ".join(EVENTS)}')
        client.events = client.events | set(wanted) if add else client.events - set(wanted)
        self.listen()
        return {"events": sorted(client.events)}

    def listen(self) -> None:
        """Ask engine and policy for just those events that somebody wants."""
        interface = self.interface
        drops = any("drops" in client.events for client in self._clients)
        if drops and self._on_event not in interface.listeners:
            self._traced_before = interface.engine.trace_drops
            interface.engine.trace_drops = True
            interface.listeners.append(self._on_event)
        elif not drops and self._on_event in interface.listeners:
            interface.listeners.remove(self._on_event)
            interface.engine.trace_drops = self._traced_before
        verdicts = any("verdicts" in client.events for client in self._clients)
        self.policy.verdict_listener = self._on_verdict if verdicts else None

    def _on_event(self, event: Event) -> None:
        if isinstance(event, PacketDropped):
            age = self.interface.clock.monotonic() - event.at
            self._tell("drops", describe_drop(event, self.interface.clock.wall() - age))

    def _on_verdict(self, verdict: Mapping[str, Any]) -> None:
        self._tell("verdicts", {"event": "verdict", "time": self.interface.clock.wall(), **verdict})

    def _tell(self, kind: str, event: Mapping[str, Any]) -> None:
        line = encode(event)
        for client in list(self._clients):
            if kind in client.events:
                client.tell(line)


class _Client:
    """One connection: lines in, lines out, one piece of work per turn of the loop."""

    def __init__(self, connection: socket.socket, server: ControlServer) -> None:
        self.events: set[str] = set()
        self.session = server.policy.session()
        self.recording: Recording | None = None
        self._socket = connection
        self._server = server
        self._loop = server.interface.loop
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
        """Forget the client and what it still wanted."""
        if not self._closed:
            self._closed = True
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self.session.close()
            if self.recording is not None:
                self.recording.stop()
            self._server.forget(self)
            self._server.clean()

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
            self._answer(self._server.handle(self, message))
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


def encode(message: Mapping[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Mapping[str, Any]:
    """One request or answer; raises `ControlError`."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError("invalid", f"not one JSON object per line: {error}") from None
    if not isinstance(message, dict):
        raise ControlError("invalid", "not one JSON object per line")
    return message

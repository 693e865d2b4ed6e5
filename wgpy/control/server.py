"""The control socket's server, in the interface's loop: operations that the UAPI lacks.

It knows the operations of `ControlServer.operations`; every other one belongs to the
policy.  Clients are root: the socket has mode 0600.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from wgpy.control.accept import Acceptor, Listener
from wgpy.control.connection import Connection
from wgpy.control.events import describe_drop
from wgpy.control.framing import SCHEMA, Answer, ControlError, encode
from wgpy.control.policy import ControlledPolicy, NoPolicy, PolicySession
from wgpy.dataplane.interface import Interface
from wgpy.protocol.events import Event, PacketDropped

EVENTS: Final = ("drops", "verdicts")
MAX_CLIENTS: Final = 64
"""Each costs a descriptor, and the memory of what it subscribed to."""
FULL: Final = {
    "id": None, "ok": False, "code": "busy",
    "error": f"{MAX_CLIENTS} clients are connected already",
}  # fmt: skip


class Recording(Protocol):
    """A capture that runs until `stop`."""

    def stop(self) -> None: ...

    def counts(self) -> Mapping[str, int]:
        """Frames written and lost so far, and sessions whose keys are in the file."""


Record = Callable[[Interface, str, int], Recording]
"""Starts a capture to a path, in files of so many bytes (0: one file); raises OSError."""


@dataclass(slots=True, eq=False)
class _Client:
    """What belongs to one connection, and ends with it."""

    session: PolicySession
    events: set[str] = field(default_factory=set)
    recording: Recording | None = None
    connection: Connection | None = None


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
        self.operations: Mapping[str, Callable[[_Client, Mapping[str, Any]], Answer]] = {
            "hello": self._hello,
            "status": self._status,
            "counters": self._counters,
            "capture": self._capture,
            "subscribe": functools.partial(self._subscribe, add=True),
            "unsubscribe": functools.partial(self._subscribe, add=False),
        }
        self._record = record
        self._clients: set[_Client] = set()
        self._cleaning = False
        self._acceptor = Acceptor(
            listener, interface.loop, interface.clock, self._take, interface.warn
        )

    def close(self) -> None:
        """Drop all clients and remove the socket."""
        for client in list(self._clients):
            if client.connection is not None:
                client.connection.close()
        self._acceptor.close()

    def _take(self, accepted: socket.socket) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            # An idle one may be an agent that listens: nobody is sent away for a newcomer.
            with contextlib.suppress(OSError):
                accepted.send(encode(FULL))
            accepted.close()
            return
        client = _Client(self.policy.session())
        self._clients.add(client)
        client.connection = Connection(
            accepted,
            self.interface.loop,
            functools.partial(self._handle, client),
            functools.partial(self._forget, client),
        )

    def _forget(self, client: _Client) -> None:
        """The client is gone: end what it began."""
        self._clients.discard(client)
        client.session.close()
        if client.recording is not None:
            client.recording.stop()
        self._listen()
        self._clean()

    def _handle(self, client: _Client, message: Mapping[str, Any]) -> Answer:
        """One request of a client; raises `ControlError`."""
        op = message.get("op")
        if not isinstance(op, str):
            raise ControlError("invalid", '"op" must be a text')
        if op in self.operations:
            return self.operations[op](client, message)
        try:
            return client.session.request(op, message)
        finally:
            self._clean()
            # Caches of old answers are emptied before the client gets its answer.
            self.interface.path.flush()

    def _clean(self) -> None:
        """Let the policy do its background work, a slice per turn."""
        if not self._cleaning and self.policy.housekeeping():
            self._cleaning = True
            self.interface.loop.call(self._clean_more)

    def _clean_more(self) -> None:
        self._cleaning = False
        self._clean()

    # Operations.

    def _hello(self, client: _Client, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
        return {
            "schema": SCHEMA,
            "interface": self.interface.tun.name,
            "policy": self.policy.describe(),
        }

    def _status(self, client: _Client, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
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

    def _counters(self, client: _Client, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
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

    def _capture(self, client: _Client, message: Mapping[str, Any]) -> Answer:
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
        if self._record is None:
            raise ControlError("refused", "this data plane does not record")
        try:
            client.recording = self._record(self.interface, path, size)
        except OSError as error:
            raise ControlError("refused", f"{path}: {error.strerror}") from error
        handshakes = self.interface.rekey() if message.get("rekey") is True else 0
        return {**client.recording.counts(), "handshakes": handshakes}

    def _subscribe(self, client: _Client, message: Mapping[str, Any], *, add: bool) -> Answer:
        wanted = message.get("events")
        if not isinstance(wanted, list) or not all(name in EVENTS for name in wanted):
            raise ControlError("invalid", f'"events" must be a list of {", ".join(EVENTS)}')
        client.events = client.events | set(wanted) if add else client.events - set(wanted)
        self._listen()
        return {"events": sorted(client.events)}

    # Events.

    def _listen(self) -> None:
        """Subscribe to just those events of interface and policy that a client wants."""
        wanted = {name for client in self._clients for name in client.events}
        self.interface.listen(self._on_event, "drops" in wanted)
        self.policy.verdict_listener = self._on_verdict if "verdicts" in wanted else None

    def _on_event(self, event: Event) -> None:
        if isinstance(event, PacketDropped):
            age = self.interface.clock.monotonic() - event.at
            self._tell("drops", describe_drop(event, self.interface.clock.wall() - age))

    def _on_verdict(self, verdict: Mapping[str, Any]) -> None:
        self._tell("verdicts", {"event": "verdict", "time": self.interface.clock.wall(), **verdict})

    def _tell(self, kind: str, event: Mapping[str, Any]) -> None:
        line = encode(event)
        for client in list(self._clients):
            if kind in client.events and client.connection is not None:
                client.connection.tell(line)

"""The agent's end of `wgpy-cni`: a source of discovery that listens on IFACE.cni.

    ready   may ADD begin?  MTU of devices and routes   "later" until the node has joined
    add     the pod of an attachment                    answered once it is in force
    del     forget it; fine when it is not known        answered once the table was told
    check   is it known, with these addresses, and in force?
    list    what is known of one network
    status  "unavailable" (no ADD), "limited" (nor may pods reach others)

One JSON object per line, framed as on the control socket; only root may ask.  Pods are
`local` entries of the table, like what any other source says: the agent puts them into the
data plane, its rules and routes, and other sources publish them.  "In force" is what the
agent says of all that together (`Agent.in_force`).

Never blocks: the agent polls it, and a descriptor that becomes readable wakes the agent.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from strict.cni.pods import Attachment, Pod, PodBook
from strict.discovery import EntryDelete, EntryUpsert, Synced, Update
from strict.host import needs_ipv6
from strict.ipcache import Entry, Source
from strict.mtu import route_mtu
from strict.nodes import Node
from strict.routes import link_mtus
from wgpy.control.framing import ControlError, decode, encode
from wgpy.linux.unix_socket import SocketInUse, UnixListener
from wgpy.protocol.endpoint import format_address
from wgpy.sockets import SOCKET_FOLDER, socket_path

if TYPE_CHECKING:
    from strict.agent import Agent

CNI: Final = ".cni"
PODS: Final = ".pods"
PATIENCE: Final = 5.0
"""Seconds that an ADD waits to be in force; less than the plugin's own patience."""
MAX_LINE: Final = 1 << 16
MAX_CLIENTS: Final = 256


class _Client:
    """One connection and what it has sent so far."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.input = bytearray()

    def fileno(self) -> int:
        return self.socket.fileno()


class _Waiting(NamedTuple):
    """An answer that has to wait until the table has been told."""

    client: _Client
    number: Any
    pod: Pod | None
    """The pod of an ADD; None for a DEL, which waits for one round and no longer."""
    until: float


class PodSource:
    """A `Discovery` of the pods that the runtime attaches here."""

    shared = False
    """Nobody else writes what it says."""

    def __init__(self, interface: str, folder: Path = SOCKET_FOLDER) -> None:
        self.problem = ""
        self._path = socket_path(interface, CNI, folder)
        self._book = PodBook(socket_path(interface, PODS, folder))
        self._agent: Agent | None = None
        self._listener: UnixListener | None = None
        self._selector = selectors.EpollSelector()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._clients: set[_Client] = set()
        self._updates: list[Update] = []
        self._waiting: list[_Waiting] = []

    @property
    def name(self) -> str:
        return f"pods {self._path}"

    def fileno(self) -> int:
        return self._selector.fileno()

    def serve(self, agent: Agent) -> None:
        """Recall the pods of an agent before this one, and listen; raises OSError."""
        self._agent = agent
        try:
            self._book.load()
        except ValueError as error:
            self.problem = str(error)
        self._updates += [update for pod in self._book for update in self._upserts(pod)]
        self._updates.append(Synced())
        try:
            self._listener = UnixListener(self._path)
        except SocketInUse as error:
            raise OSError(0, str(error), str(self._path)) from error
        self._selector.register(self._listener, selectors.EVENT_READ)

    def poll(self) -> Sequence[Update]:
        """Answer what is in force by now, then hear what is new."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        self._answer_waiting()
        for key, _ in self._selector.select(0):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.fileobj, _Client):
                self._read(key.fileobj)
        updates, self._updates = self._updates, []
        if updates:
            # The next round finds them in force: let it come at once.
            os.eventfd_write(self._bell, 1)
        return updates

    def publish(self, node: Node, pods: Sequence[Entry] = ()) -> None:
        """Nothing to do: other sources tell the others."""

    def applied(self) -> None:
        """Nothing to do: `Agent.in_force` is asked."""

    def close(self) -> None:
        """Stop listening; pods stay attached and remembered."""
        for client in list(self._clients):
            self._hang_up(client)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
        self._selector.close()
        os.close(self._bell)

    # Connections.

    def _accept(self) -> None:
        assert self._listener is not None
        while connection := self._listener.accept():
            client = _Client(connection)
            if len(self._clients) >= MAX_CLIENTS:
                connection.close()
                continue
            self._clients.add(client)
            self._selector.register(client, selectors.EVENT_READ)
            if _user(connection) != 0:
                self._refuse(client, None, ControlError("invalid", "only root may ask"))
                self._hang_up(client)
            else:
                self._read(client)  # most have asked by now

    def _read(self, client: _Client) -> None:
        try:
            data = client.socket.recv(MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.input += data
        while (end := client.input.find(b"\n")) >= 0:
            line = bytes(client.input[:end])
            del client.input[: end + 1]
            self._request(client, line)
        if not data or len(client.input) > MAX_LINE:
            self._hang_up(client)

    def _request(self, client: _Client, line: bytes) -> None:
        number: Any = None
        try:
            message = decode(line)
            number = message.get("id")
            answer = self._handle(client, message)
        except ControlError as error:
            self._refuse(client, number, error)
        except OSError as error:
            text = f"{error.filename}: {error.strerror}"
            self._refuse(client, number, ControlError("later", text))
        else:
            if answer is not None:
                self._send(client, {"id": number, "ok": True, "result": answer})

    def _refuse(self, client: _Client, number: Any, error: ControlError) -> None:
        reply = {"id": number, "ok": False, "code": error.code, "error": str(error)}
        self._send(client, reply)

    def _send(self, client: _Client, message: Mapping[str, Any]) -> None:
        """An answer fits into the socket's buffer; who does not read it has gone."""
        if client not in self._clients:
            return
        try:
            client.socket.sendall(encode(message))
        except OSError:
            self._hang_up(client)

    def _hang_up(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._selector.unregister(client)
            client.socket.close()

    # Operations.

    def _handle(self, client: _Client, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The result, None when it comes later."""
        operations: dict[str, Callable[[], Mapping[str, Any] | None]] = {
            "ready": lambda: self._ready(_attachment(message)),
            "add": lambda: self._add(client, message),
            "del": lambda: self._delete(client, message),
            "check": lambda: self._check(message),
            "list": lambda: self._list(str(message.get("network", ""))),
            "status": self._status,
        }
        operation = operations.get(str(message.get("op")))
        if operation is None:
            raise ControlError("invalid", f"unknown operation {message.get('op')!r}")
        return operation()

    def _ready(self, attachment: Attachment) -> dict[str, int]:
        agent = self._working()
        if self._book.get(attachment) is not None:
            raise ControlError("conflict", f"{attachment} is attached already")
        mtu = min(link_mtus(tuple(agent.status()["underlay"])).values(), default=1500)
        return {"mtu": mtu, "route_mtu": route_mtu(mtu, needs_ipv6(agent.state))}

    def _add(self, client: _Client, message: Mapping[str, Any]) -> None:
        agent = self._working()
        pod = _pod(message)
        holder = self._book.holder(pod.ips, pod.attachment)
        if holder is not None:
            raise ControlError("conflict", f"another pod has this address: {holder}")
        self._check_place(agent, pod)
        self._book.add(pod)
        self._updates += self._upserts(pod)
        until = time.monotonic() + PATIENCE
        self._waiting.append(_Waiting(client, message.get("id"), pod, until))

    def _delete(self, client: _Client, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not self._forget(_attachment(message)):
            return {"known": False}
        self._waiting.append(_Waiting(client, message.get("id"), None, 0.0))
        return None

    def _check(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        self._working()
        pod = _pod(message)
        known = self._book.get(pod.attachment)
        if known is None:
            raise ControlError("unknown", f"the agent does not know {pod.attachment}")
        if set(known.ips) != set(pod.ips):
            shown = ", ".join(format_address(ip) for ip in known.ips)
            raise ControlError("unknown", f"the agent knows {pod.attachment} as {shown}")
        return {}

    def _list(self, network: str) -> dict[str, Any]:
        return {"pods": [pod.to_json() for pod in self._book
                         if network in ("", pod.attachment.network)]}  # fmt: skip

    def _status(self) -> dict[str, Any]:
        assert self._agent is not None
        if not self._agent.in_force:
            code = "unavailable" if self._agent.carries else "limited"
            raise ControlError(code, self._why_not())
        return {}

    # The table.

    def _working(self) -> Agent:
        """The agent, when it can take pods."""
        assert self._agent is not None
        if not self._agent.in_force:
            raise ControlError("later", self._why_not())
        return self._agent

    def _why_not(self) -> str:
        assert self._agent is not None
        status = self._agent.status()
        troubles = [f"{name}: {text}" for name, text in status["problems"].items()]
        if not self._agent.carries:
            troubles.insert(0, "the data plane is down")
        elif not status["joined"]:
            troubles.insert(0, "the node has not joined the cluster yet")
        return f"node {status['node']} takes no pods: {'; '.join(troubles) or 'it is busy'}"

    def _check_place(self, agent: Agent, pod: Pod) -> None:
        """A pod outside of the pod CIDRs would be the world, one in another's would be cut off."""
        table, own = agent.state.table, agent.config.node.name
        for ip in pod.ips:
            text = format_address(ip)
            if not agent.state.config.is_pod(ip):
                cidrs = ", ".join(map(str, agent.state.config.pod_cidrs))
                raise ControlError("invalid", f"{text} is in none of the pod CIDRs ({cidrs}): "
                                   "correct the ranges of `ipam`")  # fmt: skip
            covering = table.nodes.covering(ip)
            if covering is not None and covering[1].name != own:
                prefix, node = covering
                raise ControlError("invalid", f"{text} is in {prefix} of node {node.name}, this "
                                   f"is {own}: correct the ranges of `ipam`")  # fmt: skip

    def _upserts(self, pod: Pod) -> list[Update]:
        assert self._agent is not None
        node, now = self._agent.config.node.name, time.time_ns()
        return [EntryUpsert(Entry(p, node, 0, True, Source.LOCAL), now) for p in pod.prefixes]

    def _forget(self, attachment: Attachment) -> bool:
        pod = self._book.remove(attachment)
        if pod is None:
            return False
        self._updates += [EntryDelete(prefix, Source.LOCAL) for prefix in pod.prefixes]
        return True

    def _answer_waiting(self) -> None:
        """Called one round after the updates were handed over."""
        assert self._agent is not None
        waiting, self._waiting = self._waiting, []
        in_force, now = self._agent.in_force, time.monotonic()
        for item in waiting:
            if item.pod is None or in_force:
                self._send(item.client, {"id": item.number, "ok": True, "result": {"known": True}})
            elif now < item.until and item.client in self._clients:
                self._waiting.append(item)
            else:
                self._forget(item.pod.attachment)
                self._refuse(item.client, item.number, ControlError("later", self._why_not()))


def _user(connection: socket.socket) -> int:
    """Who is at the other end."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


def _attachment(message: Mapping[str, Any]) -> Attachment:
    return _pod({**message, "ips": ("0.0.0.0",)}).attachment


def _pod(message: Mapping[str, Any]) -> Pod:
    try:
        return Pod.from_json(message)
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError("invalid", f"not a pod: {error}") from None

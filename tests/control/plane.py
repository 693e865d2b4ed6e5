"""A data plane in a thread, its sockets in a folder of the test's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from wgpy.control.policy import ControlledPolicy
from wgpy.control.server import ControlServer, Record
from wgpy.dataplane.interface import Interface
from wgpy.dataplane.loop import Loop
from wgpy.linux.clock import LinuxClock, entropy
from wgpy.linux.uapi_server import UapiServer
from wgpy.linux.unix_socket import UnixListener
from wgpy.memory.ports import MemoryTun, Network
from wgpy.protocol.crypto import backend
from wgpy.protocol.engine import Engine
from wgpy.sockets import CONTROL, socket_path


class Plane:
    """An in-memory interface with a real UAPI socket and a real control socket."""

    def __init__(
        self,
        folder: Path,
        policy: ControlledPolicy | None = None,
        *,
        name: str = "wgx",
        record: Record | None = None,
    ) -> None:
        self.folder, self.name, self.policy = folder, name, policy
        self.clock = LinuxClock()
        self.engine = Engine(
            crypto=backend(), entropy=entropy, now=self.clock.monotonic(), wall=self.clock.wall(),
            policy=policy,
        )
        self.loop = Loop(self.clock)
        self.tun = MemoryTun(name)
        udp = Network().host("192.0.2.1").udp()
        self.interface = Interface(self.engine, self.tun, udp, self.clock, self.loop)
        self.server = ControlServer(
            UnixListener(socket_path(name, CONTROL, folder)), self.interface, policy, record=record
        )
        self.uapi = UapiServer(
            UnixListener(socket_path(name, folder=folder)), self.interface, self.loop
        )
        self.interface.set_link(up=True, mtu=1420)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def raw(self) -> socket.socket:
        """A connection to the control socket, without a client."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(socket_path(self.name, CONTROL, self.folder)))
        return connection

    def in_loop(self, work: Callable[[], object]) -> None:
        """Do it in the loop's thread and wait for it."""
        done = threading.Event()

        def run() -> None:
            try:
                work()
            finally:
                done.set()

        self.loop.call(run)
        assert done.wait(20)

    def send(self, *packets: bytes) -> None:
        """Packets from the host, as the loop would take them from the TUN device."""

        def work() -> None:
            self.engine.send(packets, now=self.clock.monotonic())
            self.interface.path.flush()

        self.in_loop(work)

    def close(self) -> None:
        self.loop.call(self.loop.stop)
        self.thread.join(20)
        self.server.close()
        self.uapi.close()
        self.interface.close()
        self.loop.close()

"""wgpy's engine in virtual time, in a process of its own behind pipes.

Nothing waits: `pump` moves the clock to the engine's next output, so that nine minutes pass
in milliseconds.  Each case gets an engine of its own; they share one process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from wgspec.netns import rss_of
from wgspec.target import (
    Address,
    Arrival,
    Capability,
    Delivered,
    DeviceConfig,
    DeviceState,
    Health,
    Instance,
    Port,
    Rejected,
    Target,
    Unavailable,
)
from wgspec.uapi import decode, encode, parse_address

NS = 10**9
HOSTS = 8
ADAPTER = (sys.executable, "-P", "-m", "wgspec.adapters.engine_process")


class EnginePort(Port):
    """An imagined UDP address; what is sent is received at the same instant."""

    def __init__(self, instance: EngineInstance, address: Address) -> None:
        super().__init__(instance, address)
        self._engine = instance

    def _transmit(self, datagrams: Sequence[bytes], to: Address) -> None:
        batch = [[data.hex(), str(self.address), str(to)] for data in datagrams]
        self._engine.call("receive", datagrams=batch)

    def close(self) -> None:
        self._engine.ports.pop(self.address, None)


class EngineInstance(Instance):
    """One engine; its clock starts at 0."""

    capabilities = frozenset(Capability) - {Capability.PROCESS}
    slack = 0.02
    early = 0.001

    def __init__(self, target: EngineTarget, private_key: bytes, number: int) -> None:
        super().__init__(target, private_key)
        self.ports: dict[Address, EnginePort] = {}
        self._host = target
        self._number = number
        self._ns = 0
        self._next_port = 30000
        self.call("new", wall=time.time_ns())

    def call(self, op: str, *, until: int | None = None, **fields: Any) -> dict[str, Any]:
        """One request; what comes out goes to the ports and to `delivered`."""
        now = self._ns if until is None else until
        if until is not None:
            fields["from"] = self._ns
        reply = self._host.exchange({"op": op, "id": self._number, "now": now, **fields})
        self._ns = reply["now"]
        for data, to, source in reply["out"]:
            port = self.ports.get(parse_address(to))
            if port is not None:
                own = self.address(port.address.family)
                at = Address(source or own.ip, own.port)
                port.arrived(Arrival(self.now(), bytes.fromhex(data), at, port.address))
        self.delivered.extend(Delivered(self.now(), bytes.fromhex(p)) for p in reply["in"])
        return reply

    def now(self) -> float:
        return self._ns / NS

    async def pump(self, until: float) -> None:
        self.call("advance", until=max(self._ns + 1, int(until * NS) + 1))

    async def apply(self, change: DeviceConfig) -> None:
        errno = self.call("set", text=encode(change).removeprefix("set=1\n"))["errno"]
        if errno:
            raise Rejected(abs(errno))
        if change.private_key is not None:
            self.private_key = change.private_key

    async def state(self) -> DeviceState:
        lines = [line.partition("=") for line in self.call("get")["text"].split("\n") if line]
        return decode([(key, value) for key, _, value in lines if key != "errno"])

    def address(self, family: int = 4) -> Address:
        return Address("10.213.0.1" if family == 4 else "fd21:3::1", 51820)

    def alias(self, family: int = 4) -> Address:
        return Address("10.213.0.2" if family == 4 else "fd21:3::2", 51820)

    async def open_port(self, *, host: int = 0, family: int = 4, port: int = 0) -> Port:
        self._next_port += 1
        ip = f"10.213.0.{10 + host}" if family == 4 else f"fd21:3:0:{host + 1:x}::10"
        made = EnginePort(self, Address(ip, port or self._next_port))
        self.ports[made.address] = made
        return made

    @property
    def hosts(self) -> int:
        return HOSTS

    async def inner_send(self, packets: Sequence[bytes]) -> None:
        self.call("send", packets=[packet.hex() for packet in packets])

    def health(self) -> Health:
        return self._host.health()

    async def set_up(self, up: bool) -> None:
        self.call("up", value=up)

    async def set_mtu(self, mtu: int) -> None:
        self.call("mtu", value=mtu)
        self.mtu = mtu

    async def stop(self) -> None:
        if self._host.health().alive:
            self.call("drop")


class EngineTarget(Target):
    """The process: the adapter of this package, or another program that speaks as it does."""

    name = "engine"
    virtual = True

    def __init__(self, command: Sequence[str] = ADAPTER) -> None:
        self.command = command
        self._process: subprocess.Popen[str] | None = None
        self._count = 0

    async def open(self) -> None:
        try:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise Unavailable(f"{self.command[0]} does not start: {error.strerror}") from error
        self.version = self.exchange({"op": "version", "id": 0, "now": 0})["version"]

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """One line each way; raises `Unavailable` when the process has ended."""
        assert self._process is not None
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Unavailable(f"the engine's process ended with {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"the engine raised:\n{reply['error']}")
        return reply

    def health(self) -> Health:
        if self._process is None or self._process.poll() is not None:
            return Health(False, detail="the engine's process ended")
        return Health(True, rss_of(self._process.pid))

    async def create(self, private_key: bytes) -> Instance:
        self._count += 1
        instance = EngineInstance(self, private_key, self._count)
        await instance.apply(DeviceConfig(private_key))
        return instance

    async def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()


def make(arguments: list[str]) -> Target:
    """`engine [PROGRAM ARGUMENT…]`; the program speaks as `wgspec.adapters.engine_process`."""
    return EngineTarget(arguments or ADAPTER)

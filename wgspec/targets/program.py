"""Any program with a UAPI socket, started as one line: `wireguard-go -f %i`.

All instances of a target share one pair of namespaces; each is a process with an interface
and UDP port of its own.  The interface has no IP address, so that the host's kernel never
answers or asks anything through it; the tester reads and writes it by AF_PACKET.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from wgspec.netns import Pair, rss_of, run
from wgspec.target import (
    Address,
    Arrival,
    Capability,
    DeviceConfig,
    DeviceState,
    Health,
    Instance,
    Port,
    RealTimeInstance,
    Target,
    Unavailable,
)
from wgspec.uapi import DIRECTORY, Client

_OUTGOING = 4  # sockaddr_ll pkttype: what the host sends into the TUN, our own stimulus
START_TIMEOUT = 30.0
_UDP_SEGMENT = 103
_MAX_SEGMENTS, _MAX_TRAIN = 60, 60_000


def monotonic_of(ancillary: list[tuple[int, int, bytes]]) -> tuple[float, int]:
    """(receive time on the monotonic clock, TOS byte or -1) of a datagram's control data."""
    at, tos = time.monotonic(), -1
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == 35:
            seconds, ns = struct.unpack("qq", data[:16])
            at -= max(0.0, time.time() - (seconds + ns / 1e9))
        elif level in (socket.IPPROTO_IP, socket.IPPROTO_IPV6):
            tos = data[0]
    return at, tos


class UdpPort(Port):
    """A UDP socket in the tester's namespace."""

    def __init__(self, instance: RealTimeInstance, sock: socket.socket) -> None:
        name = sock.getsockname()
        super().__init__(instance, Address(name[0], name[1]))
        self._sock = sock
        self._real = instance
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(64):
            try:
                data, ancillary, _, source = self._sock.recvmsg(65536, 512)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error came back: the next receive is for data
            at, tos = monotonic_of(ancillary)
            self.arrived(Arrival(at, data, Address(source[0], source[1]), self.address, tos))
        self._real.wake()

    def _transmit(self, datagrams: Sequence[bytes], to: Address) -> None:
        for data in datagrams:
            for _ in range(3):
                try:
                    self._sock.sendto(data, to)
                except ConnectionRefusedError:
                    continue
                except BlockingIOError:
                    time.sleep(0.002)
                    continue
                break

    def train(self, datagrams: Sequence[bytes]) -> None:
        """As super-packets of the kernel (UDP GSO), which a veth hands over whole."""
        size = len(datagrams[0])
        to = self.instance.address(self.address.family)
        step = min(_MAX_SEGMENTS, _MAX_TRAIN // size)
        segment = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("H", size))
        for start in range(0, len(datagrams), step):
            part = datagrams[start : start + step]
            assert all(len(data) == size for data in part)
            try:
                self._sock.sendmsg(part, [segment], 0, to)
            except OSError:  # this kernel or route cannot: one by one is as right
                self._transmit(part, to)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()


class ProgramInstance(RealTimeInstance):
    """One process with one TUN interface."""

    capabilities = frozenset(Capability)

    def __init__(self, target: ProgramTarget, private_key: bytes, name: str, port: int) -> None:
        super().__init__(target, private_key)
        self.pair = target.pair
        self.command = target.command
        self.name = name
        self.port = port
        self.client = Client(name)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process: subprocess.Popen[bytes] | None = None
        self._inner: socket.socket | None = None

    async def start(self) -> None:
        """Start the process, wait for its socket, configure, set up, tap the TUN."""
        words = [word.replace("%i", self.name) for word in shlex.split(self.command)]
        environment = os.environ | {"WG_PROCESS_FOREGROUND": "1"}
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self.pair.target, *words],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=environment,
        )  # fmt: skip
        await self._until_socket()
        await self.client.apply(DeviceConfig(self.private_key, self.port))
        await self.set_up(True)
        self._inner = self.pair.packet_socket(self.name)
        asyncio.get_running_loop().add_reader(self._inner.fileno(), self._inner_readable)

    async def _until_socket(self) -> None:
        deadline = self.now() + START_TIMEOUT
        while not await self.client.listening():
            assert self._process is not None
            if self._process.poll() is not None:
                raise Unavailable(f"`{self.command}` ended at once: {self.diagnostics()}")
            if self.now() > deadline:
                raise Unavailable(
                    f"`{self.command}` made no {self.client.path} within {START_TIMEOUT:.0f} s"
                )
            await asyncio.sleep(0.02)

    def _inner_readable(self) -> None:
        assert self._inner is not None
        for _ in range(64):
            try:
                packet, source = self._inner.recvfrom(65536)
            except OSError:
                break
            if source[2] != _OUTGOING:
                self.deliver(packet, time.monotonic())

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def apply(self, change: DeviceConfig) -> None:
        await self.client.apply(change)
        if change.private_key is not None:
            self.private_key = change.private_key

    async def state(self) -> DeviceState:
        return await self.client.state()

    def address(self, family: int = 4) -> Address:
        return Address(self.pair.target4 if family == 4 else self.pair.target6, self.port)

    def alias(self, family: int = 4) -> Address:
        return Address(self.pair.alias4 if family == 4 else self.pair.alias6, self.port)

    async def open_port(self, *, host: int = 0, family: int = 4, port: int = 0) -> Port:
        sock = self.pair.udp_socket(self.pair.host(host, family), port, family)
        return UdpPort(self, sock)

    @property
    def hosts(self) -> int:
        return self.pair.hosts

    async def inner_send(self, packets: Sequence[bytes]) -> None:
        assert self._inner is not None
        for packet in packets:
            protocol = 0x86DD if packet[:1] and packet[0] >> 4 == 6 else 0x0800
            # The TUN's queue is short (500 packets): yield to the target when it is full.
            for _ in range(200):
                try:
                    self._inner.sendto(packet, (self.name, protocol))
                    break
                except (BlockingIOError, OSError) as error:
                    if not isinstance(error, BlockingIOError) and error.errno != 105:
                        raise
                    await asyncio.sleep(0.005)

    def health(self) -> Health:
        code = None if self._process is None else self._process.poll()
        if code is not None or self._process is None:
            return Health(False, 0, f"the process ended with status {code}")
        return Health(True, rss_of(self.pid))

    async def set_up(self, up: bool) -> None:
        run("ip", "-n", self.pair.target, "link", "set", self.name, "up" if up else "down")
        if up:
            await asyncio.sleep(0.1)

    async def set_mtu(self, mtu: int) -> None:
        run("ip", "-n", self.pair.target, "link", "set", self.name, "mtu", str(mtu))
        self.mtu = mtu
        await asyncio.sleep(0.1)

    async def exited(self, timeout: float) -> int | None:
        """The exit status once the process has ended by itself, or None."""
        deadline = self.now() + timeout
        while self.now() < deadline:
            assert self._process is not None
            if (code := self._process.poll()) is not None:
                return code
            await asyncio.sleep(0.05)
        return None

    async def end(self, how: str, timeout: float) -> int | None:
        assert self._process is not None
        if how == "link":
            run("ip", "-n", self.pair.target, "link", "delete", self.name)
        elif how == "socket":
            self.client.path.unlink()
        else:
            self._process.send_signal(signal.Signals[how])
        return await self.exited(timeout)

    def leftovers(self) -> list[str]:
        return [str(self.client.path)] if self.client.path.exists() else []

    async def stop(self) -> None:
        if self._inner is not None and self._inner.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._inner.fileno())
            self._inner.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            if await self.exited(3.0) is None:
                self._process.kill()
                self._process.wait()
        with contextlib.suppress(OSError):
            self.client.path.unlink(missing_ok=True)
        self._log.close()

    def diagnostics(self) -> str:
        if self._log.closed:
            return ""
        self._log.seek(0)
        return self._log.read()[-4000:].decode(errors="replace").strip()


class ProgramTarget(Target):
    """`command` holds `%i` where the interface's name goes."""

    def __init__(self, command: str, name: str = "") -> None:
        words = shlex.split(command)
        if not words or "%i" not in command:
            raise Unavailable(f"a program target needs %i for the interface: {command!r}")
        self.command = command
        self.name = name or Path(words[0]).name
        self.pair = Pair()
        self._count = 0

    async def open(self) -> None:
        if os.geteuid() != 0:
            raise Unavailable("namespaces and TUN devices need root: try with sudo")
        program = shlex.split(self.command)[0]
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed (or not in PATH)")
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.pair.open()

    async def create(self, private_key: bytes) -> Instance:
        self._count += 1
        name = f"{self.pair.prefix}i{self._count}"
        instance = ProgramInstance(self, private_key, name[-15:], 20000 + self._count)
        try:
            await instance.start()
        except OSError as error:
            printed = instance.diagnostics()
            await instance.stop()
            raise Unavailable(f"`{self.command}` did not start: {error}\n{printed}") from error
        except BaseException:
            await instance.stop()
            raise
        return instance

    async def close(self) -> None:
        self.pair.close()

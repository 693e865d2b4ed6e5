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
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from wgspec.netns import rss_of, run
from wgspec.rights import as_root
from wgspec.target import Capability, DeviceConfig, DeviceState, Health, Unavailable
from wgspec.targets.pair import PairInstance, PairTarget
from wgspec.uapi import DIRECTORY, Client

_OUTGOING = 4  # sockaddr_ll pkttype: what the host sends into the TUN, our own stimulus
START_TIMEOUT = 30.0
FOREGROUND = {"WG_PROCESS_FOREGROUND": "1"}
VERSION_TIMEOUT = 10.0
"""Seconds for `PROGRAM --version`; a program that takes the word for something else is ended."""


def version_command(command: str) -> list[str]:
    """The command that makes the program say its version.

    Its words up to the interface's name, where the options just before that name (`-f`)
    give way to `--version`; so an interpreter or `env` in front of the program stays there.
    """
    words = shlex.split(command)
    end = next(number for number, word in enumerate(words) if "%i" in word)
    while end > 1 and words[end - 1].startswith("-"):
        end -= 1
    return [*words[:end], "--version"]


def said_version(command: str, namespace: str) -> str:
    """The first line that the program prints for `--version`; empty when it does not say."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, *version_command(command)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | FOREGROUND, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=VERSION_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return ""
    if process.returncode != 0:
        return ""
    lines = (out or err).decode(errors="replace").split("\n")
    return next((line.strip() for line in lines if line.strip()), "")


class ProgramInstance(PairInstance):
    """One process with one TUN interface."""

    capabilities = frozenset(Capability)

    def __init__(self, target: ProgramTarget, private_key: bytes, number: int) -> None:
        super().__init__(target, private_key, number)
        self.command = target.command
        self.name = f"{self.pair.prefix}i{number}"[-15:]
        self.client = Client(self.name)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process: subprocess.Popen[bytes] | None = None
        self._inner: socket.socket | None = None

    async def start(self) -> None:
        """Start the process, wait for its socket, configure, set up, tap the TUN."""
        try:
            await self._start()
        except OSError as error:
            text = f"`{self.command}` did not start: {error}\n{self.diagnostics()}"
            raise Unavailable(text) from error

    async def _start(self) -> None:
        words = [word.replace("%i", self.name) for word in shlex.split(self.command)]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self.pair.target, *words],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env=os.environ | FOREGROUND,
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


class ProgramTarget(PairTarget):
    """`command` holds `%i` where the interface's name goes."""

    needs_root = "namespaces and TUN devices need root"

    def __init__(self, command: str, name: str = "") -> None:
        super().__init__()
        words = shlex.split(command)
        if not words or "%i" not in command:
            raise Unavailable(f"a program target needs %i for the interface: {command!r}")
        self.command = command
        self.name = name or Path(words[0]).name

    async def prepare(self) -> None:
        program = shlex.split(self.command)[0]
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed (or not in PATH)")
        if not Path("/dev/net/tun").exists():
            raise Unavailable(f"/dev/net/tun is missing (try `{as_root('modprobe', 'tun')}`)")
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def begin(self) -> None:
        self.version = await asyncio.to_thread(said_version, self.command, self.pair.target)

    def make_instance(self, private_key: bytes, number: int) -> ProgramInstance:
        return ProgramInstance(self, private_key, number)

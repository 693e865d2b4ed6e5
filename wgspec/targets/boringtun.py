"""boringtun as built into package mitmproxy-wireguard: `--sut boringtun`.

Its peers are fixed when it starts, it learns their endpoints and inner addresses from what
they send, and its inside is a user-space UDP stack.  So every case gets a process of its
own with fresh identities; packets that come out are rebuilt from what the stack reports,
and it can be given packets only for inner addresses that it has heard.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.metadata
import ipaddress
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from random import Random
from typing import Any

from wgspec.inner import udp_packet
from wgspec.netns import rss_of
from wgspec.primitives import public_key
from wgspec.target import Capability, DeviceConfig, FixedPeer, Health, Unavailable, Unsupported
from wgspec.targets.pair import PairInstance, PairTarget

IDENTITIES = 24
START_TIMEOUT = 30.0


class BoringtunInstance(PairInstance):
    """One process."""

    load_by_peers = True
    capabilities = frozenset(
        {
            Capability.INNER_IN,
            Capability.INNER_OUT,
            Capability.IPV6,
            Capability.HOSTS,
            Capability.LOAD,
            Capability.FRESH,
            Capability.FORGET,
        }
    )

    def __init__(self, target: BoringtunTarget, private_key: bytes, number: int) -> None:
        super().__init__(target, private_key, number)
        dice = Random(private_key)
        self.fixed_peers = tuple(
            FixedPeer(
                dice.randbytes(32),
                inner4=f"10.100.{number}.1",
                inner6=f"fd77:{number:x}::1",
                target_inner4="10.99.0.1",
            )
            for number in range(1, IDENTITIES + 1)
        )
        self._heard: set[str] = set()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process

    async def start(self) -> None:
        """Start the process and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.pair.target,
            sys.executable, "-P", "-m", "wgspec.adapters.boringtun_process",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        peers = [
            base64.b64encode(public_key(peer.private_key)).decode() for peer in self.fixed_peers
        ]
        private = base64.b64encode(self.private_key).decode()
        self._say({"host": "::", "port": self.port, "private": private, "peers": peers})
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_TIMEOUT)
        if b"ready" not in line:
            raise Unavailable(f"boringtun did not start: {self.diagnostics()}")
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            message = json.loads(line)
            source, destination = message["source"], message["destination"]
            self._heard.add(str(ipaddress.ip_address(source[0])))
            payload = bytes.fromhex(message["packet"])
            packet = udp_packet(source[0], source[1], destination[0], destination[1], payload)
            self.deliver(packet, time.monotonic())

    async def apply(self, change: DeviceConfig) -> None:  # noqa: ARG002
        raise Unsupported("its peers are fixed")

    async def inner_send(self, packets: Sequence[bytes]) -> None:
        for packet in packets:
            version, header = packet[0] >> 4, 20 if packet[0] >> 4 == 4 else 40
            place = 12 if version == 4 else 8
            size = 4 if version == 4 else 16
            source = str(ipaddress.ip_address(packet[place : place + size]))
            destination = str(ipaddress.ip_address(packet[place + size : place + 2 * size]))
            if destination not in self._heard:
                raise Unsupported("it can send only to inner addresses that it has heard")
            ports = [int.from_bytes(packet[at : at + 2], "big") for at in (header, header + 2)]
            self._say(
                {
                    "packet": packet[header + 8 :].hex(),
                    "source": [source, ports[0]],
                    "destination": [destination, ports[1]],
                }
            )

    def health(self) -> Health:
        if self._process is None or self._process.returncode is not None:
            return Health(False, 0, "the process has ended")
        return Health(True, rss_of(self._process.pid))

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 3)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._log.close()

    def diagnostics(self) -> str:
        if self._log.closed:
            return ""
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace").strip()


class BoringtunTarget(PairTarget):
    """boringtun in the version that the installed package holds."""

    name = "boringtun"
    one_per_case = True

    async def prepare(self) -> None:
        try:
            version = importlib.metadata.version("mitmproxy-wireguard")
        except importlib.metadata.PackageNotFoundError as error:
            install = f"{shlex.quote(sys.executable)} -m pip install 'mitmproxy-wireguard>=0.1.23'"
            raise Unavailable(f"boringtun is missing (try `{install}`)") from error
        self.version = f"mitmproxy-wireguard {version}"

    def make_instance(self, private_key: bytes, number: int) -> BoringtunInstance:
        return BoringtunInstance(self, private_key, number)


def make(arguments: list[str]) -> BoringtunTarget:
    """`boringtun`, without arguments."""
    if arguments:
        raise Unavailable("usage: boringtun (it takes no arguments)")
    return BoringtunTarget()

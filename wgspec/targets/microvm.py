"""A Debian kernel's WireGuard in a micro-VM: `--sut 'microvm 6.12'`.

qemu boots the kernel with an agent (`guest`) behind a tap device in the tester's namespace;
KVM is tried first, then plain emulation, which is slow but behaves the same.  All
instances are interfaces of one guest.  A conformance peer only: how fast it is means
nothing.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wgspec.netns import Pair, inside, run
from wgspec.rights import as_root
from wgspec.target import (
    Address,
    Capability,
    DeviceConfig,
    DeviceState,
    Health,
    PeerConfig,
    PeerState,
    Rejected,
    Unavailable,
    Unsupported,
)
from wgspec.targets import guest, vm_image
from wgspec.targets.pair import PairInstance, PairTarget

BOOT_TIMEOUT = 120.0
"""Seconds for a guest to come up, emulated and on a busy machine."""
KVM_TIMEOUT = 10.0
"""With KVM it takes two; where KVM is offered and does not work, the guest just hangs."""
_TAP = "tap0"
_NO_KEY = "(none)"


class TapPair(Pair):
    """The tester's namespace alone, with a tap device to the guest in it."""

    def _open(self) -> None:
        run("ip", "netns", "add", self.tester)
        run("ip", "-n", self.tester, "link", "set", "lo", "up")
        run("ip", "netns", "exec", self.tester, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0")
        run("ip", "-n", self.tester, "tuntap", "add", _TAP, "mode", "tap")
        lines = [f"link set {_TAP} up"]
        lines += [f"addr add {self.host(i, 4)}/24 dev {_TAP}" for i in range(self.hosts)]
        lines += [f"addr add {self.host(i, 6)}/48 dev {_TAP} nodad" for i in range(self.hosts)]
        self._batch(self.tester, lines)


class Vm:
    """The running guest and the conversation with its agent."""

    def __init__(self, pair: Pair, image: vm_image.Image | None) -> None:
        self.pair = pair
        self._image = image
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the guest
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self.instances: dict[int, MicroVmInstance] = {}

    async def boot(self) -> None:
        """With KVM where it works, else emulated; raises `Unavailable`."""
        attempts = [("tcg", BOOT_TIMEOUT)]
        if os.access("/dev/kvm", os.R_OK | os.W_OK):
            attempts.insert(0, ("kvm", KVM_TIMEOUT))
        for accelerator, patience in attempts:
            self._start(accelerator)
            if await self._connect(patience):
                return
            self._kill()
        raise Unavailable(f"the micro-VM did not boot:\n{self.console()}")

    def _start(self, accelerator: str) -> None:
        pair = self.pair
        assert self._image is not None
        addresses = [f"{a}/24" for a in (pair.target4, pair.alias4)]
        addresses += [f"{a}/48" for a in (pair.target6, pair.alias6)]
        words = " ".join(f"wgspec.address={a}" for a in addresses)
        self._process = subprocess.Popen(
            [
                "ip", "netns", "exec", pair.tester, "qemu-system-x86_64",
                "-accel", accelerator, "-cpu", "max" if accelerator == "tcg" else "host",
                "-m", "512", "-nodefaults", "-no-reboot", "-display", "none",
                "-serial", "stdio", "-kernel", str(self._image.kernel),
                "-initrd", str(self._image.initramfs),
                "-append", f"console=ttyS0 quiet panic=-1 net.ifnames=0 {words}",
                "-netdev", f"tap,id=net,ifname={_TAP},script=no,downscript=no",
                "-device", "virtio-net-pci,netdev=net",
            ],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip

    async def _connect(self, patience: float = BOOT_TIMEOUT, *, set_clock: bool = True) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                return False
            if "agent ready" not in self.console():
                await asyncio.sleep(0.1)
                continue
            with contextlib.suppress(OSError):
                sock = inside(self.pair.tester, self._dial)
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                reader, self._writer = await asyncio.open_connection(sock=sock)
                self._reading = asyncio.create_task(self._read(reader))
                if set_clock:
                    await self.ask("set_clock", wall=time.time())
                return True
            await asyncio.sleep(0.1)
        return False

    def _dial(self) -> socket.socket:
        return socket.create_connection((self.pair.target4, guest.PORT), 5)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size, kind = struct.unpack(">IB", await reader.readexactly(5))
                payload = await reader.readexactly(size)
                if kind == guest.JSON:
                    answer = json.loads(payload)
                    future = self._answers.pop(answer["id"], None)
                    if future is not None and not future.done():
                        future.set_result(answer)
                    continue
                instance = self.instances.get(int.from_bytes(payload[:2], "big"))
                if instance is not None:
                    instance.deliver(payload[2:], time.monotonic())

    def send(self, kind: int, payload: bytes) -> None:
        """One frame to the agent."""
        assert self._writer is not None
        self._writer.write(struct.pack(">IB", len(payload), kind) + payload)

    async def ask(self, op: str, **arguments: Any) -> Any:
        """The agent's result; raises `Rejected` with its error."""
        self._number += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = future
        request = {"id": self._number, "op": op, "arguments": arguments}
        self.send(guest.JSON, json.dumps(request).encode())
        answer = await asyncio.wait_for(future, 60)
        if "error" in answer:
            raise Rejected(22, answer["error"])
        return answer["result"]

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def console(self) -> str:
        """What the guest printed."""
        if self._log.closed:
            return ""
        self._log.seek(0)
        return self._log.read()[-4000:].decode(errors="replace")

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End the guest."""
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()
        self._kill()
        self._log.close()


class MicroVmInstance(PairInstance):
    """One WireGuard interface of the guest."""

    capabilities = frozenset(Capability) - {Capability.PROCESS, Capability.UAPI}
    slack = 2.0

    def __init__(self, target: MicroVmTarget, private_key: bytes, number: int) -> None:
        super().__init__(target, private_key, number)
        self.vm = target.vm
        self.number = number
        self.name = f"wg{number}"

    async def start(self) -> None:
        key = base64.b64encode(self.private_key).decode()
        await self.vm.ask("create", number=self.number, private=key, port=self.port)
        self.vm.instances[self.number] = self

    async def apply(self, change: DeviceConfig) -> None:
        if change.private_key is not None:
            key = base64.b64encode(change.private_key).decode()
            words = ["set", self.name, "private-key", "/dev/stdin"]
            await self.vm.ask("wg", words=words, stdin=key)
            self.private_key = change.private_key
        words = []
        if change.listen_port is not None:
            words += ["listen-port", str(change.listen_port)]
            self.port = change.listen_port
        if change.fwmark is not None:
            words += ["fwmark", str(change.fwmark)]
        if change.replace_peers:
            for peer in (await self.state()).peers:
                words += ["peer", base64.b64encode(peer.public_key).decode(), "remove"]
        if words:
            await self.vm.ask("wg", words=["set", self.name, *words])
        for peer_change in change.peers:
            await self._change_peer(peer_change)

    async def _change_peer(self, change: PeerConfig) -> None:
        if change.update_only:
            known = (await self.state()).peer(change.public_key)
            if known is None:
                return
        words = ["set", self.name, "peer", base64.b64encode(change.public_key).decode()]
        if change.remove:
            words.append("remove")
        secret = ""
        if change.preshared_key is not None:
            words += ["preshared-key", "/dev/stdin"]
            secret = base64.b64encode(change.preshared_key).decode()
        if change.endpoint is not None:
            words += ["endpoint", str(change.endpoint)]
        if change.keepalive is not None:
            words += ["persistent-keepalive", str(change.keepalive)]
        if change.allowed_ips is not None:
            words += ["allowed-ips", ",".join(await self._allowed_ips(change))]
        await self.vm.ask("wg", words=words, stdin=secret)

    async def _allowed_ips(self, change: PeerConfig) -> list[str]:
        """`wg` only replaces the whole list."""
        assert change.allowed_ips is not None
        if any(entry.startswith("-") for entry in change.allowed_ips):
            raise Unsupported("its `wg` cannot remove a single allowed IP")
        if not change.add_allowed_ips:
            return list(change.allowed_ips)
        known = (await self.state()).peer(change.public_key)
        return [*(known.allowed_ips if known else ()), *change.allowed_ips]

    async def state(self) -> DeviceState:
        dump = await self.vm.ask("wg", words=["show", self.name, "dump"])
        lines = [line.split("\t") for line in dump.splitlines()]
        private = lines[0][0]
        return DeviceState(
            listen_port=int(lines[0][2]),
            private_key=None if private == _NO_KEY else base64.b64decode(private),
            peers=tuple(_peer_state(line) for line in lines[1:]),
        )

    async def inner_send(self, packets: Sequence[bytes]) -> None:
        for packet in packets:
            self.vm.send(guest.PACKET, struct.pack(">H", self.number) + packet)

    def health(self) -> Health:
        return Health(self.vm.alive, 0, "" if self.vm.alive else "the guest has ended")

    async def set_up(self, up: bool) -> None:
        await self.vm.ask("ip", words=["link", "set", self.name, "up" if up else "down"])

    async def set_mtu(self, mtu: int) -> None:
        await self.vm.ask("ip", words=["link", "set", self.name, "mtu", str(mtu)])
        self.mtu = mtu

    async def stop(self) -> None:
        self.vm.instances.pop(self.number, None)
        with contextlib.suppress(Exception):
            await self.vm.ask("delete", number=self.number)

    def diagnostics(self) -> str:
        return self.vm.console()


def _peer_state(words: list[str]) -> PeerState:
    """From a peer's line of `wg show dump`."""
    endpoint = None
    if words[2] != _NO_KEY:
        host, _, port = words[2].rpartition(":")
        endpoint = Address(host.strip("[]"), int(port))
    return PeerState(
        public_key=base64.b64decode(words[0]),
        endpoint=endpoint,
        allowed_ips=() if words[3] == _NO_KEY else tuple(words[3].split(",")),
        latest_handshake=int(words[4]),
        rx_bytes=int(words[5]),
        tx_bytes=int(words[6]),
        keepalive=0 if words[7] == "off" else int(words[7]),
    )


class MicroVmTarget(PairTarget):
    """One guest with a kernel of a series; named `linux-6.1`, `linux-6.12`."""

    needs_root = "a tap device needs root"
    parallel = 8
    fresh_parallel = 2
    stagger = 0.6
    shares_load = True  # the kernel remembers one time of being under load for all interfaces

    def __init__(self, series: str, pair: Pair | None = None) -> None:
        super().__init__(pair or TapPair())
        self.series = series
        self.name = f"linux-{series}"
        self._image: vm_image.Image | None = None

    async def prepare(self) -> None:
        if shutil.which("qemu-system-x86_64") is None:
            install = as_root("apt-get", "install", "qemu-system-x86")
            raise Unavailable(f"qemu is missing (try `{install}`)")
        self._image = await asyncio.to_thread(vm_image.prepare, self.series)
        self.version = f"Linux {self._image.release}"

    def make_vm(self) -> Vm:
        """The guest, not booted yet."""
        return Vm(self.pair, self._image)

    async def begin(self) -> None:
        self.vm = self.make_vm()
        await self.vm.boot()

    def make_instance(self, private_key: bytes, number: int) -> MicroVmInstance:
        return MicroVmInstance(self, private_key, number)

    async def close(self) -> None:
        if hasattr(self, "vm"):
            self.vm.close()
        await super().close()


def make(arguments: list[str]) -> MicroVmTarget:
    """`microvm [SERIES]`; the series is Debian stable's 6.1 unless told."""
    if len(arguments) > 1 or (arguments and not Path(arguments[0]).name == arguments[0]):
        raise Unavailable("usage: microvm [SERIES], for instance microvm 6.12")
    return MicroVmTarget(arguments[0] if arguments else "6.1")

"""The kernel's own WireGuard: `--sut kernel`.

The running host's module if there is one, driven by the same agent as in the micro-VM, here
as a program in the target's namespace; otherwise the micro-VM with the distribution's
kernel.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

from wgspec.netns import Pair, run
from wgspec.target import Target, Unavailable
from wgspec.targets import guest
from wgspec.targets.microvm import MicroVmTarget, Vm


class LocalAgent(Vm):
    """The agent as a program on this machine, in the target's namespace."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair, None)

    async def boot(self) -> None:
        """Start it; raises `Unavailable`."""
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self.pair.target, sys.executable, "-P", guest.__file__],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        if not await self._connect(set_clock=False):
            raise Unavailable(f"the agent did not start:\n{self.console()}")


class HostKernelTarget(MicroVmTarget):
    """The running kernel; named by its series, as in the micro-VM."""

    def __init__(self) -> None:
        series = ".".join(os.uname().release.split(".")[:2])
        super().__init__(series, pair=Pair())

    async def prepare(self) -> None:
        self.version = f"Linux {os.uname().release}"

    def make_vm(self) -> Vm:
        return LocalAgent(self.pair)


def host_has_module() -> bool:
    """Whether this kernel can make a WireGuard interface (tried in a namespace of its own)."""
    name = f"wgspec{secrets.token_hex(3)}-k"
    try:
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "add", "wg0", "type", "wireguard")
    except (RuntimeError, OSError):
        return False
    finally:
        run("ip", "netns", "del", name, check=False)
    return True


def distribution_series() -> str:
    """The kernel series of the running Debian release; 6.12 elsewhere."""
    release = Path("/etc/os-release")
    debian_12 = release.exists() and "bookworm" in release.read_text()
    return "6.1" if debian_12 else "6.12"


def make(arguments: list[str]) -> Target:
    """`kernel`, without arguments."""
    if arguments:
        raise Unavailable("usage: kernel (for a certain series: microvm 6.12)")
    if os.geteuid() == 0 and host_has_module():
        return HostKernelTarget()
    return MicroVmTarget(distribution_series())

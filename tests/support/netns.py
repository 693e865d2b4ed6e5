"""Network namespaces for tests, and nothing stays behind.

A `Lab` makes namespaces (`testbed.namespaces`), veth pairs and interface names that no other
test run on this machine can have (they carry a random part), starts processes in them, and
removes all of it when the test ends, however it ends, SIGKILL of the test run included.

    def test_ping(lab):
        left, right = lab.namespace("left"), lab.namespace("right")
        lab.veth(left, right, "10.0.0.1/24", "10.0.0.2/24")
        left.run("ping", "-c1", "10.0.0.2")

Namespaces have no names that `ip` knows: move a device with ``netns {right.pid}``.
Without root, `tests/conftest.py` restarts pytest in a user namespace, where all of this
works as well.  Interface names must come from `Lab.interface` even inside a namespace:
the UAPI sockets in /var/run/wireguard are named after them and that folder is shared.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from testbed import namespaces
from testbed.namespaces import start_time, wait_until
from wgpy.sockets import SOCKET_FOLDER

__all__ = ["NO_TUN", "SOCKET_FOLDER", "Lab", "Namespace", "wait_until", "why_impossible"]

NO_TUN = "WGPY_NO_TUN"


@functools.cache
def why_impossible() -> str:
    """Empty when namespaces and TUN devices can be made, else what is missing and the fix."""
    missing = [tool for tool in ("ip", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install iproute2 util-linux"
    if os.geteuid() != 0:
        return (
            "not root, and no user namespace could be made: run as root, or allow them with"
            " `sysctl kernel.unprivileged_userns_clone=1`"
        )
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return (
            "/dev/net/tun cannot be opened: `modprobe tun`, or `mkdir -p /dev/net && mknod"
            " /dev/net/tun c 10 200`; in a container add `--device /dev/net/tun`"
        )
    tried = subprocess.run(
        ["unshare", "--net", "ip", "tuntap", "add", "dev", "try", "mode", "tun"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        return (
            f"no TUN device in a namespace of its own ({tried.stderr.strip()}): in a container"
            " add `--device /dev/net/tun --cap-add NET_ADMIN --cap-add SYS_ADMIN`"
        )
    return ""


class Namespace:
    """One network namespace of a `Lab`."""

    def __init__(self, lab: Lab, space: namespaces.Namespace) -> None:
        self.lab = lab
        self.space = space
        self.name = space.name
        self.pid = space.pid
        self.entered = space.entered
        self.pids = space.pids

    def command(self, *words: str) -> list[str]:
        """The command line that runs `words` in here."""
        return [*self.space.prefix(), *words]

    def run(
        self,
        *words: str,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 60,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end and capture; with `check`, a failure shows what the command said."""
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=None if env is None else os.environ | env,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{shlex.join(words)} in {self.name} ended with {done.returncode}:\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def ip(self, line: str) -> str:
        """`ip LINE`, for instance ``ns.ip("link set lo up")``."""
        return self.run("ip", *shlex.split(line)).stdout

    def start(
        self, *words: str, env: dict[str, str] | None = None, log: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start in the background; ended with the lab.  Output goes to `log`, else to a pipe."""
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("w")) if log else subprocess.PIPE
            process = subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env=None if env is None else os.environ | env,
            )
        self.lab.processes.append(process)
        return process

    def end(self) -> None:
        """Let go of it: it lives on only as long as a process inside or a socket does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        assert wait_until(lambda: not self.space.alive())


class Lab:
    """Makes namespaces and what joins them; a context manager that removes them all."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(3)
        self.namespaces: list[Namespace] = []
        self._pinned: list[int] = []
        self.processes: list[subprocess.Popen[str]] = []
        self._interfaces: list[str] = []

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def namespace(self, label: str) -> Namespace:
        """A new namespace with loopback up and no IPv6 duplicate-address delay."""
        name = f"{label}{len(self.namespaces)}"
        space = namespaces.make([name])[name]
        self._pinned += namespaces.pin([space.pid])
        namespaces.guard([space])
        made = Namespace(self, space)
        self.namespaces.append(made)
        made.run("sysctl", "-qw", *(f"net.ipv6.conf.{w}.accept_dad=0" for w in ("all", "default")))
        made.ip("link set lo up")
        return made

    def interface(self, label: str = "wg") -> str:
        """An interface name (at most 15 characters) that is unique on this machine."""
        name = f"{label[:6]}{self._token}{len(self._interfaces):x}"
        assert len(name) <= 15
        self._interfaces.append(name)
        return name

    def veth(
        self, left: Namespace, right: Namespace, left_address: str = "", right_address: str = ""
    ) -> tuple[str, str]:
        """Join two namespaces; addresses like ``10.0.0.1/24 fd00::1/64``, space separated."""
        ends = (self.interface("ve"), self.interface("ve"))
        left.ip(f"link add {ends[0]} type veth peer name {ends[1]} netns {right.pid}")
        for namespace, end, addresses in zip(
            (left, right), ends, (left_address, right_address), strict=True
        ):
            for address in addresses.split():
                nodad = "nodad" if ":" in address else ""
                namespace.ip(f"address add {address} dev {end} {nodad}")
            namespace.ip(f"link set {end} up")
        return ends

    def close(self) -> None:
        """End every process in the namespaces, remove the namespaces and stale sockets."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        _end([pid for namespace in self.namespaces for pid in namespace.pids()])
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        namespaces.kill_inside(self._pinned)
        for fd in self._pinned:
            os.close(fd)
        self._pinned.clear()
        namespaces.unguard(namespace.space for namespace in self.namespaces)
        for name in self._interfaces:
            for stale in SOCKET_FOLDER.glob(f"{name}.*"):
                stale.unlink(missing_ok=True)
        self.namespaces.clear()
        self.processes.clear()


def _end(pids: list[int]) -> None:
    """SIGTERM, and SIGKILL for what is still there after two seconds."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        waiting = tuple(pids)
        wait_until(lambda these=waiting: not any(map(start_time, these)), patience)
        pids = [pid for pid in waiting if start_time(pid)]

"""Namespaces without names: each lives exactly as long as the processes inside of it.

A `Namespace` is one holder process (`sleep`) in network, mount and host-name namespaces of
its own, with a private tmpfs on /run, so that every node may call its device wg0 and its
socket /run/wireguard/wg0.sock.  Nothing is entered into `ip netns`, so there is nothing to
forget there: when the last process inside is killed, the kernel removes every device,
address, route and nft table with it.

`kill_inside` is the clean-up that cannot miss: it ends every process that /proc shows inside
the given namespaces, whoever started it.  A `Guardian` calls it for a program that was
itself killed, so that even SIGKILL of a test run leaves nothing behind.

The same calls work as root and inside an unprivileged user namespace (`privileges`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from wgpy.programs import python_module

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_UNSHARE = ("unshare", "--net", "--mount", "--uts", "--propagation", "private", "--")
_PRIVATE_RUN = (
    'cd "$2" && mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/wireguard /run/netns '
    # A state folder below /run stays visible: it is still this shell's working directory.
    '&& if [ "${2#/run/}" != "$2" ]; then '
    'mkdir -p "$2" && mount --no-canonicalize --bind /proc/self/cwd "$2"; fi '
    '&& { mount -t sysfs sysfs /sys 2>/dev/null || true; } '
    '&& { hostname "$1" 2>/dev/null || true; } && echo ready && exec sleep infinity'
)


class NamespaceError(Exception):
    """A namespace cannot be made or a command inside of it failed; says which and why."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A running holder process.  `started` (clock ticks) tells a reused pid apart."""

    name: str
    pid: int
    started: int

    def prefix(self) -> list[str]:
        """The command that enters the namespace; put the real command behind it."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "--"]

    def alive(self) -> bool:
        """Whether the holder still runs."""
        return start_time(self.pid) == self.started

    def inode(self) -> int:
        """The number of the network namespace, as /proc/PID/ns/net shows it."""
        return Path(f"/proc/{self.pid}/ns/net").stat().st_ino

    def run(
        self,
        *command: str,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; raises `NamespaceError` with its words when it fails and `check`."""
        done = subprocess.run(
            [*self.prefix(), *command],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise NamespaceError(f"{self.name}: {' '.join(command)}: {words}")
        return done

    def popen(
        self,
        *command: str,
        stdout: int | IO[bytes] | None = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = subprocess.STDOUT,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start and return; the process' pid is the command's own (nsenter becomes it)."""
        return subprocess.Popen(
            [*self.prefix(), *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    def ip(self, lines: Iterable[str], family: str = "") -> None:
        """`ip -batch` with one command a line."""
        text = "\n".join(lines)
        if text:
            self.run("ip", *([family] if family else []), "-batch", "-", stdin=text + "\n")

    def nft(self, rules: str) -> None:
        """`nft -f` with these rules."""
        self.run("nft", "-f", "-", stdin=rules)

    def sysctl(self, values: dict[str, str | int]) -> None:
        """Set `net.…` values; the name in the file's way (slashes)."""

        def write() -> None:
            for key, value in values.items():
                Path("/proc/sys/net", key).write_text(f"{value}\n")

        self.call(write)

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread that has entered the network namespace.

        What it opens (sockets) stays in the namespace; the calling thread never moves.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                with Path(f"/proc/{self.pid}/ns/net").open("rb") as handle:
                    setns(handle.fileno(), CLONE_NEWNET)
                outcome.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=enter, name=f"in-{self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that lives in the namespace."""
        return self.call(lambda: socket.socket(family, kind, protocol))


_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int) -> None:
    """setns(2) for the calling thread (in the standard library only from Python 3.12)."""
    if _libc.setns(fd, kind):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


def start_time(pid: int) -> int | None:
    """When the process started (clock ticks since boot), or None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after = text.rpartition(")")[2].split()
    return None if after[0] in "ZX" else int(after[19])


def make(names: Sequence[str], folder: Path) -> dict[str, Namespace]:
    """Namespaces by name, all started at once.  Raises `NamespaceError`, leaving none.

    `folder` is seen inside even where it lies below /run.
    """
    started: list[tuple[str, subprocess.Popen[bytes]]] = []
    try:
        for name in names:
            command = [*_UNSHARE, "sh", "-c", _PRIVATE_RUN, "sh", name, str(folder)]
            started.append((name, subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True,
            )))  # fmt: skip
        return {name: _ready(name, process) for name, process in started}
    except (OSError, NamespaceError) as error:
        for _name, process in started:
            process.kill()
            process.wait()
        raise NamespaceError(str(error)) from error


_children: list[subprocess.Popen[bytes]] = []
"""Holders that this program started, kept so that they can be waited for."""


def _ready(name: str, process: subprocess.Popen[bytes]) -> Namespace:
    assert process.stdout is not None and process.stderr is not None
    if process.stdout.readline() != b"ready\n":
        words = process.stderr.read().decode(errors="replace").strip()
        raise NamespaceError(f"cannot make the namespace of {name}: {words}")
    process.stdout.close()
    process.stderr.close()
    started = start_time(process.pid)
    if started is None:
        raise NamespaceError(f"the holder of {name} died at once")
    _children.append(process)
    return Namespace(name, process.pid, started)


def pin(pids: Iterable[int]) -> list[int]:
    """File descriptors of these processes' network namespaces.

    While one is open the namespace's number cannot pass to a stranger's namespace, so that
    `kill_inside` never ends processes that are not ours.  Raises `NamespaceError` when a
    process is in this program's own network.
    """
    found: dict[int, int] = {}
    for pid in pids:
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # it has just ended
        inode = os.fstat(fd).st_ino
        if inode == os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116
            os.close(fd)
            raise NamespaceError(f"process {pid} is in no network namespace of its own")
        if inode in found:
            os.close(fd)
        else:
            found[inode] = fd
    return list(found.values())


def inside(inodes: Iterable[int]) -> list[int]:
    """The pids of all processes in the network namespaces with these numbers."""
    wanted, found = set(inodes), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if (entry / "ns" / "net").stat().st_ino in wanted:
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid() and start_time(pid) is not None]


def kill_inside(pinned: Iterable[int], *, seconds: float = 5) -> None:
    """End every process in these pinned namespaces; returns when none is left."""
    wanted = [os.fstat(fd).st_ino for fd in pinned]
    deadline = time.monotonic() + seconds
    while wanted and (pids := inside(wanted)):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        reap()
        if time.monotonic() > deadline:
            raise NamespaceError(f"processes {pids} do not die")
        time.sleep(0.01)
    reap()


class Guardian:
    """A small process that outlives this one just long enough to clean up behind it.

    It reads a pipe that only this process can write to; at its end it kills whatever runs
    in the pinned namespaces it was given.
    """

    def __init__(self, pinned: Sequence[int]) -> None:
        self._process = subprocess.Popen(
            python_module("testbed.namespaces", *map(str, pinned)),
            stdin=subprocess.PIPE,
            pass_fds=pinned,
            start_new_session=True,
        )

    def close(self) -> None:
        """Clean up now; returns when nothing is left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def reap() -> None:
    """Wait for the holders of this program that have ended, so that no zombie stays."""
    for process in [child for child in _children if start_time(child.pid) is None]:
        process.wait()
        _children.remove(process)


if __name__ == "__main__":
    # A guardian: wait for the end of the pipe, then end everybody inside.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.read()
    kill_inside(int(number) for number in sys.argv[1:])

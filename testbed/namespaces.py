"""Namespaces without names: each lives exactly as long as the processes inside it.

The one library for clusters, benchmarks and tests.  A `Namespace` is one holder process
(`sleep`) in a network namespace of its own; a cluster's node (`make` with a folder) also has
mount and host-name namespaces with a private tmpfs on /run, so that every node may call its
device wg0 and its socket /run/wireguard/wg0.sock.  Nothing is entered into `ip netns`, so
there is nothing to forget there and no name that two runs could share: when the last process
inside is killed, the kernel removes every device, address, route and nft table with it.

`kill_inside` is the reliable clean-up: it ends every process that /proc shows inside
the given namespaces, however it was started.  The guardian (`guard`) calls it for a program that
was itself killed, so that even SIGKILL of a test run leaves nothing behind.

The same calls work as root and inside an unprivileged user namespace (`privileges`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from wgpy.programs import python_module

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_UNSHARE = ("unshare", "--net")
_AND_FILES = ("--mount", "--uts", "--propagation", "private")
_NETWORK_ONLY = "echo ready && exec sleep infinity"
_PRIVATE_RUN = (
    'cd "$2" && mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/wireguard /run/netns '
    # A state folder below /run stays visible: it is still this shell's working directory.
    '&& if [ "${2#/run/}" != "$2" ]; then '
    'mkdir -p "$2" && mount --no-canonicalize --bind /proc/self/cwd "$2"; fi '
    '&& { mount -t sysfs sysfs /sys 2>/dev/null || true; } '
    '&& { hostname "$1" 2>/dev/null || true; } && echo ready && exec sleep infinity'
)


class NamespaceError(Exception):
    """A namespace cannot be created, or a command inside it failed; says which and why."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A running holder process.  `started` (clock ticks) tells a reused pid apart.

    `inode` is the number of the network namespace, as /proc/PID/ns/net shows it; `own_files`
    is whether it has mounts (a /run) and a host name of its own.
    """

    name: str
    pid: int
    started: int
    inode: int
    own_files: bool = True

    def prefix(self) -> list[str]:
        """The command that enters the namespace; put the real command behind it."""
        files = ["-m", "-u"] if self.own_files else []
        return ["nsenter", "-t", str(self.pid), "-n", *files, "--"]

    def alive(self) -> bool:
        """Whether the holder still runs."""
        return start_time(self.pid) == self.started

    def pids(self) -> list[int]:
        """The processes inside, but for the holder."""
        return [pid for pid in inside([self.inode]) if pid != self.pid]

    def run(
        self,
        *command: str,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; raises `NamespaceError` with its output when it fails and `check`."""
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
                enter_network(self.pid)
                outcome.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=enter, name=f"in-{self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Inside, the calling thread's new sockets and devices belong to the namespace."""
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            enter_network(self.pid)
            try:
                yield
            finally:
                setns(home.fileno(), CLONE_NEWNET)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that lives in the namespace."""
        return self.call(lambda: socket.socket(family, kind, protocol))


_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int) -> None:
    """setns(2) for the calling thread (in the standard library only from Python 3.12)."""
    if _libc.setns(fd, kind):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


def enter_network(pid: int) -> None:
    """Move the calling thread into the network namespace of a process."""
    with Path(f"/proc/{pid}/ns/net").open("rb") as handle:
        setns(handle.fileno(), CLONE_NEWNET)


def start_time(pid: int) -> int | None:
    """When the process started (clock ticks since boot), or None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after = text.rpartition(")")[2].split()
    return None if after[0] in "ZX" else int(after[19])


def make(names: Sequence[str], folder: Path | None = None) -> dict[str, Namespace]:
    """Namespaces by name, all started at once.  Raises `NamespaceError`, leaving none.

    With a `folder` each has a /run of its own; the folder is seen inside even where it lies
    below /run.  Without, only the network is separate.
    """
    started: list[tuple[str, subprocess.Popen[bytes]]] = []
    try:
        for name in names:
            command = [*_UNSHARE, "--", "sh", "-c", _NETWORK_ONLY]
            if folder is not None:
                command = [*_UNSHARE, *_AND_FILES, "--", "sh", "-c", _PRIVATE_RUN, "sh", name,
                           str(folder)]
            started.append((name, subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True,
            )))  # fmt: skip
        return {name: _ready(name, process, folder is not None) for name, process in started}
    except (OSError, NamespaceError) as error:
        for _name, process in started:
            process.kill()
            process.wait()
        raise NamespaceError(str(error)) from error


_children: list[subprocess.Popen[bytes]] = []
"""Holders that this program started, kept so that they can be waited for."""


def _ready(name: str, process: subprocess.Popen[bytes], own_files: bool) -> Namespace:
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
    inode = Path(f"/proc/{process.pid}/ns/net").stat().st_ino
    return Namespace(name, process.pid, started, inode, own_files)


def pin(pids: Iterable[int]) -> list[int]:
    """File descriptors of these processes' network namespaces.

    While one is open the namespace's number cannot be reused for another namespace, so that
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
            raise NamespaceError(f"process {pid} does not have its own network namespace")
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


def wait_until(
    condition: Callable[[], object], seconds: float = 10, interval: float = 0.02
) -> bool:
    """Poll; False when `condition` did not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def guard(spaces: Iterable[Namespace]) -> None:
    """Make the guardian end everything in `spaces` if this program is killed."""
    _guardian().tell("+", spaces)


def unguard(spaces: Iterable[Namespace]) -> None:
    """`spaces` have been ended; the guardian releases them."""
    _guardian().tell("-", spaces)


class _Guardian:
    """A small process that outlives this one just long enough to clean up behind it.

    It reads a pipe that only this process can write to: `+ PID STARTED` pins the namespace of
    that holder, `- PID STARTED` lets go of it.  At the end of the pipe it kills whatever runs
    in those that are pinned.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            python_module("testbed.namespaces"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def tell(self, word: str, spaces: Iterable[Namespace]) -> None:
        """One line per namespace."""
        assert self._process.stdin is not None
        lines = [f"{word} {space.pid} {space.started}\n" for space in spaces]
        self._process.stdin.write("".join(lines).encode())
        self._process.stdin.flush()


@functools.cache
def _guardian() -> _Guardian:
    """One for this program."""
    return _Guardian()


def _watch_over(lines: Iterable[bytes]) -> None:
    """The guardian's work: returns when everything that is still pinned has been ended."""
    pinned: dict[int, list[int]] = {}
    for line in lines:
        word, pid, started = line.split()
        for fd in pinned.pop(int(pid), []):
            os.close(fd)
        if word == b"+" and start_time(int(pid)) == int(started):
            pinned[int(pid)] = pin([int(pid)])
    kill_inside(fd for fds in pinned.values() for fd in fds)


def reap() -> None:
    """Wait for the holders of this program that have ended, so that no zombie stays."""
    for process in [child for child in _children if start_time(child.pid) is None]:
        process.wait()
        _children.remove(process)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _watch_over(sys.stdin.buffer)

"""Two network namespaces joined by a veth pair, with a tunnel between them or none.

The namespaces are the testbed's (`testbed.namespaces`), and end with the context, whatever
happened, SIGKILL of this program included.  Interface names carry one random prefix, as the
folder of the UAPI sockets is shared.  `tunnel` sets up the tunnel.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from testbed import namespaces
from testbed.namespaces import Namespace, NamespaceError

PREFIX = "wgb"
"""Start of every interface name of a benchmark."""

OUTER_MTU = 1500

_SYSCTL = Path("/proc/sys/net/ipv4")


class LabError(RuntimeError):
    """A command of the set-up failed; the text has the command and its output."""


@dataclass(frozen=True, slots=True)
class End:
    """One side.  `core` pins whatever runs here; None leaves it to the scheduler."""

    namespace: Namespace
    veth: str
    tunnel: str
    outer: str
    inner: str
    core: int | None = None

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` here, pinned, and dies with us."""
        line = [*self.namespace.prefix(), "setpriv", "--pdeathsig", "KILL"]
        if self.core is not None:
            line += ["taskset", "--cpu-list", str(self.core)]
        return [*line, *command]

    def run(self, *command: str, input: str | None = None) -> str:
        """Run to the end; returns stdout, raises `LabError`."""
        return run(self.inside(*command), input=input)

    def start(
        self,
        *command: str,
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int | IO[str] = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        stdin_pipe: bool = False,
    ) -> subprocess.Popen[str]:
        """Start in the background; everything before it execs, so the pid is the program's."""
        return subprocess.Popen(
            self.inside(*command),
            stdin=subprocess.PIPE if stdin_pipe else subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=env,
            text=True,
        )


@dataclass(slots=True)
class Lab:
    """Both ends up and joined; `left` is the client of every load."""

    left: End
    right: End
    target: str = ""
    """Where loads go: the right end's address inside the tunnel, or outside when there is none."""
    left_key: str = ""
    right_key: str = ""
    """The ends' WireGuard public keys, base64; empty without a tunnel."""
    daemons: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def ends(self) -> tuple[End, End]:
        return self.left, self.right


def run(command: Sequence[str], *, input: str | None = None) -> str:
    """Run a command to the end; returns stdout, raises `LabError`."""
    done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60)
    if done.returncode:
        words = " ".join(command)
        raise LabError(f"`{words}` failed ({done.returncode}): {done.stderr.strip()}")
    return done.stdout


def stop(process: subprocess.Popen[str], grace: float = 3.0) -> None:
    """End a process we started: SIGTERM, then SIGKILL; reaps it and closes its pipes."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def wait_until(
    condition: Callable[[], bool], what: str, timeout: float = 10.0, interval: float = 0.005
) -> None:
    """Poll `condition()` until it is true; raises `LabError` naming `what`."""
    if not namespaces.wait_until(condition, timeout, interval):
        raise LabError(f"waited {timeout:g} s for {what}")


@contextlib.contextmanager
def veth_pair(cores: tuple[int, int] | None, congestion: str) -> Iterator[Lab]:
    """Two joined namespaces, removed at the end.  Raises `LabError`."""
    prefix = PREFIX + secrets.token_hex(4)
    with contextlib.ExitStack() as stack:
        ends = [
            End(
                namespace=stack.enter_context(_namespace(side)),
                veth=f"{prefix}v{side}",
                tunnel=f"{prefix}t{side}",
                outer=f"10.99.0.{number}",
                inner=f"10.98.0.{number}",
                core=cores[number - 1] if cores else None,
            )
            for number, side in ((1, "l"), (2, "r"))
        ]
        left, right = ends
        left.run("ip", "link", "add", left.veth, "type", "veth",
                 "peer", "name", right.veth, "netns", str(right.namespace.pid))  # fmt: skip
        for end in ends:
            _set_up(end, congestion)
        yield Lab(left, right, target=right.outer)


@contextlib.contextmanager
def _namespace(side: str) -> Iterator[Namespace]:
    """A namespace, and the end of everything inside."""
    try:
        made = namespaces.make([side])[side]
    except NamespaceError as error:
        raise LabError(str(error)) from error
    pinned = namespaces.pin([made.pid])
    namespaces.guard([made])
    try:
        yield made
    finally:
        namespaces.kill_inside(pinned)
        for fd in pinned:
            os.close(fd)
        namespaces.unguard([made])


def preferred_congestion() -> str:
    """bbr where namespaces may use it (cubic gives less through a tunnel), else the default."""
    if "bbr" in allowed_congestion():
        return "bbr"
    return (_SYSCTL / "tcp_congestion_control").read_text().strip()


def allowed_congestion() -> list[str]:
    """The algorithms that a namespace may choose."""
    return (_SYSCTL / "tcp_allowed_congestion_control").read_text().split()


def _set_up(end: End, congestion: str) -> None:
    batch = [
        f"addr add {end.outer}/24 dev {end.veth}",
        f"link set {end.veth} mtu {OUTER_MTU} up",
        "link set lo up",
    ]
    end.run("ip", "-batch", "-", input="\n".join(batch) + "\n")
    end.run("sh", "-c", f"cat >{_SYSCTL}/tcp_congestion_control", input=congestion)

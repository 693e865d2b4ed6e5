"""A WireGuard tunnel over a `lab.Lab`, between two ends of one implementation.

Userspace daemons run in the foreground as our children, so that their processor time and
memory can be read; ``wg`` configures every kind the same way.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from benchmarks.implementations import Implementation, Kind
from benchmarks.lab import End, Lab, LabError, run, stop, veth_pair, wait_until
from wgpy.sockets import socket_path

PORT = 51820
INNER_MTU = 1420


Prepare = Callable[[Implementation, Lab], None]


@dataclass(frozen=True, slots=True)
class Keys:
    private: str
    public: str


def fresh_keys() -> Keys:
    """A key pair made by ``wg``."""
    private = run(["wg", "genkey"]).strip()
    return Keys(private, run(["wg", "pubkey"], input=private).strip())


@contextlib.contextmanager
def tunnel(
    implementation: Implementation,
    *,
    cores: tuple[int, int] | None,
    congestion: str,
    mtu: int,
    prepare: Prepare = lambda *_: None,
) -> Iterator[Lab]:
    """A lab whose `target` answers through the tunnel.  Raises `LabError`.

    `prepare` is called when both ends are configured and before the first packet.
    """
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(veth_pair(cores, congestion))
        if implementation.kind is not Kind.NONE:
            for end in lab.ends:
                _make_device(end, implementation, lab, stack)
            keys = [fresh_keys() for _ in lab.ends]
            left, right = lab.ends
            _configure(left, keys[0], keys[1], right, mtu)
            _configure(right, keys[1], keys[0], left, mtu)
            lab.target = right.inner
            lab.left_key, lab.right_key = (pair.public for pair in keys)
            prepare(implementation, lab)
        _wait_for_answer(lab, implementation)
        yield lab


def _make_device(
    end: End, implementation: Implementation, lab: Lab, stack: contextlib.ExitStack
) -> None:
    if implementation.kind is Kind.KERNEL:
        end.run("ip", "link", "add", end.tunnel, "type", "wireguard")
        return
    log = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
    daemon = start_daemon(end, implementation, log)
    stack.callback(stop, daemon)
    lab.daemons.append(daemon)
    wait_usable(end, implementation, daemon, log)


def start_daemon(end: End, implementation: Implementation, log: IO[str]) -> subprocess.Popen[str]:
    """Start one end's program; its output goes to `log`, a file (a full pipe would block it)."""
    environment = {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error", "PATH": os.environ["PATH"]}
    command = (*implementation.command, end.tunnel)
    return end.start(*command, stdout=log, stderr=log, env=environment)


def wait_usable(
    end: End, implementation: Implementation, daemon: subprocess.Popen[str], log: IO[str]
) -> float:
    """Until the daemon answers ``get=1``; returns the monotonic time (s) of the answer."""
    deadline = time.monotonic() + 20
    while not uapi_answers(end.tunnel):
        if daemon.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            said = log.read().strip()[-800:]
            state = "runs" if daemon.poll() is None else f"ended ({daemon.returncode})"
            raise LabError(f"{implementation.name}: no UAPI socket, the program {state}: {said}")
        time.sleep(0.002)
    return time.monotonic()


def uapi_answers(interface: str) -> bool:
    """Whether ``get=1`` on the interface's socket is answered with ``errno=0``."""
    path = socket_path(interface)
    if not path.exists():
        return False
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(b"get=1\n\n")
            answer = b""
            while not answer.endswith(b"\n\n"):
                piece = connection.recv(65536)
                if not piece:
                    return False
                answer += piece
        except OSError:
            return False
    return b"errno=0\n" in answer


def _configure(end: End, own: Keys, peer: Keys, other: End, mtu: int) -> None:
    text = (
        f"[Interface]\nPrivateKey = {own.private}\nListenPort = {PORT}\n"
        f"[Peer]\nPublicKey = {peer.public}\nAllowedIPs = 10.98.0.0/24\n"
        f"Endpoint = {other.outer}:{PORT}\n"
    )
    end.run("wg", "setconf", end.tunnel, "/dev/stdin", input=text)
    batch = f"addr add {end.inner}/24 dev {end.tunnel}\nlink set {end.tunnel} mtu {mtu} up\n"
    end.run("ip", "-batch", "-", input=batch)


def _wait_for_answer(lab: Lab, implementation: Implementation) -> None:
    def answered() -> bool:
        ping = lab.left.inside("ping", "-n", "-c", "1", "-W", "1", lab.target)
        return subprocess.run(ping, capture_output=True).returncode == 0

    what = f"the first ping through {implementation.name}"
    wait_until(answered, what, timeout=20, interval=0.05)

"""Network namespaces for real-time targets: one for the target, one for the tester.

The tester's process stays where it is; sockets are *made* inside a namespace by a thread
that enters it and can then be used anywhere.  Names carry a random prefix; `close` removes them.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str, check: bool = True) -> str:
    """Run a command quietly; raises with its error text."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def inside(namespace: str, action: Callable[[], T]) -> T:
    """Run `action` in a thread that has entered the namespace; its value or exception."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            with Path(f"/run/netns/{namespace}").open("rb") as handle:
                if _libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            result.append(action())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


class Pair:
    """Two namespaces joined by a veth; the tester's end has `hosts` addresses per family.

    The target is `10.213.0.1` and `fd21:3::1`; host i of the tester is `10.213.0.(10+i)` and
    `fd21:3:0:i::10`, each IPv6 host in a /64 of its own (rate limiters count those as one).
    """

    target4 = "10.213.0.1"
    target6 = "fd21:3::1"
    alias4 = "10.213.0.2"
    alias6 = "fd21:3::2"
    hosts = 8

    def __init__(self) -> None:
        self.prefix = f"wgspec{secrets.token_hex(3)}"
        self.target = f"{self.prefix}-t"
        self.tester = f"{self.prefix}-p"

    def host(self, index: int, family: int) -> str:
        """The tester's `index`-th address."""
        return f"10.213.0.{10 + index}" if family == 4 else f"fd21:3:0:{index + 1}::10"

    def open(self) -> None:
        """Make both; on failure nothing is left behind."""
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        for name in (self.target, self.tester):
            run("ip", "netns", "add", name)
            for knob in ("all", "default"):
                sysctl = f"net.ipv6.conf.{knob}"
                run("ip", "netns", "exec", name, "sysctl", "-qw", f"{sysctl}.accept_dad=0")
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", self.target, "link", "add", "veth-t", "type", "veth",
            "peer", "name", "veth-p", "netns", self.tester)  # fmt: skip
        lines = [f"addr add {self.target4}/24 dev veth-t", "link set veth-t up",
                 f"addr add {self.target6}/48 dev veth-t nodad",
                 f"addr add {self.alias4}/24 dev veth-t",
                 f"addr add {self.alias6}/48 dev veth-t nodad"]  # fmt: skip
        self._batch(self.target, lines)
        lines = ["link set veth-p up"]
        lines += [f"addr add {self.host(i, 4)}/24 dev veth-p" for i in range(self.hosts)]
        lines += [f"addr add {self.host(i, 6)}/48 dev veth-p nodad" for i in range(self.hosts)]
        self._batch(self.tester, lines)
        # A TUN that comes up must not talk by itself (router solicitations, MLD).
        run("ip", "netns", "exec", self.target, "sysctl", "-qw",
            "net.ipv6.conf.default.disable_ipv6=1")  # fmt: skip

    @staticmethod
    def _batch(namespace: str, lines: list[str]) -> None:
        done = subprocess.run(
            ["ip", "-n", namespace, "-batch", "-"],
            input="\n".join(lines), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"ip -batch in {namespace}: {done.stderr.strip()}")

    def close(self) -> None:
        """Remove both (and what lives in them); never raises."""
        for name in (self.target, self.tester):
            if Path(f"/run/netns/{name}").exists():
                run("ip", "netns", "del", name, check=False)

    def udp_socket(self, address: str, port: int, family: int) -> socket.socket:
        """A bound, non-blocking tester's socket with kernel receive times and TOS."""

        def make() -> socket.socket:
            kind = socket.AF_INET if family == 4 else socket.AF_INET6
            sock = socket.socket(kind, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
            sock.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
            sock.setsockopt(socket.SOL_SOCKET, 32, 4 << 20)  # SO_SNDBUFFORCE
            if family == 4:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            sock.bind((address, port))
            return sock

        return inside(self.tester, make)

    def packet_socket(self, interface: str) -> socket.socket:
        """An AF_PACKET socket on the target's TUN: its inner side, both ways."""

        def make() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
            sock.bind((interface, 3))
            return sock

        return inside(self.target, make)


def rss_of(pid: int) -> int:
    """Resident bytes of a process, 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")

"""Send a reproducible stream over TCP, or numbered datagrams over UDP, and digest what came.

    python -m tests.dataplane.transfer receive PORT            prints bytes and SHA-256
    python -m tests.dataplane.transfer send HOST PORT BYTES    the same of what was sent
    python -m tests.dataplane.transfer udp-receive PORT COUNT
    python -m tests.dataplane.transfer udp-send HOST PORT COUNT SIZE SEGMENTS

`udp-send` lets the kernel cut (UDP_SEGMENT) where SEGMENTS is more than one.
"""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import sys
from collections.abc import Iterator

BLOCK = 1 << 20
SOL_UDP, UDP_SEGMENT = 17, 103
PATIENCE = 10.0


def stream(total: int) -> Iterator[bytes]:
    """`total` bytes that repeat nowhere: a random block, numbered in every page."""
    block = bytearray(random.Random(1).randbytes(BLOCK))
    for start in range(0, total, BLOCK):
        for page in range(0, BLOCK, 4096):
            struct.pack_into(">Q", block, page, start + page)
        yield bytes(block[: min(BLOCK, total - start)])


def datagram(number: int, size: int) -> bytes:
    """A datagram that says which it is, and whose bytes follow from that."""
    return (struct.pack(">I", number) * (size // 4 + 1))[:size]


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def send(host: str, port: int, total: int) -> str:
    digest = hashlib.sha256()
    with socket.create_connection((host, port), PATIENCE) as s:
        for block in stream(total):
            digest.update(block)
            s.sendall(block)
        s.shutdown(socket.SHUT_WR)
        s.recv(1)
    return f"{total} {digest.hexdigest()}"


def receive(port: int) -> str:
    digest, total = hashlib.sha256(), 0
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        s, _ = server.accept()
        with s:
            while data := s.recv(BLOCK):
                total += len(data)
                digest.update(data)
            s.sendall(b".")
    return f"{total} {digest.hexdigest()}"


def udp_send(host: str, port: int, count: int, size: int, segments: int) -> str:
    with socket.socket(_family(host), socket.SOCK_DGRAM) as s:
        s.connect((host, port))
        if segments > 1:
            s.setsockopt(SOL_UDP, UDP_SEGMENT, size)
        for first in range(0, count, segments):
            numbers = range(first, min(first + segments, count))
            s.send(b"".join(datagram(n, size) for n in numbers))
            s.settimeout(PATIENCE)
            for _ in numbers:
                s.recv(1)  # One burst at a time: this is about contents, not about speed.
    return "sent"


def udp_receive(port: int, count: int) -> str:
    """How many datagrams came unchanged and in order."""
    good = 0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        s.bind(("::", port))
        s.settimeout(PATIENCE)
        print("ready", flush=True)
        while good < count:
            data, sender = s.recvfrom(1 << 16)
            if data == datagram(good, len(data)):
                good += 1
            s.sendto(b".", sender)
    return str(good)


def main() -> None:
    what, *words = sys.argv[1:]
    numbers = [int(w) if w.isdecimal() else w for w in words]
    jobs = {"send": send, "receive": receive, "udp-send": udp_send, "udp-receive": udp_receive}
    print(jobs[what](*numbers))  # type: ignore[operator]


if __name__ == "__main__":
    main()

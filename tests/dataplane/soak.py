"""Gigabytes through two tunnel ends, checksummed: ``python -m tests.dataplane.soak``.

    python -m tests.dataplane.soak [--gigabytes 10] [--left py] [--right go]

Makes two network namespaces, starts the programs (`py` is wgpy, `go` wireguard-go) and
sends the stream both ways over TCP, one after the other.  Prints for each direction
whether every byte arrived, the TCP retransmissions, and what each end's UDP socket and
TUN device have lost so far: retransmissions answer losses, and these say whose they were.
Needs root.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.interop.tunnel import PROGRAMS, End, connect, make_ends
from tests.support.netns import Lab, wait_until

PYTHON = sys.executable
TRANSFER = ("-P", "-m", "tests.dataplane.transfer")
ROOT = str(Path(__file__).parents[2])
TCP_PORT = 9000
UDP_PORT = 9001
ENVIRONMENT = {"PYTHONPATH": ROOT}


@dataclass
class Result:
    """One direction."""

    intact: bool
    seconds: float
    retransmissions: int


def transfer(
    source: End, target: End, total: int, *, family: int = 4, port: int = TCP_PORT
) -> Result:
    """`total` bytes over TCP; digests of both sides compared."""
    receiver = target.namespace.start(PYTHON, *TRANSFER, "receive", str(port), env=ENVIRONMENT)
    assert wait_until(lambda: f":{port}" in target.namespace.run("ss", "-Hltn").stdout)
    before, start = _retransmissions(source), time.monotonic()
    words = ("send", target.inner[family], str(port), str(total))
    sent = source.namespace.run(PYTHON, *TRANSFER, *words, env=ENVIRONMENT, timeout=3600).stdout
    received, _ = receiver.communicate(timeout=60)
    return Result(
        sent == received and sent.startswith(f"{total} "),
        time.monotonic() - start,
        _retransmissions(source) - before,
    )


def losses(end: End) -> dict[str, int]:
    """What the end's UDP sockets and TUN device had no room for or refused."""
    found = {"udp": 0}
    for name in ("udp", "udp6"):
        lines = end.namespace.run("cat", f"/proc/net/{name}").stdout.splitlines()[1:]
        found["udp"] += sum(int(line.split()[-1]) for line in lines)
    for line in end.namespace.run("cat", "/proc/net/dev").stdout.splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == end.name:
            fields = [int(n) for n in numbers.split()]
            found |= {"from tun": fields[2] + fields[3], "to tun": fields[10] + fields[11]}
    return found


def _retransmissions(end: End) -> int:
    for line in end.namespace.run("nstat", "-asz", "TcpRetransSegs").stdout.splitlines():
        if line.startswith("TcpRetransSegs"):
            return int(line.split()[1])
    raise AssertionError("nstat does not know TcpRetransSegs")


def main() -> None:
    parser = argparse.ArgumentParser(description="gigabytes through a tunnel, checksummed")
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--left", choices=tuple(PROGRAMS), default="py")
    parser.add_argument("--right", choices=tuple(PROGRAMS), default="go")
    given = parser.parse_args()
    total = int(given.gigabytes * 1e9)
    intact = True
    with Lab() as lab:
        left, right = make_ends(lab, given.left, given.right)
        connect(left, right)
        for name, source, target in (("→", left, right), ("←", right, left)):
            result = transfer(source, target, total)
            intact = intact and result.intact
            print(
                f"{given.left} {name} {given.right}: {total} bytes"
                f" {'intact' if result.intact else 'DAMAGED'} in {result.seconds:.1f} s,"
                f" {result.retransmissions} retransmissions; lost so far:"
                f" {given.left} {losses(left)}, {given.right} {losses(right)}",
                flush=True,
            )
    sys.exit(0 if intact else 1)


if __name__ == "__main__":
    main()

"""A sender of invalid handshake initiations, at a steady rate.

``python -m benchmarks.flooder HOST PORT RATE KIND PUBLIC-KEY`` runs in a namespace of a
lab until its standard input closes, then prints how many datagrams it sent.  KIND is
``good-mac1`` (for the right public key; the rest is garbage) or ``bad-mac1``.
Only the standard library is imported: starting must be quick, and nothing of wgpy's own
code may help the attacker.
"""

from __future__ import annotations

import base64
import hashlib
import os
import select
import socket
import struct
import sys
import time

VARIETY = 2048
SIZE = 148
TICK = 0.001


def initiations(kind: str, public_key: bytes) -> list[bytes]:
    """`VARIETY` distinct datagrams, mac1 right or wrong (whitepaper §5.4.4)."""
    key = hashlib.blake2s(b"mac1----" + public_key).digest()
    made = []
    for _ in range(VARIETY):
        body = struct.pack("<I", 1) + os.urandom(SIZE - 36)
        mac1 = hashlib.blake2s(body, key=key, digest_size=16).digest()
        if kind == "bad-mac1":
            mac1 = bytes(byte ^ 0x55 for byte in mac1)
        made.append(body + mac1 + bytes(16))
    return made


def flood(target: tuple[str, int], rate: float, datagrams: list[bytes]) -> int:
    """Send until stdin closes; returns how many left the socket.

    It catches up after a busy machine delayed it, by at most a tenth of a second.
    """
    sent, credit, last = 0, 0.0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(target)
        while not select.select([sys.stdin], [], [], TICK)[0]:
            now = time.monotonic()
            credit = min(credit + (now - last) * rate, rate / 10)
            last = now
            while credit >= 1:
                credit -= 1
                try:
                    sender.send(datagrams[sent % VARIETY])
                    sent += 1
                except (ConnectionRefusedError, BlockingIOError):
                    continue
    return sent


def main() -> None:
    """The program."""
    host, port, rate, kind, public = sys.argv[1:]
    datagrams = initiations(kind, base64.b64decode(public))
    print("ready", flush=True)
    print(flood((host, int(port)), float(rate), datagrams), flush=True)


if __name__ == "__main__":
    main()

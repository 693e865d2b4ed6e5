"""Compares `wgpy decrypt` with tshark: one capture with its keys, read by both in turn.

The capture is made by two engines in memory, so the same seed gives the same bytes.
"""

from __future__ import annotations

import random
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wgpy.capture import keylog, pcapng
from wgpy.capture.link import RAW, Udp, udp_packet
from wgpy.protocol.constants import NS
from wgpy.protocol.crypto import backend
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint, Prefix, parse_address
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

_WALL: Final = 1_700_000_000 * NS
_PLACES: Final = Endpoint.parse("192.0.2.1:51820"), Endpoint.parse("192.0.2.2:51820")
_PACKETS_PER_SECOND: Final = 500
_SIZES: Final = (84, 600, 1400)
_WGPY: Final = "from wgpy.cli.main import main; main()"


def write_capture(path: Path, frames: int, seed: int = 1) -> int:
    """At least `frames` frames of a tunnel with its keys, rekeys included; returns how many."""
    dice = random.Random(seed)
    crypto = backend("openssl")
    privates = [PrivateKey.clamp(dice.randbytes(32)) for _ in _PLACES]
    publics = [PublicKey(crypto.public_key(key)) for key in privates]
    engines = []
    logged: list[str] = [keylog.format_statics(privates[0], [publics[1]])]
    for side in range(2):
        engine = Engine(crypto=crypto, entropy=dice.randbytes, now=0, wall=_WALL)
        allowed = (AllowedIp(Prefix.parse(f"10.0.0.{2 - side}/32")),)
        peer = PeerChange(publics[1 - side], endpoint=_PLACES[1 - side], allowed_ips=allowed)
        engine.apply(DeviceChange(private_key=privates[side], peers=(peer,)), now=0)
        engines.append(engine)
    engines[0].keylog = lambda keys: logged.append(keylog.format_handshake(keys))
    body: list[bytes] = []
    number = 0
    while len(body) < frames:
        now = number * NS // _PACKETS_PER_SECOND
        for engine in engines:
            engine.handle_deadline(now=now)
        engines[number % 2].send([_packet(number % 2, dice.choice(_SIZES))], now=now)
        number += 1
        _carry(engines, now, body)
    head = pcapng.section_header("wgpy bench") + pcapng.interface(RAW, "outer", "")
    path.write_bytes(head + pcapng.secrets("".join(logged)) + b"".join(body))
    return len(body)


def _packet(side: int, size: int) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, 64, 17, 0)
    head += parse_address(f"10.0.0.{side + 1}") + parse_address(f"10.0.0.{2 - side}")
    return (head + struct.pack("!HHHH", 1000, 2000, size - 20, 0)).ljust(size, b"x")


def _carry(engines: list[Engine], now: int, body: list[bytes]) -> None:
    moved = True
    while moved:
        moved = False
        for side, engine in enumerate(engines):
            for data, _ in engine.pull_datagrams():
                moved = True
                udp = Udp(_PLACES[side], _PLACES[1 - side], bytes(data))
                body.append(pcapng.packet(0, _WALL + now, udp_packet(udp)))
                engines[1 - side].receive([Datagram(data, _PLACES[side])], now=now)
                list(engines[1 - side].pull_packets())


def compare(path: Path, rounds: int, report: Callable[[str], None]) -> dict[str, float]:
    """Median seconds of each program over `rounds`, one after the other in each round.

    Raises OSError without tshark and CalledProcessError when a program fails.
    """
    commands = {
        "tshark": ["tshark", "-r", str(path), "-Y", "wg"],
        "wgpy": [sys.executable, "-P", "-c", _WGPY, "decrypt", str(path)],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
            )
            taken[name].append(time.perf_counter() - start)
            report(f"round {number + 1}: {name} {taken[name][-1]:.2f} s")
    return {name: statistics.median(times) for name, times in taken.items()}

"""Traffic for demos and labs: pings with a message inside, and iperf3's throughput."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from testbed.namespaces import Namespace, NamespaceError


@dataclass(frozen=True, slots=True)
class Pings:
    """What ping said; `median` in milliseconds, None when nothing came back."""

    sent: int
    received: int
    median: float | None


def ping(
    space: Namespace, target: str, *, count: int = 5, interval: float = 0.2, secret: bytes = b"",
    patience: float = 1,
) -> Pings:  # fmt: skip
    """Ping and wait for the end."""
    process = start_ping(
        space, target, count=count, interval=interval, secret=secret, patience=patience
    )
    return finish_ping(process, count)


def start_ping(
    space: Namespace, target: str, *, count: int = 5, interval: float = 0.2, secret: bytes = b"",
    patience: float = 1,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Ping in the background; `secret` (at most 16 bytes) fills the payload."""
    words = ["ping", "-n", "-c", str(count), "-i", str(interval), "-W", str(patience)]
    if secret:
        words += ["-p", secret.hex()]
    return space.popen(*words, target, stdout=subprocess.PIPE)


def finish_ping(process: subprocess.Popen[bytes], count: int) -> Pings:
    """Wait for a ping and read its words."""
    text = process.communicate(timeout=60)[0].decode(errors="replace")
    times = sorted(
        float(line.partition("time=")[2].split()[0])
        for line in text.splitlines()
        if "time=" in line
    )
    return Pings(count, len(times), times[len(times) // 2] if times else None)


def throughput(
    server: Namespace, client: Namespace, target: str, *, seconds: int = 2, port: int = 5201
) -> float:
    """TCP throughput in bit/s as the receiver counts it.  Raises `NamespaceError`."""
    listening = server.popen(
        "iperf3", "-s", "-1", "--forceflush", "-p", str(port), stdout=subprocess.PIPE
    )
    assert listening.stdout is not None
    try:
        for line in listening.stdout:
            if b"listening" in line:
                break
        done = client.run(
            "iperf3", "-c", target, "-J", "-t", str(seconds), "-p", str(port), check=False,
            timeout=seconds + 30,
        )  # fmt: skip
    finally:
        listening.kill()
        listening.communicate()
    found = json.loads(done.stdout or "{}")
    if "error" in found or "end" not in found:
        raise NamespaceError(f"iperf3: {found.get('error', done.stderr.strip())}")
    return float(found["end"]["sum_received"]["bits_per_second"])


def rate(bits: float) -> str:
    """Bits per second for people."""
    return f"{bits / 1e9:.2f} Gbit/s" if bits >= 1e9 else f"{bits / 1e6:.0f} Mbit/s"

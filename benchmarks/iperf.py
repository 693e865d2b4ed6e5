"""iperf3 as a load: one client, one server that serves one test, JSON read strictly."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lab import Lab, LabError, stop, wait_until

PORT = 5201


class IperfError(RuntimeError):
    """iperf3 failed or said something unexpected."""


@dataclass(frozen=True, slots=True)
class Tcp:
    """Received bytes and seconds as the receiver counted; retransmits as the sender."""

    seconds: float
    received_bytes: int
    retransmits: int
    congestion: str

    @property
    def goodput(self) -> float:
        """Bits per second received."""
        return self.received_bytes * 8 / self.seconds


@dataclass(frozen=True, slots=True)
class Udp:
    """Datagrams the sender's socket took, and what of them the receiver missed."""

    seconds: float
    sent: int
    lost: int

    @property
    def received(self) -> int:
        return self.sent - self.lost

    @property
    def rate(self) -> float:
        """Datagrams received per second."""
        return self.received / self.seconds

    @property
    def loss(self) -> float:
        """Lost share, 0 to 1; a test that sent nothing lost everything."""
        return self.lost / self.sent if self.sent else 1.0


def parse_tcp(document: Mapping[str, Any]) -> Tcp:
    """From a client's JSON; raises `IperfError`."""
    end = _end(document)
    try:
        received, sent = end["sum_received"], end["sum_sent"]
        return Tcp(
            seconds=float(received["seconds"]),
            received_bytes=int(received["bytes"]),
            retransmits=int(sent.get("retransmits", 0)),
            congestion=str(end.get("sender_tcp_congestion", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IperfError(f"iperf3's TCP result is not understood: {error!r}") from error


def parse_udp(document: Mapping[str, Any]) -> Udp:
    """From a client's JSON; raises `IperfError`.

    ``sum_received.packets`` is what was sent.  A receiver that saw nothing reports zero
    packets and zero lost: everything was lost then.
    """
    end = _end(document)
    try:
        received, sent = end["sum_received"], int(end["sum_sent"]["packets"])
        seen, lost = int(received["packets"]), max(0, int(received["lost_packets"]))
        arrived = max(0, min(sent, seen - lost)) if seen else 0
        return Udp(seconds=float(received["seconds"]), sent=sent, lost=sent - arrived)
    except (KeyError, TypeError, ValueError) as error:
        raise IperfError(f"iperf3's UDP result is not understood: {error!r}") from error


def _end(document: Mapping[str, Any]) -> Mapping[str, Any]:
    if document.get("error"):
        raise IperfError(f"iperf3: {document['error']}")
    end = document.get("end")
    if not isinstance(end, Mapping) or not end:
        raise IperfError("iperf3 ended without a result")
    return end


def tcp(lab: Lab, *, flows: int, reverse: bool, seconds: float, rate: float = 0.0) -> Tcp:
    """`flows` TCP flows from left to right, or (`reverse`) from right to left.

    `rate` is what each offers in bit/s; 0 is as much as goes.
    """
    arguments = ["-P", str(flows), "-t", f"{seconds:g}", "-b", f"{rate:.0f}"]
    arguments += ["-R"] if reverse else []
    return parse_tcp(_run(lab, arguments, seconds))


def udp(lab: Lab, *, size: int, rate: float, seconds: float) -> Udp:
    """Datagrams of `size` bytes from left to right, `rate` a second; 0 is as many as go."""
    bits = f"{rate * size * 8:.0f}" if rate else "0"
    return parse_udp(_run(lab, ["-u", "-l", str(size), "-b", bits, "-t", f"{seconds:g}"], seconds))


def _run(lab: Lab, arguments: list[str], seconds: float) -> dict[str, Any]:
    silent = subprocess.DEVNULL
    port = str(PORT)
    server = lab.right.start("iperf3", "-s", "-1", "-p", port, stdout=silent, stderr=silent)
    try:
        wait_until(lambda: _listens(server.pid), "iperf3's server to listen")
        client = lab.left.start(
            "iperf3", "-c", lab.target, "-p", port, "-J", "--connect-timeout", "5000", *arguments
        )
        try:
            output, said = client.communicate(timeout=seconds + 20)
        except subprocess.TimeoutExpired:
            raise IperfError(f"iperf3 {' '.join(arguments)} did not end") from None
        finally:
            stop(client)
    except LabError as error:
        raise IperfError(str(error)) from error
    finally:
        stop(server)
    try:
        document: dict[str, Any] = json.loads(output)
    except json.JSONDecodeError as error:
        raise IperfError(f"iperf3 wrote no JSON: {(said or output).strip()[-200:]}") from error
    return document


def _listens(pid: int, state_listen: str = "0A") -> bool:
    """Whether a TCP socket listens on our port in the namespace of `pid`."""
    wanted = f":{PORT:04X}"
    for family in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]
        except OSError:
            continue
        if any(f[1].endswith(wanted) and f[3] == state_listen for f in map(str.split, lines)):
            return True
    return False

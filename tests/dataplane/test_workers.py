"""`wireguard-py --workers N`: one owner, senders beside it, and nothing sent twice or astray."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dataplane.soak import transfer
from tests.interop.tunnel import End, connect, iperf, make_end, wg
from tests.support.netns import SOCKET_FOLDER, Lab, Namespace, wait_until

pytestmark = pytest.mark.root

ROOT = str(Path(__file__).parents[2])
PROGRAM = (sys.executable, "-P", "-m", "wgpy.cli.wireguard_py")
ENVIRONMENT = {"PYTHONPATH": ROOT}
MEGABYTE = 1 << 20
ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
TRANSPORT = b"\x04\0\0\0"
MESSAGE = struct.Struct("<4xIQ")
OUTGOING = 4
MARKER = 9
KEEPALIVE = 32


def start(
    namespace: Namespace, program: str, name: str, workers: int = 2, *words: str
) -> None:
    if program == "go":
        namespace.run("wireguard-go", name)
        return
    namespace.start(*PROGRAM, "-f", "--workers", str(workers), *words, name, env=ENVIRONMENT)
    assert wait_until(lambda: (SOCKET_FOLDER / f"{name}.sock").exists())


def pair(
    lab: Lab, left: str = "py", right: str = "py", workers: int = 2, *words: str
) -> tuple[End, End]:
    """Two ends with an underlay of Ethernet packets that were not cut or merged, connected."""
    namespaces = lab.namespace("left"), lab.namespace("right")
    lab.veth(*namespaces, "192.0.2.1/24 2001:db8::1/64", "192.0.2.2/24 2001:db8::2/64")
    ends = []
    for number, (namespace, program) in enumerate(zip(namespaces, (left, right), strict=True), 1):
        end = make_end(lab, namespace, number, f"192.0.2.{number}", f"2001:db8::{number}")
        start(namespace, program, end.name, workers, *words)
        ends.append(end)
    connect(ends[0], ends[1])
    ends[0].ping(ends[1], "-c1")
    return ends[0], ends[1]


def processes(end: End, *, senders: bool) -> list[int]:
    """Those of the end that are senders, or those that are not, but run wgpy."""
    found = []
    for pid in end.namespace.pids():
        with contextlib.suppress(OSError):
            is_sender = Path(f"/proc/{pid}/comm").read_text() == "wg-sender\n"
            ours = b"wireguard_py" in Path(f"/proc/{pid}/cmdline").read_bytes()
            if ours and is_sender is senders:
                found.append(pid)
    return found


class Outer:
    """The transport messages that leave an end's Ethernet device, whatever else happens."""

    def __init__(self, end: End) -> None:
        self.marked: int | None = None
        self._namespace = end.namespace
        self.seen: list[tuple[str, int, int]] = []  # destination, receiver index, counter
        self._stop = threading.Event()
        line = next(
            line for line in end.namespace.ip("-o link show type veth").splitlines() if "@" in line
        )
        with end.namespace.entered():
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)
            )
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 512 * MEGABYTE)
        self._socket.bind((line.split(": ")[1].partition("@")[0], ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Outer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.lost = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[
            1
        ]
        self._socket.close()

    def mark(self, target: str) -> None:
        """Send a datagram that divides what was sent before from what is sent after."""
        with self._namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"", (target, MARKER))

    def _run(self) -> None:
        while True:
            try:
                data, address = self._socket.recvfrom(1 << 16)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            if address[2] != OUTGOING:
                continue
            if data[22:24] == MARKER.to_bytes(2, "big"):
                self.marked = len(self.seen)
            elif data[28:32] == TRANSPORT and len(data) > 28 + KEEPALIVE:
                self._note(data)

    def _note(self, data: bytes) -> None:
        """A datagram, or a train of equal ones that the kernel cuts later (or nobody does)."""
        target, body = socket.inet_ntoa(data[16:20]), data[28:]
        _, counter = MESSAGE.unpack_from(body)
        index = body[:8]
        # The next message begins with the same eight bytes and the next counter.
        following = index + struct.pack("<Q", counter + 1)
        stride = body.find(following, 32)
        for at in range(0, len(body), stride if stride > 0 else len(body)):
            self.seen.append((target, *MESSAGE.unpack_from(body, at)))


def no_doubles(outer: Outer, at_least: int = 0) -> None:
    assert len(outer.seen) == len(set(outer.seen))
    assert len(outer.seen) >= at_least


@contextlib.contextmanager
def ping_flood(source: End, address: str) -> Iterator[None]:
    """Ask `address` a thousand times a second."""
    process = source.namespace.start("ping", "-nq", "-i0.001", address)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


@pytest.mark.parametrize(
    ("left", "right", "workers"),
    [("py", "py", 2), ("py", "go", 2), ("py", "py", 3)],
    ids=["py-py", "py-go", "three"],
)
def test_traffic_both_ways(lab, left, right, workers):
    ends = pair(lab, left, right, workers)
    for source, target in (ends, ends[::-1]):
        assert transfer(source, target, 20 * MEGABYTE).intact
        assert transfer(source, target, 2 * MEGABYTE, family=6).intact
    sums = iperf(*ends, "-n8M", "-P4", "--bidir")
    assert sums["sum_received"]["bytes"] > 0 and sums["sum_received_bidir_reverse"]["bytes"] > 0
    for direction in ((), ("--reverse",)):
        sums = iperf(*ends, "-n2M", "-u", "-b50M", "-l1200", *direction)
        assert sums["sum"]["packets"] > 0 and sums["sum"]["lost_percent"] < 50
    assert len(processes(ends[0], senders=True)) == workers - 1
    sent = ends[0].transfer()[1]
    assert sent > 20 * MEGABYTE  # The senders' books arrive.


def test_no_counter_twice_even_when_keys_change(lab):
    left, right = pair(lab)
    with Outer(left) as outer:
        for _ in range(2):
            assert transfer(left, right, 80 * MEGABYTE).intact
            # A new identity ends the session; handshake and the next one follow.
            left.private_key = wg("genkey")
            left.wg("set", left.name, "private-key", "/dev/stdin", stdin=left.private_key)
            right.configure(left)
            left.ping(right, "-c1")
    no_doubles(outer, 100_000)
    assert len({index for _, index, _ in outer.seen}) >= 3


def test_a_sender_that_is_killed_is_replaced(lab):
    left, right = pair(lab)
    with Outer(left) as outer, ping_flood(left, right.inner[4]):
        listener = right.namespace.start("iperf3", "--server", "--one-off")
        assert wait_until(lambda: ":5201" in right.namespace.run("ss", "-Hltn").stdout)
        load = left.namespace.start("iperf3", "--client", right.inner[4], "-t3")
        [first] = processes(left, senders=True)
        time.sleep(1)
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: processes(left, senders=True) not in ([], [first]))
        assert load.wait(30) == 0
        listener.wait(10)
    no_doubles(outer, 1000)
    left.ping(right, "-c3", "-i0.1")
    assert transfer(left, right, 10 * MEGABYTE).intact


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_owner(lab, number):
    left, right = pair(lab)
    with ping_flood(left, right.inner[4]):
        [owner] = processes(left, senders=False)
        assert len(processes(left, senders=True)) == 1
        os.kill(owner, number)
        assert wait_until(
            lambda: not processes(left, senders=True) and not processes(left, senders=False)
        )
    assert wait_until(lambda: left.name not in left.namespace.ip("link show"))
    assert wait_until(lambda: ":51820" not in left.namespace.run("ss", "-Hlun").stdout)


def test_a_change_holds_from_the_answer_on(lab):
    """Allowed IPs taken away, a peer removed: nothing more goes to where it went before."""
    left, right = pair(lab)
    far = "10.88.0.1"
    left.namespace.ip(f"route add {far} dev {left.name}")
    peer = ("peer", right.public_key)
    for change in ((*peer, "allowed-ips", right.allowed_ips()), (*peer, "remove")):
        left.configure(
            right, "endpoint", right.endpoint(4), "allowed-ips", f"{right.allowed_ips()},{far}/32"
        )
        left.ping(right, "-c1")
        with Outer(left) as outer, ping_flood(left, far):
            assert wait_until(lambda outer=outer: len(outer.seen) > 200)
            left.wg("set", left.name, *change)
            outer.mark(right.outer[4])
            time.sleep(0.3)
        assert outer.marked == len(outer.seen) > 200


def test_a_change_of_policy_holds_from_the_answer_on(lab):
    left, right = pair(lab, "py", "py", 2, "--policy", "tests.dataplane.switch_policy:load")
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(SOCKET_FOLDER / f"{left.name}.control"))
        for _ in range(2):
            with Outer(left) as outer, ping_flood(left, right.inner[4]):
                assert wait_until(lambda outer=outer: len(outer.seen) > 200)
                control.sendall(b'{"op": "block"}\n')
                assert b'"ok":true' in control.recv(1000)
                outer.mark(right.outer[4])
                time.sleep(0.3)
            assert outer.marked == len(outer.seen) > 200
            control.sendall(b'{"op": "pass"}\n')
            assert b'"ok":true' in control.recv(1000)
            left.ping(right, "-c1")
        control.sendall(b'{"op": "capture", "path": "/nonexistent/x"}\n')
        assert b"start without --workers" in control.recv(1000)


def test_port_and_link_changes_leave_no_socket_behind(lab):
    left, right = pair(lab)
    for port in ("51821", "51820", "51821", "51820"):
        left.wg("set", left.name, "listen-port", port)
        left.ping(right, "-c1")
        listening = left.namespace.run("ss", "-Hlun").stdout
        assert listening.count(":5182") == 2 and listening.count(f":{port}") == 2
    left.namespace.ip(f"link set {left.name} down")
    assert wait_until(lambda: ":5182" not in left.namespace.run("ss", "-Hlun").stdout)
    left.namespace.ip(f"link set {left.name} mtu 1300 up")
    assert wait_until(lambda: ":51820" in left.namespace.run("ss", "-Hlun").stdout)
    left.namespace.ip(f"route replace {right.inner[4]} dev {left.name}")
    left.ping(right, "-c2", "-i0.2", "-W5")
    assert transfer(left, right, 5 * MEGABYTE).intact


@pytest.mark.parametrize(
    "words",
    [("--no-offload",), ("--crypto", "sodium"), ("--capture", "/nonexistent/x")],
    ids=lambda words: words[0],
)
def test_what_does_not_go_together_is_refused(words):
    done = subprocess.run(
        [*PROGRAM, "--workers", "2", *words, "wgnever"],
        env=os.environ | ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"--workers shares the batch path, which {' '.join(words)[:10]}" in done.stderr


@pytest.mark.parametrize("count", ["0", "-1", "65", "two"])
def test_odd_numbers_of_workers_are_refused(count):
    done = subprocess.run(
        [*PROGRAM, f"--workers={count}", "wgnever"],
        env=os.environ | ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "is no number from 1 to 64" in done.stderr

"""The agent inside the micro-VM: runs `wg` and `ip` for the tester, relays inner packets.

It is copied into the guest's initramfs and runs there as the only program, on the standard
library alone.  One TCP connection carries frames of 4 bytes length, 1 byte kind, payload:
kind 0 is a JSON request or answer, kind 1 an inner packet behind its interface's number
(2 bytes).  Inner packets are read and written by AF_PACKET on the WireGuard interface, so
they may have any shape.
"""

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
import time
from typing import Any

PORT = 9999
JSON, PACKET = 0, 1
_OUTGOING = 4  # sockaddr_ll packet type: what we sent ourselves
_RECEIVE_BUFFER_FORCE = 33


def run(words: list[str], stdin: str = "") -> str:
    """Run a command; raises RuntimeError with what it said."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:3])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Agent:
    """Serves one tester."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.inner: dict[int, socket.socket] = {}

    def serve(self) -> None:
        """Until the tester goes."""
        buffer = b""
        while True:
            ready, _, _ = select.select([self.connection, *self.inner.values()], [], [])
            for number, sock in list(self.inner.items()):
                if sock in ready:
                    self.relay(number, sock)
            if self.connection not in ready:
                continue
            data = self.connection.recv(1 << 16)
            if not data:
                return
            buffer += data
            while len(buffer) >= 5:
                size, kind = struct.unpack_from(">IB", buffer)
                if len(buffer) < 5 + size:
                    break
                self.frame(kind, buffer[5 : 5 + size])
                buffer = buffer[5 + size :]

    def send(self, kind: int, payload: bytes) -> None:
        self.connection.sendall(struct.pack(">IB", len(payload), kind) + payload)

    def relay(self, number: int, sock: socket.socket) -> None:
        """What the kernel delivered on a WireGuard interface, to the tester."""
        for _ in range(32):
            try:
                packet, source = sock.recvfrom(1 << 16)
            except OSError:
                return
            if source[2] != _OUTGOING:
                self.send(PACKET, struct.pack(">H", number) + packet)

    def frame(self, kind: int, payload: bytes) -> None:
        if kind == PACKET:
            (number,) = struct.unpack_from(">H", payload)
            packet = payload[2:]
            protocol = 0x86DD if packet[:1] and packet[0] >> 4 == 6 else 0x0800
            if (sock := self.inner.get(number)) is not None:
                # The interface may be down, or the packet larger than it takes.
                with contextlib.suppress(OSError):
                    sock.sendto(packet, (f"wg{number}", protocol))
            return
        request = json.loads(payload)
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            answer["result"] = getattr(self, "do_" + request["op"])(**request["arguments"])
        except (RuntimeError, OSError, ValueError) as error:
            answer["error"] = str(error)
        self.send(JSON, json.dumps(answer).encode())

    # --- requests ---

    def do_create(self, number: int, private: str, port: int) -> None:
        """Make interface wg<number>, up, listening."""
        name = f"wg{number}"
        run(["ip", "link", "add", name, "type", "wireguard"])
        try:
            words = ["wg", "set", name, "listen-port", str(port), "private-key", "/dev/stdin"]
            run(words, private)
            run(["ip", "link", "set", name, "up"])
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, 8 << 20)
            sock.bind((name, 3))
            self.inner[number] = sock
        except BaseException:
            run(["ip", "link", "delete", name])
            raise

    def do_delete(self, number: int) -> None:
        """Remove the interface."""
        sock = self.inner.pop(number, None)
        if sock is not None:
            sock.close()
        run(["ip", "link", "delete", f"wg{number}"])

    def do_wg(self, words: list[str], stdin: str = "") -> str:
        """Run `wg WORDS`."""
        return run(["wg", *words], stdin)

    def do_ip(self, words: list[str]) -> str:
        """Run `ip WORDS`."""
        return run(["ip", *words])

    def do_clock(self) -> float:
        """The guest's wall clock."""
        return time.time()

    def do_set_clock(self, wall: float) -> None:
        """Set the guest's wall clock (timestamps of initiations come from it)."""
        time.clock_settime(time.CLOCK_REALTIME, wall)

    def do_kernel(self) -> str:
        """The kernel's release."""
        return run(["uname", "-r"]).strip()


def main() -> None:
    """Listen, serve one tester, end."""
    with socket.create_server(("0.0.0.0", PORT)) as server:
        print("agent ready", flush=True)
        connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Agent(connection).serve()


if __name__ == "__main__":
    main()
    sys.exit(0)

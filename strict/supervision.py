"""Who watches over the agent: health over HTTP, and systemd's readiness and watchdog.

Both speak from the loop itself: a loop that hangs is neither healthy nor does it beat.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from strict.agent import Agent

LIVELY: Final = 15.0
"""Seconds without a round of the loop after which the agent counts as hanging."""


def health(agent: Agent) -> tuple[bool, dict[str, Any]]:
    """Whether the loop goes round."""
    age = time.monotonic() - agent.last_tick
    return age < LIVELY, {"healthy": age < LIVELY, "last_round_seconds": round(age, 3)}


def readiness(agent: Agent) -> tuple[bool, dict[str, Any]]:
    """Whether this node's pods can talk: known to the others, encrypted, guarded."""
    healthy, found = health(agent)
    missing = [
        text
        for good, text in (
            (healthy, "the agent's loop hangs"),
            (agent.joined, "not every source has synced"),
            (agent.drives, "the data plane is not there or behind"),
            (bool(agent.in_kernel), "the backstop is not in the kernel"),
        )
        if not good
    ]
    found |= {"ready": not missing, "missing": missing, "problems": agent.problems}
    return not missing, found


def serve(agent: Agent, address: str, port: int) -> ThreadingHTTPServer:
    """Serve /healthz and /readyz: 200 or 503, with JSON.  Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            question = {"/healthz": health, "/readyz": readiness}.get(self.path)
            found: dict[str, Any] = {"paths": ["/healthz", "/readyz"]}
            status = 404
            if question is not None:
                good, found = question(agent)
                status = 200 if good else 503
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Probes are not news."""

    server = ThreadingHTTPServer((address, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


class Systemd:
    """sd_notify(3): ready once joined, a beat per round, a status line; or nothing at all."""

    def __init__(self, address: str | None = None) -> None:
        """`address` is that of $NOTIFY_SOCKET where it is not given."""
        address = os.environ.get("NOTIFY_SOCKET") if address is None else address
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self._said = ""
        self._ready = False

    def beat(self, agent: Agent) -> None:
        """After each round of the loop."""
        if not self._address:
            return
        lines = ["WATCHDOG=1"]
        if agent.joined and not self._ready:
            self._ready = True
            lines.append("READY=1")
        status = "; ".join(agent.problems.values()) or ("joined" if agent.joined else "joining")
        if status != self._said:
            self._said = status
            lines.append(f"STATUS={status[:300]}".replace("\n", " "))
        self.tell(*lines)

    def tell(self, *lines: str) -> None:
        """Says it; a manager that does not listen is no trouble of ours."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return

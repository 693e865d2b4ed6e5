"""One life of a cluster under fire: the shooting, what is lenient, and healing.

A thread shoots combinations all the while; the tests' own thread meddles.  A shot carries the
promise of the moment in which it was sent: what was sent while a node was told to be in
default mode may be seen (`lenient`), at any time later.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from testbed import control
from testbed.cluster import AGENT, DATA_PLANE, Cluster
from testbed.load import ping
from testbed.namespaces import Namespace, wait_until
from tests.leaks.shots import TAGS, Range, Shot, build, draw, is_secret
from tests.leaks.wire import Marks, Sighting, Wire

PACE = 0.004
"""Seconds between two shots."""


class NotHealed(Exception):
    """The cluster does not work again after a scene; no leak, but worth to be known."""


class Gun:
    """Raw frames from the device that a sender's packets leave by, or a node's raw sockets."""

    def __init__(self, cluster: Cluster, sender: str) -> None:
        self._space, self._node = cluster.namespaces[sender], None
        self._sockets: dict[int, socket.socket] = {}
        if sender == "world":
            self._peer = _mac(cluster.namespaces["underlay"], "world")
        elif "/" in sender:
            node, _, pod = sender.partition("/")
            self._peer = _mac(cluster.namespaces[node], f"pod{pod}")
        else:
            self._node = sender
            for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
                raw = self._space.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                raw.setblocking(False)
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                self._sockets[version] = raw
            return
        out = self._space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        out.bind(("eth0", 0))
        out.setblocking(False)
        self._own = out.getsockname()[4]
        self._sockets[0] = out

    def shoot(self, shot: Shot, packet: bytes) -> None:
        """The kernel's refusal is an answer, too."""
        with contextlib.suppress(OSError):
            if self._node:
                four = packet[0] >> 4 == 4
                to = packet[16:20] if four else packet[24:40]
                family = socket.AF_INET if four else socket.AF_INET6
                self._sockets[4 if four else 6].sendto(packet, (socket.inet_ntop(family, to), 0))
                return
            kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
            peer = b"\xff" * 6 if shot.shape == "to all stations" else self._peer
            self._sockets[0].send(peer + self._own + TAGS.get(shot.shape, b"") + kind + packet)

    def close(self) -> None:
        for each in self._sockets.values():
            each.close()


def _mac(space: Namespace, device: str) -> bytes:
    with space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
        probe.bind((device, 0))
        address: bytes = probe.getsockname()[4]
        return address


class Life:
    """A running cluster, its ears, and the shooting.  A context manager."""

    def __init__(self, cluster: Cluster, chance: random.Random, *, pace: float = PACE) -> None:
        self.cluster = cluster
        self.chance = chance
        self.where = Range(cluster.topology)
        self.marks = Marks()
        self.shots: dict[int, Shot] = {}
        self.scene: dict[int, str] = {}
        """What went on when a shot was sent."""
        self.lenient = cluster.topology.mode == "default"
        self.lenient_until = 0.0
        self.out: frozenset[str] = frozenset()
        """Nodes that were taken out: what they send themselves is their own affair."""
        self.services: frozenset[str] = frozenset()
        """Nodes on which a service's address leads to a remote pod now."""
        self.now = "before"
        self.refused: list[str] = []
        """Meddling that the machine refused: such a scene shows nothing."""
        self._pace = pace
        self._shots = random.Random(chance.random())
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.wire = Wire(cluster, self.marks, self.where.pairs())
        self._guns: dict[str, Gun] = {}
        self._thread = threading.Thread(target=self._work, name="shooting", daemon=True)

    def __enter__(self) -> Life:
        for path in ("alpha/gone", "beta/gone"):
            self.cluster.namespaces[path].run("ip", "link", "set", "eth0", "down")
        self.cluster.namespaces["beta"].run("ip", "link", "set", "podsmall", "mtu", "1300")
        self.heal()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for gun in self._guns.values():
            gun.close()
        self.wire.__exit__()

    # Shooting.

    def _work(self) -> None:
        try:
            while not self._stop.wait(self._pace):
                self._fire(draw(self._shots, len(self.shots), self.where, self.services))
        except BaseException as error:
            self._failure = error

    def _fire(self, shot: Shot) -> None:
        packets = build(shot, self.where, self.marks, self._shots)
        lenient = self.lenient or shot.sender in self.out
        if lenient:
            self.lenient_until = time.monotonic() + 2
        self.scene[shot.number] = ("lenient: " if lenient else "") + self.now
        self.shots[shot.number] = shot
        gun = self._guns.get(shot.sender)
        if gun is None:
            gun = self._guns[shot.sender] = Gun(self.cluster, shot.sender)
        for packet in packets:
            gun.shoot(shot, packet)

    def fire(self, **words: object) -> Shot:
        """One chosen combination now, from the calling thread."""
        with self.paused():
            drawn = draw(self._shots, len(self.shots), self.where, self.services)
            shot = replace(drawn, source="own", **words)  # type: ignore[arg-type]
            shot = replace(shot, secret=is_secret(shot, self.where, self.services))
            self._fire(shot)
        return shot

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No shots by chance meanwhile."""
        if not self._thread.is_alive():
            yield
            return
        self._stop.set()
        self._thread.join()
        try:
            yield
        finally:
            self._stop.clear()
            self._thread = threading.Thread(target=self._work, name="shooting", daemon=True)
            self._thread.start()

    def dwell(self, shots: int) -> None:
        """Until so many more have been shot."""
        goal = len(self.shots) + shots
        if not wait_until(lambda: self._failure or len(self.shots) >= goal, 60):
            raise TimeoutError("the shooting has stopped")
        if self._failure:
            raise self._failure

    # What was seen.

    def settle(self) -> None:
        self.wire.settle()

    def leaks(self) -> dict[int | None, Sighting]:
        """Secret shots that were seen though strict mode was promised when they were sent."""
        return {
            number: sighting for number, sighting in list(self.wire.secret.items())
            if number is None or not self.scene.get(number, "").startswith("lenient")
        }  # fmt: skip

    def seen(self, kind: str) -> Counter[object]:
        """Secret shots that were seen, by an attribute of `Shot`."""
        return Counter(getattr(self.shots[n], kind) for n in list(self.wire.secret)
                       if n in self.shots)  # fmt: skip

    # The nodes.

    def space(self, node: str) -> Namespace:
        return self.cluster.namespaces[node]

    def run(self, node: str, command: str) -> str:
        """A shell command on a node, for looking and undoing: what fails then does not matter."""
        return self.space(node).run("sh", "-c", command, check=False).stdout

    def change(self, node: str, command: str) -> None:
        """As `run`, for what is to have an effect: what was refused is remembered."""
        done = self.space(node).run("sh", "-c", "set -e\n" + command, check=False)
        if done.returncode:
            self.refused.append(f"{self.now}: {command}: {done.stderr.strip()}")

    def nft(self, node: str, table: str, *chains: str) -> None:
        """A foreign table `inet TABLE`; each chain is its rules, the hook first."""
        body = "".join(f"chain c{index} {{\n{text}\n}}\n" for index, text in enumerate(chains))
        self.change(node, f"nft -f - <<'X'\ntable inet {table} {{\n{body}}}\nX")

    def log(self, node: str) -> str:
        return (self.cluster.node_folder(node) / "agent.log").read_text(errors="replace")

    def kill(self, node: str, *roles: str) -> None:
        for role in roles:
            with contextlib.suppress(Exception):
                self.cluster.kill(node, role)

    def start(self, node: str) -> None:
        """The agent, if none runs; not waiting for it."""
        if self.cluster.pid(node, AGENT) is None:
            self.cluster.start_agent(node)

    def works(self, version: int) -> bool:
        target = next(a for a in self.cluster.topology.pod("beta/server").addresses
                      if a.version == version)  # fmt: skip
        client = self.cluster.namespaces["alpha/client"]
        return ping(client, str(target), count=1, patience=0.5).received == 1

    def heal(self, seconds: float = 40) -> None:
        """Until agents run and pods reach each other again.  Raises `NotHealed`."""
        for node in ("alpha", "beta"):
            self.start(node)
        wanted = "default" if self.cluster.topology.mode == "default" else "strict"
        for node in ("alpha", "beta"):
            if not wait_until(lambda n=node: control.live_mode(self.cluster, n) == wanted, seconds):
                raise NotHealed(f"{node} is not in {wanted} mode: {self.log(node)[-600:]}")
        for version in (4, 6):
            if not wait_until(lambda v=version: self.works(v), seconds, interval=0.1):
                words = json.dumps(self.cluster.agent_status("alpha").get("problems", {}))
                raise NotHealed(f"no ping over IPv{version}: {words} {self.log('alpha')[-600:]}")


__all__ = ["AGENT", "DATA_PLANE", "PACE", "Gun", "Life", "NotHealed"]

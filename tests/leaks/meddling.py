"""What happens meanwhile: each way to meddle with a node, and how it is undone.

A `Meddling` is a context manager on a running `Life`.  `layer` says what it takes away:
pods' way into the tunnel (then the backstop has to hold), the backstop (the agent puts it
back within `GRACE`, before anything else goes; until then nothing is promised), or neither.
Those that are repaired by an
agent are not combined with its death: that would be root taking away everything, which
nobody promises to survive.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from testbed import control, dataplane, discovery
from testbed.namespaces import wait_until
from tests.leaks.life import AGENT, DATA_PLANE, Life

GRACE = 2.5
"""Seconds in which an agent puts back what was removed."""
TUNNEL, BACKSTOP, NEITHER = "tunnel", "backstop", ""
DWELL = 60
Work = Callable[[Life, str, random.Random], Iterator[None]]


@dataclass(frozen=True)
class Meddling:
    """One way to meddle.  `agent`: "kills" it, "needs" it, or neither."""

    name: str
    work: Work
    layer: str = NEITHER
    agent: str = ""
    alone: bool = False

    def on(self, life: Life, node: str, chance: random.Random) -> AbstractContextManager[None]:
        return contextlib.contextmanager(self.work)(life, node, chance)


MEDDLINGS: dict[str, Meddling] = {}


def meddling(name: str, layer: str = NEITHER, agent: str = "", alone: bool = False) -> (
    Callable[[Work], Work]
):  # fmt: skip
    def enter(work: Work) -> Work:
        MEDDLINGS[name] = Meddling(name, work, layer, agent, alone)
        return work

    return enter


def fits(chosen: list[Meddling], other: Meddling) -> bool:
    """Whether `other` may happen together with those chosen."""
    together = [*chosen, other]
    agents = {each.agent for each in together}
    return (
        other.name not in {each.name for each in chosen}
        and not {"kills", "needs"} <= agents
        and (len(together) == 1 or not any(each.alone for each in together))
    )


# Life and death.


@meddling("nothing")
def _nothing(_life: Life, _node: str, _chance: random.Random) -> Iterator[None]:
    yield


@meddling("the agent is killed and another adopts", agent="kills")
def _kill_agent(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.kill(node, AGENT)
    yield
    life.start(node)


@meddling("the data plane is killed", TUNNEL)
def _kill_data_plane(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.kill(node, DATA_PLANE)
    yield


@meddling("agent and data plane are killed", TUNNEL, "kills")
def _kill_both(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.kill(node, AGENT, DATA_PLANE)
    yield
    life.start(node)


@meddling("a process is stopped for a while", TUNNEL, "kills")
def _stopped(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    pids = [pid for role in chance.choice(((AGENT,), (DATA_PLANE,), (AGENT, DATA_PLANE)))
            if (pid := life.cluster.pid(node, role))]  # fmt: skip
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@meddling("the node is taken out and started with forwarding off", alone=True)
def _cold_start(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.out |= {node}
    life.kill(node, AGENT, DATA_PLANE)
    life.run(node, "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
    config = life.cluster.node_folder(node) / "agent.toml"
    program = dataplane.program("wgpy")
    life.space(node).run(program, "strict", "down", "--config", str(config), check=False)
    life.run(node, "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
    life.run(node, "nft flush ruleset")
    life.dwell(20)
    life.start(node)
    life.cluster.wait_ready(node)
    life.out -= {node}
    yield


@meddling("the tunnel device is deleted", TUNNEL)
def _delete_device(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.change(node, "ip link delete wg0")
    yield


@meddling("the tunnel device is down", TUNNEL)
def _device_down(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    life.change(node, "ip link set wg0 down")
    yield
    life.run(node, "ip link set wg0 up")


# Settings and files.


@contextlib.contextmanager
def lenient(life: Life, seconds: float = 0.3) -> Iterator[None]:
    """Default mode, or no rules, is what somebody asked for."""
    life.lenient = True
    try:
        yield
        time.sleep(seconds)
    finally:
        life.lenient = life.cluster.topology.mode == "default"


@meddling("strict to default and back", agent="needs", alone=True)
def _reload(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    with lenient(life):
        life.cluster.write_config(node, mode="default")
        control.wait_mode(life.cluster, node, "default")
        life.dwell(DWELL)
        life.cluster.write_config(node, mode="strict")
        control.wait_mode(life.cluster, node, "strict")
    yield


@meddling("adopted in strict mode with a broken cluster file", agent="kills", alone=True)
def _adopt(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    """Once the agent says that the backstop is in place, it has to be."""
    file = life.cluster.node_folder(node) / "cluster.toml"
    with lenient(life):
        life.cluster.write_config(node, mode="default")
        control.wait_mode(life.cluster, node, "default")
        life.kill(node, AGENT)
        life.cluster.write_config(node, mode="strict")
        discovery.write(file, "[[node]]\nnonsense\n")
        start = len(life.log(node))
        life.start(node)
        wait_until(lambda: "the backstop is in place" in life.log(node)[start:], 20)
    # The data plane's table is taken over by the agent as well; the backstop alone promises.
    life.change(node, "ip rule add pref 50 lookup main; ip -6 rule add pref 50 lookup main")
    try:
        yield
    finally:
        life.run(node, "ip rule del pref 50; ip -6 rule del pref 50")
        life.cluster.publish(node)


BROKEN = (
    b"[[node]]\nnonsense\n", b"\xff\xfe\x00", b"", b"[[node]]\nname = 1\n", b"x = " + b"[" * 5000,
    b"x = " + b"9" * 5000, b'[[endpoint]]\nip = "0.0.0.0/0"\nnode = "nobody"\n',
    b"x = 2001-99-99\n", b"a." * 3000 + b"a = 1\n",
)  # fmt: skip


@meddling("a broken cluster file", agent="needs")
def _broken(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    (life.cluster.node_folder(node) / "cluster.toml").write_bytes(chance.choice(BROKEN))
    yield
    life.cluster.publish(node)


@meddling("killed, and a broken cluster file", agent="kills")
def _broken_start(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    life.kill(node, AGENT)
    (life.cluster.node_folder(node) / "cluster.toml").write_bytes(chance.choice(BROKEN))
    life.start(node)
    yield
    life.cluster.publish(node)


@meddling("the other node is forgotten and learned again")
def _forget(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    other = "beta" if node == "alpha" else "alpha"
    life.cluster.views[node].hide(other)
    life.cluster.publish(node)
    yield
    life.cluster.views[node].show(other)
    life.cluster.publish(node)


@meddling("the other node has no key for a while")
def _keyless(life: Life, node: str, _chance: random.Random) -> Iterator[None]:
    view, other = life.cluster.views[node], "beta" if node == "alpha" else "alpha"
    view.keyless.add(other)
    life.cluster.publish(node)
    yield
    view.keyless.discard(other)
    life.cluster.publish(node)


@meddling("the node's key changes")
def _key(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    key = dataplane.new_key()
    file = life.cluster.node_folder(node) / f"{node}.key"
    discovery.write(file, key.base64 + "\n", mode=0o600)
    life.cluster.keys[node] = key
    if chance.random() < 0.5:
        life.dwell(DWELL)
    for view in life.cluster.views.values():
        view.nodes[node]["public_key"] = dataplane.public_key(key).base64
    life.cluster.publish()
    yield


@meddling("the disk is full", agent="kills")
def _full(life: Life, node: str, chance: random.Random) -> Iterator[None]:
    life.change(node, "mount -o remount,size=1m /run")
    life.run(node, "dd if=/dev/zero of=/run/fill bs=4k")
    try:
        life.kill(node, *chance.choice(((AGENT,), (DATA_PLANE,), (AGENT, DATA_PLANE))))
        life.start(node)
        yield
    finally:
        life.run(node, "rm -f /run/fill; mount -o remount,size=50% /run")

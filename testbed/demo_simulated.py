"""The demo without a TUN device: the same engine and table in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from strict.nodes import Node as ClusterNode
from strict.settings import Mode, TableConfig
from strict.table import StrictTable
from testbed.demo_light import SECRET
from testbed.demo_view import Story, describe_message
from wgpy.protocol.constants import NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix, format_address
from wgpy.sim.ping import Echo
from wgpy.sim.world import Node, World

SECOND, MILLISECOND = NS, NS // 1000


class WatchedWorld(World):
    """A world with an eavesdropper: every datagram that any node sends, with its time."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed=seed)
        self.seen: list[tuple[int, str, bytes]] = []

    def transmit(self, node: Node, data: bytes, endpoint: Endpoint) -> None:
        """Record it, then deliver it."""
        self.seen.append((self.clock.monotonic(), node.name, data))
        super().transmit(node, data, endpoint)


def first_light_simulated(story: Story) -> None:
    """Run the scenario and store its results in `story`."""
    story.step("Two engines in the simulator, 10 ms apart (virtual time)")
    world = WatchedWorld()
    alpha, beta = world.add("alpha"), world.add("beta")
    world.join(alpha, beta)
    for node in (alpha, beta):
        story.say(f"{node.name}: {node.address} outside, {format_address(node.inner)} inside")
    story.step("alpha pings beta: the handshake as it happens on the wire")
    packets = [
        Echo(alpha.inner, beta.inner, number, False, SECRET * 3).encode() for number in range(5)
    ]
    for number, packet in enumerate(packets):
        world.at(number * SECOND // 5, lambda packet=packet: alpha.send(packet))  # type: ignore[misc]
    world.run_for(2 * SECOND)
    for at, name, data in world.seen[:6]:
        arrow = "alpha → beta " if name == "alpha" else "alpha ← beta "
        story.say(f"{at / MILLISECOND:7.2f} ms  {arrow}  {len(data):4} bytes  "
                  + describe_message(data))  # fmt: skip
    answered = len(alpha.answered)
    story.say(f"{answered} of {len(packets)} pings answered")
    story.step("The same packet inside the tunnel and on the wire")
    sealed = [data for _at, name, data in world.seen if name == "alpha" and data[0] == 4]
    story.dump("what alpha's tunnel device receives:", packets[0], SECRET)
    story.dump("what an eavesdropper sees:", sealed[0], SECRET)
    readable = sum(SECRET in data for _at, _name, data in world.seen)
    story.result("handshake (simulated)", "initiation, response", world.seen[0][2][0] == 1)
    story.result("ping through the tunnel", f"{answered} of {len(packets)}",
                 answered == len(packets))  # fmt: skip
    story.result("everything on the wire", f"{len(world.seen)} datagrams, {readable} readable",
                 readable == 0)  # fmt: skip
    story.note(simulated=True, pings=answered, readable_frames=readable)


def strict_story_simulated(story: Story, *, packets: int = 5) -> None:
    """The leak, strict mode and discovery, with the table in front of alpha's engine."""
    world = WatchedWorld(seed=2)
    alpha, beta = world.add("alpha"), world.add("beta")
    settings = TableConfig(
        node="alpha", mode=Mode.DEFAULT, pod_cidrs=(Prefix.parse("10.0.0.0/8"),)
    )
    table = StrictTable(settings)
    alpha.engine.policy = table

    def talk() -> list[bytes]:
        """Some packets to beta's pod; returns what the engine gives back unencrypted."""
        readable: list[bytes] = []
        for number in range(packets):
            echo = Echo(alpha.inner, beta.inner, number, False, SECRET * 3)
            alpha.engine.send([echo.encode()], now=alpha.now)
            readable += map(bytes, alpha.engine.pull_plaintext())
            alpha.flush()
        world.run_for(SECOND)
        return readable

    _simulated_modes(story, world, alpha, table, settings, talk)
    story.step("The nodes discover each other")
    table.upsert_node(ClusterNode(
        "beta", (beta.address.ip,), beta.public_key, (Prefix(beta.inner, 32),)
    ))  # fmt: skip
    world.join(alpha, beta)
    before = len(world.seen)
    readable = talk()
    sealed = [data for _at, name, data in world.seen[before:] if name == "alpha" and data[0] == 4]
    story.say(f"{len(sealed)} data messages, {len(readable)} packets in plaintext")
    story.result("strict mode, pod discovered",
                 f"{len(sealed)} encrypted, {len(readable)} in plaintext",
                 not readable and bool(sealed))  # fmt: skip
    story.note(discovered_plaintext=len(readable), discovered_encrypted=len(sealed))


def _simulated_modes(
    story: Story,
    world: WatchedWorld,
    alpha: Node,
    table: StrictTable,
    settings: TableConfig,
    talk: Callable[[], list[bytes]],
) -> None:
    story.step("Default mode: a pod talks to a pod that its node has not discovered")
    readable = talk()
    story.say(f"returned to the host unencrypted: [bold red]{len(readable)} packets[/]")
    if readable:
        story.dump("one of them:", readable[0], SECRET)
    story.result("default mode, pod undiscovered", f"{len(readable)} packets in PLAINTEXT",
                 bool(readable), colour="red")  # fmt: skip
    story.note(default_plaintext=len(readable))
    story.step("Strict mode: the same again")
    table.configure(replace(settings, mode=Mode.STRICT))
    sent = len(world.seen)
    before = alpha.engine.drops.get(DropReason.UNENCRYPTED_TRAFFIC, 0)
    readable = talk()
    dropped = alpha.engine.drops.get(DropReason.UNENCRYPTED_TRAFFIC, 0) - before
    on_wire = len(readable) + len(world.seen) - sent
    story.say(f"[bold green]{on_wire} packets[/] leave, {dropped} dropped UNENCRYPTED_TRAFFIC")
    story.result("strict mode, pod undiscovered",
                 f"{on_wire} on the wire, {dropped} dropped UNENCRYPTED_TRAFFIC",
                 on_wire == 0 and dropped > 0)  # fmt: skip
    story.note(strict_plaintext=on_wire, strict_dropped=dropped)

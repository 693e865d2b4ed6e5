"""The demo's first part where no TUN device can be had: the same engines in virtual time."""

from __future__ import annotations

from testbed.demo_light import SECRET
from testbed.demo_view import Story, describe_message
from wgpy.protocol.constants import NS
from wgpy.protocol.endpoint import Endpoint, format_address
from wgpy.sim.ping import Echo
from wgpy.sim.world import Node, World

SECOND, MILLISECOND = NS, NS // 1000


class WatchedWorld(World):
    """A world with an eavesdropper: every datagram that any node sends, with its time."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed=seed)
        self.seen: list[tuple[int, str, bytes]] = []

    def transmit(self, node: Node, data: bytes, endpoint: Endpoint) -> None:
        """Write it down, then let it go."""
        self.seen.append((self.clock.monotonic(), node.name, data))
        super().transmit(node, data, endpoint)


def first_light_simulated(story: Story) -> None:
    """Tell the story and leave its results in `story`."""
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
    story.dump("what alpha's tunnel device takes in:", packets[0], SECRET)
    story.dump("what an eavesdropper sees of it:", sealed[0], SECRET)
    readable = sum(SECRET in data for _at, _name, data in world.seen)
    story.result("handshake (simulated)", "initiation, response", world.seen[0][2][0] == 1)
    story.result("ping through the tunnel", f"{answered} of {len(packets)}",
                 answered == len(packets))  # fmt: skip
    story.result("all that crossed the wire", f"{len(world.seen)} datagrams, {readable} readable",
                 readable == 0)  # fmt: skip
    story.note(simulated=True, pings=answered, readable_frames=readable)

"""A world of nodes: the real engine on a virtual clock and a simulated network.

`World` is to a scenario or a test what `wgpy.dataplane` is to a Linux host: it hands
datagrams, packets and time to engines and takes what comes out.  It knows nothing of the
protocol.  Everything random is drawn from generators seeded with the world's seed and
the node's name, so adding a node does not change what the others do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from wgpy.protocol.constants import DEFAULT_PARAMETERS, NS, Parameters
from wgpy.protocol.crypto import Crypto, backend
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import AddressBytes, Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange
from wgpy.sim import ping
from wgpy.sim.clock import Scheduler, VirtualClock
from wgpy.sim.link import PERFECT, Fate, Link, Pipe
from wgpy.sim.nat import Nat
from wgpy.sim.network import Access, Host, Network
from wgpy.sim.trace import Kind, Trace, describe_datagram, describe_event

_PORT = 51_820
_OUTER = int.from_bytes(bytes([198, 18, 0, 0]))  # RFC 2544: benchmarks between networks
_INNER = int.from_bytes(bytes([10, 0, 0, 0]))
_INBOX = 1024


class SimulationError(Exception):
    """An engine broke a rule that every engine must keep, such as a deadline in the past."""


class Node:
    """One engine with an outer address and one inner address.

    `inbox` holds the latest packets out of the tunnel.  `echo` answers pings, as a host
    would.
    """

    def __init__(
        self,
        world: World,
        name: str,
        engine: Engine,
        key: PrivateKey,
        inner: AddressBytes,
        address: Endpoint,
    ) -> None:
        self.world = world
        self.name = name
        self.engine = engine
        self.private_key = key
        self.public_key = PublicKey(world.crypto.public_key(key))
        self.inner = inner
        self.echo = True
        self.inbox: deque[bytes] = deque(maxlen=_INBOX)
        self.received = 0
        self.answered: dict[int, int] = {}
        self.access: Access | None = None
        self._address = address
        self._wakes_at: int | None = None

    @property
    def address(self) -> Endpoint:
        """Where the node's socket is bound; behind a NAT, the inside address."""
        return self._address

    @property
    def now(self) -> int:
        """The world's time."""
        return self.world.clock.monotonic()

    # What happens to a node.

    def deliver(self, datagram: Datagram) -> None:
        """A datagram arrived."""
        self.engine.receive([datagram], now=self.now)
        self.flush()

    def send(self, packet: bytes) -> None:
        """The host writes an inner packet to the tunnel."""
        self.engine.send([packet], now=self.now)
        self.flush()

    def ping(self, other: Node, sequence: int = 0, size: int = 56) -> None:
        """One echo request through the tunnel; `answered[sequence]` will hold the time."""
        self.world.note(self, f"ping {other.name}, sequence {sequence}", "ping")
        self.send(ping.Echo(self.inner, other.inner, sequence, False, bytes(size)).encode())

    def change(self, *peers: PeerChange, private_key: PrivateKey | None = None) -> None:
        """Apply a configuration change."""
        self.engine.apply(DeviceChange(private_key=private_key, peers=peers), now=self.now)
        self.flush()

    def set_up(self, up: bool) -> None:
        """The interface goes up or down."""
        self.engine.set_up(up, now=self.now)
        self.flush()

    def move(self, address: Endpoint) -> None:
        """The host gets another outer address (or port): roaming."""
        access = self.access
        if access is None:
            raise SimulationError(f"{self.name} is not on the network")
        self.world.network.detach(access)
        self.world.note(self, f"moves from {self._address} to {address}", "move")
        self._address = address
        self.world.network.attach(access)

    # How a node reacts.

    def flush(self) -> None:
        """Take everything out of the engine and plan the next wake-up."""
        world, engine = self.world, self.engine
        # Events first: the cause of a datagram is listed before the datagram.
        self._watch()
        for data, endpoint in engine.pull_datagrams():
            world.transmit(self, bytes(data), endpoint)
        for packet in engine.pull_packets():
            self._accept(packet)
        self._plan()

    def _watch(self) -> None:
        trace = self.world.trace
        while (event := self.engine.next_event()) is not None:
            if trace.enabled:
                kind, name, text, details = describe_event(event)
                peer = self.world.name_of(event.peer)
                text = f"{text} [{peer}]" if peer else text
                trace.add(event.at, self.name, kind, name, text, peer=peer, **details)

    def _accept(self, packet: bytes) -> None:
        self.received += 1
        self.inbox.append(packet)
        echo = ping.parse(packet)
        if echo is None:
            text = f"packet of {len(packet)} bytes"
        elif echo.reply:
            self.answered[echo.sequence] = self.now
            text = f"ping reply, sequence {echo.sequence}"
        else:
            text = f"ping request, sequence {echo.sequence}"
        self.world.trace.add(self.now, self.name, Kind.INNER, "delivered", text, size=len(packet))
        if echo is not None and not echo.reply and self.echo:
            # Later, not now: the engine is not to be re-entered while it is drained.
            self.world.scheduler.after(0, lambda: self.send(echo.answer().encode()))

    def _plan(self) -> None:
        deadline = self.engine.next_deadline()
        if deadline is None:
            self._wakes_at = None
        elif deadline.at != self._wakes_at:
            self._wakes_at = when = deadline.at
            self.world.scheduler.at(when, lambda: self._wake(when))

    def _wake(self, planned: int) -> None:
        if planned != self._wakes_at:
            return  # another deadline took its place
        self._wakes_at = None
        deadline = self.engine.next_deadline()
        if deadline is not None and self.world.trace.enabled:
            self.world.trace.add(self.now, self.name, Kind.TIMER, "deadline", deadline.reason)
        self.engine.handle_deadline(now=self.now)
        after = self.engine.next_deadline()
        if after is not None and after.at <= self.now:
            raise SimulationError(f"{self.name}: still due after handling: {after.reason}")
        self.flush()

    def __repr__(self) -> str:
        return f"Node({self.name}, {self._address})"


class World:
    """Clock, network, nodes and time-line of one run; `seed` decides everything random."""

    def __init__(
        self,
        *,
        seed: int = 0,
        crypto: Crypto | None = None,
        parameters: Parameters = DEFAULT_PARAMETERS,
        trace: bool = True,
    ) -> None:
        self.seed = seed
        self.crypto = crypto or backend()
        self.parameters = parameters
        self.clock = VirtualClock()
        self.scheduler = Scheduler(self.clock)
        self.trace = Trace(enabled=trace)
        self.network = Network(self.scheduler, self._fate if trace else None)
        self.nodes: dict[str, Node] = {}
        self._names: dict[PublicKey, str] = {}

    def random(self, name: str) -> Random:
        """A generator of its own for `name`."""
        return Random(f"{self.seed}/{name}")

    def add(
        self,
        name: str,
        *,
        link: Link | None = None,
        downlink: Link = PERFECT,
        address: Endpoint | None = None,
        nat: Nat | None = None,
        parameters: Parameters | None = None,
        inner: AddressBytes | None = None,
    ) -> Node:
        """A new node with a key, an outer and an inner address; raises ValueError on a name twice.

        `link` is the uplink (default: 10 ms and nothing lost), `downlink` the other direction.
        """
        if name in self.nodes:
            raise ValueError(f"there is a node {name!r} already")
        number = len(self.nodes) + 1
        entropy = self.random(f"entropy/{name}").randbytes
        engine = Engine(
            crypto=self.crypto,
            entropy=entropy,
            now=self.clock.monotonic(),
            wall=self.clock.wall(),
            parameters=parameters or self.parameters,
        )
        key = PrivateKey.clamp(self.random(f"key/{name}").randbytes(32))
        inner = inner or (_INNER + number).to_bytes(4)
        address = address or Endpoint((_OUTER + number).to_bytes(4), _PORT)
        node = Node(self, name, engine, key, inner, address)
        wire = self.random(f"wire/{name}")
        node.access = Access(node, Pipe(link or Link(), wire), Pipe(downlink, wire), nat)
        self.network.attach(node.access)
        self.nodes[name] = node
        self._names[node.public_key] = name
        engine.trace_drops = self.trace.enabled
        engine.apply(DeviceChange(private_key=key), now=self.clock.monotonic())
        return node

    def join(
        self,
        a: Node,
        b: Node,
        *,
        psk: PresharedKey | None = None,
        a_knows_b: bool = True,
        b_knows_a: bool = True,
    ) -> None:
        """Make two nodes peers of each other; either may or may not know where the other is."""
        for one, other, knows in ((a, b, a_knows_b), (b, a, b_knows_a)):
            one.change(
                PeerChange(
                    other.public_key,
                    preshared_key=psk,
                    endpoint=other.address if knows else None,
                    allowed_ips=(AllowedIp(Prefix(other.inner, len(other.inner) * 8)),),
                )
            )

    def keepalive(self, node: Node, other: Node, seconds: int) -> None:
        """Set the persistent keepalive of `node` towards `other`; 0 turns it off."""
        node.change(PeerChange(other.public_key, persistent_keepalive=seconds))

    def nat(self, name: str, *, timeout: int = 60 * NS) -> Nat:
        """A translator with an outside address of its own (203.0.113.0/24, RFC 5737)."""
        rng = self.random(f"nat/{name}")
        return Nat(bytes([203, 0, 113, rng.randrange(1, 255)]), rng, timeout=timeout)

    def at(self, when: int, action: Callable[[], None]) -> None:
        """Plan something for `when` (ns from the start)."""
        self.scheduler.at(when, action)

    def run_for(self, duration: int) -> None:
        """Let `duration` ns pass."""
        self.run_until(self.clock.monotonic() + duration)

    def run_until(self, when: int) -> None:
        """Let time pass until `when` (ns from the start)."""
        self.scheduler.run_until(when)

    def step_wall_clock(self, node: Node, delta: int) -> None:
        """One node's wall clock jumps by `delta` ns."""
        wall = self.clock.wall() + delta
        node.engine.set_wall_clock(now=self.clock.monotonic(), wall=wall)
        self.note(node, f"wall clock steps by {delta / NS:g} s", "wall-clock")

    def transmit(self, node: Node, data: bytes, endpoint: Endpoint) -> None:
        """A node's datagram goes out."""
        if self.trace.enabled:
            name, text, details = describe_datagram(data)
            host = self.network.host_at(endpoint)
            to = host.name if isinstance(host, Node) else str(endpoint)
            text = f"to {to}: {text}"
            at = self.clock.monotonic()
            self.trace.add(at, node.name, Kind.SENT, name, text, to=str(endpoint), **details)
        if node.access is not None:
            self.network.send(node.access, data, endpoint)

    def note(self, node: Node, text: str, name: str = "note") -> None:
        """Something the scenario did."""
        self.trace.add(self.clock.monotonic(), node.name, Kind.NOTE, name, text)

    def name_of(self, key: PublicKey | None) -> str | None:
        """The node with this public key."""
        return None if key is None else self._names.get(key, key.base64[:8] + "…")

    def _fate(self, host: Host, fate: Fate, data: bytes, to: Endpoint) -> None:
        name, text, details = describe_datagram(data)
        who = host.name if isinstance(host, Node) else str(host.address)
        self.trace.add(
            self.clock.monotonic(), who, Kind.FATE, fate.name, f"{fate.value}: {text}",
            message=name, to=str(to), **details,
        )  # fmt: skip

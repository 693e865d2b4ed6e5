"""What is tested: the abstract `Target`, and one running `Instance` of it.

A *target* is an implementation that can be started (`wireguard-go`, the kernel in a
micro-VM, the engine in virtual time, a live device).  An *instance* is one WireGuard
interface of it, with its own key and UDP port.  A case asks the instance to be configured
(declaratively), exchanges UDP datagrams with it through `Port`s, and stimulates and watches
its inner side.  What a target cannot do it does not claim in `capabilities`; a method
it does not have raises `Unsupported`, and the case ends with that verdict.

Time is seconds as a float on the instance's own clock.  Only `Instance.pump` lets time
pass: with sockets it waits, in virtual time it moves the clock.  Cases never read another
clock, so the same case runs on both.

To write a target: subclass `Instance` (pump, apply, open_port, and what else it can do)
and `Target` (create), and register it in `wgspec/targets/__init__.py`.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from wgspec.primitives import public_key

T = TypeVar("T")


class Unsupported(Exception):
    """The target cannot do (or show) what the case needs; the text says what."""


class Unavailable(Exception):
    """The target cannot be started here; the text says why and what would help."""


class Address(NamedTuple):
    """An outer IP address (text, normalised) and UDP port."""

    ip: str
    port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.ip).version

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class Capability(enum.Enum):
    """What a case may need of an instance; the value is the phrase for people."""

    CONFIGURE = "configure peers while running"
    INNER_IN = "show the inner packets it delivers"
    INNER_OUT = "be given inner packets to send"
    INNER_RAW = "be given and show inner packets of any shape"
    STATE = "report its peers' endpoints and counters"
    PROCESS = "show its process"
    LINK = "set its interface up, down and its MTU"
    IPV6 = "be reached over IPv6"
    HOSTS = "be talked to from several IP addresses"
    UAPI = "speak the UAPI"
    LOAD = "be put under load"
    FRESH = "be restarted for one case"
    FORGET = "forget our peer's timestamps after a case"


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One peer to add or change; None leaves a value as it is.

    `allowed_ips` replaces the list unless `add_allowed_ips` is set; a leading `-` in an
    entry removes it (new in 2025; a target may refuse).  `keepalive` is seconds.
    """

    public_key: bytes
    preshared_key: bytes | None = None
    endpoint: Address | None = None
    allowed_ips: tuple[str, ...] | None = None
    add_allowed_ips: bool = False
    keepalive: int | None = None
    remove: bool = False
    update_only: bool = False


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What to change about the interface, in one transaction."""

    private_key: bytes | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: tuple[PeerConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerState:
    """What the target tells about a peer."""

    public_key: bytes
    endpoint: Address | None = None
    allowed_ips: tuple[str, ...] = ()
    latest_handshake: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    keepalive: int = 0


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What the target tells about itself."""

    listen_port: int
    private_key: bytes | None
    peers: tuple[PeerState, ...]

    def peer(self, public_key: bytes) -> PeerState | None:
        """The peer with this key."""
        return next((p for p in self.peers if p.public_key == public_key), None)


class Arrival(NamedTuple):
    """A datagram from the target: when, the bytes, from where, to which of our addresses.

    `tos` is the outer IP header's byte where known, else -1.
    """

    at: float
    data: bytes
    source: Address
    destination: Address
    tos: int = -1


class Delivered(NamedTuple):
    """A packet that left the target's inner side."""

    at: float
    packet: bytes


class Port(ABC):
    """One UDP address of the tester.  A subclass fills `inbox` and wakes the instance."""

    def __init__(self, instance: Instance, address: Address) -> None:
        self.instance = instance
        self.address = address
        self.inbox: deque[Arrival] = deque()
        self.on_send: Callable[[float, bytes, Address, Address], None] | None = None
        self.on_arrival: Callable[[Arrival], None] | None = None

    def send(self, data: bytes, to: Address | None = None) -> float:
        """Send one datagram (to the instance's own address); returns when."""
        destination = to or self.instance.address(self.address.family)
        at = self.instance.now()
        if self.on_send is not None:
            self.on_send(at, data, self.address, destination)
        self._transmit([data], destination)
        return at

    def burst(self, datagrams: Sequence[bytes]) -> None:
        """Send many as fast as possible, without a transcript."""
        self._transmit(datagrams, self.instance.address(self.address.family))

    def train(self, datagrams: Sequence[bytes]) -> None:
        """Send datagrams of one size so that the target may receive them in one batch."""
        self.burst(datagrams)

    def arrived(self, arrival: Arrival) -> None:
        """For subclasses: put a datagram into the inbox and wake whoever waits."""
        self.inbox.append(arrival)
        if self.on_arrival is not None:
            self.on_arrival(arrival)

    async def receive(self, timeout: float) -> Arrival | None:
        """The next datagram, or None after `timeout` seconds."""
        return await self.instance.wait(
            lambda: self.inbox.popleft() if self.inbox else None, timeout
        )

    @abstractmethod
    def _transmit(self, datagrams: Sequence[bytes], to: Address) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


@dataclass
class Health:
    """The state of the target's process; `rss` in bytes, 0 when unknown."""

    alive: bool
    rss: int = 0
    detail: str = ""


class Instance(ABC):
    """One running interface.  Subclasses: see the module's text."""

    capabilities: frozenset[Capability] = frozenset()
    fixed_peers: tuple[FixedPeer, ...] = ()
    """Peers that it comes with when it cannot be configured."""
    load_by_peers: bool = False
    """Only handshakes of peers that it knows count as load for it."""
    mtu: int = 1420
    slack: float = 1.5
    """Seconds that a timer may be late because the machine is busy; ~0 in virtual time."""
    early: float = 0.5
    """Seconds that an interval may look too short because its start was seen late."""

    def __init__(self, target: Target, private_key: bytes) -> None:
        self.target = target
        self.private_key = private_key
        self.delivered: deque[Delivered] = deque(maxlen=20_000)
        self.peers_made = 0
        self.reply_time = 0.0
        """The slowest reply seen so far, in seconds: the yardstick of silence."""

    @property
    def public_key(self) -> bytes:
        """The interface's public key."""
        return public_key(self.private_key)

    # Time.

    @abstractmethod
    def now(self) -> float: ...

    @abstractmethod
    async def pump(self, until: float) -> None:
        """Let time pass until `until`, or until something arrived at a port or inside."""

    async def wait(self, ready: Callable[[], T | None], timeout: float) -> T | None:
        """Poll `ready` whenever something arrives; its first value, or None."""
        deadline = self.now() + timeout
        while True:
            value = ready()
            if value is not None:
                return value
            if self.now() >= deadline:
                return None
            await self.pump(deadline)

    async def advance(self, seconds: float) -> None:
        """Let exactly this much time pass, whatever arrives."""
        deadline = self.now() + seconds
        while self.now() < deadline:
            await self.pump(deadline)

    # Configuration and state.

    @abstractmethod
    async def apply(self, change: DeviceConfig) -> None:
        """Apply in one transaction; raises `Rejected` when the target refuses it."""

    async def state(self) -> DeviceState:
        raise Unsupported("it does not report its state")

    @abstractmethod
    def address(self, family: int = 4) -> Address:
        """Where to send datagrams to; raises `Unsupported` for a family it lacks."""

    def alias(self, family: int = 4) -> Address:  # noqa: ARG002
        """A second address of the target, to see from where it answers."""
        raise Unsupported("it has no second address")

    # The outer side.

    @abstractmethod
    async def open_port(self, *, host: int = 0, family: int = 4, port: int = 0) -> Port:
        """A tester's UDP socket on its `host`-th IP address (0 .. hosts-1)."""

    @property
    def hosts(self) -> int:
        """How many IP addresses (per family) the tester has."""
        return 1

    # The inner side.

    async def inner_send(self, packets: Sequence[bytes]) -> None:  # noqa: ARG002
        """Give the target packets to route, as if its host had sent them."""
        raise Unsupported("its inner side cannot be given packets")

    async def inner_find(self, match: Callable[[bytes], bool], timeout: float) -> Delivered | None:
        """A packet that the target delivered (it stays in `delivered`), or None in time."""
        return await self.wait(
            lambda: next((d for d in self.delivered if match(d.packet)), None), timeout
        )

    # The process and the interface.

    def health(self) -> Health:
        return Health(alive=True, detail="not observable")

    async def set_up(self, up: bool) -> None:  # noqa: ARG002
        raise Unsupported("its interface cannot be set up and down")

    async def set_mtu(self, mtu: int) -> None:  # noqa: ARG002
        raise Unsupported("its MTU cannot be set")

    async def end(self, how: str, timeout: float) -> int | None:  # noqa: ARG002
        """End the process by "SIGINT", "SIGTERM", "link" (deletion of the interface) or
        "socket" (deletion of the UAPI socket); its exit status, or None if it lives on."""
        raise Unsupported("it is not a process")

    def leftovers(self) -> list[str]:
        """Paths that an ended process should have removed."""
        return []

    async def stop(self) -> None:  # noqa: B027 - most targets hold nothing
        """End it and free what it holds; never raises."""

    def diagnostics(self) -> str:
        """What the target printed, for a failure's report."""
        return ""


class Rejected(Exception):
    """The target refused a configuration; `errno` as it said, without the sign."""

    def __init__(self, errno: int, text: str = "") -> None:
        super().__init__(text or f"errno {errno}")
        self.errno = errno


class Target(ABC):
    """An implementation that can be started.  `name` finds its expected results."""

    name: str = ""
    version: str = ""
    virtual: bool = False
    """Time is virtual: long cases cost nothing, and each case gets its own instance."""
    one_per_case: bool = False
    """Each case gets an instance of its own (its peers are fixed at the start)."""
    parallel: int = 32
    """How many cases may run at one time."""
    shares_load: bool = False
    """Load on one instance puts all under load: a case that makes it runs alone."""
    stagger: float = 0.0
    """Seconds between the starts of two timed cases, for one that is slow with many at once."""
    fresh_parallel: int = 6
    """How many instances of their own may run at one time (quick cases)."""

    async def open(self) -> None:  # noqa: B027 - most targets share nothing
        """Prepare what all instances share (namespaces, a VM); may raise `Unavailable`."""

    @abstractmethod
    async def create(self, private_key: bytes) -> Instance:
        """Start an instance that listens, with this key, up, without peers."""

    async def close(self) -> None:  # noqa: B027 - most targets share nothing
        """Undo `open`; never raises."""


@dataclass(frozen=True, slots=True)
class FixedPeer:
    """An identity that the target already knows, with the inner addresses it may use."""

    private_key: bytes
    preshared_key: bytes = bytes(32)
    inner4: str = ""
    inner6: str = ""
    target_inner4: str = ""


class RealTimeInstance(Instance):
    """Shared by all targets that live in real time inside this process's event loop."""

    def __init__(self, target: Target, private_key: bytes) -> None:
        super().__init__(target, private_key)
        self._waiting: set[asyncio.Future[None]] = set()

    def now(self) -> float:
        return time.monotonic()

    def wake(self) -> None:
        """Something arrived."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def deliver(self, packet: bytes, at: float) -> None:
        """For subclasses: the target delivered a packet on its inner side."""
        self.delivered.append(Delivered(at, packet))
        self.wake()

    async def pump(self, until: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait_for(future, max(0.0, until - self.now()))
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(future)

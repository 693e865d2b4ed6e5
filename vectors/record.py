"""Recording of transcripts: wgpy's engine talks to a real WireGuard over UDP.

The peers are the conformance suite's targets (namespaces, micro-VM); our side is the bare
engine on one of the tester's sockets.  A scenario drives both, and fails unless the peer
delivered what we sent and we what it sent: so a transcript shows that both agree.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from vectors.model import Json, digest
from vectors.transcript import Player
from wgpy.protocol.constants import NS
from wgpy.protocol.crypto import backend
from wgpy.protocol.keys import PrivateKey
from wgspec.cases.common import garbage_initiation
from wgspec.inner import Inner, packet, token_of
from wgspec.target import Address, Capability, DeviceConfig, Instance, PeerConfig, Port, Target
from wgspec.uapi import parse_address

PATIENCE = 15.0
INITIATION, RESPONSE, COOKIE_REPLY, DATA = 1, 2, 3, 4
VERSION = 1
TRIES = 6


class RecordingFailed(Exception):
    """The conversation differs from the scenario; the text says where."""


class Conversation:
    """One engine, one port, one instance of the peer; `steps` grows as they talk."""

    def __init__(
        self,
        instance: Instance,
        port: Port,
        *,
        psk: bool = False,
        parameters: dict[str, int] | None = None,
    ) -> None:
        self.instance = instance
        self.port = port
        self.dice = Random()
        fixed = instance.fixed_peers[0] if instance.fixed_peers else None
        ours = PrivateKey.clamp(fixed.private_key if fixed else secrets.token_bytes(32))
        theirs = PrivateKey.clamp(instance.private_key)
        self.inner4 = (fixed.inner4, fixed.target_inner4) if fixed else ("10.9.0.1", "10.9.0.2")
        self.inner6 = (fixed.inner6, "fd77:ffff::1") if fixed else ("fd09::1", "fd09::2")
        family = port.address.family
        self.psk = secrets.token_bytes(32) if psk else bytes(32)
        self.head: Json = {
            "ours": self._side(ours, port.address, 0),
            "theirs": self._side(theirs, instance.address(family), 1),
            "preshared_key": self.psk.hex(),
            "parameters": parameters or {},
            "wall": str(time.time_ns()),
        }
        self.steps: list[Json] = []
        self._draws: list[bytes] = []
        self._player = Player(self.head, self._entropy)
        self._start = time.monotonic_ns()

    def _side(self, private: PrivateKey, address: Address, end: int) -> Json:
        return {
            "private_key": bytes(private).hex(),
            "public_key": backend("openssl").public_key(private).hex(),
            "address": str(address),
            "inner": [f"{self.inner4[end]}/32", f"{self.inner6[end]}/128"],
        }

    def _entropy(self, size: int) -> bytes:
        value = secrets.token_bytes(size)
        self._draws.append(value)
        return value

    def elapsed(self) -> float:
        """Seconds since the conversation began."""
        return (time.monotonic_ns() - self._start) / NS

    # Our side.

    def step(self, do: str, **arguments: object) -> Json:
        """One call of the engine; what it sends is sent."""
        at = time.monotonic_ns() - self._start
        step: Json = {"at": at, "do": do, "place": str(self.port.address), **arguments}
        step |= self._player.perform(step)
        step["entropy"], self._draws = [value.hex() for value in self._draws], []
        for to, data in step["sent"]:
            self.port.send(bytes.fromhex(data), parse_address(to))
        self.steps.append(step)
        return step

    async def until(self, done: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Let both talk until `done`; raises `RecordingFailed`."""
        end = time.monotonic() + patience
        while not done():
            rest = end - time.monotonic()
            if rest <= 0:
                raise RecordingFailed(f"{what}: not within {patience:.0f} s")
            deadline = self._player.engine.next_deadline()
            if deadline is not None:
                due = (deadline.at - (time.monotonic_ns() - self._start)) / NS
                rest = min(rest, max(due, 0.0))
            arrival = await self.port.receive(min(rest, 0.25))
            if arrival is not None:
                self.step("receive", **{"from": str(arrival.source)}, data=arrival.data.hex())
            elif deadline is not None and time.monotonic_ns() - self._start >= deadline.at:
                self.step("deadline")

    def packet(self, end: int, family: int, size: int = 100) -> Inner:
        """From the host of end 0 (us) or 1 (them) to the other."""
        inner = self.inner4 if family == 4 else self.inner6
        return packet(self.dice, inner[end], inner[1 - end], size=size)

    async def we_send(self, family: int = 4, size: int = 100, patience: float = PATIENCE) -> None:
        """A packet of ours comes out of the peer."""
        item = self.packet(0, family, size)
        self.step("send", data=item.packet.hex())
        await self.until(
            lambda: any(token_of(d.packet) == item.token for d in self.instance.delivered),
            "our packet delivered by the peer",
            patience,
        )

    async def they_send(self, family: int = 4, size: int = 100, patience: float = PATIENCE) -> None:
        """A packet of the peer's comes out of our engine."""
        item = self.packet(1, family, size)
        await self.instance.inner_send([item.packet])
        await self.until(
            lambda: any(item.token.hex() in p for s in self.steps for p in s["packets"]),
            "the peer's packet delivered by us",
            patience,
        )

    async def both(self) -> None:
        """Packets of several sizes and both families, each way."""
        for family, size in ((4, 60), (6, 99), (4, 1300)):
            await self.we_send(family, size)
            await self.they_send(family, size)

    def sent(self, kind: int) -> int:
        """How many messages of this type we sent."""
        return sum(data[:2] == f"{kind:02x}" for s in self.steps for _, data in s["sent"])

    def received(self, kind: int) -> int:
        """How many messages of this type came."""
        return sum(s["do"] == "receive" and s["data"][:2] == f"{kind:02x}" for s in self.steps)

    # Their side.

    async def configure(self, *, we_know: bool, keepalive: int = 0, ours: int = 0) -> None:
        """Both get each other as peers; `we_know` the endpoint, or they do."""
        head = self.head
        if Capability.CONFIGURE in self.instance.capabilities:
            peer = PeerConfig(
                bytes.fromhex(head["ours"]["public_key"]),
                preshared_key=self.psk if any(self.psk) else None,
                endpoint=None if we_know else self.port.address,
                allowed_ips=tuple(head["ours"]["inner"]),
                keepalive=keepalive or None,
            )
            await self.instance.apply(DeviceConfig(peers=(peer,)))
        endpoint = head["theirs"]["address"] if we_know else ""
        self.step("configure", endpoint=endpoint, keepalive=ours)

    async def move(self) -> None:
        """Our next datagrams leave from another address."""
        old = self.port
        host = 1 if self.instance.hosts > 1 else 0
        self.port = await self.instance.open_port(host=host, family=old.address.family)
        old.close()


@dataclass(frozen=True, slots=True)
class Scenario:
    """`run` gets a conversation that is configured on neither side."""

    comment: str
    flags: tuple[str, ...]
    run: Callable[[Conversation], Awaitable[None]]
    family: int = 4
    psk: bool = False
    parameters: tuple[tuple[str, int], ...] = ()
    they_initiate: bool = False


async def _we_initiate(talk: Conversation) -> None:
    await talk.configure(we_know=True)
    await talk.both()


async def _they_initiate(talk: Conversation) -> None:
    await talk.configure(we_know=False)
    await talk.they_send()
    await talk.both()


async def _rekey(talk: Conversation) -> None:
    await talk.configure(we_know=True)
    await talk.both()
    age = talk.elapsed() + 5.5  # two initiations are never closer than Rekey-Timeout
    await talk.until(lambda: talk.elapsed() > age, "the session's age")
    before = talk.sent(INITIATION)
    await talk.we_send()  # on the old session, and it is old enough to begin a new one
    await talk.until(
        lambda: talk.sent(INITIATION) > before and talk.received(RESPONSE) > before,
        "a new handshake",
    )
    await talk.both()


async def _roam(talk: Conversation) -> None:
    await talk.configure(we_know=True)
    await talk.both()
    await talk.move()
    await talk.we_send()
    await talk.they_send()
    if Capability.CONFIGURE in talk.instance.capabilities:
        port = talk.instance.address(talk.port.address.family).port + 20_000
        await talk.instance.apply(DeviceConfig(listen_port=port))
        await talk.they_send()
        await talk.we_send()


async def _keepalive(talk: Conversation) -> None:
    """We answer its data after our (short) timeout; where it can, it sends keepalives too."""
    await talk.configure(we_know=True, keepalive=2)
    await talk.we_send()
    await talk.they_send()
    size = 64  # hex digits of a keepalive

    def kept() -> bool:
        ours = any(len(data) == size for s in talk.steps[4:] for _, data in s["sent"])
        theirs = any(len(s["data"]) == size for s in talk.steps if s["do"] == "receive")
        return ours and (theirs or Capability.CONFIGURE not in talk.instance.capabilities)

    await talk.until(kept, "keepalives")


async def _we_demand_cookies(talk: Conversation) -> None:
    await talk.configure(we_know=False)
    await talk.they_send(patience=20)
    if not talk.sent(COOKIE_REPLY):
        raise RecordingFailed("no cookie reply of ours")
    await talk.both()


async def _they_demand_cookies(talk: Conversation) -> None:
    """A burst of others' initiations, then ours: a cookie reply, and mac2 on the repeat."""
    await talk.configure(we_know=True)
    crowd = await talk.instance.open_port(host=talk.instance.hosts - 1)
    public = bytes.fromhex(talk.head["theirs"]["public_key"])
    try:
        item = talk.packet(0, 4)
        if talk.instance.load_by_peers:
            # Only our own handshakes count: an outdated one of ours, again and again.
            await talk.we_send()
            stale = next(bytes.fromhex(d) for s in talk.steps for _, d in s["sent"])
            crowd.burst([stale] * 30)
            await talk.until(lambda: talk.elapsed() > 5.5, "the session's age")
        else:
            crowd.burst([garbage_initiation(talk.dice, public) for _ in range(3000)])
        talk.step("send", data=item.packet.hex())
        await talk.until(lambda: talk.received(COOKIE_REPLY) > 0, "a cookie reply", 3)
        await talk.until(
            lambda: talk.received(RESPONSE) > talk.instance.load_by_peers, "a response to mac2", 20
        )
        await talk.both()
    finally:
        crowd.close()


SCENARIOS: Final = (
    Scenario("We initiate over IPv4", ("initiator",), _we_initiate),
    Scenario("We initiate over IPv6 with a PSK", ("initiator", "psk"), _we_initiate, 6, psk=True),
    Scenario("They initiate over IPv6", ("responder",), _they_initiate, 6, they_initiate=True),
    Scenario("They initiate over IPv4 with a PSK", ("responder", "psk"), _they_initiate,
             psk=True, they_initiate=True),
    Scenario("They are under load: a cookie reply to us, and our mac2", ("initiator", "cookie"),
             _they_demand_cookies, parameters=(("rekey_after_time", NS),)),
    Scenario("We are under load: a cookie reply of ours, and their mac2", ("responder", "cookie"),
             _we_demand_cookies, parameters=(("under_load_backlog", 0),), they_initiate=True),
    Scenario("A second handshake under the first session", ("initiator", "rekey"), _rekey,
             parameters=(("rekey_after_time", NS),)),
    Scenario("Both change their address under way", ("initiator", "roaming"), _roam),
    Scenario("Keepalives of both sides", ("initiator", "keepalive"), _keepalive,
             parameters=(("keepalive_timeout", NS),)),
)  # fmt: skip


async def record(
    target: Target, command: str, progress: Callable[[str], None] = lambda _: None
) -> Json:
    """All scenarios with one target, as a transcript file; raises `RecordingFailed`."""
    await target.open()
    conversations: list[Json] = []
    try:
        for scenario in SCENARIOS:
            found = await _try(target, scenario)
            if found is None:
                progress(f"not with this peer: {scenario.comment}")
                continue
            progress(f"{len(found['steps'])} steps: {scenario.comment}")
            number = len(conversations) + 1
            head = {"tcId": number, "comment": scenario.comment, "flags": list(scenario.flags)}
            conversations.append(head | found)
    finally:
        await target.close()
    peer = target.version or target.name
    return {
        "version": VERSION,
        "name": target.name,
        "description": f"Conversations of wgpy's engine with {peer} over UDP",
        "origin": f"recorded by wgpy with {peer}; keys and entropy were made for this file",
        "generator": command,
        "recorded_with": peer,
        "verified_by": [
            f"{peer}: it answered, and delivered every packet",
            "tshark (handshake_ok and every inner packet), in tests/vectors",
            "vectors/transcript.py, which replays wgpy's side byte for byte",
        ],
        "digest": digest(conversations),
        "conversations": conversations,
    }


async def _try(target: Target, scenario: Scenario) -> Json | None:
    """The conversation, or None when this peer cannot have it."""
    for attempt in range(1, TRIES + 1):
        instance = await target.create(bytes(PrivateKey.clamp(secrets.token_bytes(32))))
        try:
            fixed = Capability.CONFIGURE not in instance.capabilities
            if fixed and (scenario.psk or scenario.they_initiate):
                return None
            port = await instance.open_port(family=scenario.family)
            parameters = dict(scenario.parameters)
            talk = Conversation(instance, port, psk=scenario.psk, parameters=parameters)
            try:
                await scenario.run(talk)
            finally:
                talk.port.close()
            return talk.head | {"steps": talk.steps}
        except RecordingFailed:
            if attempt == TRIES:
                raise
            await asyncio.sleep(1)
        finally:
            await instance.stop()
    return None

"""Event scripts in virtual time: what a device sends when (§6).

One device with one peer at zero distance and no jitter.  A script is a list of
(seconds, event): `send` and `receive` are packets with content, `receive-keepalive` an
empty one, `initiate` a handshake started by the peer, `mute` and `unmute` decide whether
the peer answers initiations.  The result lists what the device sends:
(nanoseconds, initiation | response | data | keepalive).
"""

from __future__ import annotations

from collections.abc import Iterator

from vectors.kinds.base import Compute, Computed, plain
from vectors.model import Json
from wgpy.protocol import outbound
from wgpy.protocol.constants import KEEPALIVE_SIZE, NS, Parameters
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

_DEVICE = Endpoint.parse("192.0.2.1:51820")
_PEER = Endpoint.parse("192.0.2.2:51820")
_KEYS = PrivateKey.clamp(b"\x11" * 32), PrivateKey.clamp(b"\x22" * 32)
_NAMES = {1: "initiation", 2: "response", 3: "cookie reply"}
# Data, but no answer to it: the scripted peer never speaks on its own.
_SILENT = Parameters(
    keepalive_timeout=10**6 * NS,
    reject_after_time=3 * 10**6 * NS,
    rekey_after_time=10**6 * NS,
    rekey_timeout_jitter=0,
    initiation_guard=0,
)


def _entropy() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield number.to_bytes(32, "little")


class _Script:
    """A device under test and its scripted peer."""

    def __init__(self, crypto: Crypto, inputs: Json) -> None:
        stream = _entropy()

        def engine(parameters: Parameters) -> Engine:
            return Engine(
                crypto=crypto,
                entropy=lambda size: next(stream)[:size],
                now=0,
                wall=10**18,
                parameters=parameters,
            )

        self.device = engine(Parameters(rekey_timeout_jitter=0))
        self.peer = engine(_SILENT)
        self.muted = False
        self.sent: list[list[int | str]] = []
        publics = [PublicKey(crypto.public_key(key)) for key in _KEYS]
        for engine_, own, other, place, prefix in (
            (self.device, _KEYS[0], publics[1], _PEER, "10.0.0.2/32"),
            (self.peer, _KEYS[1], publics[0], _DEVICE, "10.0.0.1/32"),
        ):
            allowed = (AllowedIp(Prefix.parse(prefix)),)
            change = PeerChange(other, endpoint=place, allowed_ips=allowed)
            engine_.apply(DeviceChange(private_key=own, peers=(change,)), now=0)
        interval = inputs.get("persistent_keepalive", 0)
        if interval:
            change = PeerChange(publics[1], persistent_keepalive=interval)
            self.device.apply(DeviceChange(peers=(change,)), now=0)
            self.exchange(0)

    def exchange(self, now: int) -> None:
        """Carry datagrams both ways until nothing moves."""
        while True:
            out = self.device.pull_datagrams()
            for data, _ in out:
                name = _NAMES.get(data[0], "data" if len(data) > KEEPALIVE_SIZE else "keepalive")
                self.sent.append([now, name])
            if not self.muted:
                self.peer.receive([Datagram(d.data, _DEVICE) for d in out], now=now)
            back = self.peer.pull_datagrams()
            self.device.receive([Datagram(d.data, _PEER) for d in back], now=now)
            if not out and not back:
                return

    def perform(self, event: str, now: int) -> None:
        """One line of the script."""
        packet = bytes.fromhex("45000015000000004011" + "0000")
        outgoing = packet + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + b"x"
        incoming = packet + bytes([10, 0, 0, 2, 10, 0, 0, 1]) + b"x"
        if event == "send":
            self.device.send([outgoing], now=now)
        elif event == "receive":
            self.peer.send([incoming], now=now)
        elif event in ("receive-keepalive", "initiate"):
            self._peer_speaks(event, now)
        elif event in ("mute", "unmute"):
            self.muted = event == "mute"
        else:
            raise ValueError(f"unknown event {event!r} in a timer script")
        self.exchange(now)

    def _peer_speaks(self, event: str, now: int) -> None:
        device = self.peer.device
        (peer,) = device.peers.values()
        if event == "initiate":
            outbound.initiate(device, peer, now)
        else:
            outbound.send_keepalive(device, peer, now)


def _timers(crypto: Crypto, inputs: Json) -> Computed:
    script = _Script(crypto, inputs)
    end = inputs["until"] * NS
    events = [(round(at * NS), event) for at, event in inputs["script"]]
    events.append((end, "end"))
    for at, event in events:
        while (deadline := script.device.next_deadline()) is not None and deadline.at <= at:
            script.device.handle_deadline(now=deadline.at)
            script.exchange(deadline.at)
        if event != "end":
            script.perform(event, at)
    return plain({"sent": script.sent})


KINDS: dict[str, Compute] = {"timers": _timers}

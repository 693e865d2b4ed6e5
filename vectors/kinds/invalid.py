"""Messages that must be refused, each made from a valid one by a stated mutation.

`inputs` are those of a handshake plus:
  message     initiation | response | transport | cookie-reply
  mutations   list of {"op": "xor" | "put", "offset", "data"} | {"op": "truncate", "size"}
              | {"op": "extend", "data"}
  resign      recompute mac1 after the mutations, so that the fault lies deeper
  deliveries  1, or 2 for a replay (the second one must be refused)
  reflect     deliver the victim's own message instead
The expected `check` names what refuses it, in words that belong to no implementation.
"""

from __future__ import annotations

from collections.abc import Callable

from vectors.kinds.base import Compute, Computed, plain
from vectors.kinds.handshake import KINDS as MESSAGES
from vectors.model import Json
from wgpy.protocol import tai64n
from wgpy.protocol.constants import MAC_SIZE
from wgpy.protocol.cookie import MacChecker, mac1_key
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

CHECKS = {  # the words of the vectors
    DropReason.LENGTH_INVALID: "length",
    DropReason.TYPE_UNKNOWN: "type",
    DropReason.MAC1_INVALID: "mac1",
    DropReason.LOW_ORDER_KEY: "low-order",
    DropReason.STATIC_INVALID: "static",
    DropReason.UNKNOWN_INITIATOR: "identity",
    DropReason.TIMESTAMP_INVALID: "timestamp",
    DropReason.TIMESTAMP_REPLAYED: "freshness",
    DropReason.UNKNOWN_INDEX: "index",
    DropReason.RESPONSE_INVALID: "empty",
    DropReason.COOKIE_INVALID: "cookie",
    DropReason.TAG_INVALID: "tag",
    DropReason.REPLAYED: "replay",
    DropReason.COUNTER_EXHAUSTED: "counter",
    DropReason.INNER_MALFORMED: "inner",
    DropReason.SOURCE_NOT_ALLOWED: "source",
}
_OTHER_SIDE = Endpoint.parse("192.0.2.2:51820")


def _entropy(ephemeral: str, index: int) -> Callable[[int], bytes]:
    """The engine's draws, fixed: 32 bytes are an ephemeral key, 4 an index (or jitter)."""
    draws = {32: bytes.fromhex(ephemeral), 4: index.to_bytes(4)}
    return lambda size: draws[size]


def _victim(crypto: Crypto, inputs: Json, role: str) -> Engine:
    """The device that must refuse, configured for the other side of the handshake."""
    other = "responder" if role == "initiator" else "initiator"
    engine = Engine(
        crypto=crypto,
        entropy=_entropy(inputs[f"{role}_ephemeral"], inputs[f"{role}_index"]),
        now=0,
        wall=tai64n.decode(bytes.fromhex(inputs["timestamp"])),
    )
    other_public = crypto.public_key(bytes.fromhex(inputs[f"{other}_static"]))
    secret = str(inputs.get("victim_preshared_key", inputs["preshared_key"]))
    configured = str(inputs.get("configured_peer", other_public.hex()))
    peer = PeerChange(
        PublicKey(bytes.fromhex(configured)),
        preshared_key=PresharedKey(bytes.fromhex(secret)),
        endpoint=_OTHER_SIDE,
        allowed_ips=(AllowedIp(Prefix.parse("10.0.0.0/24")),),
    )
    private = PrivateKey(bytes.fromhex(inputs[f"{role}_static"]))
    engine.apply(DeviceChange(private_key=private, peers=(peer,)), now=0)
    return engine


def _prepare(crypto: Crypto, inputs: Json) -> tuple[Engine, bytes, bytes]:
    """The victim in the state it needs, the valid message, and the key of its mac1."""
    kind = inputs["message"]
    role = "responder" if kind in ("initiation", "transport") else "initiator"
    victim = _victim(crypto, inputs, role)
    messages = MESSAGES["handshake"](crypto, inputs).expected
    base = bytes.fromhex(messages.get(kind, ""))
    if kind == "transport":
        victim.receive([Datagram(bytes.fromhex(messages["initiation"]), _OTHER_SIDE)], now=0)
        transport = {
            "key": messages["initiator_sends"],
            "receiver_index": inputs["responder_index"],
            "counter": inputs["counter"],
            "packet": inputs["packet"],
            "mtu": 1420,
        }
        base = bytes.fromhex(MESSAGES["transport"](crypto, transport).expected["datagram"])
    elif role == "initiator":
        packet = bytes.fromhex("4500001500000000401100000a0000010a00000278")
        victim.send([packet], now=0)
    if kind == "cookie-reply":
        base = _cookie_reply(crypto, inputs, bytes.fromhex(messages["initiation"]))
    public = crypto.public_key(bytes.fromhex(inputs[f"{role}_static"]))
    return victim, base, mac1_key(crypto, public)


def _cookie_reply(crypto: Crypto, inputs: Json, initiation: bytes) -> bytes:
    public = crypto.public_key(bytes.fromhex(inputs["responder_static"]))
    draws = [bytes.fromhex(inputs["secret"]), bytes.fromhex(inputs["nonce"])]
    checker = MacChecker(crypto, public, lambda _size: draws.pop(0), 1)
    source = Endpoint.parse(inputs["source"])
    return checker.reply(initiation, inputs["initiator_index"], source, 0).encode()


def mutate(message: bytes, mutations: list[Json]) -> bytes:
    """`message` after all mutations."""
    data = bytearray(message)
    for mutation in mutations:
        change = bytes.fromhex(mutation.get("data", ""))
        offset = mutation.get("offset", 0)
        match mutation["op"]:
            case "xor":
                for position, byte in enumerate(change, offset):
                    data[position] ^= byte
            case "put":
                data[offset : offset + len(change)] = change
            case "truncate":
                del data[mutation["size"] :]
            case "extend":
                data += change
            case unknown:
                raise ValueError(f"unknown mutation {unknown!r}")
    return bytes(data)


def _invalid(crypto: Crypto, inputs: Json) -> Computed:
    victim, base, key = _prepare(crypto, inputs)
    datagram = mutate(base, inputs["mutations"])
    if inputs.get("reflect"):
        datagram = bytes(victim.pull_datagrams()[0].data)
    if inputs.get("resign"):
        body = datagram[: -2 * MAC_SIZE]
        datagram = body + crypto.mac(key, body) + datagram[-MAC_SIZE:]
    for _ in range(inputs.get("deliveries", 1) - 1):
        victim.receive([Datagram(datagram, _OTHER_SIDE)], now=10**9)
    victim.pull_datagrams()
    victim.pull_packets()
    before = dict(victim.drops)
    victim.receive([Datagram(datagram, _OTHER_SIDE)], now=2 * 10**9)
    reasons = [r for r, count in victim.drops.items() if count != before.get(r, 0)]
    refused = len(reasons) == 1 and not victim.pull_packets()
    # Data that authenticates may be answered (it confirms keys); nothing else may.
    if reasons and reasons[0] not in (DropReason.INNER_MALFORMED, DropReason.SOURCE_NOT_ALLOWED):
        refused = refused and not victim.pull_datagrams()
    check = CHECKS[reasons[0]] if refused else "accepted"
    return plain({"datagram": datagram.hex(), "check": check})


KINDS: dict[str, Compute] = {"invalid": _invalid}

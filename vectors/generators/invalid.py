"""Inputs of the file `invalid`: each field of each message wrong, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from vectors.entropy import SeededEntropy
from vectors.generators.builder import Builder, Wish
from vectors.generators.messages import handshake_inputs
from vectors.generators.primitives import LOW_ORDER_POINTS
from vectors.model import Json
from wgpy.protocol.constants import COOKIE_REPLY_SIZE, INITIATION_SIZE, RESPONSE_SIZE
from wgpy.protocol.crypto import backend

_LIMIT = 2**64 - 2**13 - 1
_PACKET = "4500001c00000000401100000a0000010a0000020102030405060708"

# Offset and size of each field (§5.4.2, §5.4.3, §5.4.7, §5.4.6).
_FIELDS: dict[str, dict[str, tuple[int, int]]] = {
    "initiation": {
        "unencrypted_ephemeral": (8, 32),
        "encrypted_static": (40, 48),
        "encrypted_timestamp": (88, 28),
    },
    "response": {
        "receiver_index": (8, 4),
        "unencrypted_ephemeral": (12, 32),
        "encrypted_nothing": (44, 16),
    },
    "cookie-reply": {"receiver_index": (4, 4), "nonce": (8, 24), "encrypted_cookie": (32, 32)},
    "transport": {"receiver_index": (4, 4), "counter": (8, 8), "encrypted_packet": (16, 48)},
}
_SIZES = {
    "initiation": INITIATION_SIZE,
    "response": RESPONSE_SIZE,
    "cookie-reply": COOKIE_REPLY_SIZE,
    "transport": 64,
}


def _inputs(draw: SeededEntropy, kind: str, **more: object) -> Json:
    inputs = handshake_inputs(draw, psk=True)
    inputs["message"] = kind
    if kind == "transport":
        inputs |= {"counter": "0", "packet": _PACKET}
    if kind == "cookie-reply":
        inputs |= {
            "secret": draw(32).hex(),
            "nonce": draw(24).hex(),
            "source": "192.0.2.1:51820",
        }
    return inputs | {"mutations": []} | more


def _field_faults(draw: SeededEntropy, kind: str) -> Iterator[Wish]:
    """The first and last bit of each field, with mac1 computed again."""
    signed = kind in ("initiation", "response")
    for name, (offset, size) in _FIELDS[kind].items():
        for place, data in ((offset, "01"), (offset + size - 1, "80")):
            if name == "unencrypted_ephemeral" and data == "80":
                data = "40"  # the top bit is ignored by X25519 (RFC 7748 §5)
            mutation = {"op": "xor", "offset": place, "data": data}
            inputs = _inputs(draw, kind, mutations=[mutation], resign=signed)
            yield Wish(f"{name}, bit of byte {place}", inputs, "invalid", ("BitFlip",))
    if signed:
        for place in (_SIZES[kind] - 32, _SIZES[kind] - 17):
            mutation = {"op": "xor", "offset": place, "data": "01"}
            inputs = _inputs(draw, kind, mutations=[mutation])
            yield Wish(f"mac1, bit of byte {place}", inputs, "invalid", ("BitFlip",))


def _shape_faults(draw: SeededEntropy, kind: str) -> Iterator[Wish]:
    size = _SIZES[kind]
    shorter = size - 1 if kind != "transport" else 31
    cut = {"op": "truncate", "size": shorter}
    yield Wish("truncated", _inputs(draw, kind, mutations=[cut]), "invalid", ("Length",))
    longer = {"op": "extend", "data": "00"}
    yield Wish("extended", _inputs(draw, kind, mutations=[longer]), "invalid", ("Length",))
    for place in (1, 2, 3):
        mutation = {"op": "xor", "offset": place, "data": "01"}
        inputs = _inputs(
            draw, kind, mutations=[mutation], resign=kind in ("initiation", "response")
        )
        yield Wish(f"reserved byte {place} is not zero", inputs, "invalid", ("Reserved",))
    for wrong in ("00", "05", "ff"):
        mutation = {"op": "put", "offset": 0, "data": wrong}
        yield Wish(f"type {wrong}", _inputs(draw, kind, mutations=[mutation]), "invalid")


def _identity_faults(draw: SeededEntropy) -> Iterator[Wish]:
    crypto = backend("openssl")
    stranger = crypto.public_key(draw.private_key()).hex()
    inputs = _inputs(draw, "initiation", configured_peer=stranger)
    yield Wish("initiator is not configured", inputs, "invalid", ("UnknownPeer",))
    yield Wish(
        "the same initiation again",
        _inputs(draw, "initiation", deliveries=2),
        "invalid",
        ("Replay",),
    )
    inputs = _inputs(draw, "response", victim_preshared_key=draw(32).hex())
    yield Wish("the sides have different preshared keys", inputs, "invalid", ("WrongPsk",))
    yield Wish(
        "the same response again", _inputs(draw, "response", deliveries=2), "invalid", ("Replay",)
    )
    yield Wish(
        "our own initiation comes back",
        _inputs(draw, "response", reflect=True),
        "invalid",
        ("Reflected",),
    )
    for kind, offset in (("initiation", 8), ("response", 12)):
        for name, point in LOW_ORDER_POINTS.items():
            mutation = {"op": "put", "offset": offset, "data": point.hex()}
            inputs = _inputs(draw, kind, mutations=[mutation], resign=True)
            yield Wish(f"{kind}: ephemeral of low order, {name}", inputs, "invalid", ("LowOrder",))


def _transport_faults(draw: SeededEntropy) -> Iterator[Wish]:
    yield Wish("replayed", _inputs(draw, "transport", deliveries=2), "invalid", ("Replay",))
    for counter in (_LIMIT, _LIMIT + 1, 2**64 - 1):
        inputs = _inputs(draw, "transport", counter=str(counter))
        yield Wish(f"counter {counter}", inputs, "invalid", ("CounterLimit",))
    inner = {
        "inner packet is not IP": "00" * 28,
        "inner version is 5": "55" + _PACKET[2:],
        "inner length is more than there is": _PACKET[:4] + "0400" + _PACKET[8:],
        "inner length is less than its header": _PACKET[:4] + "0013" + _PACKET[8:],
    }
    for comment, packet in inner.items():
        yield Wish(comment, _inputs(draw, "transport", packet=packet), "invalid", ("Inner",))
    foreign = _PACKET.replace("0a000001", "0b000001")
    yield Wish(
        "inner source is not allowed",
        _inputs(draw, "transport", packet=foreign),
        "invalid",
        ("Inner",),
    )


def invalid(seed: int, builder: Builder) -> None:
    """All of it, grouped by section."""
    draw = SeededEntropy(seed, "invalid")
    sections = {
        "initiation": "§5.4.2",
        "response": "§5.4.3",
        "cookie-reply": "§5.4.7",
        "transport": "§5.4.6",
    }
    comment = "a valid message, one mutation; `check` is what refuses it"
    for kind, section in sections.items():
        wishes = [*_field_faults(draw, kind), *_shape_faults(draw, kind)]
        builder.group("invalid", section, comment, wishes)
    builder.group("invalid", "§5.1, §5.2, §5.3", "identity and freshness", _identity_faults(draw))
    builder.group("invalid", "§5.4.6, §3", "data and what is inside", _transport_faults(draw))

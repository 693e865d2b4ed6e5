"""Inputs of the files `handshake`, `cookie` and `transport`."""

from __future__ import annotations

from vectors.entropy import SeededEntropy
from vectors.generators.builder import Builder, Wish
from vectors.kinds.handshake import KINDS
from vectors.model import Json
from wgpy.protocol import tai64n
from wgpy.protocol.constants import NS
from wgpy.protocol.crypto import backend

_WALL = 1_700_000_000 * NS


def handshake_inputs(draw: SeededEntropy, *, psk: bool = False, wall: int = _WALL) -> Json:
    """Everything random of one handshake."""
    return {
        "initiator_static": draw.private_key().hex(),
        "responder_static": draw.private_key().hex(),
        "preshared_key": (draw(32) if psk else bytes(32)).hex(),
        "initiator_ephemeral": draw.private_key().hex(),
        "responder_ephemeral": draw.private_key().hex(),
        "initiator_index": draw.integer(2**32),
        "responder_index": draw.integer(2**32),
        "timestamp": tai64n.encode(wall).hex(),
    }


def handshakes(seed: int, builder: Builder) -> None:
    """Plain, with a preshared key, a rekey, and both sides initiating at once."""
    draw = SeededEntropy(seed, "handshake")
    comment = "intermediates are named by side and Noise token, in order"
    builder.group(
        "handshake",
        "§5.4.2, §5.4.3",
        comment,
        [Wish("no preshared key", handshake_inputs(draw)) for _ in range(3)],
    )
    builder.group(
        "handshake",
        "§5.2, §5.4.3",
        comment,
        [
            Wish("preshared key", handshake_inputs(draw, psk=True), flags=("PresharedKey",))
            for _ in range(3)
        ],
    )
    first = handshake_inputs(draw)
    rekey = handshake_inputs(draw, wall=_WALL + 120 * NS)
    statics = ("initiator_static", "responder_static", "preshared_key")
    rekey |= {name: first[name] for name in statics}
    builder.group(
        "handshake",
        "§6.2",
        "the same two peers, then again 120 s later with new ephemerals",
        [Wish("first", first, flags=("Rekey",)), Wish("rekey", rekey, flags=("Rekey",))],
    )
    there = handshake_inputs(draw, psk=True)
    back = handshake_inputs(draw, psk=True, wall=_WALL + (1 << 24))
    back |= {
        "initiator_static": there["responder_static"],
        "responder_static": there["initiator_static"],
        "preshared_key": there["preshared_key"],
    }
    builder.group(
        "handshake",
        "§5.3, §6.3",
        "two handshakes that cross: both complete, and each side sends on the one it initiated",
        [
            Wish("from one side", there, flags=("Simultaneous",)),
            Wish("from the other side", back, flags=("Simultaneous",)),
        ],
    )


def cookies(seed: int, builder: Builder) -> None:
    """An initiation and a response refused under load, from IPv4 and IPv6 sources."""
    draw = SeededEntropy(seed, "cookie")
    crypto = backend("openssl")
    wishes = []
    for source in ("192.0.2.1:51820", "192.0.2.1:51821", "[2001:db8::1]:51820"):
        for kind in ("initiation", "response"):
            first, second = handshake_inputs(draw), handshake_inputs(draw)
            receiver = "responder" if kind == "initiation" else "initiator"
            sender = "initiator" if kind == "initiation" else "responder"
            second[f"{receiver}_static"] = first[f"{receiver}_static"]
            public = crypto.public_key(bytes.fromhex(first[f"{receiver}_static"]))
            inputs = {
                "responder_public": public.hex(),
                "first_message": KINDS["handshake"](crypto, first).expected[kind],
                "second_message": KINDS["handshake"](crypto, second).expected[kind],
                "sender_index": first[f"{sender}_index"],
                "source": source,
                "secret": draw(32).hex(),
                "nonce": draw(24).hex(),
            }
            wishes.append(Wish(f"{kind} from {source}", inputs, flags=("PrivateEncoding",)))
    builder.group(
        "cookie",
        "§5.3, §5.4.4, §5.4.7",
        "responder_public is the key of the side under load. How a source address becomes bytes"
        " is private to an implementation; here: packed IP, then the port in 2 bytes, big-endian."
        " Everything else is fixed by the paper",
        wishes,
    )


def transport(seed: int, builder: Builder) -> None:
    """Keepalive, every padding, the MTU's edge, counters and their limits."""
    draw = SeededEntropy(seed, "transport")

    def wish(comment: str, size: int, counter: int = 0, mtu: int = 1420) -> Wish:
        inputs = {
            "key": draw(32).hex(),
            "receiver_index": draw.integer(2**32),
            "counter": str(counter),
            "packet": _packet(draw, size).hex(),
            "mtu": mtu,
        }
        return Wish(comment, inputs)

    builder.group("transport", "§6.5", "an empty packet: 32 bytes", [wish("keepalive", 0)])
    builder.group(
        "transport",
        "§5.4.6",
        "zero padding to a multiple of 16",
        [wish(f"{-size % 16} bytes of padding", size) for size in range(48, 64)],
    )
    builder.group(
        "transport",
        "§5.4.6",
        "padding never exceeds the MTU",
        [
            wish(f"{size} bytes at MTU {mtu}", size, mtu=mtu)
            for size, mtu in (
                (1420, 1420),
                (1419, 1420),
                (1409, 1420),
                (1299, 1299),
                (1298, 1299),
                (1280, 1280),
                (1279, 1280),
            )
        ],
    )
    limit = 2**64 - 2**13 - 1
    builder.group(
        "transport",
        "§5.4.6, §6.1",
        "the counter in the nonce and in the header",
        [
            wish(f"counter {counter}", 60, counter=counter)
            for counter in (0, 1, 255, 256, 2**32 - 1, 2**32, 2**60, 2**60 + 1, limit - 1)
        ],
    )


def _packet(draw: SeededEntropy, size: int) -> bytes:
    """An IPv4 UDP packet of `size` bytes, or nothing."""
    if not size:
        return b""
    header = b"\x45\0" + size.to_bytes(2) + bytes(4) + b"\x40\x11\0\0"
    return header + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + draw(size - 20)

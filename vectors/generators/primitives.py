"""Inputs of the files `constants`, `primitives` and `tai64n`."""

from __future__ import annotations

from collections.abc import Iterator

from vectors.entropy import SeededEntropy
from vectors.generators.builder import Builder, Wish
from wgpy.protocol.crypto import backend

_CONSTANTS = {
    "§5.4": (
        "CONSTRUCTION", "IDENTIFIER", "LABEL_MAC1", "LABEL_COOKIE",
        "HASH_OF_CONSTRUCTION", "HASH_OF_IDENTIFIER",
    ),
    "§5.4.2": ("TYPE_INITIATION", "INITIATION_SIZE"),
    "§5.4.3": ("TYPE_RESPONSE", "RESPONSE_SIZE"),
    "§5.4.6": ("TYPE_TRANSPORT", "TRANSPORT_HEADER_SIZE", "KEEPALIVE_SIZE", "PADDING_MULTIPLE"),
    "§5.4.7": ("TYPE_COOKIE_REPLY", "COOKIE_REPLY_SIZE", "cookie_lifetime"),
    "§6.1": (
        "rekey_after_messages", "reject_after_messages", "rekey_after_time",
        "reject_after_time", "rekey_attempt_time", "rekey_timeout", "keepalive_timeout",
    ),
}  # fmt: skip

# RFC 7748 §6.1 and the curve's literature: points whose result is always zero.
LOW_ORDER_POINTS = {
    "zero": bytes(32),
    "one": b"\1" + bytes(31),
    "order 8, first": bytes.fromhex(
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
    ),
    "order 8, second": bytes.fromhex(
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"
    ),
    "p - 1": (2**255 - 20).to_bytes(32, "little"),
    "p": (2**255 - 19).to_bytes(32, "little"),
    "p + 1": (2**255 - 18).to_bytes(32, "little"),
}


def constants(_seed: int, builder: Builder) -> None:
    """All numbers, grouped by section; times in ns."""
    for section, names in _CONSTANTS.items():
        wishes = [Wish(name, {"name": name}) for name in names]
        builder.group("constant", section, "byte strings in hex, times in nanoseconds", wishes)


def primitives(seed: int, builder: Builder) -> None:
    """Each primitive at the sizes WireGuard uses and at their edges."""
    draw = SeededEntropy(seed, "primitives")
    sizes = (0, 1, 8, 31, 32, 33, 63, 64, 65, 116, 132)
    builder.group(
        "hash",
        "§5.4",
        "BLAKE2s with 32 bytes of output",
        [Wish(f"{n} bytes", {"data": draw(n).hex()}) for n in sizes],
    )
    keyed = [
        (f"{k}-byte key, {n} bytes", {"key": draw(k).hex(), "data": draw(n).hex()})
        for k in (16, 32)
        for n in sizes
    ]
    builder.group(
        "mac",
        "§5.4",
        "keyed BLAKE2s with 16 bytes of output, not HMAC",
        [Wish(comment, inputs) for comment, inputs in keyed],
    )
    builder.group(
        "hmac",
        "§5.4",
        "HMAC over BLAKE2s-32, not keyed BLAKE2s",
        [Wish(f"{n} bytes", {"key": draw(32).hex(), "data": draw(n).hex()}) for n in sizes],
    )
    builder.group(
        "kdf",
        "§5.4",
        "Kdf_n",
        [
            Wish(f"Kdf{n}, {size} bytes", {"key": draw(32).hex(), "data": draw(size).hex(), "n": n})
            for n in (1, 2, 3)
            for size in (0, 32, 37)
        ],
    )
    builder.group("dh", "§5.4", "Curve25519; a zero result is refused", _dh(draw))
    builder.group(
        "mac-keys",
        "§5.4.4, §5.4.7",
        "keys of mac1 and of cookie replies to one public key",
        [Wish("random key", {"public": draw(32).hex()}) for _ in range(3)],
    )
    _aead(draw, builder)


def _dh(draw: SeededEntropy) -> Iterator[Wish]:
    crypto = backend("openssl")
    for _ in range(4):
        private, other = draw.private_key(), draw.private_key()
        inputs = {"private": private.hex(), "public": crypto.public_key(other).hex()}
        yield Wish("random keys", inputs)
    for name, point in LOW_ORDER_POINTS.items():
        inputs = {"private": draw.private_key().hex(), "public": point.hex()}
        yield Wish(f"low order: {name}", inputs, "invalid", ("LowOrder",))


def _aead(draw: SeededEntropy, builder: Builder) -> None:
    crypto = backend("openssl")
    counters = (0, 1, 2**32 - 1, 2**32, 2**60, 2**64 - 2**13 - 2)
    seals, opens, xseals, xopens = [], [], [], []
    for counter in counters:
        for size, aad_size in ((0, 0), (0, 32), (12, 32), (32, 32), (16, 0), (1424, 0)):
            inputs = {
                "key": draw(32).hex(),
                "counter": str(counter),
                "plaintext": draw(size).hex(),
                "aad": draw(aad_size).hex(),
            }
            seals.append(Wish(f"{size} bytes, {aad_size} of aad, counter {counter}", inputs))
    for place in ("ciphertext", "tag", "truncated"):
        key, plaintext = draw(32), draw(32)
        sealed = bytearray(crypto.aead(key).seal(7, plaintext))
        if place == "truncated":
            del sealed[-1]
        else:
            sealed[0 if place == "ciphertext" else -1] ^= 1
        inputs = {"key": key.hex(), "counter": "7", "sealed": sealed.hex(), "aad": ""}
        opens.append(Wish(f"{place} changed", inputs, "invalid"))
    for _ in range(4):
        inputs = {
            "key": draw(32).hex(),
            "nonce": draw(24).hex(),
            "plaintext": draw(16).hex(),
            "aad": draw(16).hex(),
        }
        xseals.append(Wish("a cookie under a mac1", inputs))
    for byte in (0, 16):
        key, nonce, aad = draw(32), draw(24), draw(16)
        sealed = bytearray(crypto.xaead_seal(key, nonce, draw(16), aad))
        sealed[byte] ^= 128
        inputs = {
            "key": key.hex(),
            "nonce": nonce.hex(),
            "sealed": sealed.hex(),
            "aad": aad.hex(),
        }
        xopens.append(Wish(f"byte {byte} changed", inputs, "invalid"))
    layout = "ChaCha20-Poly1305, nonce = 4 zero bytes, then the counter little-endian"
    builder.group("aead", "§5.4", layout, seals)
    builder.group("aead-open", "§5.4", layout, opens)
    builder.group("xaead", "§5.4.7", "XChaCha20-Poly1305, 24-byte nonce", xseals)
    builder.group("xaead-open", "§5.4.7", "XChaCha20-Poly1305, 24-byte nonce", xopens)


def tai64n(seed: int, builder: Builder) -> None:
    """Timestamps around their edges; the low 24 bits of the nanoseconds are zero."""
    draw = SeededEntropy(seed, "tai64n")
    second = 10**9
    walls = {
        "the epoch": 0,
        "last nanosecond of a second": second - 1,
        "one grain": 1 << 24,
        "one less than a grain": (1 << 24) - 1,
        "2038": 2**31 * second,
        "2106": 2**32 * second,
    }
    wishes = [Wish(comment, {"wall_ns": str(wall)}) for comment, wall in walls.items()]
    wishes += [
        Wish("random", {"wall_ns": str(1_700_000_000 * second + draw.integer(10**17))})
        for _ in range(6)
    ]
    # §5.1 lets a sender zero 24 bits and fixes only the order, so others may differ.
    acceptable = [Wish(w.comment, w.inputs, "acceptable", ("Whitened",)) for w in wishes]
    builder.group(
        "tai64n",
        "§5.1, §5.4",
        "TAI64 label 2^62 + 10 at 1970, nanoseconds in grains of 2^24 as the kernel",
        acceptable,
    )

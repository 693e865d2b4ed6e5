"""Kinds with one operation: constants, hashes, MACs, AEAD, timestamps (§5.4, §6.1)."""

from __future__ import annotations

from dataclasses import asdict

from vectors.kinds.base import Compute, Computed, plain
from vectors.model import Json
from wgpy.protocol import constants, cookie, noise, tai64n
from wgpy.protocol.crypto import Crypto, LowOrderError


def _constant(crypto: Crypto, inputs: Json) -> Computed:
    name = inputs["name"]
    chaining_key = crypto.hash(constants.CONSTRUCTION)
    derived = {
        "HASH_OF_CONSTRUCTION": chaining_key,
        "HASH_OF_IDENTIFIER": crypto.hash(chaining_key, constants.IDENTIFIER),
    }
    parameters = asdict(constants.DEFAULT_PARAMETERS)
    if name in derived:
        value = derived[name]
    elif name in parameters:
        value = parameters[name]
    else:
        value = getattr(constants, name)
    return plain({"value": value.hex() if isinstance(value, bytes) else str(value)})


def _hash(crypto: Crypto, inputs: Json) -> Computed:
    return plain({"hash": crypto.hash(bytes.fromhex(inputs["data"])).hex()})


def _mac(crypto: Crypto, inputs: Json) -> Computed:
    return plain({"mac": crypto.mac(*_bytes(inputs, "key", "data")).hex()})


def _hmac(crypto: Crypto, inputs: Json) -> Computed:
    return plain({"hmac": crypto.hmac(*_bytes(inputs, "key", "data")).hex()})


def _kdf(crypto: Crypto, inputs: Json) -> Computed:
    key, data = _bytes(inputs, "key", "data")
    return plain({"outputs": [o.hex() for o in noise.kdf(crypto, key, data, inputs["n"])]})


def _dh(crypto: Crypto, inputs: Json) -> Computed:
    private, public = _bytes(inputs, "private", "public")
    try:
        return plain({"shared": crypto.dh(private, public).hex()})
    except LowOrderError:
        return plain({"shared": None})


def _mac_keys(crypto: Crypto, inputs: Json) -> Computed:
    (public,) = _bytes(inputs, "public")
    return plain(
        {
            "mac1_key": cookie.mac1_key(crypto, public).hex(),
            "cookie_key": cookie.cookie_key(crypto, public).hex(),
        }
    )


def _aead(crypto: Crypto, inputs: Json) -> Computed:
    key, plaintext, aad = _bytes(inputs, "key", "plaintext", "aad")
    return plain({"sealed": crypto.aead(key).seal(int(inputs["counter"]), plaintext, aad).hex()})


def _aead_open(crypto: Crypto, inputs: Json) -> Computed:
    key, sealed, aad = _bytes(inputs, "key", "sealed", "aad")
    opened = crypto.aead(key).open(int(inputs["counter"]), sealed, aad)
    return plain({"plaintext": None if opened is None else opened.hex()})


def _xaead(crypto: Crypto, inputs: Json) -> Computed:
    key, nonce, plaintext, aad = _bytes(inputs, "key", "nonce", "plaintext", "aad")
    return plain({"sealed": crypto.xaead_seal(key, nonce, plaintext, aad).hex()})


def _xaead_open(crypto: Crypto, inputs: Json) -> Computed:
    key, nonce, sealed, aad = _bytes(inputs, "key", "nonce", "sealed", "aad")
    opened = crypto.xaead_open(key, nonce, sealed, aad)
    return plain({"plaintext": None if opened is None else opened.hex()})


def _tai64n(_crypto: Crypto, inputs: Json) -> Computed:
    return plain({"timestamp": tai64n.encode(int(inputs["wall_ns"])).hex()})


def _bytes(inputs: Json, *names: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(inputs[name]) for name in names)


KINDS: dict[str, Compute] = {
    "constant": _constant,
    "hash": _hash,
    "mac": _mac,
    "hmac": _hmac,
    "kdf": _kdf,
    "dh": _dh,
    "mac-keys": _mac_keys,
    "aead": _aead,
    "aead-open": _aead_open,
    "xaead": _xaead,
    "xaead-open": _xaead_open,
    "tai64n": _tai64n,
}

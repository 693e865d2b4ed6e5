"""The handshake's transcript: byte-identical on all three backends, and as §5.4 says."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest

from wgpy.protocol import noise
from wgpy.protocol.constants import CONSTRUCTION, IDENTIFIER
from wgpy.protocol.crypto import BACKENDS, LowOrderError, backend
from wgpy.protocol.tai64n import encode

INITIATOR, RESPONDER, EPHEMERAL_I, EPHEMERAL_R = (bytes([n]) * 32 for n in (0x11, 0x22, 0x33, 0x44))
PSK = bytes(range(32))
STAMP = encode(1_700_000_000 * 10**9)
Step = tuple[str, str, str]


def exchange(name: str, psk: bytes) -> tuple[list[Step], list[bytes]]:
    """A whole handshake: every intermediate value, then messages and keys."""
    crypto = backend(name)
    steps: list[Step] = []

    def tell(token: str, what: str, value: bytes) -> None:
        steps.append((token, what, value.hex()))

    public_i, public_r = crypto.public_key(INITIATOR), crypto.public_key(RESPONDER)
    shared = crypto.dh(INITIATOR, public_r)
    assert shared == crypto.dh(RESPONDER, public_i)
    initiation, sent = noise.create_initiation(
        crypto,
        static_public=public_i,
        remote_static=public_r,
        static_static=shared,
        ephemeral_private=EPHEMERAL_I,
        sender_index=0x01020304,
        timestamp=STAMP,
        trace=tell,
    )
    opened = noise.open_static(
        crypto, initiation, static_private=RESPONDER, static_public=public_r, trace=tell
    )
    assert opened is not None
    assert opened.initiator_public == public_i
    assert noise.open_timestamp(opened, initiation, static_static=shared) == STAMP
    response, keys_r = noise.create_response(
        opened,
        initiation,
        preshared_key=psk,
        ephemeral_private=EPHEMERAL_R,
        sender_index=0x0A0B0C0D,
    )
    keys_i = noise.consume_response(
        crypto, sent, response, static_private=INITIATOR, preshared_key=psk, trace=tell
    )
    assert keys_i is not None
    assert (keys_i.send, keys_i.receive) == (keys_r.receive, keys_r.send)
    return steps, [initiation.encode(), response.encode(), *keys_i]


@pytest.mark.parametrize("psk", [bytes(32), PSK], ids=["without psk", "with psk"])
def test_the_transcript_is_the_same_on_all_backends(psk: bytes) -> None:
    runs = [exchange(name, psk) for name in BACKENDS]
    assert runs[0] == runs[1] == runs[2]
    steps, _ = runs[0]
    tokens = list(dict.fromkeys(token for token, _, _ in steps))
    assert tokens == ["<- s", "e", "es", "s", "ss", "{t}", "ee", "se", "psk", "{}", "split"]


def test_both_sides_walk_through_the_same_values() -> None:
    steps, _ = exchange("openssl", PSK)
    first_message = [step for step in steps if step[0] in ("<- s", "e", "es", "s", "ss", "{t}")]
    half = next(i for i, s in enumerate(first_message) if i and s[0] == "<- s")
    initiator = first_message[:half]
    assert first_message[half : 2 * half] == initiator
    second = [s for s in steps if s[0] in ("ee", "se", "psk", "{}", "split")]
    assert second[: len(second) // 2] == second[len(second) // 2 :]


def test_constants_of_the_paper() -> None:
    """Hash(Construction), and Hash of that and the Identifier (§5.4)."""
    chaining_key = hashlib.blake2s(CONSTRUCTION).hexdigest()
    assert chaining_key == "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"
    mixed = hashlib.blake2s(bytes.fromhex(chaining_key) + IDENTIFIER).hexdigest()
    assert mixed == "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_kdf(name: str, count: int) -> None:
    """τ0 = Hmac(key, in), τ1 = Hmac(τ0, 1), τi = Hmac(τ0, τ(i-1) ‖ i)."""
    key, material = b"k" * 32, b"material"
    secret = hmac.digest(key, material, "blake2s")
    wanted, last = [], b""
    for number in range(1, count + 1):
        last = hmac.digest(secret, last + bytes([number]), "blake2s")
        wanted.append(last)
    assert list(noise.kdf(backend(name), key, material, count)) == wanted


def test_a_changed_initiation_does_not_open() -> None:
    crypto = backend()
    public_i, public_r = crypto.public_key(INITIATOR), crypto.public_key(RESPONDER)
    shared = crypto.dh(INITIATOR, public_r)
    message, _ = noise.create_initiation(
        crypto, static_public=public_i, remote_static=public_r, static_static=shared,
        ephemeral_private=EPHEMERAL_I, sender_index=1, timestamp=STAMP,
    )  # fmt: skip

    def opens(changed: noise.Initiation) -> bytes | None:
        opened = noise.open_static(
            crypto, changed, static_private=RESPONDER, static_public=public_r
        )
        return opened and noise.open_timestamp(opened, changed, static_static=shared)

    def flip(value: bytes) -> bytes:
        return bytes([value[0] ^ 1]) + value[1:]

    assert opens(message) == STAMP
    for name in ("unencrypted_ephemeral", "encrypted_static", "encrypted_timestamp"):
        assert opens(replace(message, **{name: flip(getattr(message, name))})) is None
    with pytest.raises(LowOrderError):
        opens(replace(message, unencrypted_ephemeral=bytes(32)))


def test_secrets_are_not_shown() -> None:
    crypto = backend()
    keys = noise.TransportKeys(b"s" * 32, b"r" * 32)
    assert "ss" not in repr(keys)
    _, sent = noise.create_initiation(
        crypto, static_public=bytes(32), remote_static=crypto.public_key(RESPONDER),
        static_static=b"S" * 32, ephemeral_private=EPHEMERAL_I, sender_index=1, timestamp=STAMP,
    )  # fmt: skip
    assert "3" * 8 not in repr(sent) and repr(EPHEMERAL_I) not in repr(sent)

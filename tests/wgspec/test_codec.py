"""The tester's own codec and handshake, against constants published elsewhere."""

from __future__ import annotations

import hashlib
from random import Random

import nacl.bindings
import pytest

from wgspec import noise, wire
from wgspec.inner import SMALLEST_4, length, packet, token_of
from wgspec.primitives import (
    Forged,
    dh,
    hchacha20,
    hmac,
    kdf,
    mac,
    public_key,
    xopen,
    xseal,
)


def test_initial_constants_are_those_of_the_paper() -> None:
    assert wire.INITIAL_CHAINING_KEY.hex() == (
        "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"
    )
    assert wire.INITIAL_HASH.hex() == (
        "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"
    )


def test_mac_is_keyed_blake2s_and_hmac_is_not() -> None:
    key, data = bytes(range(32)), b"data"
    assert mac(key, data) == hashlib.blake2s(data, key=key, digest_size=16).digest()
    pad = key + bytes(32)
    inner = hashlib.blake2s(bytes(b ^ 0x36 for b in pad) + data).digest()
    assert hmac(key, data) == hashlib.blake2s(bytes(b ^ 0x5C for b in pad) + inner).digest()


def test_kdf_outputs_chain() -> None:
    secret = hmac(b"k" * 32, b"in")
    first = hmac(secret, b"\x01")
    second = hmac(secret, first + b"\x02")
    assert kdf(3, b"k" * 32, b"in") == [first, second, hmac(secret, second + b"\x03")]


def test_x25519_of_rfc_7748() -> None:
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df6ac4a47d2b6b0a3f2a2d0c4a5e3c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert dh(alice, public_key(bob)) == dh(bob, public_key(alice))
    assert dh(alice, bytes(32)) == bytes(32), "a low-order point gives zero, not an exception"


def test_hchacha20_of_the_xchacha_draft() -> None:
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    assert hchacha20(bytes(range(32)), nonce).hex() == (
        "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    )


def test_xaead_agrees_with_libsodium() -> None:
    rng = Random(1)
    for size in (0, 1, 16, 100):
        key, nonce = rng.randbytes(32), rng.randbytes(24)
        plain, aad = rng.randbytes(size), rng.randbytes(16)
        theirs = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, aad, nonce, key)
        assert xseal(key, nonce, plain, aad) == theirs
        assert xopen(key, nonce, theirs, aad) == plain
        with pytest.raises(Forged):
            xopen(key, nonce, theirs, aad[:-1] + b"?")


@pytest.mark.parametrize("psk", [bytes(32), b"p" * 32])
def test_a_handshake_gives_both_sides_the_same_keys(psk: bytes) -> None:
    rng = Random(2)
    ours, theirs = rng.randbytes(32), rng.randbytes(32)
    sent = noise.build_initiation(
        ours, public_key(theirs), sender=7, ephemeral=rng.randbytes(32), timestamp=b"t" * 12
    )
    message = wire.parse(sent.raw)
    assert isinstance(message, wire.Initiation)
    received = noise.read_initiation(theirs, message)
    assert received.static_remote == public_key(ours)
    assert received.timestamp == b"t" * 12
    answer, keys = noise.build_response(received, sender=8, ephemeral=rng.randbytes(32), psk=psk)
    response = wire.parse(answer.raw)
    assert isinstance(response, wire.Response)
    assert (response.sender, response.receiver) == (8, 7)
    mine = noise.read_response(sent, ours, response, psk)
    assert (mine.send, mine.receive) == (keys.receive, keys.send)
    with pytest.raises(Forged):
        noise.read_response(sent, ours, response, b"q" * 32)


def test_every_wrong_is_wrong_in_its_place() -> None:
    rng = Random(3)
    ours, theirs, ephemeral = (rng.randbytes(32) for _ in range(3))

    def build(wrong: noise.Wrong) -> bytes:
        return noise.build_initiation(
            ours, public_key(theirs), sender=7, ephemeral=ephemeral, timestamp=b"t" * 12,
            wrong=wrong,
        ).raw  # fmt: skip

    right = build(noise.RIGHT)
    key = noise.mac1_key(public_key(theirs))
    assert right[116:132] == mac(key, right[:116])
    assert right[132:] == wire.ZERO_MAC
    reserved = build(noise.Wrong(edit=lambda m: m.__setitem__(2, 1)))
    assert reserved[2] == 1 and reserved[116:132] == mac(key, reserved[:116])
    assert (
        build(noise.Wrong(edit_last=lambda m: m.__setitem__(120, m[120] ^ 1)))[:116] == right[:116]
    )
    assert build(noise.Wrong(mac1_for=public_key(ours)))[116:132] != right[116:132]
    assert build(noise.Wrong(resize=1)) == right + b"\0"
    assert build(noise.Wrong(resize=-1)) == right[:-1]
    assert build(noise.Wrong(low_order=bytes(32)))[8:40] == bytes(32)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "type 0"),
        (b"\x05\0\0\0", "type 5"),
        (b"\x01\0\0\x01" + bytes(144), "reserved"),
        (b"\x01\0\0\0" + bytes(143), "147 bytes"),
        (b"\x02\0\0\0" + bytes(89), "93 bytes"),
        (b"\x03\0\0\0" + bytes(59), "63 bytes"),
        (b"\x04\0\0\0" + bytes(27), "31 bytes"),
    ],
)
def test_what_is_no_message(data: bytes, complaint: str) -> None:
    with pytest.raises(wire.Malformed, match=complaint):
        wire.parse(data)


def test_fields_cover_each_message_without_gap() -> None:
    for kind, fields in wire.FIELDS.items():
        at = 0
        for _, offset, size in fields:
            assert offset == at
            at += size
        assert kind == wire.TRANSPORT or at == wire.SIZES[kind]


@pytest.mark.parametrize(("source", "to"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_inner_packets_are_valid_and_found_again(source: str, to: str) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6

    made = packet(Random(4), source, to, size=101, tos=2)
    assert len(made.packet) == 101 == length(made.packet)
    assert token_of(b"in front" + made.packet) == made.token
    read = (IPv6 if ":" in source else IP)(made.packet)
    checksum = read[UDP].chksum
    del read[UDP].chksum
    again = (IPv6 if ":" in source else IP)(bytes(read))
    assert again[UDP].chksum == checksum
    assert (again.tc if ":" in source else again.tos) == 2


def test_the_smallest_inner_packet_holds_its_token() -> None:
    made = packet(Random(5), "10.0.0.1", "10.0.0.2", size=SMALLEST_4)
    assert len(made.packet) == SMALLEST_4
    assert token_of(made.packet) == made.token
    assert token_of(made.packet[:-1]) is None

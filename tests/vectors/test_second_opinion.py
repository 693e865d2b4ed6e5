"""Implementations that share no code with wgpy, asked about the same vectors.

Handshakes: package noiseprotocol (the Noise part) and wgspec's naive peer (all of it).
Cookies, transport and invalid messages: the naive peer.  Tables: naive oracles.
The configuration socket: Debian's wireguard-go.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import subprocess
import time
from typing import Any

import pytest
from noise.connection import Keypair, NoiseConnection

from tests.support.netns import Lab
from vectors.model import DATA
from wgpy.sockets import socket_path
from wgspec import noise, primitives, wire


def vectors_of(name: str, kind: str = "") -> list[dict[str, Any]]:
    groups = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["groups"]
    return [t for group in groups if not kind or group["kind"] == kind for t in group["tests"]]


def secrets(inputs: dict[str, Any]) -> dict[str, bytes]:
    names = ("initiator_static", "responder_static", "preshared_key",
             "initiator_ephemeral", "responder_ephemeral", "timestamp")
    return {name: bytes.fromhex(inputs[name]) for name in names}


def label(test: dict[str, Any]) -> str:
    return f"{test['tcId']}-{test['comment']}"


# --- handshakes ------------------------------------------------------------------------


def noise_side(own: str, test: dict[str, Any]) -> NoiseConnection:
    """One side of the handshake in package noiseprotocol, with its ephemeral key fixed."""
    value = secrets(test["inputs"])
    other = "responder" if own == "initiator" else "initiator"
    side = NoiseConnection.from_name(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    side.set_psks(psk=value["preshared_key"])
    side.set_prologue(b"WireGuard v1 zx2c4 Jason@zx2c4.com")
    side.set_keypair_from_private_bytes(Keypair.STATIC, value[f"{own}_static"])
    side.set_keypair_from_private_bytes(Keypair.EPHEMERAL, value[f"{own}_ephemeral"])
    if own == "initiator":
        side.set_as_initiator()
        public = bytes.fromhex(test["expected"][f"{other}_public"])
        side.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, public)
    else:
        side.set_as_responder()
    side.start_handshake()
    return side


@pytest.mark.parametrize("test", vectors_of("handshake"), ids=label)
def test_noiseprotocol_makes_the_same_messages(test: dict[str, Any]) -> None:
    expected = {k: bytes.fromhex(v) for k, v in test["expected"].items()}
    initiator, responder = noise_side("initiator", test), noise_side("responder", test)
    first = bytes(initiator.write_message(secrets(test["inputs"])["timestamp"]))
    assert first == expected["initiation"][8:116]
    assert bytes(responder.read_message(first)) == secrets(test["inputs"])["timestamp"]
    second = bytes(responder.write_message(b""))
    assert second == expected["response"][12:60]
    initiator.read_message(second)
    sealed = bytes(initiator.encrypt(b"hello"))
    assert sealed == primitives.seal(expected["initiator_sends"], 0, b"hello")
    sealed = bytes(responder.encrypt(b"hello"))
    assert sealed == primitives.seal(expected["responder_sends"], 0, b"hello")


@pytest.mark.parametrize("test", vectors_of("handshake"), ids=label)
def test_naive_peer_makes_the_same_handshake(test: dict[str, Any]) -> None:
    inputs, value = test["inputs"], secrets(test["inputs"])
    expected = {k: bytes.fromhex(v) for k, v in test["expected"].items()}
    sent = noise.build_initiation(
        value["initiator_static"], expected["responder_public"],
        sender=inputs["initiator_index"], ephemeral=value["initiator_ephemeral"],
        timestamp=value["timestamp"],
    )
    assert sent.raw == expected["initiation"]
    message = wire.parse(expected["initiation"])
    assert isinstance(message, wire.Initiation)
    received = noise.read_initiation(value["responder_static"], message)
    answer, keys = noise.build_response(
        received, sender=inputs["responder_index"], ephemeral=value["responder_ephemeral"],
        psk=value["preshared_key"],
    )
    assert answer.raw == expected["response"]
    assert keys == noise.Keys(expected["responder_sends"], expected["initiator_sends"])


def test_simultaneous_handshakes_share_their_statics() -> None:
    there, back = (t for t in vectors_of("handshake") if "Simultaneous" in t["flags"])
    assert there["expected"]["initiator_public"] == back["expected"]["responder_public"]
    assert there["expected"]["responder_public"] == back["expected"]["initiator_public"]
    assert there["expected"]["initiator_sends"] != back["expected"]["responder_sends"]


# --- cookies, transport, invalid -------------------------------------------------------


@pytest.mark.parametrize("test", vectors_of("cookie"), ids=label)
def test_naive_peer_makes_the_same_cookie(test: dict[str, Any]) -> None:
    inputs, expected = test["inputs"], test["expected"]
    host, _, port = inputs["source"].rpartition(":")
    address = ipaddress.ip_address(host.strip("[]")).packed + struct.pack(">H", int(port))
    cookie = primitives.mac(bytes.fromhex(inputs["secret"]), address)
    assert cookie.hex() == expected["cookie"]
    public = bytes.fromhex(inputs["responder_public"])
    first = noise.finish(bytes.fromhex(inputs["first_message"])[:-32], public, None)
    assert first.hex() == expected["first_message_signed"]
    key = primitives.hash_(b"cookie--", public)
    reply = bytes.fromhex(expected["cookie_reply"])
    assert primitives.xopen(key, reply[8:32], reply[32:], first[-32:-16]) == cookie
    second = noise.finish(bytes.fromhex(inputs["second_message"])[:-32], public, cookie)
    assert second.hex() == expected["second_message_signed"]


@pytest.mark.parametrize("test", vectors_of("transport"), ids=label)
def test_naive_peer_opens_the_same_packet(test: dict[str, Any]) -> None:
    inputs = test["inputs"]
    message = wire.parse(bytes.fromhex(test["expected"]["datagram"]))
    assert isinstance(message, wire.Transport)
    assert (message.receiver, message.counter) == (
        inputs["receiver_index"], int(inputs["counter"]),
    )
    opened = primitives.open_(bytes.fromhex(inputs["key"]), message.counter, message.packet)
    packet = bytes.fromhex(inputs["packet"])
    assert opened[: len(packet)] == packet and not any(opened[len(packet) :])
    assert len(opened) == max(len(packet), min(inputs["mtu"], -(-len(packet) // 16) * 16))


HANDSHAKE_CHECKS = {"static", "timestamp", "mac1", "length", "type", "low-order"}


@pytest.mark.parametrize(
    "test",
    [t for t in vectors_of("invalid") if t["inputs"]["message"] == "initiation"
     and t["expected"]["check"] in HANDSHAKE_CHECKS],
    ids=label,
)
def test_naive_peer_refuses_the_same_initiations(test: dict[str, Any]) -> None:
    private = bytes.fromhex(test["inputs"]["responder_static"])
    data = bytes.fromhex(test["expected"]["datagram"])
    key = noise.mac1_key(primitives.public_key(private))
    with pytest.raises((noise.Forged, ValueError)):
        message = wire.parse(data)
        assert isinstance(message, wire.Initiation)
        if primitives.mac(key, data[:-32]) != data[-32:-16]:
            raise ValueError("mac1")
        noise.read_initiation(private, message)


# --- oracles ---------------------------------------------------------------------------


@pytest.mark.parametrize("test", vectors_of("replay"), ids=label)
def test_a_set_of_seen_counters_agrees(test: dict[str, Any]) -> None:
    seen: set[int] = set()
    for counter, verdict in zip(
        map(int, test["inputs"]["counters"]), test["expected"]["verdicts"], strict=True
    ):
        old = bool(seen) and counter <= max(seen) - test["inputs"]["window"]
        assert (verdict == "accept") == (counter not in seen and not old)
        if verdict == "accept":
            seen.add(counter)


@pytest.mark.parametrize("test", vectors_of("tai64n"), ids=label)
def test_tai64n_by_division(test: dict[str, Any]) -> None:
    wall = int(test["inputs"]["wall_ns"])
    label_, nanoseconds = struct.unpack(">QI", bytes.fromhex(test["expected"]["timestamp"]))
    assert label_ - 0x400000000000000A == wall // 10**9
    assert nanoseconds == wall % 10**9 & 0xFF000000


def test_constants_typed_again() -> None:
    value = {t["inputs"]["name"]: t["expected"]["value"] for t in vectors_of("constants")}
    assert value["HASH_OF_CONSTRUCTION"].startswith("60e26daef327efc02ec335e2a025d2d0")
    assert value["HASH_OF_IDENTIFIER"].startswith("2211b361081ac566691243db458ad532")
    assert value["reject_after_messages"] == "18446744073709543423"
    seconds = {k: int(v) // 10**9 for k, v in value.items() if v.endswith("0" * 9)}
    assert seconds == {
        "cookie_lifetime": 120, "rekey_after_time": 120, "reject_after_time": 180,
        "rekey_attempt_time": 90, "rekey_timeout": 5, "keepalive_timeout": 10,
    }  # fmt: skip
    sizes = ["INITIATION_SIZE", "RESPONSE_SIZE", "COOKIE_REPLY_SIZE", "KEEPALIVE_SIZE"]
    assert [value[name] for name in sizes] == ["148", "92", "64", "32"]


# --- wireguard-go's configuration socket -----------------------------------------------


class Go:
    """A wireguard-go process in a namespace of its own."""

    def __init__(self, lab: Lab) -> None:
        self.name = lab.interface()
        space = lab.namespace("go")
        environment = {**os.environ, "LOG_LEVEL": "silent"}
        self.process = subprocess.Popen(
            space.command("wireguard-go", "-f", self.name), env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self.path = socket_path(self.name)
        deadline = time.monotonic() + 20
        while not self.path.exists():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.02)

    def ask(self, request: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.path))
            connection.sendall(request.encode())
            reply = b""
            while not reply.endswith(b"\n\n"):
                chunk = connection.recv(65536)
                if not chunk:
                    break
                reply += chunk
            return reply.decode()


def comparable(get: str) -> list[str]:
    """Lines of a `get` without what depends on the socket or the moment."""
    volatile = ("listen_port=", "tx_bytes=", "rx_bytes=", "errno=", "last_handshake")
    return sorted(line for line in get.splitlines() if line and not line.startswith(volatile))


@pytest.mark.root
def test_wireguard_go_gives_the_same_answers(lab: Lab) -> None:
    """Valid requests end in the same configuration; refused ones are refused there too."""
    go = Go(lab)
    try:
        for test in vectors_of("uapi"):
            go.ask("set=1\nreplace_peers=true\nfwmark=0\n"
                   f"private_key={'0' * 64}\nlisten_port=0\n\n")
            replies = [go.ask(request) for request in test["inputs"]["sets"]]
            refused = [not reply.startswith("errno=0\n") for reply in replies]
            wanted = [not r.startswith("errno=0\n") for r in test["expected"]["replies"]]
            assert refused == wanted, test["comment"]
            if test["result"] == "valid":
                assert comparable(go.ask("get=1\n\n")) == comparable(test["expected"]["get"]), (
                    test["comment"]
                )
    finally:
        go.process.terminate()
        go.process.wait(20)

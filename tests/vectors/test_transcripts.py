"""Transcripts: replayed byte for byte on every backend, and decoded by tshark the same way."""

from __future__ import annotations

import copy
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vectors import transcript
from vectors.model import VectorFileError, digest
from vectors.transcript import TRANSCRIPTS, load_transcript, replay, verify_transcript
from wgpy.capture import keylog, pcapng
from wgpy.capture.link import RAW, udp_packet
from wgpy.protocol.crypto import BACKENDS
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.keys import PrivateKey, PublicKey

NAMES = tuple(sorted(p.stem for p in TRANSCRIPTS.glob("*.json")))


def document(name: str) -> dict[str, Any]:
    return load_transcript(TRANSCRIPTS / f"{name}.json")


def conversations() -> list[Any]:
    return [
        pytest.param(talk, id=f"{name}-{talk['tcId']}")
        for name in NAMES
        for talk in document(name)["conversations"]
    ]


def test_every_implementation_has_one() -> None:
    assert tuple(sorted(path.stem for path in TRANSCRIPTS.glob("*.json"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("crypto", BACKENDS)
def test_replay_gives_every_byte_again(name: str, crypto: str) -> None:
    assert list(verify_transcript(document(name), crypto)) == []


@pytest.mark.parametrize("name", [n for n in NAMES if n != "boringtun"])
def test_everything_worth_recording_is_there(name: str) -> None:
    flags = {flag for talk in document(name)["conversations"] for flag in talk["flags"]}
    wanted = {"initiator", "responder", "psk", "cookie", "rekey", "roaming", "keepalive"}
    assert wanted <= flags


def messages(talk: dict[str, Any]) -> list[int]:
    """Types of all datagrams in order."""
    return [udp.payload[0] for _, udp in replay(talk).frames]


@pytest.mark.parametrize("talk", conversations())
def test_a_conversation_holds_what_it_says(talk: dict[str, Any]) -> None:
    types, flags = messages(talk), talk["flags"]
    first = replay(talk).frames[0][1]
    ours = Endpoint.parse(talk["ours"]["address"])
    assert (first.source == ours) == ("initiator" in flags)
    assert types.count(2) >= (2 if "rekey" in flags else 1)
    assert (3 in types) == ("cookie" in flags)
    if "cookie" in flags:
        repeat = types.index(3) + types[types.index(3) :].index(1)
        assert any(replay(talk).frames[repeat][1].payload[-16:])
    assert any(bytes.fromhex(talk["preshared_key"])) == ("psk" in flags)
    if "roaming" in flags:
        assert len({udp.source for _, udp in replay(talk).frames}) >= 3
    if "keepalive" in flags:
        assert any(len(udp.payload) == 32 for _, udp in replay(talk).frames)


# --- tshark ----------------------------------------------------------------------------


def write_capture(path: Path, talk: dict[str, Any]) -> transcript.Replayed:
    """The conversation as a sniffer would have it, with our keys inside."""
    done = replay(talk)
    private = PrivateKey(bytes.fromhex(talk["ours"]["private_key"]))
    public = PublicKey(bytes.fromhex(talk["theirs"]["public_key"]))
    log = keylog.format_statics(private, [public])
    log += "".join(keylog.format_handshake(keys) for keys in done.keys)
    wall = int(talk["wall"])
    file = pcapng.section_header("test") + pcapng.interface(RAW, "outer", "") + pcapng.secrets(log)
    for at, udp in done.frames:
        file += pcapng.packet(0, wall + at, udp_packet(udp))
    path.write_bytes(file)
    return done


@pytest.mark.parametrize("talk", conversations())
def test_tshark_agrees(tmp_path: Path, talk: dict[str, Any]) -> None:
    """Both handshake messages verify, and it sees the inner packets that we saw."""
    path = tmp_path / "talk.pcapng"
    done = write_capture(path, talk)
    ports = {e.port for _, udp in done.frames for e in (udp.source, udp.destination)}
    words = [word for port in sorted(ports) for word in ("-d", f"udp.port=={port},wg")]
    fields = ("wg.type", "wg.handshake_ok", "wg.keepalive", "udp.payload")
    result = subprocess.run(
        ["tshark", "-r", str(path), *words, "-T", "fields", "-E", "separator=;"]
        + [word for name in fields for word in ("-e", name)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    rows = [line.split(";") for line in result.stdout.splitlines()]
    assert len(rows) == len(done.frames)
    verified = [row[1] for row in rows if row[0] == "2"]
    assert verified and set(verified) <= {"1", "True"}
    # The second UDP payload of a frame is that of the inner packet.
    theirs = [row[3].split(",")[1] for row in rows if row[0] == "4" and "," in row[3]]
    inside = [packet for _, packet in in_order(talk)]
    assert sorted(theirs) == sorted(udp_payload(packet).hex() for packet in inside)


def in_order(talk: dict[str, Any]) -> list[tuple[int, bytes]]:
    """All inner packets of both directions that crossed the wire."""
    out = []
    for step in talk["steps"]:
        if step["do"] == "send":
            out.append((step["at"], bytes.fromhex(step["data"])))
        out += [(step["at"], bytes.fromhex(packet)) for packet in step["packets"]]
    return out


def udp_payload(packet: bytes) -> bytes:
    return packet[28:] if packet[0] >> 4 == 4 else packet[48:]


# --- flipping bits ---------------------------------------------------------------------


def flip(text: str, dice: random.Random) -> str:
    data = bytearray(bytes.fromhex(text))
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data.hex()


def places(talk: dict[str, Any]) -> list[tuple[int, str, int]]:
    """(step, key, number) of the bytes that the replay must judge."""
    out: list[tuple[int, str, int]] = []
    for number, step in enumerate(talk["steps"]):
        out += [(number, "sent", i) for i in range(len(step["sent"]))]
        out += [(number, "packets", i) for i in range(len(step["packets"]))]
        if step["do"] == "receive" and step["data"][:2] in ("02", "04"):
            out.append((number, "data", 0))
    return out


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_noticed(name: str, tmp_path: Path) -> None:
    """By the digest, and with the digest repaired by the replay itself."""
    dice = random.Random(name)
    original = document(name)
    for _ in range(25):
        changed = copy.deepcopy(original)
        talk = dice.choice(changed["conversations"])
        number, key, item = dice.choice(places(talk))
        step = talk["steps"][number]
        if key == "sent":
            step["sent"][item][1] = flip(step["sent"][item][1], dice)
        elif key == "packets":
            step["packets"][item] = flip(step["packets"][item], dice)
        else:
            step["data"] = flip(step["data"], dice)
        path = tmp_path / "flipped.json"
        path.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(VectorFileError):
            load_transcript(path)
        assert digest(changed["conversations"]) != original["digest"]
        assert list(verify_transcript(changed, "openssl"))

"""Transcripts: recorded conversations with real peers, and their replay byte for byte.

A conversation is a list of steps, each one call of the engine with everything that went in
(time, datagram or packet, every random value drawn) and everything that came out.  With
the same entropy the engine must do the same again.  The private keys of both static
identities are in the file, so that anyone else can open every message too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from vectors.model import FOLDER, Json, VectorFileError, read
from wgpy.capture.link import Udp
from wgpy.protocol.constants import Parameters
from wgpy.protocol.crypto import backend
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.device import HandshakeKeys
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

TRANSCRIPTS = FOLDER / "transcripts"
OUTPUTS = ("sent", "packets", "dropped")


class Player:
    """The engine of one conversation; made from the conversation's head."""

    def __init__(
        self, conversation: Json, entropy: Callable[[int], bytes], crypto_name: str = "openssl"
    ) -> None:
        """`entropy` gives what the engine draws."""
        self.head = conversation
        self.keys: list[HandshakeKeys] = []
        self.engine = Engine(
            crypto=backend(crypto_name),
            entropy=entropy,
            now=0,
            wall=int(conversation["wall"]),
            parameters=Parameters(**conversation["parameters"]),
        )
        self.engine.keylog = self.keys.append
        self._drops: Counter[str] = Counter()

    def perform(self, step: Json) -> Json:
        """Do what a step says; what comes out, as in the file."""
        now, engine = step["at"], self.engine
        match step["do"]:
            case "configure":
                engine.apply(self._change(step), now=now)
            case "send":
                engine.send([bytes.fromhex(step["data"])], now=now)
            case "receive":
                source = Endpoint.parse(step["from"])
                engine.receive([Datagram(bytes.fromhex(step["data"]), source)], now=now)
            case "deadline":
                engine.handle_deadline(now=now)
        return {
            "sent": [[str(to), bytes(data).hex()] for data, to in engine.pull_datagrams()],
            "packets": [bytes(packet).hex() for packet in engine.pull_packets()],
            "dropped": self._dropped(),
        }

    def _change(self, step: Json) -> DeviceChange:
        theirs = self.head["theirs"]
        psk = bytes.fromhex(self.head["preshared_key"])
        peer = PeerChange(
            PublicKey(bytes.fromhex(theirs["public_key"])),
            preshared_key=PresharedKey(psk) if any(psk) else None,
            endpoint=Endpoint.parse(step["endpoint"]) if step.get("endpoint") else None,
            allowed_ips=tuple(AllowedIp(Prefix.parse(text)) for text in theirs["inner"]),
            persistent_keepalive=step.get("keepalive", 0),
        )
        private = PrivateKey(bytes.fromhex(self.head["ours"]["private_key"]))
        return DeviceChange(private_key=private, peers=(peer,))

    def _dropped(self) -> list[str]:
        drops = Counter({reason.name: count for reason, count in self.engine.drops.items()})
        new, self._drops = drops - self._drops, drops
        return sorted(new.elements())


class _Draws:
    """Entropy from a file; a draw that was not recorded is an error."""

    def __init__(self) -> None:
        self.left: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        if not self.left or len(self.left[0]) != size:
            raise VectorFileError(f"the engine draws {size} bytes that were not recorded")
        return self.left.pop(0)


@dataclass
class Replayed:
    """A conversation done again: what differs, and what a sniffer and a key log would hold."""

    problems: list[str]
    frames: list[tuple[int, Udp]]
    keys: list[HandshakeKeys]
    sent_inside: list[bytes]
    delivered: list[bytes]


def replay(conversation: Json, crypto_name: str = "openssl") -> Replayed:
    """Run the engine with the stored entropy and compare every byte."""
    draws = _Draws()
    player = Player(conversation, draws, crypto_name)
    out = Replayed([], [], player.keys, [], [])
    ours = conversation["ours"]
    public = backend(crypto_name).public_key
    for side in ("ours", "theirs"):
        private = PrivateKey(bytes.fromhex(conversation[side]["private_key"]))
        if public(private).hex() != conversation[side]["public_key"]:
            out.problems.append(f"{side}: public and private key do not fit")
    for number, step in enumerate(conversation["steps"]):
        draws.left = [bytes.fromhex(value) for value in step["entropy"]]
        place = Endpoint.parse(step["place"] or ours["address"])
        if step["do"] == "receive":
            data = bytes.fromhex(step["data"])
            out.frames.append((step["at"], Udp(Endpoint.parse(step["from"]), place, data)))
        try:
            came = player.perform(step)
        except VectorFileError as error:
            out.problems.append(f"step {number} ({step['do']}): {error}")
            break
        if draws.left:
            out.problems.append(f"step {number} ({step['do']}): not all entropy was drawn")
        out.problems += [
            f"step {number} ({step['do']}): {key} recorded {step[key]}, now {came[key]}"
            for key in OUTPUTS
            if came[key] != step[key]
        ]
        for to, text in came["sent"]:
            sent = Udp(place, Endpoint.parse(to), bytes.fromhex(text))
            out.frames.append((step["at"], sent))
        if step["do"] == "send":
            out.sent_inside.append(bytes.fromhex(step["data"]))
        out.delivered += [bytes.fromhex(packet) for packet in came["packets"]]
    return out


def verify_transcript(document: Json, crypto_name: str) -> Iterator[tuple[int, str]]:
    """(tcId, problem) for every difference."""
    for conversation in document["conversations"]:
        for problem in replay(conversation, crypto_name).problems:
            yield conversation["tcId"], problem


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        json.loads((FOLDER / "transcript-schema.json").read_text())
    )


def load_transcript(path: Path) -> Json:
    """Read and check a file; raises `VectorFileError` naming file, place and fix."""
    schema = "transcript-schema.json"
    return read(path, _validator(), schema, "conversations", "wgpy vectors record")


def is_transcript(path: Path) -> bool:
    """Whether a file claims to be a transcript (for a broken file its folder decides)."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return path.parent.name == TRANSCRIPTS.name
    return isinstance(document, dict) and "conversations" in document

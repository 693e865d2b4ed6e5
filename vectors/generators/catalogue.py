"""Every generated file: its name, what it holds and who else verified it."""

from __future__ import annotations

from typing import NamedTuple

from vectors.generators import invalid, messages, primitives, tables, timers, uapi
from vectors.generators.builder import Generator

BACKENDS = "PyNaCl (libsodium) and the plain-Python RFC code, in tests/vectors"
NAIVE_PEER = "wgspec's naive peer, written from the paper alone, in tests/vectors"
ORACLE = "a naive oracle in tests/vectors that shares no code with wgpy"


class Entry(NamedTuple):
    """`second` names the second independent implementation."""

    generate: Generator
    description: str
    second: str


FILES: dict[str, Entry] = {
    "constants": Entry(
        primitives.constants,
        "Hashes of construction and identifier, sizes, labels, timers",
        "the whitepaper's own numbers, typed again in tests/vectors",
    ),
    "primitives": Entry(
        primitives.primitives,
        "Hash, MAC, HMAC, KDF, DH, AEAD and XAEAD as WireGuard uses them",
        BACKENDS,
    ),
    "tai64n": Entry(primitives.tai64n, "Timestamps of initiations", ORACLE),
    "handshake": Entry(
        messages.handshakes,
        "Whole handshakes with every chaining key, hash, key and MAC key",
        "package noiseprotocol for the Noise part, wgspec's naive peer for all, in tests/vectors",
    ),
    "cookie": Entry(messages.cookies, "Cookie replies and the mac2 they lead to", NAIVE_PEER),
    "transport": Entry(messages.transport, "Transport data messages", NAIVE_PEER),
    "replay": Entry(tables.replay, "Replay window scripts: counters in, verdicts out", ORACLE),
    "allowedips": Entry(tables.allowed_ips, "Routes in, owner of each address out", ORACLE),
    "timers": Entry(timers.timers, "Event scripts in virtual time: what is sent when", ORACLE),
    "uapi": Entry(
        uapi.uapi,
        "Requests on the configuration socket and their replies",
        "Debian's wireguard-go, asked the same over its socket, in tests/vectors",
    ),
    "invalid": Entry(
        invalid.invalid,
        "Each field of each message wrong, and what refuses it",
        NAIVE_PEER,
    ),
}

"""What `micro` times: a name ``WHAT/IMPLEMENTATION``, a statement, and how to set it up.

Inputs that an implementation might cache (keys, addresses) are drawn again in each
round where the real path would see new ones.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import train_cases
from wgpy.protocol import messages, noise
from wgpy.protocol.allowedips import PrefixTable
from wgpy.protocol.constants import DEFAULT_PARAMETERS
from wgpy.protocol.cookie import MacChecker, MacMaker
from wgpy.protocol.crypto import BACKENDS, Crypto, backend
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.keys import PrivateKey
from wgpy.protocol.replay import ReplayWindow

Globals = dict[str, Any]
PACKET = 1420
SMALL = 64


@dataclass(frozen=True, slots=True)
class Case:
    """`make` gives the statement's globals and runs once per process, untimed."""

    name: str
    statement: str
    make: Callable[[], Globals]


def cases() -> Iterator[Case]:
    """All cases, always in the same order (pyperf's workers count on it)."""
    for name in BACKENDS:
        yield from _primitives(name)
        yield from _handshake(name)
    yield from _codecs()
    yield from _macs()
    yield from _tables()
    yield from _windows()
    for case in train_cases.statements():
        yield Case(*case)


def _primitives(name: str) -> Iterator[Case]:
    make = partial(_primitive_globals, name)
    for what, statement in (
        ("x25519", "c.dh(private(), public)"),
        ("x25519-public-key", "c.public_key(private())"),
        ("blake2s-64", "c.hash(small)"),
        ("keyed-blake2s-116", "c.mac(key, body)"),
        ("hmac-blake2s-32", "c.hmac(key, key)"),
        ("new-cipher", "c.aead(key)"),
        ("seal-64", "aead.seal(next(count), small)"),
        ("seal-1420", "aead.seal(next(count), packet)"),
        ("open-64", "aead.open(7, sealed_small)"),
        ("open-1420", "aead.open(7, sealed)"),
        ("open-1420-forged", "aead.open(8, sealed)"),
        ("cookie-seal", "c.xaead_seal(key, nonce, key[:16], key[16:])"),
    ):
        yield Case(f"{what}/{name}", statement, make)


def _primitive_globals(name: str) -> Globals:
    crypto = backend(name)
    key = os.urandom(32)
    aead = crypto.aead(key)
    small, packet = os.urandom(SMALL), os.urandom(PACKET)
    return {
        "c": crypto,
        "key": key,
        "nonce": os.urandom(24),
        "body": os.urandom(116),
        "aead": aead,
        "small": small,
        "packet": packet,
        "sealed": aead.seal(7, packet),
        "sealed_small": aead.seal(7, small),
        "count": itertools.count(100),
        "private": lambda: os.urandom(32),
        "public": crypto.public_key(os.urandom(32)),
    }


def _handshake(name: str) -> Iterator[Case]:
    for what, statement in (
        ("initiation-make", "begin()"),
        ("initiation-read", "read()"),
        ("initiation-answer", "answer()"),
        ("response-read", "finish()"),
    ):
        yield Case(f"{what}/{name}", statement, partial(_handshake_globals, name))


class _Handshake:
    """Two parties' keys and one handshake between them, step by step."""

    def __init__(self, name: str) -> None:
        self.crypto = backend(name)
        self.left, self.right = (PrivateKey.clamp(os.urandom(32)) for _ in range(2))
        self.left_public = self.crypto.public_key(self.left)
        self.right_public = self.crypto.public_key(self.right)
        self.shared = self.crypto.dh(self.left, self.right_public)
        self.message, self.sent = self.begin()
        self.response, _ = self.answer()

    def begin(self) -> tuple[messages.Initiation, noise.SentInitiation]:
        return noise.create_initiation(
            self.crypto, static_public=self.left_public, remote_static=self.right_public,
            static_static=self.shared, ephemeral_private=PrivateKey.clamp(os.urandom(32)),
            sender_index=1, timestamp=bytes(12),
        )  # fmt: skip

    def read(self) -> noise.OpenedStatic:
        opened = noise.open_static(
            self.crypto, self.message, static_private=self.right, static_public=self.right_public
        )
        assert opened is not None
        stamp = noise.open_timestamp(opened, self.message, static_static=self.shared)
        assert stamp is not None
        return opened

    def answer(self) -> tuple[messages.Response, noise.TransportKeys]:
        return noise.create_response(
            self.read(), self.message, preshared_key=bytes(32),
            ephemeral_private=PrivateKey.clamp(os.urandom(32)), sender_index=2,
        )  # fmt: skip

    def finish(self) -> noise.TransportKeys:
        keys = noise.consume_response(
            self.crypto, self.sent, self.response, static_private=self.left,
            preshared_key=bytes(32),
        )  # fmt: skip
        assert keys is not None
        return keys


def _handshake_globals(name: str) -> Globals:
    steps = _Handshake(name)
    return {
        "begin": steps.begin,
        "read": steps.read,
        "answer": steps.answer,
        "finish": steps.finish,
    }


def _codecs() -> Iterator[Case]:
    for what in ("initiation", "response", "cookie-reply", "transport"):
        yield Case(f"{what}-encode/wgpy", "message.encode()", partial(_codec_globals, what))
        yield Case(f"{what}-parse/wgpy", "parse(data)", partial(_codec_globals, what))
    yield Case("type-check/wgpy", "kind(data)", partial(_codec_globals, "transport"))


def _codec_globals(what: str) -> Globals:
    r = os.urandom
    examples: dict[str, messages.Message] = {
        "initiation": messages.Initiation(1, r(32), r(48), r(28), r(16), r(16)),
        "response": messages.Response(1, 2, r(32), r(16), r(16), r(16)),
        "cookie-reply": messages.CookieReply(1, r(24), r(32)),
        "transport": messages.Transport(1, 2, r(PACKET + 16)),
    }
    message = examples[what]
    return {
        "message": message,
        "data": message.encode(),
        "parse": messages.parse,
        "kind": messages.message_type,
    }


def _macs() -> Iterator[Case]:
    for name in BACKENDS:
        for what, statement in (
            ("mac1-check", "checker.mac1_ok(good)"),
            ("mac1-refuse", "checker.mac1_ok(bad)"),
            ("cookie-reply", "checker.reply(good, 1, source, 1)"),
        ):
            yield Case(f"{what}/{name}", statement, partial(_mac_globals, name))


def _mac_globals(name: str) -> Globals:
    crypto: Crypto = backend(name)
    public = crypto.public_key(os.urandom(32))
    lifetime = DEFAULT_PARAMETERS.cookie_lifetime
    good = MacMaker(crypto, public, lifetime).sign(os.urandom(148), 0)
    return {
        "checker": MacChecker(crypto, public, os.urandom, lifetime),
        "good": good,
        "bad": bytes(148),
        "source": Endpoint.parse("192.0.2.7:51820"),
    }


def _tables() -> Iterator[Case]:
    for entries in (10, 1_000, 100_000):
        make = partial(_table_globals, entries)
        yield Case(f"allowed-ips-lookup-{entries}/wgpy", "lookup(draw())", make)
        yield Case(f"allowed-ips-miss-{entries}/wgpy", "lookup(nowhere)", make)
    yield Case(
        "allowed-ips-insert/wgpy", "table.insert(fresh(), owner)", partial(_table_globals, 10)
    )


def _table_globals(entries: int) -> Globals:
    table: PrefixTable[str] = PrefixTable()
    generator = random.Random(entries)

    def fresh() -> Prefix:
        length = generator.choice((16, 24, 24, 32, 32, 32))
        return Prefix.masked((10 << 24 | generator.getrandbits(24)).to_bytes(4), length)

    while len(table) < entries:
        table.insert(fresh(), "owner")
    known = [prefix.ip for prefix, _ in itertools.islice(table, 4096)]
    return {
        "table": table,
        "lookup": table.lookup,
        "owner": "owner",
        "fresh": fresh,
        "draw": itertools.cycle(known).__next__,
        "nowhere": bytes([192, 0, 2, 1]),
    }


def _windows() -> Iterator[Case]:
    yield Case("window-in-order/wgpy", "accept(next(count))", _window_globals)
    yield Case("window-run-of-64/wgpy", "run(next(starts), 64)", _window_globals)
    yield Case("window-replay/wgpy", "accept(1)", _window_globals)
    yield Case(
        "window-swapped-pair/wgpy", "n = next(pairs); accept(n + 1); accept(n)", _window_globals
    )


def _window_globals() -> Globals:
    window = ReplayWindow(DEFAULT_PARAMETERS.replay_window)
    window.accept(1)
    return {
        "accept": window.accept,
        "run": window.accept_run,
        "count": itertools.count(2),
        "starts": itertools.count(2, 64),
        "pairs": itertools.count(2, 2),
    }

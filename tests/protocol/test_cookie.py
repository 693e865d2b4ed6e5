"""mac1, mac2 and cookies (§5.3, §5.4.4, §5.4.7)."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.crypto.conftest import crypto  # noqa: F401  (all three backends)
from wgpy.protocol.constants import NS
from wgpy.protocol.cookie import MacChecker, MacMaker, cookie_key, mac1_key
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.messages import ZERO_MAC, Initiation

LIFE = 120 * NS
SERVER = bytes(range(32))
HOME = Endpoint(bytes([192, 0, 2, 1]), 1000)
MESSAGE = Initiation(7, bytes(32), bytes(48), bytes(28)).encode()


@pytest.fixture
def sides(crypto: Crypto) -> tuple[MacChecker, MacMaker]:  # noqa: F811
    return (
        MacChecker(crypto, SERVER, Random(1).randbytes, LIFE),
        MacMaker(crypto, SERVER, LIFE),
    )


Sides = tuple[MacChecker, MacMaker]


def test_keys(crypto: Crypto) -> None:  # noqa: F811
    assert mac1_key(crypto, SERVER) == crypto.hash(b"mac1----" + SERVER)
    assert cookie_key(crypto, SERVER) == crypto.hash(b"cookie--" + SERVER)


def test_mac1(sides: Sides) -> None:
    checker, maker = sides
    signed = maker.sign(MESSAGE, 0)
    assert signed[-16:] == ZERO_MAC
    assert signed[:-32] == MESSAGE[:-32]
    assert checker.mac1_ok(signed)
    for position in (0, 50, 116, 131):
        changed = bytearray(signed)
        changed[position] ^= 1
        assert not checker.mac1_ok(changed)
    # mac2 is not under mac1.
    assert checker.mac1_ok(signed[:-1] + b"x")


def test_cookie_round_trip(sides: Sides) -> None:
    checker, maker = sides
    first = maker.sign(MESSAGE, 0)
    assert not checker.mac2_ok(first, HOME, 0)
    reply = checker.reply(first, 7, HOME, 0)
    assert (len(reply.encode()), reply.receiver_index) == (64, 7)
    assert maker.receive(reply, 0)
    again = maker.sign(MESSAGE, NS)
    assert again[-16:] != ZERO_MAC
    assert checker.mac2_ok(again, HOME, NS)
    # §5.4.7: bound to address and port.
    assert not checker.mac2_ok(again, HOME._replace(port=1001), NS)
    assert not checker.mac2_ok(again, HOME._replace(ip=bytes([192, 0, 2, 2])), NS)
    # The local address that it came to does not matter.
    assert checker.mac2_ok(again, HOME._replace(local_ip=bytes(4), local_ifindex=3), NS)


def test_both_ends_of_its_life(sides: Sides) -> None:
    checker, maker = sides
    assert maker.receive(checker.reply(maker.sign(MESSAGE, 0), 7, HOME, 0), 10 * NS)
    last = maker.sign(MESSAGE, 10 * NS + LIFE - 1)
    assert last[-16:] != ZERO_MAC
    assert maker.sign(MESSAGE, 10 * NS + LIFE)[-16:] == ZERO_MAC
    assert checker.mac2_ok(last, HOME, LIFE - 1)
    assert not checker.mac2_ok(last, HOME, LIFE)


def test_the_secret_changes_after_two_minutes(sides: Sides) -> None:
    checker, maker = sides
    signed = maker.sign(MESSAGE, 0)
    maker.receive(checker.reply(signed, 7, HOME, 0), 0)
    old = maker.sign(MESSAGE, 0)
    checker.reply(signed, 7, HOME, LIFE)
    assert not checker.mac2_ok(old, HOME, LIFE)


def test_what_does_not_open_changes_nothing(sides: Sides) -> None:
    checker, maker = sides
    older = maker.sign(MESSAGE, 0)
    newer = maker.sign(MESSAGE[:4] + rb"\9\9\9\9" + MESSAGE[8:], 0)
    wrong = [
        checker.reply(older, 7, HOME, 0),  # mac1 of an older message
        replace(checker.reply(newer, 7, HOME, 0), nonce=bytes(24)),
        replace(checker.reply(newer, 7, HOME, 0), encrypted_cookie=bytes(32)),
    ]
    for reply in wrong:
        assert not maker.receive(reply, 0)
        assert maker.awaits_cookie()
    assert maker.receive(checker.reply(newer, 7, HOME, 0), 0)
    # One message, one cookie.
    assert not maker.awaits_cookie()
    assert not maker.receive(checker.reply(newer, 7, HOME, 0), 0)


def test_nonces_differ(sides: Sides) -> None:
    checker, maker = sides
    signed = maker.sign(MESSAGE, 0)
    assert len({checker.reply(signed, 7, HOME, 0).nonce for _ in range(500)}) == 500


def test_forget(sides: Sides) -> None:
    checker, maker = sides
    maker.receive(checker.reply(maker.sign(MESSAGE, 0), 7, HOME, 0), 0)
    maker.forget()
    assert maker.sign(MESSAGE, 0)[-16:] == ZERO_MAC

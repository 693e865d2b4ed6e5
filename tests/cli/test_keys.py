"""genkey, pubkey, genpsk: against each other and against `wg`."""

from __future__ import annotations

import json
import subprocess

import pytest

from wgpy.protocol.keys import PresharedKey, PrivateKey

# RFC 7748 §6.1, in base64.
ALICE_PRIVATE = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
ALICE_PUBLIC = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


def test_a_private_key_is_clamped_and_new_each_time(run) -> None:
    first, second = (run("genkey").stdout.strip() for _ in range(2))
    assert first != second
    key = PrivateKey.from_base64(first)
    assert PrivateKey.clamp(key) == key


def test_a_public_key_is_that_of_the_standard(run) -> None:
    assert run("pubkey", input=ALICE_PRIVATE + "\n").stdout == ALICE_PUBLIC + "\n"
    document = json.loads(run("pubkey", "--json", input=ALICE_PRIVATE).stdout)
    assert document == {"public_key": ALICE_PUBLIC}


def test_wg_derives_the_same_public_key(run) -> None:
    pair = json.loads(run("genkey", "--json").stdout)
    theirs = subprocess.run(
        ["wg", "pubkey"], input=pair["private_key"], capture_output=True, text=True, check=True
    )
    assert theirs.stdout.strip() == pair["public_key"]


def test_a_preshared_key_is_random(run) -> None:
    first, second = (run("genpsk").stdout.strip() for _ in range(2))
    assert PresharedKey.from_base64(first) != PresharedKey.from_base64(second)
    assert PresharedKey.from_base64(json.loads(run("genpsk", "--json").stdout)["preshared_key"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no key on standard input"),
        (ALICE_PRIVATE[:-1], "44 characters, this one 43"),
        (ALICE_PRIVATE[:9] + "~" + ALICE_PRIVATE[10:], "character 10"),
    ],
)
def test_a_wrong_key_is_explained_and_not_repeated(run, text: str, words: str) -> None:
    result = run("pubkey", input=text)
    assert result.exit_code == 1
    assert words in result.output
    assert ALICE_PRIVATE[12:30] not in result.output

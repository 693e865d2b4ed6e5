"""RFC vectors, Wycheproof and the BLAKE2 authors' answers, on all three backends."""

from __future__ import annotations

import hashlib
import sys

import pytest

from tests.crypto.published import blake2s_chain, blake2s_keyed, nist, wycheproof
from wgpy.protocol.crypto import Crypto, LowOrderError
from wgpy.protocol.crypto.blake import HashlibBlake
from wgpy.protocol.reference.aead import aead_seal, xaead_seal
from wgpy.protocol.reference.blake2s import blake2s
from wgpy.protocol.reference.chacha20 import chacha20_block, chacha20_xor, hchacha20, quarter_round
from wgpy.protocol.reference.poly1305 import poly1305
from wgpy.protocol.reference.x25519 import x25519


def test_wycheproof_x25519(crypto: Crypto) -> None:
    zero = 0
    for _group, case in wycheproof("Protocol/wycheproof/x25519_test.json"):
        private, public, shared = (case.data[k] for k in ("private", "public", "shared"))
        if any(shared):
            assert crypto.dh(private, public) == shared, case
        else:
            zero += 1
            with pytest.raises(LowOrderError):
                crypto.dh(private, public)
    assert zero > 20


def set_nonce(monkeypatch: pytest.MonkeyPatch, crypto: Crypto, nonce: bytes) -> None:
    """Let `crypto.aead` use any nonce, where WireGuard has only counters."""
    module = sys.modules[type(crypto).__module__]
    monkeypatch.setattr(module, "_pack_nonce", lambda _counter: nonce)


def test_wycheproof_chacha20_poly1305(crypto: Crypto, monkeypatch: pytest.MonkeyPatch) -> None:
    results = set()
    for _group, case in wycheproof("Cipher/wycheproof/chacha20_poly1305_test.json"):
        d = case.data
        if len(d["iv"]) != 12:
            continue  # WireGuard makes every nonce from a counter: no other size can be asked for
        results.add(case.result)
        set_nonce(monkeypatch, crypto, d["iv"])
        aead = crypto.aead(d["key"])
        sealed = d["ct"] + d["tag"]
        opened = aead.open(0, sealed, d["aad"])
        if case.result == "valid":
            assert aead.seal(0, d["msg"], d["aad"]) == sealed, case
            assert opened == d["msg"], case
        else:
            assert opened is None, case
    assert results == {"valid", "invalid"}


def test_wycheproof_xchacha20_poly1305(crypto: Crypto) -> None:
    results = set()
    for _group, case in wycheproof("Cipher/wycheproof/xchacha20_poly1305_test.json"):
        d = case.data
        if len(d["iv"]) != 24:
            continue
        results.add(case.result)
        sealed = d["ct"] + d["tag"]
        opened = crypto.xaead_open(d["key"], d["iv"], sealed, d["aad"])
        if case.result == "valid":
            assert crypto.xaead_seal(d["key"], d["iv"], d["msg"], d["aad"]) == sealed, case
            assert opened == d["msg"], case
        else:
            assert opened is None, case
    assert results == {"valid", "invalid"}


def test_rfc7748_section_5_2(crypto: Crypto) -> None:
    for block in nist("asymmetric/X25519/rfc7748.txt"):
        k, u, out = (bytes.fromhex(block[n]) for n in ("INPUT_SCALAR", "INPUT_U", "OUTPUT_U"))
        assert crypto.dh(k, u) == out


def test_rfc7748_iterated(crypto: Crypto) -> None:
    """§5.2's second type of test: k, u = X25519(k, u), k, once and a thousand times."""
    k = u = (9).to_bytes(32, "little")
    for _ in range(1000):
        k, u = crypto.dh(k, u), k
        if u == (9).to_bytes(32, "little"):
            assert k.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_rfc7748_section_6_1(crypto: Crypto) -> None:
    """Alice's and Bob's keys, and the secret they share."""
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    alice_public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    bob_public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert crypto.public_key(alice).hex() == alice_public
    assert crypto.public_key(bob).hex() == bob_public
    assert crypto.dh(alice, bytes.fromhex(bob_public)).hex() == shared
    assert crypto.dh(bob, bytes.fromhex(alice_public)).hex() == shared


def test_rfc7693_appendix_a_and_blake2s_answers(crypto: Crypto) -> None:
    """Hash() is unkeyed with 32 bytes of output: the vectors of that shape."""
    for block in nist("hashes/blake2/blake2s.txt"):
        message = bytes.fromhex(block["MSG"])[: int(block["LEN"]) // 8]
        assert crypto.hash(message).hex() == block["MD"]
        half = len(message) // 2
        assert crypto.hash(message[:half], message[half:]).hex() == block["MD"]


def test_rfc8439_aead_section_2_8_2(crypto: Crypto, monkeypatch: pytest.MonkeyPatch) -> None:
    block = nist("ciphers/ChaCha20Poly1305/boringssl.txt")[0]
    key, nonce, aad, ciphertext, tag = (
        bytes.fromhex(block[name]) for name in ("KEY", "NONCE", "AD", "CT", "TAG")
    )
    set_nonce(monkeypatch, crypto, nonce)
    plaintext = block["IN"].strip('"').encode()
    assert crypto.aead(key).seal(0, plaintext, aad) == ciphertext + tag
    assert crypto.aead(key).open(0, ciphertext + tag, aad) == plaintext


def test_openssl_aead_file(crypto: Crypto, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = 0
    for block in nist("ciphers/ChaCha20Poly1305/openssl.txt"):
        key, nonce, aad, tag, plaintext, ciphertext = (
            bytes.fromhex(block[name])
            for name in ("KEY", "IV", "AAD", "TAG", "PLAINTEXT", "CIPHERTEXT")
        )
        if len(nonce) != 12:
            continue
        set_nonce(monkeypatch, crypto, nonce)
        opened = crypto.aead(key).open(0, ciphertext + tag, aad)
        if "RESULT" in block:
            bad += 1
            assert opened is None
        else:
            assert opened == plaintext
    assert bad


class TestReference:
    """The parts that only the reference shows."""

    def test_quarter_round_rfc8439_2_1_1(self) -> None:
        state = [0x11111111, 0x01020304, 0x9B8D6F43, 0x01234567]
        quarter_round(state, 0, 1, 2, 3)
        assert state == [0xEA2A92F4, 0xCB1CF8CE, 0x4581472E, 0x5881C4BB]

    def test_block_rfc8439_2_3_2(self) -> None:
        block = chacha20_block(bytes(range(32)), 1, bytes.fromhex("000000090000004a00000000"))
        assert block[:16].hex() == "10f1e7e4d13b5915500fdd1fa32071c4"
        assert block[-16:].hex() == "b5129cd1de164eb9cbd083e8a2503c4e"

    def test_hchacha20_draft_2_2_1(self) -> None:
        nonce = bytes.fromhex("000000090000004a0000000031415927")
        subkey = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
        assert hchacha20(bytes(range(32)), nonce).hex() == subkey

    def test_cipher_rfc8439_a_2(self) -> None:
        for block in nist("ciphers/ChaCha20/rfc7539.txt"):
            key, nonce, plaintext, ciphertext = (
                bytes.fromhex(block[n]) for n in ("KEY", "NONCE", "PLAINTEXT", "CIPHERTEXT")
            )
            counter = int(block["INITIAL_BLOCK_COUNTER"])
            assert chacha20_xor(key, counter, nonce, plaintext) == ciphertext

    def test_poly1305_rfc8439_a_3(self) -> None:
        for block in nist("poly1305/rfc7539.txt"):
            key, message = bytes.fromhex(block["KEY"]), bytes.fromhex(block["MSG"])
            assert poly1305(key, message).hex() == block["TAG"].lower()

    def test_blake2s_keyed_answers(self) -> None:
        for message, key, digest in blake2s_keyed():
            assert blake2s(message, 32, key) == digest

    @pytest.mark.parametrize("size", [1, 16, 31])
    def test_blake2s_chain_by_digest_size(self, size: int) -> None:
        """A hundred links for three sizes (the rest is compared with hashlib elsewhere)."""
        history = digest = b""
        for _ in range(100):
            digest = blake2s(history, size)
            history = digest + history
        assert digest == blake2s_chain("tv1.txt")[size - 1]

    @pytest.mark.parametrize("size", [1, 31])
    def test_blake2s_chain_by_key_size(self, size: int) -> None:
        history = digest = b""
        for _ in range(100):
            digest = blake2s(history, 32, b"A" * size)
            history = digest + history
        assert digest == blake2s_chain("tv2.txt")[size - 1]

    def test_wrong_sizes_are_refused(self) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            x25519(bytes(31), bytes(32))
        with pytest.raises(ValueError, match="12 of nonce"):
            aead_seal(bytes(32), bytes(8), b"", b"")
        with pytest.raises(ValueError, match="24 of nonce"):
            xaead_seal(bytes(32), bytes(12), b"", b"")
        for size in (0, 33):
            with pytest.raises(ValueError, match="digest"):
                blake2s(b"", size)


def test_mac_and_keyed_answers_have_one_source() -> None:
    """The authors' keyed answers hold for the hashlib that Mac() of the fast backends uses."""
    for message, key, digest in blake2s_keyed():
        assert hashlib.blake2s(message, key=key).digest() == digest
        assert (
            HashlibBlake.mac(key, message)
            == hashlib.blake2s(message, key=key, digest_size=16).digest()
        )

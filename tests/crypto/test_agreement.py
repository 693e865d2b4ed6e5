"""The three backends give the same bytes, refuse the same inputs and show no secret."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.protocol.crypto import BACKENDS, Crypto, LowOrderError, UnknownBackendError, backend
from wgpy.protocol.crypto.openssl import OpenSslAead
from wgpy.protocol.reference.blake2s import blake2s

KEY = st.binary(min_size=32, max_size=32)
XNONCE = st.binary(min_size=24, max_size=24)
TEXT = st.binary(max_size=200)
COUNTER = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32, 2**63, 2**64 - 2**13 - 1])

BACKENDS_MADE = [backend(name) for name in BACKENDS]

# The points of small order on Curve25519 and its twist, and their non-canonical forms:
# u of order 4 (0), 2 (1), 8 (two), p-1, p, p+1, with the ignored top bit clear and set.
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
P25519 = 2**255 - 19
LOW_ORDER = [0, 1, *ORDER_8, P25519 - 1, P25519, P25519 + 1]
LOW_ORDER_KEYS = [
    (u | top << 255).to_bytes(32, "little") for u in LOW_ORDER for top in (0, 1) if u < 2**255
]


def same(results: list[object]) -> object:
    assert results.count(results[0]) == len(results) == 3
    return results[0]


@settings(max_examples=40, deadline=None)
@given(KEY, KEY)
def test_keys_and_dh(private: bytes, other: bytes) -> None:
    public = same([c.public_key(other) for c in BACKENDS_MADE])
    assert isinstance(public, bytes)
    shared = same([c.dh(private, public) for c in BACKENDS_MADE])
    assert shared == BACKENDS_MADE[0].dh(other, BACKENDS_MADE[0].public_key(private))


@settings(max_examples=40, deadline=None)
@given(KEY, KEY)
def test_dh_of_arbitrary_points(private: bytes, public: bytes) -> None:
    def attempt(crypto: Crypto) -> object:
        try:
            return crypto.dh(private, public)
        except LowOrderError:
            return LowOrderError

    same([attempt(c) for c in BACKENDS_MADE])


@pytest.mark.parametrize("public", LOW_ORDER_KEYS, ids=bytes.hex)
def test_low_order_points_are_refused(crypto: Crypto, public: bytes) -> None:
    with pytest.raises(LowOrderError):
        crypto.dh(bytes(range(32)), public)


@settings(max_examples=60, deadline=None)
@given(KEY, st.lists(TEXT, max_size=4))
def test_hashes(key: bytes, parts: list[bytes]) -> None:
    joined = b"".join(parts)
    assert same([c.hash(*parts) for c in BACKENDS_MADE]) == hashlib.blake2s(joined).digest()
    wanted = hashlib.blake2s(joined, key=key, digest_size=16).digest()
    assert same([c.mac(key, joined) for c in BACKENDS_MADE]) == wanted
    assert same([c.hmac(key, *parts) for c in BACKENDS_MADE]) == hmac.digest(key, joined, "blake2s")
    assert same([c.mac(key, memoryview(joined)) for c in BACKENDS_MADE]) == wanted


@given(st.binary(max_size=130), st.integers(1, 32), st.binary(max_size=32))
@settings(max_examples=60, deadline=None)
def test_reference_blake2s_of_every_size(data: bytes, size: int, key: bytes) -> None:
    assert blake2s(data, size, key) == hashlib.blake2s(data, digest_size=size, key=key).digest()


@given(st.binary(max_size=200))
def test_hmac_takes_keys_longer_than_a_block(key: bytes) -> None:
    assert same([c.hmac(key, b"x") for c in BACKENDS_MADE]) == hmac.digest(key, b"x", "blake2s")


@settings(max_examples=60, deadline=None)
@given(KEY, COUNTER, TEXT, TEXT)
def test_aead(key: bytes, counter: int, text: bytes, aad: bytes) -> None:
    aeads = [c.aead(key) for c in BACKENDS_MADE]
    sealed = same([a.seal(counter, text, aad) for a in aeads])
    assert isinstance(sealed, bytes)
    assert same([a.open(counter, sealed, aad) for a in aeads]) == text
    assert same([a.open(counter, memoryview(sealed), aad) for a in aeads]) == text
    assert same([a.open(counter ^ 1, sealed, aad) for a in aeads]) is None
    assert same([a.open(counter, sealed, aad + b"x") for a in aeads]) is None


@settings(max_examples=30, deadline=None)
@given(KEY, XNONCE, TEXT, TEXT)
def test_xaead(key: bytes, nonce: bytes, text: bytes, aad: bytes) -> None:
    sealed = same([c.xaead_seal(key, nonce, text, aad) for c in BACKENDS_MADE])
    assert isinstance(sealed, bytes)
    assert same([c.xaead_open(key, nonce, sealed, aad) for c in BACKENDS_MADE]) == text
    assert same([c.xaead_open(key, nonce, sealed[:-1], aad) for c in BACKENDS_MADE]) is None


@given(TEXT.filter(bool), st.data())
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_never_opens(text: bytes, data: st.DataObject) -> None:
    for crypto in BACKENDS_MADE:
        aead = crypto.aead(bytes(32))
        sealed = bytearray(aead.seal(7, text))
        bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
        sealed[bit // 8] ^= 1 << bit % 8
        assert aead.open(7, sealed) is None


def test_too_short_for_a_tag_is_no_message(crypto: Crypto) -> None:
    for size in range(16):
        assert crypto.aead(bytes(32)).open(0, bytes(size)) is None
        assert crypto.xaead_open(bytes(32), bytes(24), bytes(size), b"") is None


def test_wrong_key_sizes_are_misuse(crypto: Crypto) -> None:
    with pytest.raises(ValueError):
        crypto.dh(bytes(31), (9).to_bytes(32, "little"))
    with pytest.raises(ValueError):
        crypto.dh(bytes(32), bytes(33))


@given(TEXT, COUNTER)
def test_in_place_sealing_agrees(text: bytes, counter: int) -> None:
    aead = OpenSslAead(bytes(range(32)))
    slab = bytearray(text + bytes(16))
    view = memoryview(slab)
    aead.seal_into(counter, view[: len(text)], view)
    assert slab == aead.seal(counter, text)
    assert aead.open_into(counter, view, view[: len(text)])
    assert slab[: len(text)] == text
    slab = bytearray(aead.seal(counter, text))
    slab[-1] ^= 1
    assert not aead.open_into(counter, slab, bytearray(len(text)))


def test_forgotten_and_evicted_keys_still_work() -> None:
    crypto = backend("openssl")
    publics = [crypto.public_key(bytes([i] * 32)) for i in range(1, 20)]
    crypto.forget(bytes([19] * 32))
    crypto.forget(bytes([200] * 32))
    assert [crypto.public_key(bytes([i] * 32)) for i in range(1, 20)] == publics


def test_no_secret_in_a_repr(crypto: Crypto) -> None:
    secret = bytes(range(100, 132))
    aead = crypto.aead(secret)
    crypto.public_key(secret)
    for shown in (repr(crypto), repr(aead), str(crypto), str(aead)):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown


def test_an_unknown_backend_names_the_choices() -> None:
    with pytest.raises(UnknownBackendError, match="openssl, sodium, reference"):
        backend("openSSL")


def test_only_the_chosen_library_is_loaded() -> None:
    """The default backend does not pay for libsodium, the reference needs no library."""
    program = (
        "import sys; from wgpy.protocol.crypto import backend; backend(sys.argv[1]);"
        "print(*sorted({'cryptography', 'nacl'} & sys.modules.keys()))"
    )
    loaded = {
        name: subprocess.run(
            [sys.executable, "-c", program, name], capture_output=True, text=True, check=True
        ).stdout.split()
        for name in BACKENDS
    }
    assert loaded == {"openssl": ["cryptography"], "sodium": ["nacl"], "reference": []}

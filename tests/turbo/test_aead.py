"""Trains sealed and opened by compiled code: the library's answers and the RFC's vectors."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tests.crypto.published import nist
from wgpy.turbo import aead, vectors

SIZE = 1 << 17
TAG = 16
HEADER = 16
LIMIT = 2**64 - 2**13 - 1
sizes = st.sampled_from((0, 1, 15, 16, 17, 63, 64, 65, 1420, 1424)) | st.integers(0, 4000)
counters = st.integers(0, 9) | st.sampled_from((2**32 - 2, 2**63 - 2, LIMIT - 128))
indices = st.integers(0, 2**32 - 1)


def array(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), np.uint8)


def nonce(counter: int) -> bytes:
    return struct.pack("<4xQ", counter)


@settings(deadline=None)
@given(sizes, st.integers(1, 128), st.integers(0, 4000), counters, indices, st.data())
def test_a_train_is_what_the_library_makes_of_each_message(
    plain: int, count: int, last: int, counter: int, index: int, data: st.DataObject
) -> None:
    stride = plain + HEADER + TAG
    count, last = min(count, SIZE // stride), min(last, plain)
    before, key = os.urandom(SIZE), os.urandom(32)
    buffer, library = array(before), ChaCha20Poly1305(key)
    aead.seal(buffer, stride, count, last, index, np.uint64(counter), array(key))
    sealed = buffer.tobytes()
    sizes = [plain] * (count - 1) + [last]
    for number, size in enumerate(sizes):
        start = number * stride
        body = start + HEADER
        assert sealed[start:body] == struct.pack("<IIQ", 4, index, counter + number)
        expected = library.encrypt(nonce(counter + number), before[body : body + size], None)
        assert sealed[body : body + size + TAG] == expected
    end = (count - 1) * stride + HEADER + last + TAG
    assert sealed[end:] == before[end:], "nothing behind the train is touched"

    forged = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    for number in forged:
        at = data.draw(st.integers(0, sizes[number] + TAG - 1))
        buffer[number * stride + HEADER + at] ^= 1 << data.draw(st.integers(0, 7))
    came = buffer.tobytes()
    first = data.draw(st.integers(0, count - 1))
    good = np.zeros(128, np.bool_)
    all_good = aead.open_(buffer, stride, first, count - first, last, array(key), good)
    opened = buffer.tobytes()
    wrong = {number + first for number in range(count - first) if not good[number]}
    assert wrong == {number for number in forged if number >= first}
    assert all_good is (not wrong)
    for number, size in enumerate(sizes):
        body = number * stride + HEADER
        kept = came if number < first or number in wrong else before
        assert opened[body : body + size] == kept[body : body + size]
    assert opened[end:] == before[end:]


def test_rfc8439_keystreams() -> None:
    """Those with a nonce that a transport message can have: four zero bytes first."""
    blocks = nist("ciphers/ChaCha20/rfc7539.txt")
    for block in blocks:
        names = ("KEY", "NONCE", "PLAINTEXT", "CIPHERTEXT")
        key, nonce_, plain, sealed = (bytes.fromhex(block[name]) for name in names)
        if nonce_[:4] == bytes(4):
            count = int(block["INITIAL_BLOCK_COUNTER"]) + np.arange(16)
            low, high = struct.unpack("<II", nonce_[4:])
            rows = np.array([count, [low] * 16, [high] * 16], np.uint32)
            stream = keystream_of(array(key), rows)
            assert bytes(a ^ b for a, b in zip(plain, stream, strict=False)) == sealed
    assert any(block["NONCE"].startswith("00000000") for block in blocks)


@njit
def _keystream(key: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    vectors.keystream(key.ctypes.data, rows.ctypes.data, out.ctypes.data)


def keystream_of(key: np.ndarray, rows: np.ndarray) -> bytes:
    out = np.empty(1024, np.uint8)
    _keystream(key, rows, out)
    return out.tobytes()


@njit
def _absorb(addresses: np.ndarray, blocks: int, r: np.ndarray, h: np.ndarray) -> None:
    vectors.absorb(addresses.ctypes.data, blocks, r.ctypes.data, h.ctypes.data)


@pytest.mark.parametrize("lane", range(8))
def test_rfc8439_sums(lane: int) -> None:
    """§A.3, with the sums that overflow; whole blocks only, as `absorb` takes them."""
    tried = 0
    for block in nist("poly1305/rfc7539.txt"):
        key, text, expected = (bytes.fromhex(block[n]) for n in ("KEY", "MSG", "TAG"))
        if not text or len(text) % 16:
            continue
        tried += 1
        r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
        limbs = np.array([[r >> 26 * i & 0x3FFFFFF] * 8 for i in range(5)], np.uint64)
        h, message, other = np.zeros((5, 8), np.uint64), array(text), array(os.urandom(len(text)))
        places = [message if i == lane else other for i in range(8)]
        _absorb(np.array([m.ctypes.data for m in places], np.intp), len(text) // 16, limbs, h)
        tag = np.zeros(2, np.uint64)
        s = np.frombuffer(bytes(16) + key[16:], np.uint64)
        aead._finish(h[:, lane].copy(), s, tag)
        assert tag.tobytes() == expected
    assert tried >= 7


def test_the_last_reduction() -> None:
    """RFC 8439 §2.5: the sum modulo 2^130 - 5, at and around the modulus, against integers."""
    p = 2**130 - 5
    key = np.array([0, 0, 2**64 - 1, 2**63 + 12345], np.uint64)
    s = int(key[2]) | int(key[3]) << 64
    for value in [*range(20), *(p + d for d in range(-20, 6)), 2**129, 2**128 - 1, 2**130 - 1]:
        for carried in (0, 1, 5):  # Limbs as `absorb` leaves them: the second may be larger.
            limbs = [value >> 26 * i & (1 << 26) - 1 for i in range(4)] + [value >> 104]
            if limbs[2] >= carried:
                limbs[1] += carried << 26
                limbs[2] -= carried
            tag = np.zeros(2, np.uint64)
            aead._finish(np.array(limbs, np.uint64), key, tag)
            assert int(tag[0]) | int(tag[1]) << 64 == (value % p + s) % 2**128, (value - p, carried)


def test_counters_that_count_up() -> None:
    for values, expected in (
        ([7, 8, 9], True),
        ([7, 9, 10], False),
        ([7, 7], False),
        ([2**63 - 1, 2**63], True),
        ([3], True),
    ):
        buffer = array(b"".join(struct.pack("<8xQ16x", v) for v in [99, *values]))
        assert aead.ascend(buffer, 32, 1, len(values)) is expected

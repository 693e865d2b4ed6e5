"""The four messages: exact layouts, round trips, and rejection of everything else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wgpy.protocol import messages as m
from wgpy.protocol.drops import DropReason

INDEX = st.integers(0, 2**32 - 1)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


INITIATIONS = st.builds(
    m.Initiation, INDEX, exactly(32), exactly(48), exactly(28), exactly(16), exactly(16)
)
RESPONSES = st.builds(m.Response, INDEX, INDEX, exactly(32), exactly(16), exactly(16), exactly(16))
COOKIE_REPLIES = st.builds(m.CookieReply, INDEX, exactly(24), exactly(32))
TRANSPORTS = st.builds(
    m.Transport, INDEX, st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=200)
)
ANY = INITIATIONS | RESPONSES | COOKIE_REPLIES | TRANSPORTS
SIZES = {1: 148, 2: 92, 3: 64}


@given(ANY)
def test_round_trip(message: m.Message) -> None:
    data = message.encode()
    assert m.parse(data) == message
    assert m.parse(memoryview(bytearray(data))) == message
    assert m.message_type(data) == message.type
    assert data[:4] == bytes([message.type, 0, 0, 0])


@given(INITIATIONS)
def test_initiation_layout(message: m.Initiation) -> None:
    """§5.4.2: type, reserved, sender, ephemeral, static, timestamp, mac1, mac2."""
    data = message.encode()
    assert len(data) == 148
    assert struct.unpack("<I", data[4:8])[0] == message.sender_index
    parts = [data[8:40], data[40:88], data[88:116], data[116:132], data[132:148]]
    assert parts == [
        message.unencrypted_ephemeral,
        message.encrypted_static,
        message.encrypted_timestamp,
        message.mac1,
        message.mac2,
    ]


@given(RESPONSES)
def test_response_layout(message: m.Response) -> None:
    """§5.4.3: type, reserved, sender, receiver, ephemeral, nothing, mac1, mac2."""
    data = message.encode()
    assert len(data) == 92
    assert struct.unpack("<II", data[4:12]) == (message.sender_index, message.receiver_index)
    parts = [data[12:44], data[44:60], data[60:76], data[76:92]]
    assert parts == [
        message.unencrypted_ephemeral,
        message.encrypted_nothing,
        message.mac1,
        message.mac2,
    ]


@given(COOKIE_REPLIES, TRANSPORTS)
def test_cookie_reply_and_transport_layout(reply: m.CookieReply, data: m.Transport) -> None:
    """§5.4.7 and §5.4.6."""
    wire = reply.encode()
    assert len(wire) == 64
    assert wire[4:8] == reply.receiver_index.to_bytes(4, "little")
    assert (wire[8:32], wire[32:]) == (reply.nonce, reply.encrypted_cookie)
    wire = data.encode()
    assert wire[4:8] == data.receiver_index.to_bytes(4, "little")
    assert wire[8:16] == data.counter.to_bytes(8, "little")
    assert wire[16:] == data.encrypted_packet


@given(st.binary(max_size=200))
@example(b"")
@example(bytes([4, 0, 0, 0]) + bytes(28))
@example(bytes([4, 0, 0, 0]) + bytes(27))
def test_arbitrary_bytes_are_a_message_or_a_named_drop(data: bytes) -> None:
    """Nothing raises, and what parses says exactly the bytes it came from."""
    parsed = m.parse(data)
    if isinstance(parsed, DropReason):
        assert parsed in (DropReason.LENGTH_INVALID, DropReason.TYPE_UNKNOWN)
    else:
        assert parsed.encode() == data


@given(ANY, st.integers(1, 3), st.integers(1, 255))
def test_a_reserved_byte_that_is_not_zero_is_no_message(
    message: m.Message, position: int, value: int
) -> None:
    data = bytearray(message.encode())
    data[position] = value
    assert m.parse(data) is DropReason.TYPE_UNKNOWN


@pytest.mark.parametrize("kind", [0, 5, 6, 127, 255])
def test_other_types_are_no_message(kind: int) -> None:
    for size in (4, 64, 92, 148):
        assert m.parse(bytes([kind, 0, 0, 0]).ljust(size, b"x")) is DropReason.TYPE_UNKNOWN


@pytest.mark.parametrize(("kind", "size"), SIZES.items())
def test_only_the_exact_length_is_taken(kind: int, size: int) -> None:
    for length in range(4, 300):
        parsed = m.parse(bytes([kind, 0, 0, 0]).ljust(length, b"x"))
        assert (parsed is DropReason.LENGTH_INVALID) == (length != size)


def test_transport_needs_header_and_tag() -> None:
    for length in range(4, 64):
        parsed = m.parse(bytes([4, 0, 0, 0]).ljust(length, b"x"))
        assert (parsed is DropReason.LENGTH_INVALID) == (length < 32)

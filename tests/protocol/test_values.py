"""Keys, endpoints and prefixes as values: what they take, refuse and show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.protocol.endpoint import AddressFormatError, Endpoint, Prefix
from wgpy.protocol.keys import KeyFormatError, PresharedKey, PrivateKey, PublicKey

RAW = st.binary(min_size=32, max_size=32)


@given(RAW)
def test_key_text_forms(raw: bytes) -> None:
    key = PublicKey(raw)
    assert PublicKey.from_base64(key.base64) == PublicKey.from_hex(raw.hex()) == key
    assert len(key.base64) == 44
    clamped = PrivateKey.clamp(raw)
    assert clamped[0] & 7 == 0 and clamped[31] & 0xC0 == 0x40


@given(st.text(max_size=50))
def test_arbitrary_text_is_a_key_or_a_clear_error(text: str) -> None:
    for parse in (PublicKey.from_base64, PublicKey.from_hex):
        try:
            key = parse(text)
        except KeyFormatError:
            continue
        assert text in (key.base64, key.hex()) or text.lower() == key.hex()


def test_spare_bits_and_wrong_lengths_are_refused() -> None:
    good = PublicKey(bytes(32)).base64
    for text in (good[:-2] + "B=", good[:-1], good + "=", good.replace("=", "A"), ""):
        with pytest.raises(KeyFormatError):
            PublicKey.from_base64(text)
    for raw in (bytes(31), bytes(33)):
        with pytest.raises(KeyFormatError):
            PublicKey(raw)


@pytest.mark.parametrize("kind", [PrivateKey, PresharedKey])
def test_secrets_do_not_print(kind: type[PrivateKey] | type[PresharedKey]) -> None:
    key = kind(bytes(range(65, 97)))
    for shown in (repr(key), str(key), f"{key}", f"{key:>10}", f"{key!r}", f"{key}"):
        assert shown == f"{kind.__name__}(<hidden>)"


@pytest.mark.parametrize(
    "text", ["192.0.2.1:51820", "[2001:db8::1]:1", "[fe80::1%3]:65535", "0.0.0.0:0"]
)
def test_endpoints_round_trip(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "192.0.2.1", ":1", "192.0.2.1:65536", "192.0.2.1:-1", "192.0.2.1:٣", "2001:db8::1:80",
     "[192.0.2.1]:80", "[2001:db8::1]", "host:80", "[::1%nosuchif0]:1", "1.2.3.4:"],
)  # fmt: skip
def test_wrong_endpoints_are_refused(text: str) -> None:
    with pytest.raises(AddressFormatError):
        Endpoint.parse(text)


def test_a_zone_may_be_a_name_where_there_is_a_host_to_ask() -> None:
    def zone(name: str) -> int:
        if name != "eth0":
            raise OSError
        return 7

    assert str(Endpoint.parse("[fe80::1%eth0]:1", zone)) == "[fe80::1%7]:1"
    assert str(Endpoint.parse("[fe80::1%3]:1", zone)) == "[fe80::1%3]:1"
    with pytest.raises(AddressFormatError, match="no such interface: 'eth1'"):
        Endpoint.parse("[fe80::1%eth1]:1", zone)
    with pytest.raises(AddressFormatError, match="must be the number"):
        Endpoint.parse("[fe80::1%eth0]:1")


@given(st.sampled_from([4, 16]).flatmap(lambda n: st.tuples(
    st.binary(min_size=n, max_size=n), st.integers(0, n * 8), st.binary(min_size=n, max_size=n)
)))  # fmt: skip
def test_prefixes(parts: tuple[bytes, int, bytes]) -> None:
    ip, length, other = parts
    prefix = Prefix.masked(ip, length)
    assert Prefix.parse(str(prefix)) == prefix
    assert ip in prefix
    width = len(ip) * 8
    same = (
        length == 0
        or int.from_bytes(ip) >> width - length == int.from_bytes(other) >> width - length
    )
    assert (other in prefix) == same
    assert prefix.overlaps([Prefix(other, width)]) == same


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "::/x"])
def test_wrong_prefixes_are_refused(text: str) -> None:
    with pytest.raises(AddressFormatError):
        Prefix.parse(text)

"""The UAPI codec: every key, every refusal, framing, and round trips of arbitrary values."""

from __future__ import annotations

import time
from dataclasses import replace
from errno import EADDRINUSE, EINVAL, EPROTO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.strategies import device_changes, device_snapshots
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import (
    AllowedIp,
    DeviceChange,
    DeviceSnapshot,
    PeerChange,
    PeerSnapshot,
)
from wgpy.protocol.timers import Deadline
from wgpy.uapi import (
    GET,
    GET_EXTENDED,
    MAX_REQUEST_SIZE,
    RequestReader,
    UapiError,
    format_get,
    format_set,
    format_set_reply,
    parse_get,
    parse_set,
    parse_set_reply,
    respond,
)

A, B = "aa" * 32, "bb" * 32
SECRET = "5ec2e7" * 10 + "5ec2"
EMPTY = DeviceSnapshot(None, None, 0, 0, ())


# --- what a set means -----------------------------------------------------------------


def test_every_key_of_a_set_arrives_in_the_change() -> None:
    text = f"""set=1
private_key={"01" * 32}
listen_port=51820
fwmark=51966
replace_peers=true
public_key={A}
update_only=true
protocol_version=1
preshared_key={"02" * 32}
endpoint=192.0.2.1:7
persistent_keepalive_interval=25
replace_allowed_ips=true
allowed_ip=10.1.2.3/8
allowed_ip=-fd00::/64
public_key={B}
remove=true
endpoint=[2001:db8::1]:65535

"""
    first = PeerChange(
        PublicKey(b"\xaa" * 32),
        update_only=True,
        preshared_key=PresharedKey(b"\x02" * 32),
        endpoint=Endpoint(bytes((192, 0, 2, 1)), 7),
        persistent_keepalive=25,
        replace_allowed_ips=True,
        allowed_ips=(
            AllowedIp(Prefix.parse("10.0.0.0/8")),
            AllowedIp(Prefix.parse("fd00::/64"), remove=True),
        ),
    )
    second = PeerChange(
        PublicKey(b"\xbb" * 32), remove=True, endpoint=Endpoint.parse("[2001:db8::1]:65535")
    )
    assert parse_set(text) == DeviceChange(
        PrivateKey(b"\x01" * 32), 51820, 51966, replace_peers=True, peers=(first, second)
    )


def test_nothing_is_said_of_what_is_not_mentioned() -> None:
    assert parse_set("set=1\n\n") == DeviceChange()
    assert parse_set(f"public_key={A}\n") == DeviceChange(
        peers=(PeerChange(PublicKey(b"\xaa" * 32)),)
    )


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("no equals sign", EPROTO),
        ("=value", EPROTO),
        ("no_such_key=1", EINVAL),
        ("Listen_Port=1", EINVAL),
        ("listen_port=65536", EINVAL),
        ("listen_port=-1", EINVAL),
        ("listen_port= 1", EINVAL),
        ("listen_port=²", EINVAL),
        ("listen_port=", EINVAL),
        ("listen_port=" + "9" * 5000, EINVAL),
        ("fwmark=4294967296", EINVAL),
        ("fwmark=0x10", EINVAL),
        ("private_key=" + "0" * 63, EINVAL),
        ("private_key=" + "g" * 64, EINVAL),
        ("replace_peers=1", EINVAL),
        ("replace_peers=false", EINVAL),
        ("replace_peers=True", EINVAL),
        ("allowed_ip=10.0.0.0/8", EINVAL),
        ("protocol_version=1", EINVAL),
        (f"public_key={A}\nlisten_port=1", EINVAL),
        (f"public_key={A}\nprotocol_version=2", EINVAL),
        (f"public_key={A}\nremove=yes", EINVAL),
        (f"public_key={A}\nupdate_only=", EINVAL),
        (f"public_key={A}\nreplace_allowed_ips=TRUE", EINVAL),
        (f"public_key={A}\nendpoint=example.org:1", EINVAL),
        (f"public_key={A}\nendpoint=10.0.0.1", EINVAL),
        (f"public_key={A}\nendpoint=10.0.0.1:65536", EINVAL),
        (f"public_key={A}\nendpoint=fd00::1:1", EINVAL),
        (f"public_key={A}\npersistent_keepalive_interval=65536", EINVAL),
        (f"public_key={A}\npersistent_keepalive_interval=off", EINVAL),
        (f"public_key={A}\nallowed_ip=10.0.0.0", EINVAL),
        (f"public_key={A}\nallowed_ip=10.0.0.0/33", EINVAL),
        (f"public_key={A}\nallowed_ip=fd00::/129", EINVAL),
        (f"public_key={A}\nallowed_ip=--10.0.0.0/8", EINVAL),
        (f"public_key={A}\nallowed_ip=10.0.0.0/" + "1" * 5000, EINVAL),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_errno(line: str, number: int) -> None:
    with pytest.raises(UapiError) as caught:
        parse_set(f"set=1\n{line}\n\n")
    assert caught.value.errno == number
    assert caught.value.line == 2 + line.count("\n")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ["private_key", "preshared_key"])
def test_a_refused_secret_is_not_repeated(key: str) -> None:
    lead = f"public_key={A}\n" if key == "preshared_key" else ""
    with pytest.raises(UapiError) as caught:
        parse_set(f"{lead}{key}={SECRET[:-1]}x\n")
    assert caught.value.key == key
    assert "5ec2" not in str(caught.value)


def test_a_hundred_thousand_allowed_ips_fit_in_one_message() -> None:
    lines = [f"allowed_ip=10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32" for n in range(130_560)]
    message = "\n".join(["set=1", f"public_key={A}", *lines, "", ""])
    reader = RequestReader()
    requests = []
    raw = message.encode()
    started = time.perf_counter()
    for at in range(0, len(raw), 65536):
        requests += reader.feed(raw[at : at + 65536])
    change = parse_set(requests[0])
    print(f"130,560 allowed IPs in {time.perf_counter() - started:.2f} s")
    assert len(set(change.peers[0].allowed_ips)) == 130_560


# --- round trips and garbage ----------------------------------------------------------


@given(device_changes)
def test_a_change_survives_being_written_and_read(change: DeviceChange) -> None:
    assert parse_set(format_set(change)) == change


@given(device_snapshots, st.integers(0, 2**62))
def test_a_snapshot_survives_being_written_and_read(device: DeviceSnapshot, now: int) -> None:
    def relative(deadline: Deadline | None) -> Deadline | None:
        if deadline is None:
            return None
        return Deadline(max(0, deadline.at - now), " ".join(deadline.reason.split()))

    expected = replace(
        device,
        deadline=relative(device.deadline),
        peers=tuple(replace(peer, deadline=relative(peer.deadline)) for peer in device.peers),
    )
    assert parse_get(format_get(device, now=now)) == expected


@given(device_snapshots)
def test_the_standard_answer_has_standard_keys_only(device: DeviceSnapshot) -> None:
    known = [
        "private_key",
        "listen_port",
        "fwmark",
        "public_key",
        "preshared_key",
        "protocol_version",
        "endpoint",
        "last_handshake_time_sec",
        "last_handshake_time_nsec",
        "tx_bytes",
        "rx_bytes",
        "persistent_keepalive_interval",
        "allowed_ip",
        "errno",
    ]
    lines = format_get(device).split("\n")
    assert lines[-3:] == ["errno=0", "", ""]
    assert {line.partition("=")[0] for line in lines if line} <= set(known)


LINES = st.lists(
    st.text(max_size=30)
    | st.builds(
        "{}={}".format,
        st.sampled_from(
            [
                "set",
                "get",
                "errno",
                "private_key",
                "listen_port",
                "fwmark",
                "replace_peers",
                "public_key",
                "remove",
                "update_only",
                "preshared_key",
                "endpoint",
                "persistent_keepalive_interval",
                "allowed_ip",
                "replace_allowed_ips",
                "protocol_version",
                "rx_bytes",
                "last_handshake_time_sec",
                "wgpy_deadline",
                "wgpy_drops",
                "own_public_key",
            ]
        ),
        st.sampled_from([A, B, "true", "1", "0", "-1", "10.0.0.0/8", "-::/0", "1.2.3.4:5", "3 X"])
        | st.text(max_size=70),
    ),
    max_size=12,
).map("\n".join)


@given(LINES)
def test_any_text_is_a_change_or_a_named_error(text: str) -> None:
    for parse in (parse_set, parse_get, parse_set_reply):
        try:
            parse(text)
        except UapiError as error:
            assert error.errno > 0
            assert len(str(error)) < 400


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_answered(chunks: list[bytes]) -> None:
    reader = RequestReader()
    for request in [r for chunk in chunks for r in reader.feed(chunk)]:
        reply = respond(request, snapshot=lambda: EMPTY, apply=lambda _: None, now=lambda: 0)
        assert reply.text.endswith("\n\n")


# --- framing --------------------------------------------------------------------------


@given(st.integers(1, 9))
def test_several_operations_on_one_connection_in_any_chunks(size: int) -> None:
    stream = (GET + "set=1\nlisten_port=1\n\n" + GET_EXTENDED).encode()
    reader = RequestReader()
    requests = []
    for at in range(0, len(stream), size):
        requests += reader.feed(stream[at : at + size])
    assert requests == ["get=1\n", "set=1\nlisten_port=1\n", "get=1\nwgpy=1\n"]
    assert not reader.pending


def test_a_message_that_is_cut_off_is_never_a_request() -> None:
    reader = RequestReader()
    assert reader.feed(f"set=1\npublic_key={A}\n".encode()) == []
    assert reader.pending


def test_an_empty_connection_has_no_request() -> None:
    reader = RequestReader()
    assert reader.feed(b"") == []
    assert not reader.pending


def test_a_request_without_end_is_refused() -> None:
    reader = RequestReader()
    chunk = b"allowed_ip=10.0.0.0/8\n" * 100_000
    with pytest.raises(UapiError, match="at most"):
        for _ in range(MAX_REQUEST_SIZE // len(chunk) + 1):
            assert reader.feed(chunk) == []
    assert not reader.pending


# --- serving --------------------------------------------------------------------------


class Device:
    """Records what is applied; `refusal` is raised instead."""

    def __init__(self, refusal: OSError | None = None) -> None:
        self.applied: list[DeviceChange] = []
        self.refusal = refusal

    def apply(self, change: DeviceChange) -> None:
        if self.refusal:
            raise self.refusal
        self.applied.append(change)

    def answer(self, request: str) -> str:
        return respond(request, snapshot=lambda: EMPTY, apply=self.apply, now=lambda: 0).text


def test_one_bad_line_keeps_the_whole_message_from_being_applied() -> None:
    device = Device()
    good = f"public_key={A}\nallowed_ip=10.0.0.0/8\n"
    assert device.answer(f"set=1\nlisten_port=1\n{good}public_key=zz\n") == "errno=-22\n\n"
    assert device.applied == []
    assert device.answer(f"set=1\nlisten_port=1\n{good}") == "errno=0\n\n"
    assert len(device.applied) == 1


def test_errno_is_negative_after_set_and_positive_after_get() -> None:
    """As measured with wg 1.0.20210914: with the other sign it prints nonsense."""
    device = Device(OSError(EADDRINUSE, "Address already in use"))
    assert device.answer("set=1\nlisten_port=1\n") == f"errno=-{EADDRINUSE}\n\n"
    assert device.answer("get=1\nfoo=1\n") == f"errno={EPROTO}\n\n"
    assert device.answer("put=1\n") == f"errno=-{EPROTO}\n\n"
    assert format_set_reply(22) == format_set_reply(-22) == "errno=-22\n\n"


def test_a_client_gets_the_errno_of_either_sign() -> None:
    parse_set_reply("errno=0\n\n")
    for reply in ("errno=-22\n\n", "errno=22\n\n"):
        with pytest.raises(UapiError, match="Invalid argument") as caught:
            parse_set_reply(reply)
        assert caught.value.errno == EINVAL
    with pytest.raises(UapiError, match="no errno"):
        parse_set_reply("")


def test_a_reply_that_was_cut_off_is_refused() -> None:
    with pytest.raises(UapiError, match="without an errno"):
        parse_get(f"public_key={A}\n")


def test_the_extension_is_given_only_when_asked_for() -> None:
    peer = PeerSnapshot(
        PublicKey(b"\xaa" * 32), PresharedKey(bytes(32)), None, 0, 0, 0, 0, (),
        deadline=Deadline(15, "keepalive"), drops={DropReason.REPLAYED: 3},
    )  # fmt: skip
    device = replace(EMPTY, peers=(peer,), deadline=Deadline(15, "keepalive"))

    def ask(request: str) -> str:
        served = respond(request, snapshot=lambda: device, apply=lambda _: None, now=lambda: 5)
        return served.text

    assert "wgpy" not in ask("get=1\n")
    extended = parse_get(ask("get=1\nwgpy=1\n"))
    assert extended.deadline == extended.peers[0].deadline == Deadline(10, "keepalive")
    assert extended.peers[0].drops == {DropReason.REPLAYED: 3}


def test_a_zone_that_is_a_name_is_looked_up_by_the_caller() -> None:
    text = f"public_key={A}\nendpoint=[fe80::1%eth0]:1\n"
    place = Endpoint(b"\xfe\x80" + bytes(13) + b"\1", 1, 7)
    assert parse_set(text, zone=lambda _: 7).peers[0].endpoint == place
    assert parse_get(f"{text}errno=0\n\n", zone=lambda _: 7).peers[0].endpoint == place
    with pytest.raises(UapiError, match="endpoint: a zone must be the number"):
        parse_set(text)


def test_answers_of_other_implementations_are_understood() -> None:
    """boringtun names its own public key and knows keys that we do not."""
    text = f"own_public_key={B}\nlisten_port=7\nfancy=1\npublic_key={A}\nfancy=2\nerrno=0\n\n"
    device = parse_get(text)
    assert device.public_key == PublicKey(b"\xbb" * 32)
    assert device.private_key is None
    assert device.peers[0].public_key == PublicKey(b"\xaa" * 32)

"""What is said, and not said, of captures that are cut, doubled, sealed or somebody else's."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.capture.test_decrypt import ethernet, inner_of, write
from tests.capture.traffic import WALL, Tunnel, busy_tunnel
from wgpy.capture import keylog, pcapng
from wgpy.capture.decrypt import Explainer, explain
from wgpy.capture.explained import Style, line, summary
from wgpy.capture.frames import CaptureError
from wgpy.capture.keylog import KeyLogError
from wgpy.capture.link import RAW, Udp, udp_packet
from wgpy.capture.pcap import Capture, read_capture, write_pcap
from wgpy.capture.seen import Seen, split
from wgpy.cli.decrypt import decrypt
from wgpy.protocol.constants import NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.noise import TransportKeys

WGPY = str(Path(sys.executable).with_name("wgpy"))


def told(tunnel: Tunnel, key_log: str = "", cut: int | None = None) -> tuple[list[Seen], Explainer]:
    """What is said of a tunnel's frames, each cut after `cut` bytes of its payload."""
    file = pcapng.section_header("t") + pcapng.interface(RAW, "outer", "")
    for at, udp in tunnel.frames:
        packet = udp_packet(udp)
        kept = packet if cut is None else packet[: 28 + cut]
        file += pcapng.packet(0, WALL + at, kept, size=len(packet))
    explainer = Explainer()
    explainer.keys.read(key_log)
    seen = list(explainer.explain(pcapng.read(io.BytesIO(file), "x"), "x"))
    return seen, explainer


def notes(seen: list[Seen]) -> str:
    return "\n".join(note for s in seen for note in s.notes)


def text(explainer: Explainer) -> str:
    return "\n".join(summary(explainer, Style(), whole=True))


# --- cut by a snap length --------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 149, 3))
def test_a_snap_length_leads_to_no_verdict(cut: int) -> None:
    tunnel, _ = busy_tunnel(psk=True)
    seen, explainer = told(tunnel, tunnel.key_log(0), cut)
    for message in seen:
        assert message.problems == []
        assert (message.missing > 0) == (message.size > cut)
        if message.missing:
            assert f"cut by the capture: {cut} of {message.size} bytes" in notes([message])
            assert not message.authentic
    assert cut < 4 or len(seen) == len(tunnel.frames)
    assert not any(said.endswith("no problems") for said in text(explainer).splitlines())
    if 4 <= cut < 148:
        assert "cut by the capture: not judged" in text(explainer)


def test_whole_messages_of_a_cut_capture_are_opened() -> None:
    """A snap length above a handshake and below the data."""
    tunnel, inner = busy_tunnel()
    seen, _ = told(tunnel, tunnel.key_log(0), 200)
    assert inner_of(seen) == [packet for packet in inner if len(packet) <= 168]
    assert [s.joined is not None for s in seen[2:]].count(True) >= 7


# --- seen twice ------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("nat", [True, False])
def test_a_datagram_captured_twice_is_told_once(keys: bool, nat: bool) -> None:
    tunnel, inner = busy_tunnel()
    single, plain = told(tunnel, tunnel.key_log(0) if keys else "")
    doubled = []
    for at, udp in tunnel.frames:
        again = udp._replace(source=Endpoint.parse("203.0.113.9:1024")) if nat else udp
        doubled += [(at, udp), (at + 20_000, again)]
    tunnel.frames = doubled
    seen, explainer = told(tunnel, tunnel.key_log(0) if keys else "")
    firsts = [s for s in seen if s.same_as is None]
    assert len(firsts) * 2 == len(seen)
    assert [s.same_as for s in seen[1::2]] == [s.frame for s in seen[::2]]
    assert [s.problems for s in seen] == [[] for _ in seen]
    assert [s.inner for s in firsts] == [s.inner for s in single]
    counts = [[f.messages for f in e.follower.sessions.flows()] for e in (explainer, plain)]
    assert counts[0] == counts[1] != []
    assert f"{len(firsts)} datagrams captured again" in text(explainer)
    assert not keys or inner_of(seen) == inner


def test_a_replay_later_is_a_replay() -> None:
    tunnel = Tunnel()
    tunnel.send(0)
    at, udp = tunnel.frames[2]
    tunnel.frames.append((at + NS // 5, udp))
    seen, _ = told(tunnel, tunnel.key_log(0))
    assert seen[-1].problems == [DropReason.REPLAYED] and seen[-1].same_as is None


def test_a_train_of_segments_is_its_messages() -> None:
    """A capture on a sender with UDP_SEGMENT shows one datagram."""
    tunnel = Tunnel()
    inner = [tunnel.send(0, 1300) for _ in range(4)] + [tunnel.send(0, 60)]
    handshake, data = tunnel.frames[:2], [udp for _, udp in tunnel.frames[2:]]
    data = [udp for udp in data if udp.source == tunnel.places[0]]
    train = data[0]._replace(payload=b"".join(udp.payload for udp in data))
    assert split(train) == data
    assert split(train._replace(missing=0)) == data
    tunnel.frames = [*handshake, (0, train)]
    seen, _ = told(tunnel, tunnel.key_log(0))
    assert inner_of(seen) == inner
    cut = split(train._replace(payload=train.payload[:2000], missing=len(train.payload) - 2000))
    assert [len(piece.payload) + piece.missing for piece in cut] == [len(data[0].payload)] * 2


# --- perhaps WireGuard -----------------------------------------------------------------


def dns(identity: int, size: int) -> Udp:
    query = struct.pack("!HHHHHH", identity, 0, 1, 0, 0, 0).ljust(size, b"a")
    return Udp(Endpoint.parse("192.0.2.9:40000"), Endpoint.parse("192.0.2.53:53"), query)


@pytest.mark.parametrize("identity", [0x0100, 0x0200, 0x0300, 0x0400])
@pytest.mark.parametrize("size", [40, 64, 92, 148])
def test_something_else_is_at_most_perhaps(identity: int, size: int) -> None:
    tunnel = Tunnel()
    tunnel.frames = [(0, dns(identity, size))]
    seen, explainer = told(tunnel, Tunnel().key_log(0))
    assert all(s.perhaps and s.problems == [] for s in seen)
    assert len(seen) == ((identity >> 8, size) in {(1, 148), (2, 92), (3, 64)} or identity == 0x400)
    if seen:
        assert "1 of them only perhaps WireGuard" in text(explainer)
        assert "perhaps" in line(seen[0], 0, Style())


def test_an_unusual_port_is_confirmed_by_what_follows() -> None:
    tunnel = Tunnel()
    tunnel.places = Endpoint.parse("192.0.2.1:9999"), Endpoint.parse("192.0.2.2:443")
    for _ in range(3):
        tunnel.send(0)
    del tunnel.frames[:2]
    tunnel.frames = [f for f in tunnel.frames if f[1].source == tunnel.places[0]]
    seen, _ = told(tunnel)
    assert [s.perhaps for s in seen] == [True, False, False]
    assert notes(seen[:1]) == "its handshake is not in the capture" and notes(seen[1:]) == ""


def test_other_datagrams_of_a_tunnel_are_counted() -> None:
    tunnel = Tunnel()
    tunnel.send(0)
    source, destination, _, _ = tunnel.frames[0][1]
    tunnel.frames += [(0, Udp(source, destination, data)) for data in (b"hello", b"\4\0\0\0short")]
    _, explainer = told(tunnel)
    assert explainer.follower.strangers == {
        DropReason.TYPE_UNKNOWN: 1,
        DropReason.LENGTH_INVALID: 1,
    }
    assert "1 datagram between these endpoints not WireGuard: TYPE_UNKNOWN" in text(explainer)


# --- no keys, some keys, other keys ----------------------------------------------------


def test_without_keys_indices_tell_the_story() -> None:
    tunnel, _ = busy_tunnel()
    lost = tunnel.frames.pop(3)
    seen, explainer = told(tunnel)
    assert [s.joined for s in seen if s.kind != 1] == [
        s.joined for s in seen if s.kind != 1 and s.joined
    ]
    said = notes(seen)
    for expected in (
        "perhaps roamed from 192.0.2.1:51820",
        "after 115.0 s of silence",
        "rekey: the session of 1 is 125.0 s old",
    ):
        assert expected in said
    assert {s.role for s in seen if s.kind == 4} == {"initiator", "responder"}
    flows = [flow.to_json() for flow in explainer.follower.sessions.flows()]
    assert [flow["role"] for flow in flows] == ["initiator", "responder"] * 2
    assert [flow["missing"] for flow in flows] == [0, 1, 0, 0] and lost[1].payload[0] == 4
    assert flows[1]["keepalives"] == 1 and not any(flow["opened"] for flow in flows)
    assert "nothing could be checked" in text(explainer)


def test_an_initiation_without_answer_is_told() -> None:
    tunnel = Tunnel()
    tunnel.send(0)
    at, first = tunnel.frames[0]
    other = first._replace(payload=first.payload[:4] + b"abcd" + first.payload[8:])
    tunnel.frames = [(at, first), (at + 5 * NS, other)]
    seen, _ = told(tunnel)
    assert "again: the initiation in 1 has no answer after 5.0 s" in notes(seen)


def test_only_the_initiators_static_key_is_explained() -> None:
    tunnel, _ = busy_tunnel()
    alone = keylog.format_statics(tunnel.privates[0], [])
    seen, _ = told(tunnel, alone)
    assert "the key log needs the responder's public key" in notes(seen[:1])
    assert "by mac1 the initiator is" in notes(seen[1:2])
    named = keylog.format_statics(tunnel.privates[0], [tunnel.publics[1]])
    seen, explainer = told(tunnel, named)
    assert "the initiator's static key alone opens nothing" in notes(seen[:1])
    assert "stays sealed: see the handshake in 1" in notes(seen)
    assert all(s.problems == [] for s in seen) and explainer.authentic == 0


def test_static_keys_alone_leave_the_data_sealed_and_say_why() -> None:
    tunnel, _ = busy_tunnel()
    seen, _ = told(tunnel, keylog.format_statics(tunnel.privates[1], [tunnel.publics[0]]))
    assert seen[0].sender == tunnel.publics[0]
    assert "LOCAL_EPHEMERAL_PRIVATE_KEY" in notes(seen[1:2]) and seen[1].problems == []


def test_a_missing_preshared_key_is_not_an_invalid_response() -> None:
    tunnel, _ = busy_tunnel(psk=True)
    log = tunnel.key_log(0).splitlines(keepends=True)
    seen, _ = told(tunnel, "".join(row for row in log if not row.startswith("PRESHARED")))
    assert all(s.problems == [] for s in seen)
    assert "opens with none of the preshared keys known" in notes(seen[1:2])


def test_transport_keys_open_what_has_no_handshake() -> None:
    tunnel, inner = busy_tunnel()
    session = tunnel.engines[0].device.peers[tunnel.publics[1]].current
    assert session is not None
    keys = session_keys(tunnel)
    log = keylog.format_session(
        keys,
        local_index=session.local_index,
        remote_index=session.remote_index,
        local_static=tunnel.publics[0],
        remote_static=tunnel.publics[1],
    )
    tunnel.frames = [f for f in tunnel.frames if f[1].payload[0] == 4]
    seen, explainer = told(tunnel, log)
    assert inner_of(seen) == inner[-3:]
    assert [s.sender for s in seen if s.inner] == [tunnel.publics[n] for n in (1, 0, 1)]
    assert all(s.problems == [] and s.handshake is None for s in seen)
    forged = bytearray(tunnel.frames[-1][1].payload)
    forged[-1] ^= 1
    tunnel.frames.append((0, tunnel.frames[-1][1]._replace(payload=bytes(forged))))
    assert told(tunnel, log)[0][-1].problems == [DropReason.TAG_INVALID]
    wrong = TransportKeys(bytes(32), bytes(32))
    other = keylog.format_session(
        wrong,
        local_index=session.local_index,
        remote_index=session.remote_index,
        local_static=tunnel.publics[0],
        remote_static=tunnel.publics[1],
    )
    seen, explainer = told(tunnel, other)
    assert explainer.problems == {} and "opens with no TRANSPORT_KEY of its index" in notes(seen)


def session_keys(tunnel: Tunnel) -> TransportKeys:
    """The keys of the last session, from the initiator's side, by our own reading."""
    from wgpy.capture.handshake import SeenInitiation, open_initiation, open_response
    from wgpy.capture.keylog import Keys
    from wgpy.protocol.crypto import backend
    from wgpy.protocol.messages import Initiation, Response

    keys = Keys(backend("openssl"))
    keys.read(tunnel.key_log(0))
    messages = [udp.payload for _, udp in tunnel.frames if udp.payload[0] < 3][-2:]
    opened = open_initiation(keys, Initiation.parse(messages[0]), tunnel.publics[1], 1)
    assert isinstance(opened, SeenInitiation)
    found = open_response(keys, opened, Response.parse(messages[1]))
    assert isinstance(found, TransportKeys)
    return found


@pytest.mark.parametrize("keys", [True, False])
def test_reserved_bytes_of_warp_are_said(keys: bool) -> None:
    tunnel, inner = busy_tunnel()
    tunnel.frames = [
        (at, udp._replace(payload=udp.payload[:1] + b"\x1a\x2b\x3c" + udp.payload[4:]))
        for at, udp in tunnel.frames
    ]
    seen, explainer = told(tunnel, tunnel.key_log(0) if keys else "")
    assert len(seen) == len(tunnel.frames)
    assert all("1a2b3c" in notes([s]) and s.problems == [] for s in seen)
    assert inner_of(seen) == (inner if keys else [])
    assert explainer.problems == {}


def test_what_merely_begins_with_four_is_not_warp() -> None:
    tunnel = Tunnel()
    place = Endpoint.parse("192.0.2.1:5000"), Endpoint.parse("192.0.2.2:6000")
    tunnel.frames = [(0, Udp(*place, b"\x04abc" + bytes(60)))]
    assert told(tunnel)[0] == []


# --- files -----------------------------------------------------------------------------


def as_pcap(tmp_path: Path, tunnel: Tunnel) -> Path:
    path = tmp_path / "x.pcap"
    write_pcap(path, 1, [(WALL + at, ethernet(udp_packet(udp))) for at, udp in tunnel.frames])
    return path


def test_a_file_cut_anywhere_gives_what_is_whole(tmp_path: Path) -> None:
    tunnel = Tunnel()
    tunnel.send(0)
    data = as_pcap(tmp_path, tunnel).read_bytes()
    ends = [24]
    for _, udp in tunnel.frames:
        ends.append(ends[-1] + 16 + 42 + len(udp.payload))
    path = tmp_path / "cut"
    for size in range(24, len(data) + 1):
        path.write_bytes(data[:size])
        got, failed = 0, ""
        try:
            for _ in read_capture(path):
                got += 1
        except CaptureError as error:
            failed = str(error)
        assert got == sum(end <= size for end in ends[1:])
        assert ("cut off" in failed) == (size not in ends)


@pytest.mark.parametrize("packed", [True, False])
def test_what_is_whole_is_shown_before_the_error(tmp_path: Path, packed: bool) -> None:
    tunnel, _ = busy_tunnel()
    data = write(tmp_path, tunnel).read_bytes()
    path = tmp_path / "cut.pcapng"
    path.write_bytes(gzip.compress(data)[:-300] if packed else data[:-30])
    done = CliRunner().invoke(decrypt, [str(path)])
    assert done.exit_code == 1 and "cut off" in done.output
    assert "inner packets" in done.output and "no problems\n" not in done.output
    assert "no problems in what could be read" in done.output


def test_standard_input_and_gzip(tmp_path: Path) -> None:
    tunnel, inner = busy_tunnel()
    data = write(tmp_path, tunnel).read_bytes()
    for content in (data, gzip.compress(data)):
        done = subprocess.run(
            [WGPY, "decrypt", "-", "--json"], input=content, capture_output=True, check=True
        )
        rows = [json.loads(row) for row in done.stdout.splitlines()]
        assert [row["inner"] for row in rows if row.get("inner")] == [p.hex() for p in inner]
        assert rows[-1]["type"] == "summary" and rows[-1]["inner_packets"] == len(inner)


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    tunnel = Tunnel()
    for _ in range(500):
        tunnel.send(0)
    path = write(tmp_path, tunnel)
    for option in ([], ["--json"]):
        process = subprocess.Popen(
            [WGPY, "decrypt", str(path), *option], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(timeout=20)
        process.stderr.close()


def test_plaintext_is_for_its_owner(tmp_path: Path) -> None:
    tunnel, _ = busy_tunnel()
    path, out = write(tmp_path, tunnel), tmp_path / "inner.pcap"
    out.write_bytes(b"")
    out.chmod(0o644)
    assert CliRunner().invoke(decrypt, [str(path), "--pcap", str(out)]).exit_code == 0
    assert out.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    refused = CliRunner().invoke(decrypt, [str(path), "--pcap", str(path)])
    assert refused.exit_code == 2 and path.read_bytes() == before


def test_link_types_that_are_not_read_are_not_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    write_pcap(path, 195, [(0, bytes(60))] * 7)
    done = CliRunner().invoke(decrypt, [str(path)])
    assert "7 frames not read: link type 195 (802.15.4)" in done.output
    assert "no problems" not in done.output


def test_lines_fit_eighty_columns() -> None:
    tunnel, _ = busy_tunnel(loaded=True)
    at, udp = tunnel.frames[0]
    tunnel.frames.append((at + 200 * NS, udp))
    for log in (tunnel.key_log(0), ""):
        seen, explainer = told(tunnel, log)
        style = Style(width=80)
        rows = [row for s in seen for row in line(s, WALL, style).splitlines()]
        assert max(map(len, rows)) <= 80
        assert max(map(len, text(explainer).splitlines())) <= 80
        flat = [" ".join(line(s, WALL, style).split()) for s in seen]
        assert flat == [" ".join(line(s, WALL, Style()).split()) for s in seen]


# --- hostile files ---------------------------------------------------------------------

MAGIC = st.sampled_from(
    [
        b"",
        struct.pack("<I", 0xA1B2C3D4) + bytes(16) + struct.pack("<I", 1),
        pcapng.section_header("x") + pcapng.interface(1, "a", "b"),
        b"\x1f\x8b\x08\0",
        gzip.compress(pcapng.section_header("x"))[:-8],
    ]
)


@given(MAGIC, st.binary(max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_capture_or_one_line(tmp_path: Path, start: bytes, rest: bytes) -> None:
    path = tmp_path / "fuzz"
    path.write_bytes(start + rest)
    try:
        list(explain(path, []))
    except (CaptureError, KeyLogError) as error:
        assert "\n" not in str(error) and str(path) in str(error)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_damaged_capture_is_a_capture_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    tunnel = Tunnel()
    tunnel.send(0)
    content = bytearray(tunnel.pcapng(0))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzz"
    path.write_bytes(content)
    try:
        list(explain(path, []))
    except (CaptureError, KeyLogError) as error:
        assert "\n" not in str(error)


def test_a_flood_of_forgeries_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of every type, each with new indices and places: tables stay at their limits."""
    monkeypatch.setattr("wgpy.capture.sessions.LIMIT", 100)
    monkeypatch.setattr("wgpy.capture.repeats._LIMIT", 100)
    dice = random.Random(1)
    sizes = {1: 148, 2: 92, 3: 64, 4: 32}
    explainer = Explainer()
    explainer.keys.read(Tunnel().key_log(0))
    follower = explainer.follower
    for number in range(4000):
        kind = number % 4 + 1
        payload = bytes([kind, 0, 0, 0]) + dice.randbytes(sizes[kind] - 4)
        places = Endpoint(dice.randbytes(4), 51820), Endpoint(dice.randbytes(4), 51820)
        follower.datagram(number, number * 1000, Udp(*places, payload))
    tables = [
        table
        for owner in (follower, follower.sessions, follower._repeats)
        for table in vars(owner).values()
        if isinstance(table, dict) and table is not follower.strangers
    ]
    assert len(tables) >= 6
    assert max(map(len, tables)) <= 100


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="nothing: No such file"):
        Capture(tmp_path / "nothing")

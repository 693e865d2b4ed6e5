"""Reading captures: every format, keys of either side, agreement with tshark, what is wrong."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.capture.traffic import WALL, Tunnel, busy_tunnel
from wgpy.capture import link, pcapng
from wgpy.capture.decrypt import explain, to_json
from wgpy.capture.follow import Seen
from wgpy.capture.frames import CaptureError
from wgpy.capture.link import Udp, udp_packet
from wgpy.capture.pcap import write_pcap
from wgpy.cli.decrypt import decrypt
from wgpy.protocol.drops import DropReason
from wgpy.protocol.messages import Transport

CASES = [{}, {"psk": True}, {"loaded": True}, {"psk": True, "loaded": True}]


def write(tmp_path: Path, tunnel: Tunnel, side: int | None = 0) -> Path:
    path = tmp_path / "tunnel.pcapng"
    path.write_bytes(tunnel.pcapng(side))
    return path


def inner_of(seen: list[Seen]) -> list[bytes]:
    return [s.inner for s in seen if s.inner is not None]


def tshark(path: Path, *fields: str, keylog: Path | None = None) -> list[list[str]]:
    """Rows of field values, one per frame, decoded as WireGuard whatever the port."""
    command = [
        "tshark",
        "-r",
        str(path),
        "-d",
        "udp.port==51820,wg",
        "-d",
        "udp.port==40000,wg",
        "-T",
        "fields",
        "-E",
        "separator=;",
    ]
    if keylog is not None:
        command += ["-o", f"wg.keylog_file:{keylog}"]
    for name in fields:
        command += ["-e", name]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.split(";") for line in result.stdout.splitlines()]


# --- keys ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("side", [0, 1])
def test_keys_of_either_side_open_everything(
    tmp_path: Path, options: dict[str, bool], side: int
) -> None:
    tunnel, inner = busy_tunnel(**options)
    seen = list(explain(write(tmp_path, tunnel, side), []))
    assert len(seen) == len(tunnel.frames)
    # Under load the first packet waits for the second attempt and is overtaken.
    assert sorted(inner_of(seen)) == sorted(inner)
    assert [s.problems for s in seen if s.message.type != 3] == [
        [] for s in seen if s.message.type != 3
    ]
    handshakes = {s.handshake for s in seen if isinstance(s.message, Transport)}
    assert len(handshakes) == (1 if options.get("loaded") else 2) and None not in handshakes
    assert any("roamed" in note for s in seen for note in s.notes)


def test_without_keys_the_fields_are_still_told(tmp_path: Path) -> None:
    tunnel, _ = busy_tunnel()
    seen = list(explain(write(tmp_path, tunnel, None), []))
    assert len(seen) == len(tunnel.frames) and inner_of(seen) == []
    assert all(s.handshake is None for s in seen)


def test_keys_from_a_key_log_file(tmp_path: Path) -> None:
    tunnel, inner = busy_tunnel(psk=True)
    log = tmp_path / "keys.log"
    log.write_text("# a comment\n\n" + tunnel.key_log(1))
    assert inner_of(list(explain(write(tmp_path, tunnel, None), [log]))) == inner


def test_cookie_and_mac2_are_followed(tmp_path: Path) -> None:
    tunnel, _ = busy_tunnel(loaded=True)
    seen = list(explain(write(tmp_path, tunnel), []))
    notes = [note for s in seen for note in s.notes]
    assert "cookie opens" in notes and "mac2 fits the cookie seen before" in notes


# --- tshark ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("embedded", [True, False])
def test_tshark_agrees_on_every_packet(
    tmp_path: Path, options: dict[str, bool], embedded: bool
) -> None:
    assert shutil.which("tshark"), "apt-get install tshark"
    tunnel, _ = busy_tunnel(**options)
    path = write(tmp_path, tunnel, 0 if embedded else None)
    log = tmp_path / "keys.log"
    log.write_text(tunnel.key_log(0))
    seen = list(explain(path, [] if embedded else [log]))
    rows = tshark(
        path,
        "wg.type",
        "wg.sender",
        "wg.receiver",
        "wg.counter",
        "wg.handshake_ok",
        "wg.keepalive",
        "ip.src",
        "ipv6.src",
        keylog=None if embedded else log,
    )
    assert len(rows) == len(seen)
    for row, own in zip(rows, seen, strict=True):
        fields = to_json(own)["fields"]
        assert row[0] == str(own.message.type)
        assert row[1] == fields.get("sender", "")
        assert row[2] == fields.get("receiver", "")
        assert row[3] == str(fields.get("counter", ""))
        if row[4]:
            assert (row[4] in ("1", "True")) == (own.handshake is not None)
        assert (row[5] != "") == (own.plaintext == b"")
        inside = row[6].split(",")[1:] or [row[7]]
        expected = to_json(own)["inner"]
        assert bool("".join(inside)) == (expected is not None)


def test_handshake_ok_of_tshark(tmp_path: Path) -> None:
    """With the keys tshark verifies both messages of a handshake, as we do."""
    tunnel, _ = busy_tunnel(psk=True)
    rows = tshark(write(tmp_path, tunnel), "wg.type", "wg.handshake_ok")
    assert [row[1] for row in rows if row[0] == "2"] in (["1", "1"], ["True", "True"])


# --- formats ---------------------------------------------------------------------------


def ethernet(packet: bytes) -> bytes:
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return bytes(12) + kind + packet


def wrapped(kind: str, packet: bytes) -> tuple[int, bytes]:
    """`packet` in a link layer."""
    ether_type = ethernet(packet)[12:14]
    return {
        "ethernet": (link.ETHERNET, ethernet(packet)),
        "vlan": (link.ETHERNET, bytes(12) + b"\x81\x00\x00\x05" + ethernet(packet)[12:]),
        "qinq": (
            link.ETHERNET,
            bytes(12) + b"\x88\xa8\x00\x05\x81\x00\x00\x06" + ethernet(packet)[12:],
        ),
        "sll": (link.SLL, bytes(14) + ether_type + packet),
        "sll2": (link.SLL2, ether_type + bytes(18) + packet),
        "raw": (link.RAW, packet),
        "null": (link.NULL, bytes(4) + packet),
    }[kind]


@pytest.mark.parametrize("kind", ["ethernet", "vlan", "qinq", "sll", "sll2", "raw", "null"])
def test_link_layers_in_classic_pcap(tmp_path: Path, kind: str) -> None:
    tunnel, inner = busy_tunnel()
    frames = [(WALL + at, *wrapped(kind, udp_packet(udp))) for at, udp in tunnel.frames]
    path, log = tmp_path / "x.pcap", tmp_path / "keys"
    write_pcap(path, frames[0][1], [(at, data) for at, _, data in frames])
    log.write_text(tunnel.key_log(0))
    seen = list(explain(path, [log]))
    assert inner_of(seen) == inner and seen[0].at == WALL + tunnel.frames[0][0]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "fraction"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap_of_both_byte_orders(tmp_path: Path, order: str, magic: int, fraction: int) -> None:
    tunnel, inner = busy_tunnel()
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 1 << 18, link.RAW)
    for at, udp in tunnel.frames:
        packet = udp_packet(udp)
        seconds, rest = divmod(WALL + at, 10**9)
        data += struct.pack(order + "IIII", seconds, rest // fraction, len(packet), len(packet))
        data += packet
    path, log = tmp_path / "x.pcap", tmp_path / "keys"
    path.write_bytes(data)
    log.write_text(tunnel.key_log(1))
    assert inner_of(list(explain(path, [log]))) == inner


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_are_put_together(tmp_path: Path, version: int) -> None:
    tunnel = Tunnel()
    if version == 6:
        from wgpy.protocol.endpoint import Endpoint

        tunnel.places = Endpoint.parse("[2001:db8::1]:51820"), Endpoint.parse("[2001:db8::2]:51820")
    inner = [tunnel.send(0, 1200)]
    frames: list[tuple[int, bytes]] = []
    for number, (at, udp) in enumerate(tunnel.frames):
        packet = udp_packet(udp)
        head, body = (packet[:20], packet[20:]) if version == 4 else (packet[:40], packet[40:])
        pieces = [body[start : start + 480] for start in range(0, len(body), 480)]
        for index in reversed(range(len(pieces))):  # the last fragment first
            more, offset = index < len(pieces) - 1, index * 60
            if version == 4:
                field = (0x2000 if more else 0) | offset
                part = head[:2] + struct.pack("!HHH", 20 + len(pieces[index]), number, field)
                frames.append((WALL + at, part + head[8:] + pieces[index]))
            else:
                extra = struct.pack("!BBHI", 17, 0, offset << 3 | more, number)
                size = struct.pack("!HB", 8 + len(pieces[index]), 44)
                part = head[:4] + size + head[7:] + extra
                frames.append((WALL + at, part + pieces[index]))
    path, log = tmp_path / "x.pcap", tmp_path / "keys"
    write_pcap(path, link.RAW, frames)
    log.write_text(tunnel.key_log(0))
    assert inner_of(list(explain(path, [log]))) == inner


@pytest.mark.parametrize("damage", ["cut", "magic", "length"])
def test_damaged_files_are_named_with_the_place(tmp_path: Path, damage: str) -> None:
    tunnel, _ = busy_tunnel()
    data = bytearray(tunnel.pcapng(0))
    if damage == "cut":
        del data[-5:]
    elif damage == "magic":
        data[8:12] = b"abcd"
    else:
        data[4:8] = b"\x03\0\0\0"
    path = tmp_path / "bad.pcapng"
    path.write_bytes(data)
    with pytest.raises(CaptureError, match=r"bad\.pcapng: byte \d+"):
        list(explain(path, []))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CaptureError, match="neither pcap nor pcapng"):
        list(explain(tmp_path / "text", []))


# --- what is wrong ---------------------------------------------------------------------


def problems(tmp_path: Path, tunnel: Tunnel) -> list[list[DropReason]]:
    return [s.problems for s in explain(write(tmp_path, tunnel), [])]


def test_replays_and_forgeries_are_explained(tmp_path: Path) -> None:
    tunnel = Tunnel()
    tunnel.send(0)
    initiation, response, data = tunnel.frames[:3]
    forged = bytearray(data[1].payload)
    forged[-1] ^= 1
    changed = bytearray(initiation[1].payload)
    changed[50] ^= 1
    later = 10**9  # at once it would be the same frame captured twice
    tunnel.frames += [
        (later, data[1]),
        (later, data[1]._replace(payload=bytes(forged))),
        (later, initiation[1]),
        (later, initiation[1]._replace(payload=bytes(changed))),
        (later, response[1]),
    ]
    found = problems(tmp_path, tunnel)
    assert found[3:] == [
        [DropReason.REPLAYED],
        [DropReason.TAG_INVALID],
        [DropReason.TIMESTAMP_REPLAYED],
        [],
        [DropReason.UNKNOWN_INDEX],
    ]
    seen = list(explain(write(tmp_path, tunnel), []))
    assert "mac1 matches no known public key" in seen[6].notes


def test_old_sessions_are_explained(tmp_path: Path) -> None:
    tunnel = Tunnel()
    tunnel.send(0)
    late = tunnel.frames[2]
    tunnel.frames.append((200 * 10**9, late[1]))
    assert DropReason.SESSION_EXPIRED in problems(tmp_path, tunnel)[-1]


# --- command and scapy -----------------------------------------------------------------


def test_command_prints_lines_json_and_a_pcap_of_the_inside(tmp_path: Path) -> None:
    tunnel, inner = busy_tunnel()
    path, out = write(tmp_path, tunnel), tmp_path / "inner.pcap"
    told = CliRunner().invoke(decrypt, [str(path), "--pcap", str(out)])
    assert told.exit_code == 0 and "no problems" in told.output
    assert f"{len(inner)} inner packets" in told.output
    machine = CliRunner().invoke(decrypt, [str(path), "--json"])
    rows = [json.loads(line) for line in machine.output.splitlines()]
    assert [row["inner"] for row in rows if row.get("inner")] == [p.hex() for p in inner]
    assert len(tshark(out, "frame.number")) == len(inner)
    for private in tunnel.privates:
        assert private.base64 not in told.output + machine.output


def test_scapy_gives_inner_packets(tmp_path: Path) -> None:
    from scapy.utils import rdpcap

    from wgpy.scapy import decrypt as decrypt_packets

    tunnel, inner = busy_tunnel(psk=True)
    path = tmp_path / "x.pcap"
    frames = [(WALL + at, ethernet(udp_packet(udp))) for at, udp in tunnel.frames]
    write_pcap(path, link.ETHERNET, frames)
    packets = decrypt_packets(rdpcap(str(path)), tunnel.key_log(0))
    assert [bytes(p) for p in packets] == inner
    assert packets[0].problems == [] and packets[0].dst == "10.0.0.2"


def test_bad_key_log_names_the_line_and_no_key(tmp_path: Path) -> None:
    tunnel, _ = busy_tunnel()
    log = tmp_path / "keys.log"
    log.write_text(tunnel.key_log(0) + "LOCAL_STATIC_PRIVATE_KEY = c2VjcmV0\n")
    result = CliRunner().invoke(decrypt, [str(write(tmp_path, tunnel, None)), "--keylog", str(log)])
    assert result.exit_code == 1
    assert "keys.log: line" in result.output and "c2VjcmV0" not in result.output


def test_a_datagram_that_is_not_wireguard_is_passed_over(tmp_path: Path) -> None:
    tunnel, inner = busy_tunnel()
    source, destination = tunnel.frames[0][1][:2]
    tunnel.frames.insert(0, (0, Udp(source, destination, b"hello")))
    tunnel.frames.insert(0, (0, Udp(source, destination, b"")))
    assert inner_of(list(explain(write(tmp_path, tunnel), []))) == inner


def test_writer_and_reader_agree_on_comments(tmp_path: Path) -> None:
    file = pcapng.section_header("x") + pcapng.interface(link.RAW, "a", "b")
    file += pcapng.packet(0, 123_456_789, b"12345", ["one", "zwei ü"], size=99)
    file += pcapng.statistics(0, 1, 5, 2)
    path = tmp_path / "c.pcapng"
    path.write_bytes(file)
    with path.open("rb") as stream:
        (frame,) = pcapng.read(stream, "c")
    assert not isinstance(frame, pcapng.Secrets)
    assert (frame.at, frame.data, frame.original_size) == (123_456_789, b"12345", 99)
    assert frame.comments == ("one", "zwei ü")

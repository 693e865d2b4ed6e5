"""Recording a running device: what it writes opens by itself in tshark and in `wgpy decrypt`."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.capture.test_decrypt import tshark
from tests.interop.tunnel import WGPY, End, iperf, make_end
from tests.support.netns import Lab, wait_until
from wgpy.capture.decrypt import explain
from wgpy.capture.frames import Frame, Secrets
from wgpy.capture.keylog import Keys
from wgpy.capture.pcap import read_capture
from wgpy.capture.record import INNER, OUTER
from wgpy.protocol.crypto import backend

CLI = str(Path(sys.executable).with_name("wgpy"))
pytestmark = pytest.mark.root


def two_ends(
    lab: Lab, *options: str, env: dict[str, str] | None = None
) -> tuple[End, End, subprocess.Popen[str]]:
    """Two joined interfaces, the left one in the foreground with `options`."""
    namespaces = lab.namespace("left"), lab.namespace("right")
    lab.veth(*namespaces, "192.0.2.1/24", "192.0.2.2/24")
    ends = [
        make_end(lab, space, number, f"192.0.2.{number}", "2001:db8::1")
        for number, space in enumerate(namespaces, 1)
    ]
    process = namespaces[0].start(WGPY, "-f", *options, ends[0].name, env=env)
    namespaces[1].run(WGPY, ends[1].name)
    assert wait_until(
        lambda: ends[0].namespace.run("wg", "show", ends[0].name, check=False).returncode == 0
    )
    for end, other in (ends, reversed(ends)):
        end.configure(other, "endpoint", other.endpoint(4), psk="")
        end.up()
    return ends[0], ends[1], process


def frames(path: Path) -> list[Frame]:
    return [record for record in read_capture(path) if isinstance(record, Frame)]


def finish(process: subprocess.Popen[str]) -> str:
    process.terminate()
    return process.communicate(timeout=20)[0]


@pytest.mark.parametrize("offload", [[], ["--no-offload"]], ids=["batch", "plain"])
def test_capture_from_the_start_opens_in_tshark(
    lab: Lab, tmp_path: Path, offload: list[str]
) -> None:
    path, log = tmp_path / "wg.pcapng", tmp_path / "keys.log"
    left, right, process = two_ends(lab, "--capture", str(path), "--keylog", str(log), *offload)
    left.ping(right, "-c3", "-i0.1")
    left.namespace.run("ping", "-c1", "-W1", "10.77.0.99", check=False)
    said = finish(process)
    assert said.count("SECRET KEYS") == 2
    assert path.stat().st_mode & 0o777 == log.stat().st_mode & 0o777 == 0o600
    rows = tshark(path, "frame.interface_id", "wg.type", "icmp.type", "frame.comment")
    decrypted = [row for row in rows if row[0] == str(OUTER) and row[1] == "4" and row[2]]
    assert len(decrypted) == 6
    assert any("NO_PEER" in row[3] and row[0] == str(INNER) for row in rows)
    seen = list(explain(path, []))
    assert [s.inner for s in seen if s.inner] == [s.inner for s in explain(path, [log]) if s.inner]
    inner = [f.data for f in frames(path) if f.interface == INNER]
    assert all(s.inner in inner for s in seen if s.inner)


def test_key_log_by_environment(lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    left, right, process = two_ends(lab, env={"WGPY_KEYLOG": str(log)})
    left.ping(right, "-c1")
    finish(process)
    assert "LOCAL_EPHEMERAL_PRIVATE_KEY = " in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_unwritable_capture_is_refused_at_the_start(lab: Lab, tmp_path: Path) -> None:
    space = lab.namespace("alone")
    target = tmp_path / "no" / "such.pcapng"
    done = space.run(WGPY, "--capture", str(target), lab.interface(), check=False)
    assert done.returncode == 1 and f"--capture {target}" in done.stderr


def test_dropped_datagrams_are_commented(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "wg.pcapng"
    left, right, process = two_ends(lab, "--capture", str(path))
    left.ping(right, "-c1")
    noise = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
    noise += "s.sendto(bytes([1, 0, 0, 0]) + bytes(144), ('192.0.2.1', 51820))"
    right.namespace.run(sys.executable, "-c", noise)
    left.ping(right, "-c1")
    finish(process)
    commented = [f for f in frames(path) if any("MAC1_INVALID" in c for c in f.comments)]
    assert len(commented) == 1 and commented[0].interface == OUTER


def test_rotation_keeps_every_file_readable(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "wg.pcapng"
    left, right, process = two_ends(lab, "--capture", str(path), "--capture-size", "20000")
    left.ping(right, "-c40", "-i0.02", "-s500")
    finish(process)
    files = sorted(tmp_path.glob("wg*.pcapng"))
    assert len(files) >= 3
    inner = [s.inner for file in files for s in explain(file, []) if s.inner]
    assert len(inner) == 80
    assert sum(len(frames(file)) for file in files) >= 160


def test_capture_of_a_running_device(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "wg.pcapng"
    left, right, process = two_ends(lab)
    capture = left.namespace.start(CLI, "capture", left.name, str(path), "--json")
    assert wait_until(path.exists)
    left.ping(right, "-c5", "-i0.1")
    busy = left.namespace.run(CLI, "capture", left.name, str(tmp_path / "two"), check=False)
    assert busy.returncode == 1 and "captured already" in busy.stderr
    capture.terminate()
    told = json.loads(capture.communicate(timeout=20)[0].splitlines()[-1])
    assert told["lost"] == 0 and told["inner"] >= 10
    assert len([s for s in explain(path, []) if s.inner]) == 10
    size = path.stat().st_size
    left.ping(right, "-c2", "-i0.1")
    assert path.stat().st_size == size, "the capture goes on after its client has gone"
    finish(process)


def opened_by_transport_keys(path: Path) -> int:
    """Data messages with contents that the keys of live sessions in the file open."""
    keys, crypto, count = Keys(backend()), backend(), 0
    for record in read_capture(path):
        if isinstance(record, Secrets):
            keys.read(record.key_log)
    for frame in frames(path):
        message = frame.data[28:]
        if frame.interface == OUTER and message[0] == 4:
            index, counter = struct.unpack_from("<IQ", message, 4)
            known = keys.transport.get(index, [])
            opened = [crypto.aead(bytes(k.key)).open(counter, message[16:]) for k in known]
            count += any(opened)
    return count


@pytest.mark.parametrize("options", [[], ["--rekey"]], ids=["as it is", "rekey"])
def test_a_session_that_lives_already_is_opened(
    lab: Lab, tmp_path: Path, options: list[str]
) -> None:
    path, file = tmp_path / "wg.pcapng", "wg.pcapng"
    left, right, process = two_ends(lab)
    right.ping(left, "-c1")  # The other side initiates: ours may begin a handshake at once.
    inside = ("env", "-C", str(tmp_path), CLI)
    capture = left.namespace.start(*inside, "capture", left.name, file, *options)
    assert wait_until(path.exists), "the file is in the caller's folder"
    left.ping(right, "-c5", "-i0.1")
    capture.terminate()
    said = capture.communicate(timeout=20)[0]
    finish(process)
    assert "1 live session:" in said
    opened = opened_by_transport_keys(path)
    by_wireshark = [row for row in tshark(path, "wg.type", "icmp.type") if row[0] == "4" and row[1]]
    if options:
        assert "from\nthe handshakes on that begin now (1)" in said
        assert len(by_wireshark) >= 8, "all but the pings of the old session's last moments"
    else:
        assert "--rekey begins one at once" in said
        assert opened == 10 and not by_wireshark


def test_capture_of_an_unknown_interface_says_so(lab: Lab, tmp_path: Path) -> None:
    done = lab.namespace("x").run(CLI, "capture", "nothing", str(tmp_path / "x"), check=False)
    assert done.returncode == 1 and "no wireguard-py is running" in done.stderr


def test_under_load_what_passed_is_in_the_file(lab: Lab, tmp_path: Path) -> None:
    """1 Gb/s offered: every data message that either end counted is recorded."""
    path = tmp_path / "wg.pcapng"
    left, right, process = two_ends(lab, "--capture", str(path))
    left.ping(right, "-c1")
    iperf(left, right, "--udp", "--bitrate", "1G", "--length", "1300", "--time", "1")
    _, sent = left.transfer()
    finish(process)
    captured = frames(path)
    recorded = sum(
        len(f.data) - 28
        for f in captured
        if f.interface == OUTER and f.data[16:20] == bytes([192, 0, 2, 2])
    )
    lost = statistics_of(path)
    assert lost == 0
    assert recorded == sent


def statistics_of(path: Path) -> int:
    """Dropped frames by the file's own statistics blocks."""
    from wgpy.capture import pcapng

    dropped = 0
    with path.open("rb") as file:
        for kind, body in pcapng._Reader(file, "x").blocks():
            if kind == pcapng.INTERFACE_STATISTICS:
                assert body[24:28] == b"\5\0\x08\0"
                dropped += int.from_bytes(body[28:36], "little")
    return dropped

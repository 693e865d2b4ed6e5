"""Our own line of the key log: keys of a session whose handshake nobody saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.capture.test_decrypt import tshark
from tests.capture.traffic import WALL, busy_tunnel
from wgpy.capture import keylog, pcapng
from wgpy.capture.keylog import KeyLogError, Keys
from wgpy.capture.link import RAW, udp_packet
from wgpy.protocol.crypto import backend
from wgpy.protocol.noise import TransportKeys

KEYS = TransportKeys(send=bytes(range(32)), receive=bytes(range(1, 33)))
LINES = keylog.format_session(
    KEYS, local_index=1, remote_index=0xDEADBEEF, local_static=b"l" * 32, remote_static=b"r" * 32
)


def test_both_directions_by_receiver_index() -> None:
    keys = Keys(backend("openssl"))
    keys.read(LINES)
    assert {index: [(bytes(k.key), k.sender) for k in found] for index, found in
            keys.transport.items()} == {
        1: [(KEYS.receive, b"r" * 32)],
        0xDEADBEEF: [(KEYS.send, b"l" * 32)],
    }  # fmt: skip
    assert "0x00000001" in LINES and "0xdeadbeef" in LINES
    keys.read(LINES)
    assert [len(found) for found in keys.transport.values()] == [1, 1]


def test_the_sender_is_optional_and_no_key_is_in_a_repr() -> None:
    keys = Keys(backend("openssl"))
    key = "A" * 43 + "="
    keys.read(f"TRANSPORT_KEY = 0x1f {key}")
    assert keys.transport[0x1F][0].sender is None
    assert key not in repr(keys) + repr(keys.transport) and "\\x00" not in repr(keys.transport)


@pytest.mark.parametrize(
    "value", ["", "0x1", "1 {}", "0x123456789 {}", "0x1 short", "0x1 {} {} {}", "0x1 {} x"]
)
def test_a_bad_line_is_named_and_shows_no_key(value: str) -> None:
    key = "A" * 43 + "="
    with pytest.raises(KeyLogError, match="log: line 2: TRANSPORT_KEY: ") as caught:
        Keys(backend("openssl")).read("\nTRANSPORT_KEY = " + value.replace("{}", key), "log")
    assert key not in str(caught.value)


def with_our_lines_everywhere(log: str) -> str:
    return LINES + "".join(line + "\n" + LINES for line in log.splitlines())


@pytest.mark.parametrize("embedded", [True, False])
def test_wireshark_skips_the_line(tmp_path: Path, embedded: bool) -> None:
    tunnel, inner = busy_tunnel(psk=True)
    log = with_our_lines_everywhere(tunnel.key_log(0))
    file = pcapng.section_header("test") + pcapng.interface(RAW, "outer", "")
    if embedded:
        file += pcapng.secrets(log)
    for at, udp in tunnel.frames:
        file += pcapng.packet(0, WALL + at, udp_packet(udp))
    path, separate = tmp_path / "x.pcapng", tmp_path / "keys.log"
    path.write_bytes(file)
    separate.write_text(log)
    rows = tshark(path, "wg.type", "udp.length", keylog=None if embedded else separate)
    opened = [row for row in rows if row[0] == "4" and "," in row[1]]
    assert len(opened) == len(inner), "tshark opened the data although our lines are among its own"



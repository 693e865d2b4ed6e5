"""ping on real networks: each layer working, and each layer broken in its own way."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.conftest import DEVICE
from tests.cli.tunnel import End, key_pair, make_ends
from tests.support.netns import Lab
from wgpy.cli import ping_layers
from wgpy.protocol.constants import NS
from wgpy.protocol.keys import PresharedKey

pytestmark = pytest.mark.root


@pytest.fixture
def ends(lab: Lab, tmp_path: Path) -> tuple[End, End]:
    client, server = make_ends(lab, tmp_path)
    server.wgpy("up", str(server.file))
    return client, server


def layers(end: End, *words: str) -> tuple[int, dict[str, dict[str, object]]]:
    """Exit code and layers of `wgpy ping WORDS --json`."""
    done = end.wgpy("ping", *words, "--json", check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)["layers"]


def statuses(found: dict[str, dict[str, object]]) -> list[object]:
    return [found[name]["status"] for name in ("UDP", "WireGuard", "inner IP")]


def test_a_file_is_enough_and_both_inner_families_work(ends: tuple[End, End]) -> None:
    client, _ = ends
    before = client.network()
    for target in ("10.5.0.2", "fd05::2", "172.20.0.1"):
        code, found = layers(client, str(client.file), "--inner", target, "-c", "2")
        assert code == 0
        assert statuses(found) == ["ok", "ok", "ok"]
        assert found["inner IP"]["received"] == 2
        assert found["inner IP"]["target"] == target
    assert client.network() == before


def test_nobody_listens(ends: tuple[End, End]) -> None:
    client, server = ends
    server.wgpy("down", server.interface)
    code, found = layers(client, str(client.file))
    assert code == 1
    assert statuses(found) == ["failed", "failed", "skipped"]
    assert "no program listens" in str(found["UDP"]["hints"])


def test_another_preshared_key_is_recognised(ends: tuple[End, End]) -> None:
    client, _ = ends
    lines = client.file.read_text().splitlines()
    other = f"PresharedKey = {PresharedKey(os.urandom(32)).base64}"
    client.write("\n".join(other if "Preshared" in line else line for line in lines))
    code, found = layers(client, str(client.file), "-W", "1")
    assert code == 1
    assert statuses(found) == ["ok", "failed", "skipped"]
    assert found["WireGuard"]["hints"] == [
        "the peer answered, but its answer does not open: the PresharedKey differs"
    ]


def test_a_key_that_the_peer_does_not_know_meets_silence(ends: tuple[End, End]) -> None:
    client, _ = ends
    private, public = key_pair()
    lines = client.file.read_text().splitlines()
    client.write("\n".join(f"PrivateKey={private}" if "Private" in x else x for x in lines))
    code, found = layers(client, str(client.file), "-W", "1")
    assert code == 1
    assert statuses(found) == ["ok", "failed", "skipped"]
    assert public in str(found["WireGuard"]["hints"])


def test_an_inner_host_that_is_not_there(ends: tuple[End, End]) -> None:
    client, server = ends
    server.namespace.run("sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")
    code, found = layers(client, str(client.file), "-c", "1")
    assert code == 1
    assert statuses(found) == ["unclear", "ok", "failed"]
    outside = layers(client, str(client.file), "--inner", "8.8.8.8")[1]
    assert outside["inner IP"]["text"] == "8.8.8.8 is not in the peer's AllowedIPs"


def test_a_link_that_is_down_is_said(ends: tuple[End, End]) -> None:
    client, _ = ends
    client.wgpy("up", str(client.file))
    client.namespace.ip(f"link set down dev {client.interface}")
    words = f"{client.interface} is down: ip link set up dev {client.interface}"
    code, found = layers(client, client.interface, "-c", "1")
    assert code == 1
    assert found["WireGuard"]["text"] == words
    assert words in client.wgpy("show", client.interface).stdout


def test_a_port_in_use_is_told_with_who_has_it(ends: tuple[End, End]) -> None:
    client, server = ends
    other = server.file.with_name(f"{client.interface}.conf")
    other.write_text(server.file.read_text())
    failed = server.wgpy("up", str(other), check=False)
    assert failed.returncode == 1
    said = f"{client.interface}: ListenPort: UDP port 5555 is in use by wireguard-py (pid "
    assert said in failed.stderr


def test_an_answer_is_an_answer_after_the_clock_was_stepped(
    run: Callable[..., Result], serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three days forward or back: ages are told by the monotonic clock alone."""
    peer = replace(DEVICE.peers[0], handshake_at=-7 * NS)
    serve("wg0", replace(DEVICE, peers=(peer,)))
    for step in (3 * 86400, -3 * 86400):
        wall = peer.latest_handshake + step * NS
        monkeypatch.setattr(ping_layers.time, "time_ns", lambda wall=wall: wall)
        layer = json.loads(run("ping", "wg0", "--json").stdout)["layers"]["WireGuard"]
        assert (layer["status"], layer["text"]) == ("ok", "session is 7 s old")
        assert layer["handshake_age_ns"] == 7 * NS
    old = replace(peer, handshake_at=-200 * NS)
    serve("wg1", replace(DEVICE, peers=(old,)))
    layer = json.loads(run("ping", "wg1", "--json").stdout)["layers"]["WireGuard"]
    assert layer["status"] == "failed"


def test_a_running_interface(ends: tuple[End, End]) -> None:
    client, server = ends
    client.wgpy("up", str(client.file))
    refused = client.wgpy("ping", str(client.file), check=False)
    assert refused.returncode == 1
    assert f"wgpy ping {client.interface}" in refused.stderr
    code, found = layers(client, client.interface, "-c", "1")
    assert code == 0
    assert statuses(found) == ["ok", "ok", "ok"]
    server.wgpy("down", server.interface)
    code, found = layers(client, client.interface, "-c", "1")
    assert code == 1
    assert found["UDP"]["status"] == "failed"
    assert found["inner IP"]["status"] == "failed"

"""`show` against sockets of our own making; against the real `wg` in test_tunnel."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.cli.conftest import DEVICE
from wgpy import sockets
from wgpy.cli import show as module
from wgpy.cli.show_fields import FIELDS, human_bytes, human_time
from wgpy.protocol.constants import NS

SECRETS = (DEVICE.private_key.base64, DEVICE.peers[0].preshared_key.base64)

WHOLE = """\
interface: wg0
  public key: e04n/Q2i7E7jNv4pEwcuK30KqR05iOpH8O1XP6dqyy8=
  private key: (hidden)
  listening port: 51820
  fwmark: 0xcafe
  next deadline: persistent keepalive §6.5 in 5.0 s
  dropped: 3 MAC1_INVALID (mac1 is not ours (§5.3))

peer: IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI=
  preshared key: (hidden)
  endpoint: [2001:db8::1]:7
  allowed ips: 10.0.0.0/8, fd00::/64
  latest handshake: 1 minute, 2 seconds ago
  transfer: 1.50 KiB received, 100 B sent
  persistent keepalive: every 25 seconds
  next deadline: persistent keepalive §6.5 in 5.0 s
  dropped: 7 TAG_INVALID (authentication tag does not fit (§5.4.6))
  dropped: 2 REPLAYED (counter was received before (§5.4.6))

peer: REREREREREREREREREREREREREREREREREREREREREQ=
  allowed ips: (none)
"""


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute and two seconds after the handshake of `DEVICE`."""
    now = DEVICE.peers[0].latest_handshake + 62 * NS
    monkeypatch.setattr(module.time, "time_ns", lambda: now)


@pytest.mark.usefixtures("frozen")
def test_an_interface_as_wg_shows_it_with_timers_and_drops(run, serve) -> None:
    serve("wg0")
    public = run("show", "wg0", "public-key").output.strip()
    expected = WHOLE.replace("e04n/Q2i7E7jNv4pEwcuK30KqR05iOpH8O1XP6dqyy8=", public)
    assert run("show", "wg0").output == expected
    assert run("show").output == expected


@pytest.mark.usefixtures("frozen")
def test_an_implementation_without_the_extension_is_shown_too(run, serve) -> None:
    serve("go0", plain=True)
    output = run("show", "go0").output
    assert "endpoint: [2001:db8::1]:7" in output
    assert "deadline" not in output
    assert "dropped" not in output


def test_an_age_outlives_a_step_of_the_wall_clock(run, serve, monkeypatch) -> None:
    """Three days forward, and back before the handshake: the session is seven seconds old."""
    first = replace(DEVICE.peers[0], handshake_at=-7 * NS)
    serve("wg0", replace(DEVICE, peers=(first,)))
    for step in (3 * 86400, -3 * 86400):
        wall = first.latest_handshake + step * NS
        monkeypatch.setattr(module.time, "time_ns", lambda wall=wall: wall)
        assert "latest handshake: 7 seconds ago" in run("show", "wg0").output
        peer = json.loads(run("show", "wg0", "--json").output)["wg0"]["peers"][0]
        assert peer["handshake_age_ns"] == 7 * NS


def test_watch_shows_it_again_until_interrupted(run, serve, monkeypatch) -> None:
    serve("wg0")
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", sleep)
    result = run("show", "wg0", "--watch", "--seconds", "0.5", "--json")
    assert result.exit_code == 130
    assert looks == [0.5] * 3
    assert [list(json.loads(line)) for line in result.output.splitlines()] == [["wg0"]] * 3


def test_no_secret_is_shown_unless_asked_for(run, serve) -> None:
    serve("wg0")
    for words in ((), ("--json",), ("public-key",), ("peers",)):
        output = run("show", "wg0", *words).output
        assert not [secret for secret in SECRETS if secret in output]
    output = run("show", "wg0", env={"WG_HIDE_KEYS": "never"}).output
    assert all(secret in output for secret in SECRETS)


def test_json_has_everything_but_secrets(run, serve) -> None:
    serve("wg0")
    device = json.loads(run("show", "--json").output)["wg0"]
    assert device["has_private_key"] is True
    assert device["next_deadline"] == {
        "in_ns": 5_000_000_000,
        "reason": "persistent keepalive §6.5",
    }
    first, second = device["peers"]
    assert first["drops"] == {"TAG_INVALID": 7, "REPLAYED": 2}
    assert first["allowed_ips"] == ["10.0.0.0/8", "fd00::/64"]
    assert first["has_preshared_key"] is True
    assert second["endpoint"] is None
    assert second["latest_handshake_ns"] is None


def test_interfaces_and_fields(run, serve) -> None:
    serve("wg1")
    serve("wg0")
    assert run("show", "interfaces").output == "wg0 wg1\n"
    assert json.loads(run("show", "interfaces", "--json").output) == ["wg0", "wg1"]
    assert run("show", "all", "listen-port").output == "wg0\t51820\nwg1\t51820\n"
    for field in FIELDS:
        assert run("show", "wg0", field).exit_code == 0
    dump = run("show", "wg0", "dump").output.splitlines()
    assert [len(line.split("\t")) for line in dump] == [4, 8, 8]


def test_the_shell_completes_names_of_interfaces(run, serve) -> None:
    serve("wg0")
    serve("tun7")
    env = {"_WGPY_COMPLETE": "bash_complete", "COMP_WORDS": "wgpy show w", "COMP_CWORD": "2"}
    assert run(env=env, prog_name="wgpy").output == "plain,wg0\n"


def test_what_is_not_there_is_said(run, serve) -> None:
    assert run("show").stdout == ""
    missing = run("show", "wg7")
    assert missing.exit_code == 1
    assert "no interface is running" in missing.output
    serve("wg0")
    assert "running: wg0" in run("show", "wg7").output


def test_no_private_key(run, serve) -> None:
    serve("wg0", replace(DEVICE, private_key=None, fwmark=0, peers=()))
    assert run("show", "wg0", "dump").output == "(none)\t(none)\t51820\toff\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Now"),
        (1, "1 second ago"),
        (60, "1 minute ago"),
        (3_725, "1 hour, 2 minutes, 5 seconds ago"),
        (86_400 * 366, "1 year, 1 day ago"),
        (-5, "in the future: the clock was set back"),
    ],
)
def test_ages_in_words(seconds: int, words: str) -> None:
    assert human_time(seconds * NS) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1 << 30, "1.00 GiB"),
        (1 << 51, "2048.00 TiB"),
    ],
)
def test_bytes_in_words(count: int, words: str) -> None:
    assert human_bytes(count) == words


def test_with_nothing_running_it_says_so_beside_the_output(run, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sockets, "SOCKET_FOLDER", tmp_path)
    shown = run("show")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "no interface is running" in shown.stderr
    assert run("show", "all", "peers").stderr == ""

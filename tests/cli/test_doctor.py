"""doctor, where things are and where they are not."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from wgpy.cli import doctor as module
from wgpy.linux import tun


def states(run) -> dict[str, tuple[str, str, str]]:
    checks = json.loads(run("doctor", "--json").output)["checks"]
    return {check["name"]: (check["state"], check["seen"], check["fix"]) for check in checks}


def test_what_is_not_ok_has_a_fix_and_failure_is_the_exit_code(run, monkeypatch) -> None:
    monkeypatch.setattr(module, "_may_administer", lambda: False)
    monkeypatch.setattr(tun, "CLONE_DEVICE", Path("/nowhere/tun"))
    monkeypatch.setattr(module, "_find", lambda _: None)
    found = states(run)
    assert run("doctor").exit_code == 1
    assert found["rights"][0] == found["TUN device"][0] == "failed"
    assert "modprobe tun" in found["TUN device"][2]
    assert "apt-get install wireguard-tools" in found["wg"][2]
    assert all(fix for state, _, fix in found.values() if state == "failed")


@pytest.mark.root
def test_where_everything_is_there(run) -> None:
    found = states(run)
    assert run("doctor").exit_code == 0
    assert {found[name][0] for name in ("system", "rights", "TUN device")} == {"ok"}
    assert not list(Path("/sys/class/net").glob("doctor*"))


@pytest.mark.parametrize(
    ("number", "user", "words"),
    [
        (errno.ENOENT, 0, "does not exist: `modprobe tun`"),
        (errno.ENODEV, 0, "the kernel has no TUN driver: `modprobe tun`"),
        (errno.EACCES, 1000, "no permission to open"),
        (errno.EPERM, 0, "root may not open"),
    ],
)
def test_a_tun_device_missing_without_driver_and_denied_are_three_things(
    monkeypatch, number: int, user: int, words: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tun.os, "open", refuse)
    monkeypatch.setattr(tun.os, "geteuid", lambda: user)
    assert words in tun.why_not_openable()
    assert ("modprobe" in tun.why_not_openable()) == (number in (errno.ENOENT, errno.ENODEV))

"""The demo tells the truth: with root, without root, and without any TUN device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed import privileges
from testbed.demo import demo

ROOT = Path(__file__).parents[2]
NOBODY = 65534
TUN_FOR_ALL = """
if [ "$(stat -c %a /dev/net/tun)" != 666 ]; then  # As udev makes it, where there is udev.
    mount -t tmpfs tmpfs /mnt
    mknod -m 666 /mnt/tun c 10 200
    mount --bind /mnt/tun /dev/net/tun
fi
exec "$@"
"""
AS_NOBODY = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]


def check_story(facts):
    """The heart of it, on real and on simulated packets."""
    assert facts["default_plaintext"] > 0
    assert facts["strict_plaintext"] == 0 and facts["strict_dropped"] > 0
    assert facts["discovered_plaintext"] == 0
    assert facts["readable_frames"] == 0
    assert all(step["good"] is not False for step in facts["steps"])


def test_in_the_simulator():
    done = CliRunner().invoke(demo, ["--simulate", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    check_story(facts)
    assert facts["simulated"] and facts["pings"] == 5


def test_without_tun_it_says_so_and_simulates(monkeypatch):
    reason = "/dev/net/tun cannot be opened"
    monkeypatch.setattr(privileges, "why_not_openable", lambda: reason)
    done = CliRunner().invoke(demo, [])
    assert done.exit_code == 0, done.output
    assert "/dev/net/tun cannot be opened" in done.stdout
    assert "in the simulator instead" in done.stdout
    assert "ATTA" in done.stdout and "What you saw" in done.stdout


@pytest.mark.root
@pytest.mark.slow
def test_on_real_packets():
    done = subprocess.run(
        [sys.executable, "-c", "from testbed.demo import demo; demo()", "--json"], cwd=ROOT,
        capture_output=True, text=True, timeout=110, check=False, env=with_main(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    check_story(facts)
    assert facts["missed_frames"] == 0 and facts["wireguard_frames"] > 100
    assert facts["handshake"] == ["initiation", "response"]
    assert facts["killed_plaintext"] == 0
    assert facts["agent_dead_pings"] == 10 and facts["back_pings"] > 0


def with_main():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


SAY_VERSION = "import sys; print(tuple(sys.version_info[:2]))"


def interpreter_for_others():
    """A Python of this version that another user may run, or None."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run(
            # By way of a shell: what setpriv itself starts may still have root's rights.
            [*AS_NOBODY, "sh", "-c", f"exec {candidate} -c '{SAY_VERSION}'"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.stdout.strip() == str(tuple(sys.version_info[:2])):
            return candidate
    return None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or "WGPY_IN_USER_NAMESPACE" in os.environ,
                    reason="already running without root: all other tests show it")  # fmt: skip
def test_without_root_in_a_user_namespace(tmp_path):
    """A plain user brings a cluster up, talks through it, and takes it down."""
    python = interpreter_for_others()
    if python is None:
        pytest.skip("no Python of this version here that another user may run")
    for name, module, call in (
        ("wgpy", "wgpy.cli.main", "main()"),
        ("wireguard-py", "wgpy.cli.wireguard_py", "sys.exit(main())"),
    ):
        script = tmp_path / name
        script.write_text(f"#!{python}\nimport sys\nfrom {module} import main\n{call}\n")
        script.chmod(0o755)
    packages = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    state = tmp_path / "state"
    commands = """
    set -e
    wgpy testbed up firstlight
    wgpy testbed exec alpha ping -c 3 -i 0.2 10.9.0.2
    wgpy testbed inspect --json
    wgpy testbed down firstlight
    test -z "$(ls "$WGPY_TESTBED_STATE")"
    """
    for folder in [tmp_path, *tmp_path.parents]:
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    os.chown(tmp_path, NOBODY, NOBODY)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", TUN_FOR_ALL, "sh", *AS_NOBODY, "bash", "-c", commands],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(packages),
             "PYTHONDONTWRITEBYTECODE": "1", "WGPY_TESTBED_STATE": str(state),
             "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 received, 0% packet loss" in done.stdout
    assert '"WIREGUARD"' in done.stdout

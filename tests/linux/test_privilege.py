"""What is left of root's rights once the data plane runs."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.tunnel import WGPY
from tests.support.netns import Lab, wait_until
from wgpy.linux import privilege

pytestmark = pytest.mark.root


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("foreground", [True, False])
def test_a_running_data_plane_has_what_it_needs_and_no_more(lab: Lab, foreground: bool) -> None:
    namespace = lab.namespace("one")
    name = lab.interface()
    if foreground:
        namespace.start(WGPY, "-f", name)
    else:
        namespace.run(WGPY, name)
    assert wait_until(lambda: namespace.run("wg", "show", name, check=False).returncode == 0)
    (pid,) = namespace.pids()
    found = status(pid)
    wanted = sum(1 << number for number in privilege.KEPT.values())
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert int(found[kind], 16) == wanted, kind
    for kind in ("CapInh", "CapAmb"):
        assert int(found[kind], 16) == 0, kind
    assert found["NoNewPrivs"] == "1"
    assert resource.prlimit(pid, resource.RLIMIT_CORE)[0] == 0
    # And it still can do what it is for.
    namespace.run("wg", "set", name, "listen-port", "443", "fwmark", "7")
    namespace.run("ip", "link", "set", name, "up")
    assert "listening port: 443" in namespace.run("wg", "show", name).stdout


def test_few_descriptors_are_one_line_that_names_the_limit() -> None:
    done = subprocess.run(
        ["prlimit", "--nofile=40:40", WGPY, "wgnone"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "RLIMIT_NOFILE" in line and "40 files" in line and "ulimit -n" in line


def test_nobody_can_look_into_it() -> None:
    program = (
        "from wgpy.linux import privilege; privilege.give_up_rights(); import ctypes;"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr


def test_it_works_with_the_two_capabilities_of_the_documented_unit(lab: Lab) -> None:
    namespace, name = lab.namespace("one"), lab.interface()
    few = "--bounding-set=-all,+net_admin,+net_bind_service"
    namespace.start("setpriv", "--no-new-privs", few, WGPY, "-f", name)
    assert wait_until(lambda: namespace.run("wg", "show", name, check=False).returncode == 0)
    (pid,) = namespace.pids()
    assert int(status(pid)["CapEff"], 16) == 1 << 12 | 1 << 10
    namespace.run("ip", "link", "set", name, "up")
    namespace.run("wg", "set", name, "listen-port", "443", "fwmark", "7")

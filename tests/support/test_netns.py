"""The laboratory itself: it joins namespaces, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.netns import NETNS_FOLDER, Lab, wait_until

pytestmark = pytest.mark.root


def test_two_namespaces_talk(lab):
    left, right = lab.namespace("left"), lab.namespace("right")
    lab.veth(left, right, "192.0.2.1/24 2001:db8::1/64", "192.0.2.2/24 2001:db8::2/64")
    left.run("ping", "-c1", "-W5", "192.0.2.2")
    left.run("ping", "-c1", "-W5", "2001:db8::2")


def test_entered_moves_this_thread_and_back(lab):
    inside = lab.namespace("only")
    name, _ = lab.veth(inside, lab.namespace("other"))
    with inside.entered():
        assert socket.if_nametoindex(name)
    with pytest.raises(OSError, match=r"device|interface"):
        socket.if_nametoindex(name)


def test_close_ends_processes_and_removes_namespaces():
    with Lab() as lab:
        namespace = lab.namespace("only")
        process = namespace.start("sleep", "1000")
        detached = namespace.run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
        name, pid = namespace.name, int(detached.stdout)
    assert process.returncode is not None
    assert not (NETNS_FOLDER / name).exists()
    assert not Path(f"/proc/{pid}/fd/0").exists()


def test_sweep_removes_only_what_the_dead_left(lab):
    mine = lab.namespace("mine")
    script = (
        "import os, signal; from tests.support.netns import Lab; lab = Lab();"
        "print(lab.namespace('orphan').name, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    orphan = NETNS_FOLDER / done.stdout.strip()
    assert str(os.getpid()) not in orphan.name
    Lab.sweep()
    assert wait_until(lambda: not orphan.exists())
    assert (NETNS_FOLDER / mine.name).exists()

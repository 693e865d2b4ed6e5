"""The laboratory itself: it joins namespaces, and nothing stays behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import namespaces
from tests.support.netns import Lab, wait_until

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
        inode, pid = namespace.space.inode, int(detached.stdout)
        assert pid in namespace.pids()
    assert process.returncode is not None
    assert not namespace.space.alive() and namespaces.inside([inode]) == []
    assert not Path(f"/proc/{pid}/fd/0").exists()


ORPHAN = """
import os, signal, sys
from tests.support.netns import Lab
lab = Lab()
space = lab.namespace("orphan")
stray = space.run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!").stdout
print(space.space.inode, stray, flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_runs_leave_nothing_and_do_not_touch_each_other(lab):
    mine = lab.namespace("orphan")
    stay = mine.start("sleep", "1000")
    runs = [
        subprocess.Popen([sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    first, second = (run.stdout.readline().split() for run in runs)
    assert len({first[0], second[0], str(mine.space.inode)}) == 3
    runs[0].communicate("end")
    assert runs[0].returncode == -signal.SIGKILL
    assert wait_until(lambda: not namespaces.inside([int(first[0])]))
    assert namespaces.start_time(int(first[1])) is None
    # The run beside it and this one go on.
    assert int(second[1]) in namespaces.inside([int(second[0])])
    assert stay.poll() is None and mine.space.alive()
    runs[1].communicate("end")
    assert wait_until(lambda: not namespaces.inside([int(second[0])]))

"""Signals and vanished files as callbacks of the loop."""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import closing

import pytest

from wgpy.dataplane.loop import Loop
from wgpy.linux.signals import LOOK_INTERVAL, FolderWatch, Signals
from wgpy.memory.ports import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def loop(clock):
    with closing(Loop(clock)) as made:
        yield made


@pytest.fixture
def signals(loop):
    with closing(Signals(loop)) as made:
        yield made


def test_a_signal_is_a_callback_of_the_loop(loop, signals):
    seen = []
    signals.on(signal.SIGUSR1, seen.append)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == []
    loop.turn(5)
    assert seen == [signal.SIGUSR1]


def test_close_restores_what_was(loop):
    before = signal.getsignal(signal.SIGUSR1)
    signals = Signals(loop)
    signals.on(signal.SIGUSR1, lambda _: None)
    assert signal.getsignal(signal.SIGUSR1) != before
    signals.close()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_vanished_file_is_told(loop, signals, clock, tmp_path):
    (tmp_path / "file").touch()
    seen = []
    with closing(FolderWatch(tmp_path, lambda: seen.append(1), signals, loop, clock)):
        loop.turn(0)
        assert seen == []
        (tmp_path / "file").unlink()
        loop.turn(5)
    assert seen


def test_without_dnotify_the_folder_is_looked_at(loop, signals, clock, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(22, "no dnotify in this kernel")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    seen = []
    with closing(FolderWatch(tmp_path, lambda: seen.append(1), signals, loop, clock)):
        for _ in range(3):
            clock.advance(LOOK_INTERVAL)
            loop.turn(0)
    assert len(seen) == 3

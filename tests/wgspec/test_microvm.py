"""Preparing and booting the micro-VM, without one."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from wgspec.targets import microvm, vm_image


def test_one_preparation_of_a_kernel_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two at once would take the files from under each other."""
    monkeypatch.setattr(vm_image, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(vm_image, "_package", lambda _series: "linux-image-6.1")
    monkeypatch.setattr(vm_image.shutil, "which", lambda tool: f"/bin/{tool}")
    inside: list[int] = []
    most: list[int] = []

    def prepared(_package: str, folder: Path) -> vm_image.Image:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return vm_image.Image(folder, folder, "")

    monkeypatch.setattr(vm_image, "_prepared", prepared)
    threads = [threading.Thread(target=vm_image.prepare, args=("6.1",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


@pytest.mark.parametrize(("offered", "tried"), [(True, ["kvm", "tcg"]), (False, ["tcg"])])
def test_kvm_that_hangs_is_soon_given_up(
    offered: bool, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []
    waits: list[float] = []

    class Guest(microvm.Vm):
        def __init__(self) -> None:
            """No log, no process."""

        def _start(self, accelerator: str) -> None:
            attempts.append(accelerator)

        async def _connect(self, patience: float = 0, **_: Any) -> bool:
            waits.append(patience)
            return attempts[-1] == "tcg"

        def _kill(self) -> None:
            """Nothing runs."""

    monkeypatch.setattr(os, "access", lambda *_: offered)
    asyncio.run(Guest().boot())
    assert attempts == tried
    assert waits[-1] == microvm.BOOT_TIMEOUT and waits[0] <= microvm.BOOT_TIMEOUT
    assert len(waits) == 1 or waits[0] == microvm.KVM_TIMEOUT < microvm.BOOT_TIMEOUT / 5

"""Compiled code is not trusted before it was checked, and is kept per sources."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from wgpy.dataplane.offload import SuperPacket
from wgpy.dataplane.train_tools import Cut, Rows, Slab, Tools
from wgpy.protocol.crypto.openssl import OpenSslAead
from wgpy.turbo import TURBO, compiler, ready
from wgpy.turbo.train_tools import TurboMerger, TurboRows, TurboSegmenter

PROGRAM = [sys.executable, "-P", "-m", "wgpy.cli.wireguard_py", "--turbo"]


def test_right_code_passes_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(ready, "IS_NEW", False)
    ready.make_ready(said.append)
    assert said == []


def test_the_first_time_it_says_that_it_takes_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ready, "IS_NEW", True)
    said: list[str] = []
    ready.make_ready(said.append)
    assert len(said) == 1 and "once" in said[0]


class BadSegmenter(TurboSegmenter):
    def segment(
        self, rows: Rows, buffer: bytearray, start: int, super_packet: SuperPacket, cut: Cut
    ) -> None:
        super().segment(rows, buffer, start, super_packet, cut)
        rows.plaintexts[3][70] ^= 1


class BadGathering(TurboSegmenter):
    def gather(
        self, rows: Rows, buffer: bytearray, start: int, stride: int, count: int, size: int,
        checksum: tuple[int, int] | None,  # noqa: ARG002 (the fault)
    ) -> None:  # fmt: skip
        super().gather(rows, buffer, start, stride, count, size, None)


class BadSealing(TurboRows):
    def seal(
        self, aead_: OpenSslAead, count: int, last: int, index: int, counter: int
    ) -> memoryview:
        train = super().seal(aead_, count, last, index, counter)
        train[-1] ^= 1
        return train


class CarelessOpening(TurboRows):
    def open(self, aead_: OpenSslAead, first: int, count: int, last: int) -> list[int]:
        super().open(aead_, first, count, last)
        return []


class BadMerger(TurboMerger):
    def merge(
        self, rows: Rows, first: int, count: int, last: int
    ) -> tuple[int, memoryview | None]:
        used, merged = super().merge(rows, first, count, last)
        if merged is not None:
            merged[12] ^= 1
        return used, merged


def slab_of(kind: type[TurboRows]) -> Callable[[], Slab]:
    return partial(Slab, kind)


@pytest.mark.parametrize(
    "bad",
    [
        TURBO._replace(segmenter=BadSegmenter),
        TURBO._replace(segmenter=BadGathering),
        TURBO._replace(slab=slab_of(BadSealing)),
        TURBO._replace(slab=slab_of(CarelessOpening)),
        TURBO._replace(merger=BadMerger),
    ],
    ids=["cutting", "gathering", "sealing", "opening", "merging"],
)
def test_wrong_code_is_refused(bad: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "TURBO", bad)
    with pytest.raises(ready.TurboError, match="wrong results on this machine"):
        ready.make_ready(lambda _: None)


def test_another_byte_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(ready.TurboError, match="little-endian"):
        ready.make_ready(lambda _: None)


def test_what_is_kept_belongs_to_these_sources(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A change in any module of the package is a change for all of it."""
    package = tmp_path / "turbo"
    package.mkdir()
    for source in Path(compiler.__file__).parent.glob("*.py"):
        (package / source.name).write_bytes(source.read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "__file__", str(package / "compiler.py"))
    before = compiler.folder()
    assert before.is_relative_to(tmp_path) and compiler.folder() == before
    with (package / "vectors.py").open("a") as vectors:
        vectors.write("\n")
    assert compiler.folder() != before


def test_nothing_is_kept_where_others_could_change_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What lies there is run, perhaps by root."""
    tmp_path.chmod(0o700)
    place = tmp_path / "cache" / "wgpy" / "turbo"
    assert compiler.usable(place) and place.stat().st_mode & 0o777 == 0o700
    for mode in (0o770, 0o707):
        place.parent.chmod(mode)
        assert not compiler.usable(place)
    place.parent.chmod(0o700)
    assert compiler.usable(place)
    (tmp_path / "file").touch()
    assert not compiler.usable(tmp_path / "file" / "turbo")
    if os.geteuid() == 0:
        os.chown(place, 4321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert not compiler.usable(place)


@pytest.mark.root
def test_a_link_that_somebody_else_made_is_not_followed(tmp_path: Path) -> None:
    """Also where it leads to a folder of ours, and in a place that is open to all."""
    cache, target = tmp_path / "cache", tmp_path / "target"
    for folder in (cache, target):
        folder.mkdir(mode=0o700)
    ours, foreign = cache / "ours", cache / "foreign"
    for link in (ours, foreign):
        link.symlink_to(target)
    os.chown(foreign, 4321, -1, follow_symlinks=False)
    assert compiler.usable(ours / "turbo")
    assert not compiler.usable(foreign / "turbo")
    cache.chmod(0o1777)
    assert not compiler.usable(foreign / "new" / "turbo")
    assert not (target / "new").exists(), "nothing is made before it was looked at"
    (target / "turbo" / "code").touch()
    assert compiler.usable(ours / "turbo")
    os.chown(target / "turbo" / "code", 4321, -1)
    assert not compiler.usable(ours / "turbo")


def test_links_in_a_circle_are_no_place(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert not compiler.usable(tmp_path / "one" / "turbo")


def test_without_a_place_it_compiles_at_each_start_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ready, "IS_KEPT", False)
    said: list[str] = []
    ready.make_ready(said.append)
    assert len(said) == 1 and "at each start" in said[0]
    monkeypatch.setattr(compiler, "IS_KEPT", False)
    assert compiler.compiled(lambda n: n + 1)(41) == 42


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--no-offload",), "--turbo compiles the batch path, which --no-offload"),
        (("--crypto", "sodium"), "--turbo compiles the batch path, which --crypto sodium"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_does_not_go_together_is_refused(words: tuple[str, ...], why: str) -> None:
    done = run(*words)
    assert done.returncode == 2 and why in done.stderr


def test_without_numba_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('no numba here')\n")
    done = run(PYTHONPATH=os.pathsep.join((str(tmp_path), str(Path.cwd()))))
    assert done.returncode == 1
    assert "no numba here" in done.stderr
    assert "pip install" in done.stderr and "'wgpy[turbo]'" in done.stderr
    assert "Traceback" not in done.stderr


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(
        [*PROGRAM, *words, "wgnever"], env=os.environ | environment, capture_output=True, text=True
    )

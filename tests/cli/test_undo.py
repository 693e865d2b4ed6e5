"""The ledger: what is undone, in which order, and what happens when that fails."""

from __future__ import annotations

import stat
from pathlib import Path

import click
import pytest

from wgpy import sockets
from wgpy.cli import undo
from wgpy.cli.undo import Ledger


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sockets, "SOCKET_FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Steps that were undone; those that begin with "bad" fail."""
    undone: list[tuple[object, ...]] = []

    def step(*arguments: object) -> None:
        undone.append(arguments)
        if str(arguments[0]).startswith("bad"):
            raise OSError(f"cannot undo {arguments[0]}")

    monkeypatch.setattr(undo, "_UNDO", {"step": step})
    return undone


def test_the_file_survives_a_restart_and_is_private(folder: Path) -> None:
    ledger = Ledger("wg0", "/x/wg0.conf", post_down=("echo secret",))
    ledger.record("step", 1, None)
    mode = (folder / "wg0.wgpy").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    again = Ledger.load("wg0")
    assert again is not None
    assert again.steps == [["step", 1, None]]
    assert list(again.post_down) == ["echo secret"]
    assert again.namespace == undo.network_namespace()


def test_steps_are_undone_newest_first_and_a_failure_does_not_stop_it(
    folder: Path, done: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger("wg0")
    for name in ("first", "bad second", "third"):
        ledger.record("step", name)
    assert ledger.undo() == ["cannot undo bad second"]
    assert done == [("third",), ("bad second",), ("first",)]
    ledger.forget()
    again = Ledger.load("wg0")
    assert again is not None
    assert again.steps == [["step", "bad second"]], "what was not undone stays on record"
    monkeypatch.setattr(undo, "_UNDO", {"step": lambda _: None})
    assert again.undo() == []
    again.forget()
    assert list(folder.iterdir()) == []
    assert again.undo() == []


def test_no_file_and_a_damaged_one(folder: Path) -> None:
    assert Ledger.load("wg0") is None
    for text in ("{", "[]", '{"interface": "wg0", "nonsense": 1}'):
        (folder / "wg0.wgpy").write_text(text)
        with pytest.raises(click.ClickException, match="damaged"):
            Ledger.load("wg0")

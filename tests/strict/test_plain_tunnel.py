"""Questions of `wgpy strict` to a tunnel with another policy or none: one line that has a fix."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from strict.cli import strict
from strict.client import StrictClient
from strict.dataplane import DataPlane, DataPlaneError
from strict.policy import StrictPolicy
from tests.control.plane import Plane
from wgpy import sockets, typed
from wgpy.control.client import ControlClient, ControlFailed
from wgpy.control.policy import ControlledPolicy, NoPolicy

QUESTIONS = (
    "status",
    "ipcache list",
    "ipcache get 10.0.0.0/8",
    "ipcache match 10.0.0.1",
    "node list",
    "explain 10.0.0.1 10.0.0.2",
    "explain --matrix",
    "monitor --seconds 1",
)


class Other(NoPolicy):
    """A policy of another name, without a schema."""

    def describe(self) -> Mapping[str, Any]:
        return {"name": "other"}


@pytest.fixture
def planes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``planes(wg0=policy, …)`` starts data planes that this program finds."""
    monkeypatch.setattr(sockets, "SOCKET_FOLDER", tmp_path)
    running: list[Plane] = []

    def start(**policies: ControlledPolicy | None) -> None:
        running.extend(Plane(tmp_path, policy, name=n) for n, policy in policies.items())
        named = list(enumerate(policies, 1))
        monkeypatch.setattr(socket, "if_nameindex", lambda: named)

    yield start
    for plane in running:
        plane.close()


def test_all_that_ask_are_here() -> None:
    def asking(group: click.Group, path: str = "") -> Iterator[str]:
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                yield from asking(command, f"{path}{name} ")
            elif any(parameter.name == "interface" for parameter in command.params):
                yield path + name

    commands = set(asking(strict))
    assert commands == {q for q in commands if any(line.startswith(q) for line in QUESTIONS)}
    assert len(commands) >= 7


@pytest.mark.parametrize("chosen", [[], ["-i", "wg0"]], ids=["found", "named"])
@pytest.mark.parametrize("line", QUESTIONS)
def test_a_plain_tunnel(planes: Any, line: str, chosen: list[str]) -> None:
    planes(wg0=None)
    done = CliRunner().invoke(strict, [*line.split(), *chosen])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.output.splitlines() == [
        "Error: wg0 does not run a strict policy, it is a plain tunnel: name another interface "
        f"with -i, or start a strict node with `{typed.wgpy('strict', 'run', '--config', 'FILE')}`"
    ]


def test_another_policy(planes: Any) -> None:
    planes(wg0=Other())
    done = CliRunner().invoke(strict, ["status"])
    assert done.exit_code == 1 and "it runs the policy 'other'" in done.output
    with pytest.raises(DataPlaneError, match="does not run a strict policy"):
        DataPlane("wg0")


def test_the_strict_one_among_plain_ones_is_found(planes: Any) -> None:
    planes(wg0=None, wg1=StrictPolicy(), wg2=Other())
    done = CliRunner().invoke(strict, ["node", "list", "--json"])
    assert done.exit_code == 0 and '"nodes": []' in done.output


def test_a_client_of_no_policy_asks_any(planes: Any) -> None:
    planes(wg0=None, wg1=StrictPolicy())
    for name, policy in (("wg0", None), ("wg1", "strict")):
        with ControlClient(name) as client:
            assert client.request("status")["policy"]["name"] == policy
            with pytest.raises(ControlFailed, match="unknown operation"):
                client.request("fly")


def test_another_schema_ends_the_conversation(
    planes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes(wg1=StrictPolicy())
    with monkeypatch.context() as other:
        other.setattr("wgpy.control.client.SCHEMA", 2)
        with pytest.raises(ControlFailed, match=r"control socket.*same version of both"):
            ControlClient("wg1")
    with monkeypatch.context() as other:
        other.setattr("strict.client.SCHEMA", 2)
        with pytest.raises(ControlFailed, match=r"policy 'strict'.*same version of both"):
            StrictClient("wg1")

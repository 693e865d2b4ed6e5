"""Endpoint names: the patience of `wg`, in virtual time."""

from __future__ import annotations

import socket

import click
import pytest

from wgpy.cli import resolve as module
from wgpy.cli.resolve import resolve
from wgpy.config import HostPort
from wgpy.protocol.endpoint import Endpoint

THERE = HostPort("vpn.example", 51820)
FOUND = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 51820))]


class Resolver:
    """Answers with `errors` first; `pauses` are the seconds that were waited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: list[OSError] = []
        self.pauses: list[float] = []
        monkeypatch.setattr(module.socket, "getaddrinfo", self.answer)
        monkeypatch.setattr(module.time, "sleep", self.pauses.append)

    def answer(self, *_: object, **__: object) -> object:
        if self.errors:
            raise self.errors.pop(0)
        return FOUND


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    monkeypatch.delenv(module.VARIABLE, raising=False)
    return Resolver(monkeypatch)


def later() -> socket.gaierror:
    return socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def test_a_resolver_that_answers_late_is_waited_for(
    resolver: Resolver, capsys: pytest.CaptureFixture[str]
) -> None:
    resolver.errors = [later() for _ in range(15)]
    assert resolve(THERE) == Endpoint.parse("192.0.2.1:51820")
    assert resolver.pauses[:3] == pytest.approx([1, 1.2, 1.44])
    assert len(resolver.pauses) == 15
    assert max(resolver.pauses) <= 20
    assert sum(resolver.pauses) > 60
    said = capsys.readouterr().err
    assert said.count("Trying again in") == 15


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_FAIL, socket.EAI_NODATA])
def test_what_is_permanent_ends_at_once(resolver: Resolver, code: int) -> None:
    resolver.errors = [socket.gaierror(code, "no")] * 2
    with pytest.raises(click.ClickException, match=r"endpoint vpn\.example:51820: no"):
        resolve(THERE)
    assert resolver.pauses == []


@pytest.mark.parametrize(("value", "waits"), [("0", 0), ("2", 2)])
def test_the_variable_sets_how_often(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch, value: str, waits: int
) -> None:
    monkeypatch.setenv(module.VARIABLE, value)
    resolver.errors = [later() for _ in range(9)]
    with pytest.raises(click.ClickException):
        resolve(THERE)
    assert len(resolver.pauses) == waits


def test_infinity_and_nonsense(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.VARIABLE, "infinity")
    resolver.errors = [later() for _ in range(100)] + [OSError(5, "also this passes")]
    resolve(THERE)
    assert len(resolver.pauses) == 101
    monkeypatch.setenv(module.VARIABLE, "often")
    with pytest.raises(click.ClickException, match="a number or infinity"):
        resolve(THERE)
